"""The part of a streamed answer that has arrived. Reads nothing."""

from __future__ import annotations

from ctxbackends._chat.responses import Completion, PartialCompletion
from ctxbackends._client.stream_source import Body
from ctxbackends._wire.accumulator import Accumulator
from ctxbackends._wire.base import StreamDecoder
from ctxbackends._wire.errors import find_request_id
from ctxbackends.errors import ClosedError


class StreamProgress:
    """The state of a stream that its reader can see at any time."""

    __slots__ = ("_accumulator", "_body", "_completion", "_decoder")

    def __init__(self, decoder: StreamDecoder) -> None:
        self._decoder = decoder
        self._accumulator = Accumulator()
        self._body: Body | None = None
        self._completion: Completion | None = None

    @property
    def partial(self) -> PartialCompletion:
        """The part of the answer that has arrived: while it is read, and after leaving early or an error."""
        return self._accumulator.partial(served_model=self._decoder.served_model)

    @property
    def text_so_far(self) -> str:
        """The text that has arrived."""
        return self._accumulator.text

    @property
    def pieces_so_far(self) -> int:
        """The number of pieces of text and reasoning that have arrived. Most servers send one for each token."""
        return self._accumulator.count_pieces()

    @property
    def served_model(self) -> str | None:
        """The model that the server names, None until it does."""
        return self._decoder.served_model

    @property
    def response_id(self) -> str | None:
        """The server's ID of the response, None until it arrives."""
        return self._decoder.response_id

    @property
    def request_id(self) -> str | None:
        """The server's ID of the request from the response headers, None until they arrive or without one."""
        return find_request_id(self._body.headers) if self._body is not None else None

    @property
    def is_complete(self) -> bool:
        """Whether the last event has arrived, so that there is a completion."""
        return self._completion is not None

    @property
    def completion(self) -> Completion:
        """The whole answer.

        Raises:
            ClosedError: The stream has not been read to its end.
        """
        if self._completion is None:
            raise ClosedError("no completion: the stream has not been read to its end")
        return self._completion
