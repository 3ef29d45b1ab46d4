"""Ask a model many rows, each once, over one server or several of the same model.

The public names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctxbackends._lazy import install

__all__: list[str]

if TYPE_CHECKING or not install(__name__):
    from ctxbackends._engines.backends import BackendOpener as BackendOpener
    from ctxbackends._engines.contract import Engine as Engine
    from ctxbackends._engines.contract import EngineError as EngineError
    from ctxbackends._engines.contract import WorkerDiedError as WorkerDiedError
    from ctxbackends._engines.contract import WorkerStartError as WorkerStartError
    from ctxbackends._engines.processes import ProcessEngine as ProcessEngine
    from ctxbackends._engines.ray import RayEngine as RayEngine
    from ctxbackends.batch._answers import BatchAnswer as BatchAnswer
    from ctxbackends.batch._answers import RowError as RowError
    from ctxbackends.batch._errors import BatchError as BatchError
    from ctxbackends.batch._errors import BatchInputError as BatchInputError
    from ctxbackends.batch._errors import BatchJournalError as BatchJournalError
    from ctxbackends.batch._errors import BatchModelError as BatchModelError
    from ctxbackends.batch._errors import BatchOutputError as BatchOutputError
    from ctxbackends.batch._errors import Problem as Problem
    from ctxbackends.batch._inputs import BatchInput as BatchInput
    from ctxbackends.batch._journal import Journal as Journal
    from ctxbackends.batch._options import BatchOptions as BatchOptions
    from ctxbackends.batch._options import BatchReport as BatchReport
    from ctxbackends.batch._output import OutputCounts as OutputCounts
    from ctxbackends.batch._output import check_output as check_output
    from ctxbackends.batch._output import write_output as write_output
    from ctxbackends.batch._rows import BatchRow as BatchRow
    from ctxbackends.batch._run import BatchRun as BatchRun
    from ctxbackends.batch._run import run_batch as run_batch
