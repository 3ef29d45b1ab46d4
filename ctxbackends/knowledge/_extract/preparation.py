"""The prompt and the budget of a run, chosen for the server's model, and the probe of schemas."""

from __future__ import annotations

from functools import partial

from ctxbackends._chat.servers import ServerStatus
from ctxbackends._client.backend import Backend
from ctxbackends._structured import probe_schema
from ctxbackends.knowledge._errors import KnowledgeError, UnenforcedSchemaError
from ctxbackends.knowledge._extract.budget import Budget, compute_budget
from ctxbackends.knowledge._extract.model_size import read_model_size
from ctxbackends.knowledge._extract.options import RunOptions
from ctxbackends.knowledge._extract.prompt import Prompt


async def choose_prompt(backend: Backend, status: ServerStatus, options: RunOptions) -> tuple[Prompt, Budget]:
    """Return the prompt for the size of the model, with example turns if it needs them and they fit, and its budget."""
    size = await read_model_size(backend, status, model=options.model)
    per_question = options.kinds_per_question or size.kinds_per_question
    create_prompt = partial(Prompt, options.kinds, per_question, instructions=options.instructions)
    compute = partial(
        compute_budget,
        backend,
        model=options.model,
        context_length=status.context_length,
        chunk_tokens=options.chunk_tokens,
        has_passes=options.passes > 1,
    )
    if size.needs_turns:
        try:
            budget = await compute(create_prompt(has_turns=True).frames)
        except KnowledgeError:  # the turns leave too little room
            pass
        else:
            if budget.has_room_for_turns:
                return create_prompt(answer_tokens=budget.answer_tokens, has_turns=True), budget
    budget = await compute(create_prompt().frames)
    return create_prompt(answer_tokens=budget.answer_tokens), budget


async def check_enforcement(backend: Backend, *, model: str | None) -> None:
    """Raise UnenforcedSchemaError unless the server follows the schema of a test request."""
    probe = await probe_schema(backend, model=model)
    if probe.outcome == "enforced":
        return
    problem = "the server ignored" if probe.outcome == "ignored" else "the server may have ignored"
    raise UnenforcedSchemaError(
        f"schema not enforced: {problem} the schema of a test request; choose another server, or use "
        "--allow-unenforced",
        backend=backend.name,
        endpoint=backend.endpoint,
    )
