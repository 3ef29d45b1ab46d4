"""The servers that the shared tests run against, real ones and stand-ins: how each is reached, and how its model is
made to say what a test needs. Knows no test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import attrs

Scripting: TypeAlias = Literal["marks", "forced tokens", "none"]
"""How the answer is chosen: by the marks of a stand-in, by the logits processor of the vLLM of the tests, or not at all
(a model of random weights)."""


@attrs.frozen(kw_only=True)
class Target:
    """One server in one wire format.

    ``server`` names the fixture that gives its endpoint. ``real``: a real server, and not a stand-in. ``images``: its
    model takes them. ``model`` is what the tests ask for, ``embedding_model`` and ``embedding_server`` what they embed
    with. ``settings`` are further ones of BackendConfig.
    """

    name: str
    type: str
    wire_api: str
    server: str
    real: bool
    scripting: Scripting
    model: str
    embedding_model: str | None = None
    embedding_server: str | None = None
    images: bool = False
    key: str | None = None
    settings: Mapping[str, Any] = attrs.field(factory=dict)

    # --- what a prompt looks like that gets an answer ---------------------------------------------

    def say(self, text: str) -> str:
        """A prompt that is answered with ``text``, where the answer can be chosen at all."""
        return f"Please. [[say]]{text}[[/say]]"

    def think(self, reasoning: str, text: str) -> str:
        """A prompt that is answered with ``reasoning`` and then ``text``."""
        if self.scripting == "marks":
            return f"[[think]]{reasoning}[[/think]] [[say]]{text}[[/say]]"
        return f"[[say]]<think>\n{reasoning}\n</think>\n\n{text}[[/say]]"

    def call(self, *calls: tuple[str, Mapping[str, Any]]) -> str:
        """A prompt that is answered with these tool calls."""
        texts = [json.dumps({"name": name, "arguments": dict(arguments)}) for name, arguments in calls]
        if self.scripting == "marks":
            return "".join(f"[[call]]{text}[[/call]]" for text in texts)
        return "[[say]]" + "\n".join(f"<tool_call>\n{text}\n</tool_call>" for text in texts) + "[[/say]]"

    @property
    def thinking(self) -> dict[str, Any]:
        """Options that turn reasoning on, where it has to be."""
        if self.type == "vllm" and self.wire_api == "chat_completions":
            return {"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}}
        if self.type == "anthropic":
            return {"reasoning_budget": 1024, "max_tokens": 2048}
        if self.type == "ollama" and self.wire_api == "ollama":
            return {"reasoning_effort": "low"}
        return {}


def _llama(build: str, wire_api: str) -> Target:
    return Target(
        name=f"llama-server {build}",
        type="llamacpp",
        wire_api=wire_api,
        server=f"llama_{build}",
        real=True,
        scripting="none",
        model="tiny-tools",
        embedding_model="tiny-tools",
        key="key-of-the-llama-server-1",
    )


def _vllm(wire_api: str) -> Target:
    return Target(
        name="vLLM 0.32.0",
        type="vllm",
        wire_api=wire_api,
        server="vllm_server",
        real=True,
        scripting="forced tokens",
        model="tiny",
        embedding_model="tiny",
        embedding_server="vllm_embedding_server",
    )


def _stand_in(server: str, type_: str, wire_api: str, model: str, **more: Any) -> Target:
    return Target(
        name=f"stand-in for {server}",
        type=type_,
        wire_api=wire_api,
        server=server.lower().replace(" ", ""),
        real=False,
        scripting="marks",
        model=model,
        **more,
    )


_OPENAI = {"embedding_model": "text-embedding-3-small", "images": True, "key": "stand-in-key-openai-1"}
_ANTHROPIC = {"images": True, "key": "stand-in-key-anthropic-1"}
_OLLAMA = {"embedding_model": "nomic-embed-text:latest", "images": True}
_LMSTUDIO = {"embedding_model": "text-embedding-nomic-embed-text-v1.5", "images": True}

TARGETS: tuple[Target, ...] = (
    _llama("b11549", "chat_completions"),
    _llama("b11549", "messages"),
    _llama("b8672", "chat_completions"),
    _llama("b8672", "messages"),
    _vllm("chat_completions"),
    _vllm("messages"),
    _stand_in("Ollama", "ollama", "ollama", "qwen3:4b", **_OLLAMA),
    _stand_in("Ollama", "ollama", "chat_completions", "qwen3:4b", **_OLLAMA),
    _stand_in("Ollama", "ollama", "messages", "qwen3:4b", **_OLLAMA),
    _stand_in("LM Studio", "lmstudio", "chat_completions", "qwen/qwen3-4b", **_LMSTUDIO),
    _stand_in("LM Studio", "lmstudio", "messages", "qwen/qwen3-4b", **_LMSTUDIO),
    _stand_in("OpenAI", "openai", "chat_completions", "gpt-5-mini", **_OPENAI),
    _stand_in("Anthropic", "anthropic", "messages", "claude-sonnet-4-5", **_ANTHROPIC),
    _stand_in("Anthropic", "anthropic", "chat_completions", "claude-sonnet-4-5", **_ANTHROPIC),
    _stand_in("Ollama", "openai-compatible", "chat_completions", "qwen3:4b", **_OLLAMA),
    _stand_in("Ollama", "openai-compatible", "messages", "qwen3:4b", **_OLLAMA),
)
