"""Response events of the SDK from the events of an answer."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, cast

import msgspec
from agents import ModelBehaviorError, ModelResponse
from agents import Usage as RunUsage
from agents.models.chatcmpl_stream_handler import ChatCmplStreamHandler
from agents.models.fake_id import FAKE_RESPONSES_ID
from openai.types.chat import ChatCompletionChunk, ChatCompletionTokenLogprob
from openai.types.chat.chat_completion_chunk import (
    Choice,
    ChoiceDelta,
    ChoiceDeltaToolCall,
    ChoiceDeltaToolCallFunction,
    ChoiceLogprobs,
)
from openai.types.chat.chat_completion_token_logprob import TopLogprob
from openai.types.completion_usage import CompletionTokensDetails, CompletionUsage, PromptTokensDetails
from openai.types.responses import Response, ResponseOutputMessage

from ctxbackends._chat.events import (
    CitationDelta,
    Finish,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
)
from ctxbackends._chat.messages import Message, ReasoningPart, TextPart, ToolCall
from ctxbackends._chat.responses import Completion, TokenLogprob, Usage
from ctxbackends._client.backend import Backend
from ctxbackends.integrations._openai_agents.messages import TURN
from ctxbackends.integrations._openai_agents.output_tool import read_output_call, read_output_part


class ResponseBuilder:
    """Converts one answer to the events of a response.

    Args:
        backend: The backend of the request.
        model: The requested model.
        source: The backend and the model, as in :func:`build_messages`.
        call_ids: The IDs of the tool calls of the conversation. A new call gets another one.
        is_structured: Whether the answer must be a whole JSON value.
        has_output_tool: Whether the model gives it by calling the output tool.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        model: str,
        source: str,
        call_ids: set[str],
        is_structured: bool,
        has_output_tool: bool,
    ) -> None:
        self._backend = backend
        self._model = model
        self._source = source
        self._call_ids = call_ids
        self._is_structured = is_structured
        self._has_output_tool = has_output_tool
        self._new_ids: dict[str, str] = {}

    def convert(self, events: AsyncIterator[StreamEvent]) -> AsyncGenerator[Any, None]:
        """Return the response events, from ``response.created`` to ``response.completed``."""
        response = Response(
            id=FAKE_RESPONSES_ID,
            created_at=time.time(),
            model=self._model,
            object="response",
            output=[],
            tool_choice="auto",
            tools=[],
            parallel_tool_calls=False,
        )
        chunks: Any = self._build_chunks(read_output_call(events) if self._has_output_tool else events)
        return cast(
            "AsyncGenerator[Any, None]", ChatCmplStreamHandler.handle_stream(response, chunks, model=self._model)
        )

    def finish(self, response: Response, completion: Completion) -> Response:
        """Add what the chunks of chat completions have no members for."""
        response._request_id = completion.request_id
        for item in response.output:
            if isinstance(item, ResponseOutputMessage) and completion.finish_reason in ("length", "content_filter"):
                item.status = "incomplete"
        turn = self._store_turn(completion)
        if turn is not None and response.output:
            first: Any = response.output[0]
            first.provider_data = {**(getattr(first, "provider_data", None) or {}), TURN: turn}
        return response

    def _store_turn(self, completion: Completion) -> dict[str, Any] | None:
        """Return the message to store, None if the items have all of it."""
        parts: list[Any] = []
        own_parts = list(completion.message.parts)
        for part in read_output_part(own_parts) if self._has_output_tool else own_parts:
            if isinstance(part, ReasoningPart):
                option = "message: redacted reasoning" if part.redacted else "message: reasoning"
                if self._backend.refusal(option) is not None:
                    continue
            if isinstance(part, ToolCall):
                part = msgspec.structs.replace(part, id=self._new_ids.get(part.id, part.id))
            parts.append(part)
        if all(isinstance(part, TextPart | ToolCall) and part.opaque is None for part in parts):
            return None
        return {"source": self._source, "message": Message.assistant(parts).to_dict()}

    async def _build_chunks(self, events: AsyncIterator[StreamEvent]) -> AsyncIterator[ChatCompletionChunk]:
        has_output = has_calls = False
        async for event in events:
            if isinstance(event, Finish):
                if event.finish_reason == "length" and (self._is_structured or has_calls or not has_output):
                    raise ModelBehaviorError(
                        f"the answer of {self._source} was cut off (finish_reason: length); raise max_tokens"
                    )
                yield _build_chunk(ChoiceDelta(), finish_reason=event.finish_reason, usage=_build_usage(event.usage))
            elif isinstance(event, TextDelta):
                has_output = has_output or event.text != ""
                yield _build_chunk(ChoiceDelta(content=event.text), logprobs=_build_logprobs(event.logprobs))
            elif isinstance(event, ToolCallDelta):
                has_calls = True
                yield _build_chunk(ChoiceDelta(tool_calls=[self._build_call(event)]))
            elif isinstance(event, RefusalDelta):
                has_output = True
                yield _build_chunk(ChoiceDelta(refusal=event.text))
            elif isinstance(event, ReasoningDelta):
                yield _build_chunk(_with_extra(reasoning_content=event.text))
            elif isinstance(event, CitationDelta) and event.citation.url and event.citation.span:
                citation = event.citation
                start, end = event.citation.span
                url_citation = {
                    "url": citation.url,
                    "title": citation.title or citation.url,
                    "start_index": start,
                    "end_index": end,
                }
                yield _build_chunk(_with_extra(annotations=[{"type": "url_citation", "url_citation": url_citation}]))

    def _build_call(self, delta: ToolCallDelta) -> ChoiceDeltaToolCall:
        call_id = delta.id
        if call_id:
            if call_id in self._call_ids:
                self._new_ids[call_id] = call_id = f"call_{uuid.uuid4().hex}"
            self._call_ids.add(call_id)
        function = ChoiceDeltaToolCallFunction(name=delta.name or None, arguments=delta.arguments)
        return ChoiceDeltaToolCall(index=delta.index, id=call_id or None, function=function, type="function")


def build_model_response(response: Response, completion: Completion) -> ModelResponse:
    """Return the result of a request that was not streamed."""
    usage = RunUsage(requests=1)
    if response.usage is not None:
        usage.input_tokens = response.usage.input_tokens
        usage.output_tokens = response.usage.output_tokens
        usage.total_tokens = response.usage.total_tokens
        usage.input_tokens_details = response.usage.input_tokens_details
        usage.output_tokens_details = response.usage.output_tokens_details
    # Without an ID, since the server does not store the response.
    return ModelResponse(output=response.output, usage=usage, response_id=None, request_id=completion.request_id)


def _with_extra(**members: Any) -> ChoiceDelta:
    return ChoiceDelta(**members)


def _build_chunk(
    delta: ChoiceDelta,
    *,
    finish_reason: Any = None,
    usage: CompletionUsage | None = None,
    logprobs: ChoiceLogprobs | None = None,
) -> ChatCompletionChunk:
    choice = Choice(index=0, delta=delta, finish_reason=finish_reason, logprobs=logprobs)
    return ChatCompletionChunk(
        id="", choices=[choice], created=0, model="", object="chat.completion.chunk", usage=usage
    )


def _build_logprobs(logprobs: Sequence[TokenLogprob]) -> ChoiceLogprobs | None:
    if not logprobs:
        return None
    content = [
        ChatCompletionTokenLogprob(
            token=item.token,
            logprob=item.logprob,
            bytes=None if item.bytes is None else list(item.bytes),
            top_logprobs=[
                TopLogprob(token=top.token, logprob=top.logprob, bytes=None if top.bytes is None else list(top.bytes))
                for top in item.top
            ],
        )
        for item in logprobs
    ]
    return ChoiceLogprobs(content=content)


def _build_usage(usage: Usage | None) -> CompletionUsage | None:
    if usage is None:
        return None
    details: dict[str, Any] = {
        "cached_tokens": usage.cached_input_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
    }
    return CompletionUsage(
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        prompt_tokens_details=PromptTokensDetails(**details),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=usage.reasoning_tokens),
    )


async def replay(completion: Completion) -> AsyncIterator[StreamEvent]:
    """Return the events of a whole answer, as if it was streamed."""
    if completion.reasoning:
        yield ReasoningDelta(completion.reasoning)
    if completion.text:
        yield TextDelta(completion.text, completion.logprobs)
    if completion.refusal:
        yield RefusalDelta(completion.refusal)
    for citation in completion.citations:
        yield CitationDelta(citation)
    for index, call in enumerate(completion.tool_calls):
        yield ToolCallDelta(index, call.id, call.name, call.arguments)
    yield Finish(completion.finish_reason, completion.usage)
