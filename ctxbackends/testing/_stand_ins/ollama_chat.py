"""A native chat request of the Ollama stand-in: its checks and its response, streamed or not."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from ctxbackends.testing._stand_ins.answers import AnswerError, arguments_object
from ctxbackends.testing._stand_ins.compat_requests import ANY_OBJECT, question, wrong_base64
from ctxbackends.testing._stand_ins.ollama_models import Library, Model, OllamaError, duration, rfc3339
from ctxbackends.testing._stand_ins.scripted import ModelInput, ModelOutput, answer, tokens

FAILURE = "an error was encountered while running the model"  # docs/api/errors.mdx
BUSY = "server busy, please try again.  maximum pending requests exceeded"  # server/sched.go, ErrMaxQueue
OVERFLOW = "the input length exceeds the context length"  # runner/ollamarunner/runner.go and EmbedHandler
_TOKEN_NS = 10_000_000
_READ_NS = 1_000_000
_LOGPROB = -0.125
_NUMBERS = "float32"
_OPTION_TYPES: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "num_ctx": (int, "integer"),
    "num_predict": (int, "integer"),
    "top_k": (int, "integer"),
    "seed": (int, "integer"),
    "temperature": ((int, float), _NUMBERS),
    "top_p": ((int, float), _NUMBERS),
    "min_p": ((int, float), _NUMBERS),
    "repeat_penalty": ((int, float), _NUMBERS),
    "presence_penalty": ((int, float), _NUMBERS),
    "frequency_penalty": ((int, float), _NUMBERS),
    "stop": (list, "array"),
}
_THINK_LEVELS = ("high", "medium", "low", "max")
_call_numbers = itertools.count(1)


@attrs.frozen(kw_only=True)
class ChatReply:
    """An answer with Ollama's facts about it.

    ``model`` is the requested name; ``top_logprobs`` is None where no log probabilities were requested.
    """

    model: str
    answer: ModelOutput
    call_ids: Sequence[str]
    prompt_eval_count: int
    load_ns: int
    top_logprobs: int | None = None

    @property
    def done_reason(self) -> str:
        return "length" if self.answer.ending == "length" else "stop"

    def lines(self) -> Iterator[dict[str, Any]]:
        """The lines of a stream: a piece in each, a tool call whole, and the last with the counts."""
        for piece in tokens(self.answer.reasoning):
            yield self._line({"content": "", "thinking": piece}, piece)
        for piece in tokens(self.answer.text):
            yield self._line({"content": piece}, piece)
        for call in self._calls():
            yield self._line({"content": "", "tool_calls": [call]})
        yield {**self._line({"content": ""}), **self._end()}

    def whole(self) -> dict[str, Any]:
        said = self.answer
        message: dict[str, Any] = {"content": said.text}
        if said.reasoning:
            message["thinking"] = said.reasoning
        if said.calls:
            message["tool_calls"] = self._calls()
        return {**self._line(message, *tokens(said.reasoning), *tokens(said.text)), **self._end()}

    def _line(self, message: Mapping[str, Any], *pieces: str) -> dict[str, Any]:
        line = {"model": self.model, "created_at": now(), "message": {"role": "assistant", **message}, "done": False}
        if self.top_logprobs is not None and pieces:
            line["logprobs"] = [self._logprob(piece, self.top_logprobs) for piece in pieces]
        return line

    @staticmethod
    def _logprob(piece: str, alternatives: int) -> dict[str, Any]:
        def entry(token: str, rank: int) -> dict[str, Any]:
            return {"token": token, "logprob": _LOGPROB - rank, "bytes": list(token.encode())}

        chosen = entry(piece, 0)
        if alternatives:
            chosen["top_logprobs"] = [entry(piece if rank == 0 else f"{rank}", rank) for rank in range(alternatives)]
        return chosen

    def _calls(self) -> list[dict[str, Any]]:
        return [
            {"id": id_, "function": {"index": index, "name": call.name, "arguments": arguments_object(call)}}
            for index, (id_, call) in enumerate(zip(self.call_ids, self.answer.calls, strict=True))
        ]

    def _end(self) -> dict[str, Any]:
        read_ns, written_ns = self.prompt_eval_count * _READ_NS, self.answer.reported_output * _TOKEN_NS
        return {
            "done": True,
            "done_reason": self.done_reason,
            "total_duration": self.load_ns + read_ns + written_ns,
            "load_duration": self.load_ns,
            "prompt_eval_count": self.prompt_eval_count,
            "prompt_eval_duration": read_ns,
            "eval_count": self.answer.reported_output,
            "eval_duration": written_ns,
        }


def chat(
    library: Library, body: Mapping[str, Any], *, nested_overflow: bool, ask: Callable[[ModelInput], ModelInput]
) -> ChatReply | dict[str, Any]:
    """Answer a native request with a reply, or with the one object of a load or an unload.

    ``nested_overflow``: refuse a prompt that is too long in the words of Ollama 0.34 and later. ``ask`` adds the answer
    of a test.
    """
    name = body.get("model")
    model = library.find(name)
    logprobs = body.get("top_logprobs") or 0
    if not 0 <= logprobs <= 20:
        raise OllamaError(400, "top_logprobs must be between 0 and 20")
    messages = body.get("messages") or []
    check_messages(messages)
    if not messages and unloads(library, model, body):
        return {**_only(name), "done_reason": "unload"}
    think = _think(body.get("think"), str(name), model)
    if body.get("tools") and "tools" not in model.capabilities:
        raise OllamaError(400, f"registry.ollama.ai/library/{model.name} does not support tools")
    if "completion" not in model.capabilities:
        raise OllamaError(400, f'"{name}" does not support chat')
    if any("[[busy]]" in (message.get("content") or "") for message in messages):
        raise OllamaError(503, BUSY)
    options = checked_options(body.get("options"))
    loaded, load_ns = library.load(model, num_ctx=options.get("num_ctx"), keep_alive=body.get("keep_alive"))
    if not messages:
        return {**_only(name), "done_reason": "load"}
    asked = question(
        messages,
        tools=body.get("tools") or (),
        schema=_schema(body.get("format")),
        stop=options.get("stop") or (),
        think=think,
    )
    asked = ask(asked)
    window = loaded.context_length
    read = answer(asked).input_tokens
    if read > window and body.get("truncate") is False:
        raise OllamaError(400, _nested_overflow(read, window) if nested_overflow else OVERFLOW)
    read = min(read, window)
    limits = [limit for limit in [options.get("num_predict")] if limit is not None and limit >= 0]
    if body.get("shift") is False:
        limits.append(window - read)
    said = answer(attrs.evolve(asked, max_tokens=min(limits, default=None)))
    if said.ending == "content_filter":
        raise AnswerError("Ollama does not have the finish reason content_filter")
    return ChatReply(
        model=str(name),
        answer=said,
        call_ids=[call.id or f"call_{next(_call_numbers):08x}" for call in said.calls],
        prompt_eval_count=read if said.usage is None else said.usage.input_tokens,
        load_ns=load_ns,
        top_logprobs=logprobs if body.get("logprobs") else None,
    )


def unloads(library: Library, model: Model, body: Mapping[str, Any]) -> bool:
    """Whether an empty request with ``keep_alive: 0`` came; then the model is gone."""
    keep_alive = body.get("keep_alive")
    if keep_alive is None or duration(keep_alive) != timedelta(0):
        return False
    library.unload(model)
    return True


def _only(name: Any) -> dict[str, Any]:
    return {"model": name, "created_at": now(), "message": {"role": "assistant", "content": ""}, "done": True}


def now() -> str:
    return rfc3339(datetime.now(UTC))


def check_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    """Check for what Go's decoder rejects: text in parts, arguments as a string, images that are not bare base64."""
    for message in messages:
        content = message.get("content")
        if content is not None and not isinstance(content, str):
            kind = "array" if isinstance(content, list) else "object"
            raise OllamaError(
                400, f"json: cannot unmarshal {kind} into Go struct field ChatRequest.messages.content of type string"
            )
        for call in message.get("tool_calls") or ():
            if isinstance(call["function"].get("arguments"), str):
                raise OllamaError(
                    400,
                    "json: cannot unmarshal string into Go struct field ChatRequest.messages.tool_calls.function."
                    "arguments of type api.ToolCallFunctionArguments",
                )
        for image in message.get("images") or ():
            wrong = wrong_base64(image)
            if wrong is not None:
                raise OllamaError(400, f"illegal base64 data at input byte {wrong}")


def checked_options(options: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Options that Ollama does not know are ignored; api/types.go, ``FromMap``."""
    given = options or {}
    for name, (kind, called) in _OPTION_TYPES.items():
        value = given.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
            raise OllamaError(500, f'option "{name}" must be of type {called}')
    return given


def _think(think: Any, name: str, model: Model) -> bool:
    if isinstance(think, str) and think not in _THINK_LEVELS:
        raise OllamaError(
            400, f'invalid think value: "{think}" (must be "high", "medium", "low", "max", true, or false)'
        )
    if think and "thinking" not in model.capabilities:
        raise OllamaError(400, f'"{name}" does not support thinking')
    return "thinking" in model.capabilities and think is not False


def _schema(wanted: Any) -> Mapping[str, Any] | None:
    if wanted is None or wanted == "":
        return None
    if wanted == "json":
        return ANY_OBJECT
    if isinstance(wanted, dict):
        return wanted
    shown = json.dumps(json.dumps(wanted))
    raise OllamaError(500, f'invalid format: {shown}; expected "json" or a valid JSON Schema object')


def _nested_overflow(read: int, window: int) -> str:
    """Ollama 0.34 and later hand on the error of llama-server, as a string."""
    message = f"request ({read} tokens) exceeds the available context size ({window} tokens), try increasing it"
    error = {
        "code": 400,
        "message": message,
        "type": "exceed_context_size_error",
        "n_prompt_tokens": read,
        "n_ctx": window,
    }
    return json.dumps({"error": error}, separators=(",", ":"))
