"""The models and the embedding model for llm."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import llm
from llm.models import EmbeddingModel
from llm.parts import StreamEvent

from ctxbackends._chat.events import Loading
from ctxbackends._chat.messages import Message
from ctxbackends._client.backend import Backend
from ctxbackends.errors import BackendError, ConfigError, MissingKeyError
from ctxbackends.integrations._common import BackendReference, BackendSource, UnsupportedOptions, check_unsupported
from ctxbackends.integrations._llm.events import EventConverter, finish_response
from ctxbackends.integrations._llm.messages import IMAGE_TYPES, PDF, SOUND_TYPES, build_messages
from ctxbackends.integrations._llm.options import CtxOptions, build_arguments


class _SharedModel:
    """The model without a way to send requests.

    Args:
        backend: A configuration, a backend, or the name of a backend in the nearest ``.ctxrc``; None for the default
            backend there.
        model: The name of the model; None for the backend's ``default_model``.
        unsupported: How to treat an option that the backend does not support: ``error``, or ``drop`` to leave out
            those that tune the answer.
    """

    can_stream = True
    supports_schema = True  # a backend that does not support them says why
    supports_tools = True
    Options = CtxOptions

    def __init__(
        self,
        backend: BackendSource | None = None,
        model: str | None = None,
        *,
        unsupported: UnsupportedOptions = "error",
    ) -> None:
        self._reference = _refer_to(backend)
        self._model = model
        self._unsupported: UnsupportedOptions = check_unsupported(unsupported)
        self.model_id: str = _build_id(backend, model)

    def __str__(self) -> str:
        return f"ctxbackends: {self.model_id}"

    @property
    def _backend(self) -> Backend | None:
        """The backend, None if its configuration is not valid, which a prompt reports."""
        try:
            return self._reference.get()
        except ConfigError:
            return None

    @property
    def attachment_types(self) -> set[str]:
        """The media types that the backend supports. A model may support fewer."""
        if self._backend is None:
            return {*IMAGE_TYPES, *SOUND_TYPES, PDF}
        capabilities = self._backend.capabilities
        return {
            *(IMAGE_TYPES if capabilities.images else ()),
            *(SOUND_TYPES if capabilities.audio else ()),
            *([PDF] if capabilities.files else ()),
        }

    def _build_request(self, prompt: llm.Prompt) -> tuple[list[Message], dict[str, Any]]:
        backend = self._reference.get()
        messages = build_messages(prompt.messages, backend)
        return messages, build_arguments(backend, prompt, self._model, self._unsupported)


class CtxModel(_SharedModel, llm.Model):  # type: ignore[misc]  # properties instead of attributes
    __doc__ = f"A model of llm on a backend.\n{(_SharedModel.__doc__ or '').partition('.')[2]}"

    def execute(self, prompt: llm.Prompt, stream: bool, response: Any, conversation: Any) -> Iterator[StreamEvent]:  # noqa: ARG002  # llm's
        """See :meth:`llm.Model.execute`. Closing the iterator cancels the generation."""
        with _framework_errors():
            messages, arguments = self._build_request(prompt)
            backend = self._reference.get_sync()
            converter = EventConverter(backend.type)
            if stream:
                with backend.stream(messages, on_progress=_Waiting(), **arguments) as answer:
                    for event in answer:
                        yield from converter.convert(event)
                completion = answer.completion
            else:
                completion = backend.complete(messages, on_progress=_Waiting(), **arguments)
                yield from converter.convert_completion(completion)
            finish_response(response, completion)


class AsyncCtxModel(_SharedModel, llm.AsyncModel):  # type: ignore[misc]  # as above
    __doc__ = f"An async model of llm on a backend.\n{(_SharedModel.__doc__ or '').partition('.')[2]}"

    async def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: Any,
        conversation: Any,  # noqa: ARG002  # part of the interface
    ) -> AsyncGenerator[StreamEvent, None]:
        """See :meth:`llm.AsyncModel.execute`. Closing the iterator cancels the generation."""
        with _framework_errors():
            messages, arguments = await asyncio.to_thread(self._build_request, prompt)  # reads attachments
            backend = self._reference.get()
            self._reference.get_sync()  # closes the registry at the exit
            converter = EventConverter(backend.type)
            if stream:
                async with backend.stream(messages, on_progress=_Waiting(), **arguments) as answer:
                    async for event in answer:
                        for converted in converter.convert(event):
                            yield converted
                completion = answer.completion
            else:
                completion = await backend.complete(messages, on_progress=_Waiting(), **arguments)
                for converted in converter.convert_completion(completion):
                    yield converted
            finish_response(response, completion)


class CtxEmbeddingModel(EmbeddingModel):  # type: ignore[misc]  # Any without llm
    """An embedding model of llm on a backend.

    Args:
        backend: A configuration, a backend, or the name of a backend in the nearest ``.ctxrc``; None for the default
            backend there.
        model: The name of the model; None for the backend's ``default_model``.
    """

    batch_size: int | None = 256  # llm reads all texts at once without one

    def __init__(self, backend: BackendSource | None = None, model: str | None = None) -> None:
        self._reference = _refer_to(backend)
        self._model = model
        self.model_id: str = _build_id(backend, model)

    @property
    def is_supported(self) -> bool:
        """Whether the backend supports embeddings, or its configuration is not valid, which a request reports."""
        try:
            return self._reference.get().capabilities.embeddings
        except ConfigError:
            return True

    def embed_batch(self, items: Iterable[str | bytes], *, key: str | None = None) -> Iterator[list[float]]:  # noqa: ARG002  # as above
        """See :meth:`llm.EmbeddingModel.embed_batch`."""
        with _framework_errors():
            texts = [item if isinstance(item, str) else item.decode() for item in items]
            vectors = self._reference.get_sync().embed(texts, model=self._model).vectors if texts else ()
        yield from map(list, vectors)


def _refer_to(backend: BackendSource | None) -> BackendReference:
    return BackendReference.of_default() if backend is None else BackendReference.of(backend)


def _build_id(backend: BackendSource | None, model: str | None) -> str:
    name = backend if backend is None or isinstance(backend, str) else backend.name
    return "/".join(part for part in ("ctx", name, model) if part is not None)


@contextmanager
def _framework_errors() -> Iterator[None]:
    """Raise llm's errors for those of a backend."""
    try:
        yield
    except MissingKeyError as error:
        raise llm.NeedsKeyException(str(error)) from error
    except BackendError as error:
        raise llm.ModelError(str(error)) from error


class _Waiting:
    """Tells a person at the terminal once that a server is starting."""

    def __init__(self) -> None:
        self._is_told = False

    def __call__(self, loading: Loading) -> None:
        if not self._is_told and sys.stderr.isatty():
            print(loading, file=sys.stderr)  # noqa: T201  # llm shows no logs
        self._is_told = True
