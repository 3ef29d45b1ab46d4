"""The models that the servers name in their answers: one for each requested model."""

from __future__ import annotations

from ctxbackends.batch._errors import BatchModelError
from ctxbackends.batch._rows import BatchRow


class ServedModels:
    """Checks that the rows of one model are answered by one model: by all servers, and in all runs of a batch."""

    def __init__(self) -> None:
        self._served: dict[str | None, tuple[str, str]] = {}

    def check(self, row: BatchRow, served: str | None, name: str) -> None:
        """Check the model of an answer.

        Args:
            row: The row.
            served: The model that the server names, None if it names none.
            name: The name of the server, for the error.

        Raises:
            BatchModelError: Another server, or an earlier run, had its answers from another model.
        """
        if served is None:
            return
        model, other = self._served.setdefault(row.options.get("model"), (served, name))
        if model != served:
            raise BatchModelError(
                f"two models answer the batch: {model} ({other}) and {served} ({name}); serve one model everywhere, "
                "or use --fresh to ask all rows again"
            )
