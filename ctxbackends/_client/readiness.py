"""The state of a server, as its errors and its list of models show it."""

from __future__ import annotations

from collections.abc import Sequence

from ctxbackends._chat.servers import ModelInfo, ServerState
from ctxbackends.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    BackendError,
    EmptyModelListError,
    ModelLoadFailedError,
    ModelLoadingError,
    NotFoundError,
    RedirectError,
    ResponseError,
    ServerDiedError,
)


def is_response_of_ready_server(error: APIStatusError | ResponseError) -> bool:
    """Return whether an error of the model list shows that the server is ready, which is all that was asked.

    Gateways have no list (404, 405, 501), protect it (403), or answer with a page of their own. A rejected key (401), a
    redirect and any other 5xx mean that generations fail too.
    """
    if isinstance(error, ResponseError):
        return isinstance(error, EmptyModelListError) or bool(error.body)  # without a body, it was not valid HTTP
    if isinstance(error, ModelLoadingError | ModelLoadFailedError | RedirectError):
        return False
    return error.status_code == 501 or (error.status_code < 500 and error.status_code != 401)


def raise_if_not_loaded(models: Sequence[ModelInfo], name: str | None) -> None:
    """Raise if ``name`` is loading or failed to load: a llama-server router lists models in any state."""
    model = next((model for model in models if name in (model.id, *model.aliases)), None)
    if model is None or model.state is None:
        return
    if model.state in ("loading", "downloading"):
        raise ModelLoadingError(200, body=f"the model {model.id} is loading".encode(), message="Loading model")
    if model.state == "failed":
        raise ModelLoadFailedError(200, body=f"the model {model.id} failed to load".encode(), message="failed to load")


def state_of_failure(error: BackendError) -> tuple[ServerState, str | None]:
    """Return the state of a server whose probe failed with ``error``, and the problem."""
    match error:
        case APIConnectionError():
            return "refused" if error.refused else "unreachable", error.problem
        case APITimeoutError() | ServerDiedError():
            return "unreachable", error.problem
        case ModelLoadingError():
            return "loading", error.message
        case EmptyModelListError():
            return "ready", error.problem
        case NotFoundError():
            return "error", f"{error.problem}{error.request_text}"
    return "error", error.problem
