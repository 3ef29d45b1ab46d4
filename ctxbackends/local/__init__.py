"""The embedded llama.cpp server: serve a model file, or download a small model to try it.

Public names, imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctxbackends._lazy import install

__all__: list[str]

if TYPE_CHECKING or not install(__name__):
    from ctxbackends.local._download import pull_model as pull_model
    from ctxbackends.local._models import LocalModel as LocalModel
    from ctxbackends.local._models import find_model as find_model
    from ctxbackends.local._models import list_models as list_models
    from ctxbackends.local._options import ServerOptions as ServerOptions
    from ctxbackends.local._process import LocalServer as LocalServer
    from ctxbackends.local._serve import managed_backend as managed_backend
    from ctxbackends.local._serve import serve_model as serve_model
