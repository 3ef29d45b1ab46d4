"""Compares the model that a response names with the requested one. Knows no HTTP and no wire format."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence

from ctxbackends._chat.servers import ModelInfo
from ctxbackends._client.keyed_lock import KeyedLock
from ctxbackends._config.served_as import ANY_MODEL
from ctxbackends._profiles.model_names import same_model
from ctxbackends._profiles.profile import MismatchPolicy
from ctxbackends.errors import BackendError, ModelMismatchError, ModelMismatchWarning

Pair = tuple[str, str]


class ServedModelCheck:
    """The check of one backend.

    Args:
        policy: The reaction to another model.
        served_as: Accepted names by requested model.
        list_models: Fetches the server's list, which is asked once for each pair of names.
        annotate: Adds the details of the backend to an error.
    """

    def __init__(
        self,
        *,
        policy: MismatchPolicy,
        served_as: Mapping[str, Sequence[str]],
        list_models: Callable[[], Awaitable[Sequence[ModelInfo]]],
        annotate: Callable[[BackendError], BackendError],
    ) -> None:
        self._policy = policy
        self._served_as = served_as
        self._list_models = list_models
        self._annotate = annotate
        self._accepted: set[Pair] = set()  # listed as one model, or warned about
        self._different: set[Pair] = set()
        self._asking: KeyedLock[Pair] = KeyedLock()

    def accepts(self, requested: str, served: str | None) -> bool:
        """Return whether ``served`` is known to be right for ``requested``, without asking the server."""
        return (
            served is None
            or requested == served
            or self._policy == "ignore"
            or same_model(requested, served)
            or (requested, served) in self._accepted
            or served in self._served_as.get(ANY_MODEL, ())
            or served in self._served_as.get(requested, ())
        )

    async def find_mismatch(self, requested: str, served: str | None) -> ModelMismatchError | None:
        """Return the error for a response of another model; None if it is right, or after a warning."""
        if served is None or self.accepts(requested, served):
            return None
        pair = (requested, served)
        async with self._asking.acquire(pair):
            if pair not in self._different and pair not in self._accepted:
                await self._ask_list(pair)
        if pair in self._accepted:
            return None
        error = ModelMismatchError(requested, served)
        self._annotate(error)
        if self._policy == "error":
            return error
        warnings.warn(str(error), ModelMismatchWarning, stacklevel=2)
        self._accepted.add(pair)  # after the warning, which a filter may raise
        return None

    async def _ask_list(self, pair: Pair) -> None:
        """Find out whether the server lists both names for one model. A list that fails is asked again."""
        try:
            models = await self._list_models()
        except BackendError:
            return
        requested, served = pair
        names = [{model.id, *model.aliases} for model in models]
        same = any(requested in row and served in row for row in names)
        (self._accepted if same else self._different).add(pair)
