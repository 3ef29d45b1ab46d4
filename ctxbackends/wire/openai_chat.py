"""The OpenAI format: chat completions, models, embeddings. Every server here speaks it; what it adds to it is named
beside the field.

Request and answer: https://platform.openai.com/docs/api-reference/chat. Contract of the decoder: a completion is whole
only if a known
``finish_reason`` came for choice 0 and no error came before the end; ``[DONE]`` is no proof (vLLM sends it after an
error, too), and its absence no fault (several servers leave it out). Usage comes after the finish reason, so ``Finish``
is handed on at ``[DONE]`` or at the end.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from ctxbackends.errors import (
    BackendError,
    EmptyChoicesError,
    EmptyModelListError,
    MalformedResponseError,
    ResponseError,
    ResponseTooLargeError,
    StreamInterruptedError,
    UnsupportedOptionError,
)
from ctxbackends.types import (
    FINISH_REASONS,
    ChatRequest,
    Completion,
    Embeddings,
    Finish,
    FinishReason,
    JSONObjectFormat,
    JSONSchemaFormat,
    Message,
    ModelInfo,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from ctxbackends.wire.framing import SSEDecoder
from ctxbackends.wire.http import HTTPRequest, HTTPResponse
from ctxbackends.wire.status import error_facts, facts_of

T = TypeVar("T")

# Text Generation Inference names its reasons otherwise: https://huggingface.co/docs/text-generation-inference
_FINISH_ALIASES: Mapping[str, FinishReason] = {"eos_token": "stop", "stop_sequence": "stop"}

# Members of the body that this codec writes, or whose effect the decoder could not show, so that they cannot come
# through extra_body.
_RESERVED = {
    "model": "pass model=",
    "messages": "pass the messages",
    "stream": "call stream()",
    "stream_options": "usage is always asked for",
    "n": "one choice is read; ask several times",
}


# --- what comes over the wire; unknown members are skipped ----------------------------------------


class _TokenDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _TokenDetails | None = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Message(msgspec.Struct):
    """A delta or a message; vLLM and Ollama say ``reasoning``, llama-server ``reasoning_content``."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _ChunkChoice(msgspec.Struct):
    index: int = 0
    delta: _Message | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    choices: list[_ChunkChoice] | None = None
    usage: _Usage | None = None
    error: Any = None
    object: str | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    message: _Message | None = None
    finish_reason: str | None = None


class _Completion(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


class _ModelMeta(msgspec.Struct):
    n_ctx: int | None = None


class _ModelStatus(msgspec.Struct):
    value: str | None = None
    failed: bool | None = None


class _Model(msgspec.Struct):
    """``max_model_len`` is vLLM's, ``meta.n_ctx`` and ``aliases`` llama-server's, ``status`` that of its router,
    ``max_input_tokens`` Anthropic's."""

    id: str
    aliases: list[str] | None = None
    owned_by: str | None = None
    max_model_len: int | None = None
    max_input_tokens: int | None = None
    meta: _ModelMeta | None = None
    status: _ModelStatus | None = None


class _ModelList(msgspec.Struct):
    data: list[_Model]


class _Embedding(msgspec.Struct):
    embedding: list[float] | str
    index: int | None = None


class _Embeddings(msgspec.Struct):
    data: list[_Embedding]
    model: str | None = None
    usage: _Usage | None = None


_chunk_decoder = msgspec.json.Decoder(_Chunk)
_completion_decoder = msgspec.json.Decoder(_Completion)
_models_decoder = msgspec.json.Decoder(_ModelList)
_embeddings_decoder = msgspec.json.Decoder(_Embeddings)
_encoder = msgspec.json.Encoder()


def _decode(decoder: msgspec.json.Decoder[T], body: bytes, *, what: str) -> T:
    # UnicodeDecodeError and RecursionError come through msgspec as they are.
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedResponseError(f"{what} is not what the OpenAI API answers with: {error}", body=body) from error


def _usage(usage: _Usage | None) -> Usage | None:
    if usage is None:
        return None
    details = usage.prompt_tokens_details
    return Usage(usage.prompt_tokens, usage.completion_tokens, details.cached_tokens if details else None)


def _finish_reason(reason: str | None) -> FinishReason | None:
    """The reason in our names, or None where it is none of a whole answer (vLLM's ``abort``)."""
    if reason in FINISH_REASONS:
        return reason  # type: ignore[return-value]  # narrowed by the set, which mypy does not follow
    return _FINISH_ALIASES.get(reason or "")


def _arguments(function: _Function | None) -> str:
    if function is None or function.arguments is None:
        return ""
    if isinstance(function.arguments, str):
        return function.arguments
    return _encoder.encode(function.arguments).decode()


class OpenAIChatCodec:
    """See the module. ``max_tokens_field`` is the name that this server honours for the bound of generated tokens;
    ``json_object_as_schema`` asks for any JSON object by a schema."""

    def __init__(self, *, max_tokens_field: str = "max_tokens", json_object_as_schema: bool = False) -> None:
        self._max_tokens_field = max_tokens_field
        self._json_object_as_schema = json_object_as_schema

    def auth_headers(self, api_key: str) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {api_key}"}

    # --- chat -------------------------------------------------------------------------------------

    def encode_chat(self, request: ChatRequest, *, stream: bool) -> HTTPRequest:
        body: dict[str, Any] = {"model": request.model, "messages": [_message(message) for message in request.messages]}
        if stream:
            body["stream"] = True
            body["stream_options"] = {"include_usage": True}
        if request.max_tokens is not None:
            body[self._max_tokens_field] = request.max_tokens
        for name in ("temperature", "top_p", "seed"):
            value = getattr(request, name)
            if value is not None:
                body[name] = value
        if request.stop_sequences:
            body["stop"] = request.stop_sequences
        wanted = request.response_format
        if isinstance(wanted, JSONObjectFormat) and self._json_object_as_schema:
            wanted = JSONSchemaFormat("object", {"type": "object"})
        if isinstance(wanted, JSONSchemaFormat):
            # The nested form: llama-server reads the schema here and nowhere else, and takes the flat form for "any
            # object".
            schema = {"name": wanted.name, "schema": wanted.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif wanted is not None:
            body["response_format"] = {"type": "json_object"}
        for name, value in (request.extra_body or {}).items():
            if name in _RESERVED or name in body:
                raise UnsupportedOptionError(
                    f"extra_body: {name}", _RESERVED.get(name, f"{name} is set by an option already")
                )
            body[name] = value
        return HTTPRequest("POST", "/v1/chat/completions", _encoder.encode(body))

    def decode_chat(self, response: HTTPResponse, *, requested_model: str) -> Completion:
        answer = _decode(_completion_decoder, response.body, what="the answer")
        if answer.error is not None:
            said = facts_of({"error": answer.error}).message or response.body[:512].decode("utf-8", "replace")
            raise ResponseError(f"the server sent an error under HTTP {response.status}: {said}", body=response.body)
        choice = next((choice for choice in answer.choices or () if choice.index == 0), None)
        if choice is None:
            raise EmptyChoicesError("the answer holds no choice", body=response.body)
        message = choice.message or _Message()
        reason = _finish_reason(choice.finish_reason)
        if reason is None:
            raise StreamInterruptedError(
                f"the answer is not whole: finish_reason is {choice.finish_reason!r}", body=response.body
            )
        return Completion(
            text=message.content or "",
            finish_reason=reason,
            usage=_usage(answer.usage),
            requested_model=requested_model,
            served_model=answer.model or None,
            reasoning=message.reasoning or message.reasoning_content or "",
            refusal=message.refusal or "",
            tool_calls=tuple(
                ToolCall(
                    call.id or "", (call.function.name if call.function else None) or "", _arguments(call.function)
                )
                for call in message.tool_calls or ()
            ),
            response_id=answer.id,
            raw=response.body,
        )

    def stream_decoder(self) -> OpenAIStreamDecoder:
        return OpenAIStreamDecoder()

    # --- models -----------------------------------------------------------------------------------

    def encode_models(self) -> HTTPRequest:
        return HTTPRequest("GET", "/v1/models")

    def decode_models(self, response: HTTPResponse) -> tuple[ModelInfo, ...]:
        listed = _decode(_models_decoder, response.body, what="the model list").data
        if not listed:
            raise EmptyModelListError("the server lists no model", body=response.body)
        return tuple(_model_info(model) for model in listed)

    # --- embeddings -------------------------------------------------------------------------------

    def encode_embeddings(self, inputs: Sequence[str], *, model: str, dimensions: int | None) -> HTTPRequest:
        body: dict[str, Any] = {"model": model, "input": list(inputs), "encoding_format": "float"}
        if dimensions is not None:
            body["dimensions"] = dimensions
        return HTTPRequest("POST", "/v1/embeddings", _encoder.encode(body))

    def decode_embeddings(self, response: HTTPResponse, *, requested_model: str, count: int) -> Embeddings:
        answer = _decode(_embeddings_decoder, response.body, what="the answer")
        by_index = {
            item.index if item.index is not None else place: item.embedding for place, item in enumerate(answer.data)
        }
        if sorted(by_index) != list(range(count)) or len(answer.data) != count:
            raise MalformedResponseError(f"{len(answer.data)} vectors came for {count} inputs", body=response.body)
        return Embeddings(
            vectors=tuple(_vector(by_index[place], response.body) for place in range(count)),
            requested_model=requested_model,
            served_model=answer.model or None,
            usage=_usage(answer.usage),
        )


def _message(message: Message) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        wire["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        wire["tool_call_id"] = message.tool_call_id
    return wire


def _model_info(model: _Model) -> ModelInfo:
    context = model.max_model_len or model.max_input_tokens or (model.meta.n_ctx if model.meta else None)
    status = model.status
    return ModelInfo(
        id=model.id,
        aliases=tuple(model.aliases or ()),
        context_length=context,
        owned_by=model.owned_by,
        state=("failed" if status.failed else status.value) if status else None,
    )


def _vector(value: list[float] | str, body: bytes) -> tuple[float, ...]:
    if isinstance(value, list):
        return tuple(value)
    # Some servers answer base64 whatever was asked for: little-endian float32.
    try:
        raw = base64.b64decode(value, validate=True)
        return struct.unpack(f"<{len(raw) // 4}f", raw)
    except (ValueError, struct.error) as error:
        raise MalformedResponseError(
            "a vector is neither a list of numbers nor base64 of 32-bit floats", body=body
        ) from error


class OpenAIStreamDecoder:
    """See the module for the contract, :class:`ctxbackends.wire.http.StreamDecoder` for the protocol."""

    __slots__ = (
        "_calls",
        "_frames",
        "_places",
        "_reason",
        "_usage",
        "failure",
        "finished",
        "response_id",
        "served_model",
    )

    def __init__(self) -> None:
        self._frames = SSEDecoder()
        self._reason: FinishReason | None = None
        self._usage: Usage | None = None
        self._calls: list[str] = []
        self._places: dict[int, int] = {}
        self.served_model: str | None = None
        self.response_id: str | None = None
        self.failure: BackendError | None = None
        self.finished = False

    def feed(self, data: bytes) -> list[StreamEvent]:
        if self._ended():
            return []
        try:
            frames = self._frames.feed(data)
        except ResponseTooLargeError as error:
            self.failure = error
            return []
        events: list[StreamEvent] = []
        self._read(frames, events)
        return events

    def close(self) -> list[StreamEvent]:
        if self._ended():
            return []
        events: list[StreamEvent] = []
        try:
            frames = self._frames.close()
        except ResponseTooLargeError as error:
            self.failure = error
            return []
        self._read(frames, events)
        if not self._ended():
            self._end(events, "the stream ended without a finish_reason")
        return events

    def _ended(self) -> bool:
        return self.failure is not None or self.finished

    def _read(self, frames: list[tuple[bytes, bytes]], events: list[StreamEvent]) -> None:
        for name, data in frames:
            data = data.strip()
            if not data:
                continue
            if data == b"[DONE]":
                self._end(events, "[DONE] came without a finish_reason")
                return
            try:
                chunk = _chunk_decoder.decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                self.failure = StreamInterruptedError(f"an event of the stream is malformed: {error}", body=data)
                return
            if chunk.error is not None or name == b"error" or (chunk.choices is None and chunk.usage is None):
                if not self._is_error(chunk, name, data):
                    continue
                return
            self._take(chunk, events)
            if self.failure is not None:
                return

    def _is_error(self, chunk: _Chunk, name: bytes, data: bytes) -> bool:
        """Errors come under ``error`` (object or string), as ``event: error``, or with their members at the top
        level."""
        facts = error_facts(data)  # not the chunk decoder: what that skipped may be no valid JSON
        if chunk.error is None and name != b"error" and chunk.object != "error" and facts.message is None:
            return False  # an event of a kind that this format does not know
        self.failure = StreamInterruptedError(
            f"the server sent an error in the stream: {facts.message or data[:512].decode('utf-8', 'replace')}",
            body=data,
        )
        return True

    def _take(self, chunk: _Chunk, events: list[StreamEvent]) -> None:
        if chunk.model and self.served_model is None:
            self.served_model = chunk.model
            self.response_id = chunk.id
        if chunk.usage is not None:
            self._usage = _usage(chunk.usage)
        for choice in chunk.choices or ():
            if choice.index != 0:
                continue
            if choice.delta is not None:
                self._take_delta(choice.delta, events)
            if choice.finish_reason:  # some servers say "" until the last
                self._reason = _finish_reason(choice.finish_reason)
                if self._reason is None:
                    self.failure = StreamInterruptedError(
                        f"the server ended the answer with finish_reason {choice.finish_reason!r}"
                    )
                    return

    def _take_delta(self, delta: _Message, events: list[StreamEvent]) -> None:
        reasoning = delta.reasoning or delta.reasoning_content
        if reasoning:
            events.append(ReasoningDelta(reasoning))
        if delta.content:
            events.append(TextDelta(delta.content))
        if delta.refusal:
            events.append(RefusalDelta(delta.refusal))
        for call in delta.tool_calls or ():
            function = call.function or _Function()
            place = self._place(call)
            events.append(ToolCallDelta(place, self._calls[place], function.name or "", _arguments(function)))

    def _place(self, call: _ToolCall) -> int:
        """Which of the parallel calls a delta belongs to: by id, then by index. Servers repeat the index 0 for every
        call, leave it out, or do not begin with 0; an index means the call that used it last."""
        if call.id and call.id in self._calls:
            place = self._calls.index(call.id)
        elif not call.id and self._calls and (call.index is None or call.index in self._places):
            place = len(self._calls) - 1 if call.index is None else self._places[call.index]
        else:
            place = len(self._calls)
            self._calls.append(call.id or "")
        if call.index is not None:
            self._places[call.index] = place
        return place

    def _end(self, events: list[StreamEvent], problem: str) -> None:
        if self._reason is None:
            stray = self._frames.stray
            said = f"; the last line that came: {stray.decode('utf-8', 'replace')}" if stray else ""
            self.failure = StreamInterruptedError(problem + said, body=stray)
            return
        self.finished = True
        events.append(Finish(self._reason, self._usage))
