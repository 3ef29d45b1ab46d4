"""The observation of one request: tells the observers each fact, and what raised in them to the log.

The observation that a task works for is in a context variable, so that nothing is passed down without observers.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self

import attrs

from ctxbackends._chat.events import Loading, OnProgress
from ctxbackends._chat.observer import Observer, RequestContent, RequestFacts, ServerAddress
from ctxbackends._chat.responses import Completion, Usage

_logger = logging.getLogger("ctxbackends")

_current: ContextVar[Observation | None] = ContextVar("ctxbackends_observation", default=None)
_ids = itertools.count(1)


def current_observation() -> Observation | None:
    """Return the observation that this task works for."""
    return _current.get()


def detach(on_progress: OnProgress | None) -> OnProgress | None:
    """Return ``on_progress`` for a call without an observation: the caller may start other requests in it."""
    if on_progress is None:
        return None

    def call(loading: Loading) -> object:
        with _work_for(None):
            return on_progress(loading)

    return call


@contextmanager
def _work_for(observation: Observation | None) -> Iterator[None]:
    token = _current.set(observation)
    try:
        yield
    finally:
        _current.reset(token)


class Observation:
    """The observation of one request.

    As a context manager, it starts the observation, which the task works for inside, and ends it with the exception
    that leaves the block.
    """

    __slots__ = ("_chunk_times", "_content", "_ended", "_observers", "_retried", "_started", "_token", "facts")

    def __init__(self, observers: Sequence[Observer], *, content: RequestContent | None = None, **facts: Any) -> None:
        self.facts = RequestFacts(id=next(_ids), started_at=time.monotonic(), **facts)
        self._observers = observers
        self._content = content
        self._chunk_times: list[float] | None = [] if any(observer.chunk_times for observer in observers) else None
        self._retried: tuple[BaseException | None, float | None] = (None, None)
        self._started = False
        self._ended = False
        self._token: Any = None

    @property
    def is_only_control(self) -> bool:
        """Whether the request is not a generation, so that none of its HTTP requests takes a slot."""
        return self.facts.operation in ("count_tokens", "load")

    # --- start and end ----------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        self._token = _current.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        _current.reset(self._token)
        if error is not None:
            self.fail_or_leave(error)

    def work(self) -> Any:
        """Return a context in which the task works for this observation."""
        return _work_for(self)

    def start(self) -> None:
        """Report the start, once."""
        if not self._started:
            self._started = True
            self._tell("started", started_at=time.monotonic())

    def finish(
        self, completion: Completion | None = None, *, usage: Usage | None = None, served_model: str | None = None
    ) -> None:
        """Report a complete response."""
        if self._ended:
            return
        if completion is None:
            self._serve(served_model, None)
            self._end("finished", usage=usage)
            return
        self._serve(completion.served_model, completion.response_id)
        if self._content is not None:
            self._content = attrs.evolve(self._content, completion=completion)
        self._end("finished", usage=completion.usage, finish_reason=completion.finish_reason)

    def fail_or_leave(self, error: BaseException | None) -> None:
        """Report the failure; or that the caller left, if ``error`` is None or a cancellation."""
        if isinstance(error, Exception):
            self._end("failed", error=error)
        else:
            self._end("left")

    def _end(self, method: str, **changes: Any) -> None:
        if not self._ended:
            self._ended = True
            times = tuple(self._chunk_times or ())
            self._dispatch(method, ended_at=time.monotonic(), chunk_times=times, **{"error": None, **changes})

    # --- what happens in between ------------------------------------------------------------------

    def report_queue(self) -> None:
        """Report a wait for a slot."""
        self._tell("queued", queued_at=time.monotonic())

    def report_attempt(self, server: ServerAddress | None) -> None:
        """Report that an HTTP request is about to be sent to ``server``."""
        (error, delay), self._retried = self._retried, (None, None)
        attempts = self.facts.attempts + 1
        self._tell(
            "attempt", server=server, sent_at=time.monotonic(), attempts=attempts, error=error, retry_delay=delay
        )

    def report_retry(self, error: BaseException | None, delay: float) -> None:
        """Note why the next attempt is made, and the wait before it."""
        self._retried = (error, delay)

    def report_loading(self, loading: Loading, error: BaseException | None, delay: float) -> None:
        """Report a probe of a server that is not ready, after which the request is retried."""
        self._retried = (error, delay)
        self._tell("loading", loading=loading)

    def report_served(self, model: str, response_id: str | None) -> None:
        """Report the model that a stream names."""
        self._serve(model, response_id)

    def report_first_event(self) -> None:
        """Report the first event of a streamed answer."""
        self._tell("first_event", first_event_at=time.monotonic())

    @property
    def chunk_times(self) -> list[float] | None:
        """The times of the chunks, None if no observer wants them."""
        return self._chunk_times

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Enter the contexts of the observers around an attempt."""
        with ExitStack() as stack:
            for observer in self._observers:
                context = self._call(observer, "sending", observer.sending, self.facts)
                if context is not None:
                    entered = ExitStack()
                    self._call(observer, "sending", entered.enter_context, context)
                    stack.callback(self._call, observer, "sending", entered.close)
            yield

    def _serve(self, model: str | None, response_id: str | None) -> None:
        changes: dict[str, Any] = {"served_model": model, "response_id": response_id or self.facts.response_id}
        if model is None:
            self.facts = attrs.evolve(self.facts, response_id=changes["response_id"])
        elif self.facts.served_model != model:
            self._tell("served", **changes)
        else:
            self.facts = attrs.evolve(self.facts, **changes)

    # --- the observers ----------------------------------------------------------------------------

    def _tell(self, method: str, **changes: Any) -> None:
        if not self._ended:
            self._dispatch(method, **changes)

    def _dispatch(self, method: str, **changes: Any) -> None:
        self.facts = facts = attrs.evolve(self.facts, **changes)
        for observer in self._observers:
            own = attrs.evolve(facts, content=self._content) if observer.content else facts
            self._call(observer, method, getattr(observer, method), own)

    def _call(self, observer: Observer, method: str, function: Callable[..., Any], *args: Any) -> Any:
        try:
            with _work_for(None):
                return function(*args)
        except Exception as error:
            error.__suppress_context__ = True  # the failure of the request, whose text may contain the prompt
            _logger.exception("Observer %s raised in %s()", type(observer).__qualname__, method)
            return None
