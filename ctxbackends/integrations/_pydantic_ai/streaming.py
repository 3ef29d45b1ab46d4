"""The streamed response of the model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic_ai.messages import ModelResponseStreamEvent
from pydantic_ai.models import StreamedResponse

from ctxbackends._chat.events import StreamEvent
from ctxbackends._chat.responses import Completion
from ctxbackends._client.backend import Stream
from ctxbackends.errors import BackendError
from ctxbackends.integrations._pydantic_ai.errors import to_framework_error
from ctxbackends.integrations._pydantic_ai.responses import (
    ResponseEvents,
    build_details,
    build_finish_reason,
    build_usage,
)


@dataclass
class CtxStreamedResponse(StreamedResponse):
    """The streamed response of :class:`CtxModel`."""

    _first: StreamEvent
    _stream: Stream
    _model_name: str
    _provider_name: str
    _provider_url: str
    _timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))
    _usage_received: bool | None = field(default=False, init=False)

    async def _get_event_iterator(self) -> AsyncIterator[ModelResponseStreamEvent]:
        events = ResponseEvents(self._parts_manager, self._provider_name)
        try:
            for event in events.convert(self._first):
                yield event
            async for received in self._stream:
                for event in events.convert(received):
                    yield event
        except BackendError as error:
            if not self._cancelled:
                raise to_framework_error(error, self._model_name, in_stream=True) from error
            return
        self._finish(self._stream.completion)

    def _finish(self, completion: Completion) -> None:
        self._add_usage(build_usage(completion.usage), reported=completion.usage is not None)
        self._model_name = completion.served_model or self._model_name
        self.provider_response_id = completion.response_id
        self.provider_details = build_details(completion)
        self.finish_reason = build_finish_reason(completion)

    async def close_stream(self) -> None:
        """Close the connection, which cancels the generation."""
        await self._stream.aclose()

    @property
    def model_name(self) -> str:
        """The model that the server names, else the requested one."""
        return self._model_name

    @property
    def provider_name(self) -> str:
        """The type of the backend."""
        return self._provider_name

    @property
    def provider_url(self) -> str:
        """The URL of the server."""
        return self._provider_url

    @property
    def timestamp(self) -> datetime:
        """The time at which the first event arrived."""
        return self._timestamp
