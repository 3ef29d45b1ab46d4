"""Test your own program: simulated failures, stand-ins for servers, tiny models, a real server.

Public names, imported on first use. The models need the extra `testing`; the servers do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctxbackends._lazy import install

__all__: list[str]

if TYPE_CHECKING or not install(__name__):
    from ctxbackends.testing import faults as faults
    from ctxbackends.testing._fault_server.server import FaultServer as FaultServer
    from ctxbackends.testing._stand_ins.answers import Answer as Answer
    from ctxbackends.testing._stand_ins.answers import Question as Question
    from ctxbackends.testing._stand_ins.anthropic_stand_in import AnthropicStandIn as AnthropicStandIn
    from ctxbackends.testing._stand_ins.lmstudio_stand_in import LMStudioStandIn as LMStudioStandIn
    from ctxbackends.testing._stand_ins.ollama_stand_in import OllamaStandIn as OllamaStandIn
    from ctxbackends.testing._stand_ins.openai_stand_in import OpenAIStandIn as OpenAIStandIn
    from ctxbackends.testing._tiny_gguf import VARIANTS as VARIANTS
    from ctxbackends.testing._tiny_gguf import TinyModel as TinyModel
    from ctxbackends.testing._tiny_gguf import cached_model as cached_model
