"""The built-in backend types: one row for each server with its own API, and one for each preset."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs

from ctxbackends._profiles import option_support as tables
from ctxbackends._profiles.presets import COLD_START, PRESETS, Preset, api_key_header
from ctxbackends._profiles.profile import BackendType, Profile, WireAPI
from ctxbackends._wire.base import bearer_header
from ctxbackends._wire.formats.anthropic_messages import x_api_key
from ctxbackends._wire.operations import anthropic as anthropic_server
from ctxbackends._wire.operations import llamacpp, lmstudio, vllm
from ctxbackends._wire.operations import ollama as ollama_server
from ctxbackends._wire.operations import openai as openai_server

SERVERS: Mapping[str, Profile] = MappingProxyType(
    {
        row.type: row
        for row in (
            # Refuses connections until the engine is ready; may leave requests hanging after SIGTERM.
            Profile(
                type=BackendType.VLLM,
                default_endpoint="http://localhost:8000",
                wire_apis={
                    WireAPI.CHAT_COMPLETIONS: tables.VLLM_CHAT,
                    WireAPI.MESSAGES: tables.VLLM_MESSAGES,
                },
                ready_timeout=90.0,
                complete_streams=True,
                schema_enforcement="grammar",
                status=vllm.status,
                load=vllm.load,
                unload=vllm.unload,
                check_not_sleeping=vllm.check_not_sleeping,
                vector_encoding="base64",
                count_tokens=vllm.count_tokens,
            ),
            # Binds its port first and answers 503 while it loads. Does not notice a closed socket on a plain request
            # while another slot generates.
            Profile(
                type=BackendType.LLAMACPP,
                default_endpoint="http://localhost:8080",
                wire_apis={
                    WireAPI.CHAT_COMPLETIONS: tables.LLAMACPP_CHAT,
                    WireAPI.MESSAGES: tables.LLAMACPP_MESSAGES,
                },
                ready_timeout=90.0,
                complete_streams=True,
                close_after_stream=True,
                stream_members={"return_progress": True},
                schema_enforcement="grammar",
                embed_dimensions=False,
                vector_encoding="base64",
                status=llamacpp.status,
                load=llamacpp.load,
                unload=llamacpp.unload,
                load_is_async=True,
                count_tokens=llamacpp.count_tokens,
                slots=llamacpp.slots,
            ),
            # Loads inside the first request, as a long wait for the first token.
            Profile(
                type=BackendType.OLLAMA,
                default_endpoint="http://localhost:11434",
                wire_apis={
                    WireAPI.OLLAMA: tables.OLLAMA_NATIVE,
                    WireAPI.CHAT_COMPLETIONS: tables.OLLAMA_CHAT,
                    WireAPI.MESSAGES: tables.OLLAMA_MESSAGES,
                },
                complete_streams=True,
                schema_enforcement="grammar",
                vector_encodings=("float",),
                list_models=ollama_server.list_models,
                status=ollama_server.status,
                embed=ollama_server.embed,
                load=ollama_server.load,
                unload=ollama_server.unload,
                supported_settings={
                    "context_length": frozenset({WireAPI.OLLAMA}),
                    "keep_alive": frozenset({WireAPI.OLLAMA}),
                },
            ),
            Profile(
                type=BackendType.LMSTUDIO,
                default_endpoint="http://localhost:1234",
                wire_apis={
                    WireAPI.CHAT_COMPLETIONS: tables.LMSTUDIO_CHAT,
                    WireAPI.MESSAGES: tables.LMSTUDIO_MESSAGES,
                },
                complete_streams=True,
                keep_alive_at="ttl",
                schema_enforcement="grammar",
                vector_encodings=("float",),
                list_models=lmstudio.list_models,
                status=lmstudio.status,
                load=lmstudio.load,
                unload=lmstudio.unload,
                prepare=lmstudio.prepare,
                slots=lmstudio.slots,
                supported_settings={
                    "context_length": frozenset({WireAPI.CHAT_COMPLETIONS, WireAPI.MESSAGES}),
                    "keep_alive": frozenset({WireAPI.CHAT_COMPLETIONS}),
                },
            ),
            Profile(
                type=BackendType.OPENAI,
                default_endpoint="https://api.openai.com",
                wire_apis={WireAPI.CHAT_COMPLETIONS: tables.OPENAI_CHAT},
                default_key_variable="OPENAI_API_KEY",
                timeout=600.0,
                model_mismatch="warn",
                schema_enforcement="native",
                embed_batch=2048,
                vector_encoding="base64",
                count_tokens=openai_server.count_tokens,
                supported_settings=dict.fromkeys(("organization", "project"), frozenset({WireAPI.CHAT_COMPLETIONS})),
            ),
            Profile(
                type=BackendType.ANTHROPIC,
                default_endpoint="https://api.anthropic.com",
                wire_apis={
                    WireAPI.MESSAGES: tables.ANTHROPIC_MESSAGES,
                    WireAPI.CHAT_COMPLETIONS: tables.ANTHROPIC_CHAT,
                },
                default_key_variable="ANTHROPIC_API_KEY",
                auth=x_api_key,
                timeout=600.0,
                model_mismatch="warn",
                schema_enforcement="native",
                list_models=anthropic_server.list_models,
                status=anthropic_server.status,
                embed=None,
                count_tokens=anthropic_server.count_tokens,
            ),
            Profile(
                type=BackendType.OPENAI_COMPATIBLE,
                default_endpoint=None,
                wire_apis={
                    WireAPI.CHAT_COMPLETIONS: tables.OPENAI_COMPATIBLE_CHAT,
                    WireAPI.MESSAGES: tables.COMPATIBLE_MESSAGES,
                },
                timeout=600.0,
                model_mismatch="warn",
            ),
        )
    }
)
"""The types whose API has its own row. The presets share the row ``openai-compatible``."""


def _build_profile(preset: Preset) -> Profile:
    compatible = SERVERS[BackendType.OPENAI_COMPATIBLE]
    return attrs.evolve(
        compatible,
        type=preset.type,
        default_endpoint=preset.endpoint,
        wire_apis={WireAPI.CHAT_COMPLETIONS: compatible.wire_apis[WireAPI.CHAT_COMPLETIONS]},
        default_key_variable=preset.key_variable,
        auth=api_key_header if preset.key_header else bearer_header,
        ready_timeout=COLD_START if preset.loads else None,
        api_path=preset.api_path,
        query=preset.query,
        headers=preset.headers,
        omit=frozenset(preset.omit),
        rename=preset.rename,
        json_mode=preset.json_mode,
    )


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {**SERVERS, **{name: _build_profile(preset) for name, preset in PRESETS.items()}}
)
