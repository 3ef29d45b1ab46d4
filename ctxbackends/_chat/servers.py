"""Values that servers report about themselves: models, status, readiness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import attrs

LoadState: TypeAlias = Literal["refused", "loading", "starting", "silent"]

ServerState: TypeAlias = Literal["refused", "unreachable", "loading", "ready", "sleeping", "error"]
Enforcement: TypeAlias = Literal["grammar", "native", "unverified"]
"""How a schema is enforced: ``grammar``, the server allows only matching tokens (local servers); ``native``, the vendor
guarantees it; ``unverified``, it is not guaranteed."""


# --- models and server status -------------------------------------------------------------


@attrs.frozen(kw_only=True)
class ModelInfo:
    """A model that the server lists.

    Attributes:
        id: The name to request it by.
        aliases: Other names that the server accepts for it.
        context_length: In tokens, None if the server does not report it.
        owned_by: The owner or publisher, None if the server does not report it.
        state: The server's own word for the state, None if it does not report one.
        parameters: The number of parameters, None if the server does not report it.
    """

    id: str
    aliases: tuple[str, ...] = ()
    context_length: int | None = None
    owned_by: str | None = None
    state: str | None = None
    parameters: int | None = None


@attrs.frozen(kw_only=True)
class ServerStatus:
    """The result of one probe of a server. None where the server does not report a value.

    Attributes:
        backend: The name of the backend.
        endpoint: The URL of the server.
        api_path: The path between the endpoint and a route such as ``/chat/completions``, ``/`` for none.
        state: ``refused`` (connection refused), ``unreachable`` (no connection for another reason, or a timeout),
            ``loading``, ``ready``, ``sleeping`` (it responds, but must load the model again), or ``error`` (it responds
            with an error).
        problem: A description of the problem.
        progress: The progress of loading, from 0 to 1.
        version: The version of the server.
        model: The model that this backend would request, or else the first loaded one.
        models: The models in memory.
        context_length: The context of one request, in tokens.
        shared_context: Whether the slots share one context of that length, so that requests at the same time may fill
            it together (llama-server). The server does not report it: it is known for a single slot, for a server that
            this package started, and after such a failure.
        max_context_length: The context that the model was trained with, in tokens.
        parameters: The number of parameters of the model.
        slots: The number of requests that the server processes at once.
        busy_slots: The number of requests that it processes now.
    """

    backend: str = ""
    endpoint: str = ""
    api_path: str | None = None
    state: ServerState
    problem: str | None = None
    progress: float | None = None
    version: str | None = None
    model: str | None = None
    models: tuple[str, ...] = ()
    context_length: int | None = None
    shared_context: bool | None = None
    max_context_length: int | None = None
    parameters: int | None = None
    slots: int | None = None
    busy_slots: int | None = None


@attrs.frozen(kw_only=True)
class Ping:
    """A successful ping.

    Attributes:
        backend: The name of the backend.
        endpoint: The URL of the server.
        model: The first model of the server.
        elapsed: Seconds until the server responded, including the wait for a cold start.
        default_model: The model that this backend would request, None if each request must name one.
        default_model_listed: Whether the server lists it, None without a ``default_model``.
    """

    backend: str
    endpoint: str
    model: str
    elapsed: float
    default_model: str | None = None
    default_model_listed: bool | None = None


# --- capabilities -------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Capabilities:
    """The features that a backend supports, by its type, wire format and configuration. A model may support fewer.

    Attributes:
        wire_api: The wire format of generations.
        options: The names of the supported options of :class:`ChatOptions`.
        maximums: The largest accepted values, by the name of the option.
        response_formats: Of ``json_object``, ``json_schema``, ``regex``, ``choice`` and ``grammar``.
        tool_choices: Of ``auto``, ``none``, ``required`` and ``named``.
        message_parts: The parts of messages, named as in the option tables: ``image data``, ``audio`` and others.
        schema_enforcement: How the server enforces a JSON schema.
        embeddings: Whether ``embed()`` is supported.
        count_tokens: Whether ``count_tokens()`` is supported.
        load: Whether ``load()`` is supported.
        unload: Whether ``unload()`` is supported.
    """

    wire_api: str
    options: frozenset[str]
    maximums: Mapping[str, float]
    response_formats: frozenset[str]
    tool_choices: frozenset[str]
    message_parts: frozenset[str]
    schema_enforcement: Enforcement
    embeddings: bool
    count_tokens: bool
    load: bool
    unload: bool

    @property
    def tools(self) -> bool:
        """Whether tools are supported."""
        return "tools" in self.options

    @property
    def reasoning(self) -> bool:
        """Whether the reasoning can be set, with ``reasoning_effort`` or ``reasoning_budget``."""
        return not self.options.isdisjoint(("reasoning_effort", "reasoning_budget"))

    @property
    def later_system_messages(self) -> bool:
        """Whether system messages may follow other messages."""
        return self.wire_api != "messages"

    @property
    def images(self) -> bool:
        """Whether user messages may have images as bytes."""
        return "image data" in self.message_parts

    @property
    def image_urls(self) -> bool:
        """Whether the server fetches images from URLs."""
        return "image url" in self.message_parts

    @property
    def audio(self) -> bool:
        """Whether user messages may have sound recordings."""
        return "audio" in self.message_parts

    @property
    def files(self) -> bool:
        """Whether user messages may have PDF documents."""
        return "file" in self.message_parts
