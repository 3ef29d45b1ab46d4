"""The backend types and what is known of each: one frozen row a type. Values only; a difference between servers that is
a value belongs here.

Knows the codecs by name, no transport and no configuration file. Times are in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Literal, TypeAlias

import attrs

from ctxbackends.wire.http import Codec
from ctxbackends.wire.openai_chat import OpenAIChatCodec

MismatchPolicy: TypeAlias = Literal["error", "warn", "ignore"]


class BackendType(StrEnum):
    """The values of ``type`` in ``.ctxrc``."""

    VLLM = "vllm"
    OPENAI_COMPATIBLE = "openai-compatible"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    OLLAMA = "ollama"
    LMSTUDIO = "lmstudio"
    LLAMACPP = "llamacpp"


def _read_only(values: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(values))


@attrs.frozen(kw_only=True)
class Profile:
    """One backend type.

    ``wire_api``: the wire format that it is spoken to in. ``default_endpoint``: None where the user must name one.
    ``default_key_variable``: environment variable of the API key, None where no key is sent by default.
    ``ready_timeout``: the cold-start budget; None where the server listens before it loads, so that a refused
    connection is a wrong address.
    ``complete_streams``: ``complete()`` streams on the wire and folds, because this server frees the slot of a streamed
    request only, or hangs silently in ways that only the times between tokens reveal.
    ``close_after_stream``: the server closes the connection after every stream although its headers promise otherwise,
    so it is not to be pooled.
    ``timeout``: total time of a request, None for no limit. ``first_token_timeout``, ``idle_timeout``: until the first,
    and between, tokens of a stream. ``max_tokens_field``: the name of ``max_tokens`` on the wire.
    ``json_object_as_schema``: any JSON object is asked for by a schema, since this server or an older build of it
    ignores ``json_object``.
    ``max_temperature``: a higher one would be lowered silently, so it is refused.
    ``ignored_options``: options that this server would silently ignore, each with the reason; they are refused before a
    byte leaves.
    ``model_mismatch``: what happens when another model answers than the one that was asked for.
    """

    type: str
    default_endpoint: str | None
    wire_api: str = "chat_completions"
    default_key_variable: str | None = None
    ready_timeout: float | None = None
    connect_timeout: float = 5.0
    first_token_timeout: float | None = 600.0
    idle_timeout: float | None = 60.0
    timeout: float | None = None
    complete_streams: bool = False
    close_after_stream: bool = False
    max_tokens_field: str = "max_tokens"
    json_object_as_schema: bool = False
    max_temperature: float | None = None
    ignored_options: Mapping[str, str] = attrs.field(factory=dict, converter=_read_only)
    model_mismatch: MismatchPolicy = "error"
    supports_embeddings: bool = True

    def codec(self) -> Codec:
        """The codec of this type's wire format."""
        return WIRE_APIS[self.wire_api](self)


WIRE_APIS: Mapping[str, Callable[[Profile], Codec]] = MappingProxyType(
    {
        "chat_completions": lambda profile: OpenAIChatCodec(
            max_tokens_field=profile.max_tokens_field, json_object_as_schema=profile.json_object_as_schema
        ),
    }
)
"""The wire formats by the name that ``wire_api`` gives them."""


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        row.type: row
        for row in (
            # Refuses connections until the engine is ready; after SIGTERM it may leave requests hanging without a byte.
            Profile(
                type=BackendType.VLLM,
                default_endpoint="http://localhost:8000",
                ready_timeout=90.0,
                complete_streams=True,
            ),
            # Binds its port first and answers 503 while it loads. Does not notice a closed socket on a plain request
            # while another slot generates.
            Profile(
                type=BackendType.LLAMACPP,
                default_endpoint="http://localhost:8080",
                ready_timeout=90.0,
                complete_streams=True,
                close_after_stream=True,
                json_object_as_schema=True,  # b8672 answers json_object with free text and 200
            ),
            # Loads inside the first request, as a long wait for the first token.
            Profile(type=BackendType.OLLAMA, default_endpoint="http://localhost:11434", complete_streams=True),
            Profile(
                type=BackendType.LMSTUDIO,
                default_endpoint="http://localhost:1234",
                complete_streams=True,
                ignored_options={
                    "response_format: json_object": "LM Studio refuses json_object; pass a JSONSchemaFormat"
                },
            ),
            Profile(
                type=BackendType.OPENAI,
                default_endpoint="https://api.openai.com",
                default_key_variable="OPENAI_API_KEY",
                timeout=600.0,
                max_tokens_field="max_completion_tokens",
            ),
            # The compatible surface of Anthropic documents these as ignored:
            # https://platform.claude.com/docs/en/api/openai-sdk
            Profile(
                type=BackendType.ANTHROPIC,
                default_endpoint="https://api.anthropic.com",
                default_key_variable="ANTHROPIC_API_KEY",
                timeout=600.0,
                max_temperature=1.0,
                ignored_options={
                    "response_format: json_object": "Anthropic's OpenAI-compatible API ignores response_format",
                    "response_format: json_schema": "Anthropic's OpenAI-compatible API ignores response_format",
                    "seed": "Anthropic's OpenAI-compatible API ignores seed",
                },
                supports_embeddings=False,
            ),
            Profile(type=BackendType.OPENAI_COMPATIBLE, default_endpoint=None, timeout=600.0),
        )
    }
)
