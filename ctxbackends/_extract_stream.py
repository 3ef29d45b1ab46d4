"""Structured output while it is generated: finished members first, then the validated value."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Generic, Self, TypeVar, Unpack

from ctxbackends._chat.events import OnProgress, TextDelta
from ctxbackends._chat.requests import ChatOptions
from ctxbackends._client.backend import Backend, Stream
from ctxbackends._config.request_options import RequestOptions
from ctxbackends._schema.answers import AnswerUnwrapper
from ctxbackends._schema.generate import WRAPPER_KEY
from ctxbackends._schema.members import Member, MemberScanner
from ctxbackends._structured import INSTRUCTIONS, Extraction, Plan, plan_extraction

T = TypeVar("T")


class ExtractionStream(Generic[T]):
    """A value that is being generated. Use it with ``async with``, and iterate over it.

    The items are a :class:`Member` for each member of the object (or element of the list) when it is finished, and the
    :class:`Extraction` as the last. Members are not validated yet. Leaving the ``async with`` early cancels the
    generation.

    Raises:
        StructuredOutputError: The answer does not match the type, was truncated or refused; after the last member.
        BackendError: The request failed.
    """

    def __init__(self, plan: Plan[T], stream: Stream) -> None:
        self._plan = plan
        self._stream = stream
        self._scanner = MemberScanner(wrapper=WRAPPER_KEY if plan.is_wrapped else None)
        self._unwrapper = AnswerUnwrapper() if plan.enforcement == "unverified" else None
        self._members: deque[Member] = deque()
        self._result: Extraction[T] | None = None
        self._has_ended = False

    @property
    def stream(self) -> Stream:
        """The stream of the answer, with its metadata."""
        return self._stream

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stream.__aexit__(kind, error, traceback)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Member | Extraction[T]:
        if self._has_ended:
            raise StopAsyncIteration
        while not self._members:
            try:
                event = await anext(self._stream)
            except StopAsyncIteration:
                return await self.get_result()
            if isinstance(event, TextDelta):
                text = event.text if self._unwrapper is None else self._unwrapper.feed(event.text)
                self._members.extend(self._scanner.feed(text))
        return self._members.popleft()

    async def get_result(self) -> Extraction[T]:
        """Read to the end and return the validated value with its completion.

        Raises:
            StructuredOutputError: The answer does not match the type, was truncated or refused.
            BackendError: The request failed.
        """
        if self._result is None:
            completion = await self._stream.get_final_completion()
            self._has_ended = True
            self._result = self._plan.decode(completion)
        return self._result


def extract_stream(
    backend: Backend,
    target: type[T],
    text: str,
    *,
    instructions: str = INSTRUCTIONS,
    on_progress: OnProgress | None = None,
    request_options: RequestOptions | None = None,
    **options: Unpack[ChatOptions],
) -> ExtractionStream[T]:
    """Extract a value like :func:`extract`, and return its members as they are finished.

    Args:
        backend: The backend to ask.
        target: The type of the value, as for :func:`extract`.
        text: The text to extract from.
        instructions: The system message.
        on_progress: Called with a :class:`Loading` for each probe of a server that starts.
        request_options: The timeouts, retries and headers of the request, None for those of the configuration.
        **options: The options of the request except ``response_format``, see :class:`ChatOptions`.

    Returns:
        A stream whose last item is the validated value. Entering its ``async with`` sends the request.

    Raises:
        UnsupportedOptionError: The server does not support schemas.
        TypeError: ``target`` has no JSON schema.
    """
    plan = plan_extraction(backend, target)
    stream = backend.stream(
        plan.messages(text, instructions),
        on_progress=on_progress,
        request_options=request_options,
        **plan.add_format(options),
    )
    return ExtractionStream(plan, stream)
