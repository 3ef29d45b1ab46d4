"""Embeddings in batches: checked options, one request after another, merged vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ctxbackends._chat.responses import Embeddings
from ctxbackends._client.connection import ServerConnection
from ctxbackends._config.request_options import RequestOptions
from ctxbackends._profiles.capabilities import find_embedding_refusal
from ctxbackends._profiles.profile import Profile
from ctxbackends._wire.base import WireSettings
from ctxbackends._wire.operations.openai import VectorEncoding, fitting_batch_size, merge_embeddings
from ctxbackends.errors import MalformedResponseError, UnsupportedOptionError


async def embed(
    connection: ServerConnection,
    profile: Profile,
    settings: WireSettings,
    texts: Sequence[str],
    *,
    model: Callable[[], str],
    dimensions: int | None,
    encoding: VectorEncoding | None,
    batch_size: int | None,
    request_options: RequestOptions | None,
) -> Embeddings:
    """Return one vector for each text, see :meth:`Backend.embed`."""
    build_operation = profile.embed
    assert build_operation is not None, "called only for a profile with embed"
    if not texts:
        raise ValueError("embed() needs at least one text")
    if batch_size is not None and not 1 <= batch_size <= profile.embed_batch:
        raise ValueError(f"batch_size out of range: {batch_size}; use 1 to {profile.embed_batch}")
    if dimensions is not None and dimensions < 1:
        raise ValueError(f"dimensions out of range: {dimensions}; use 1 or more")
    unsupported = _find_unsupported_option(profile, settings, dimensions, encoding)
    if unsupported is not None:
        raise connection.annotate(unsupported)
    chosen = encoding or profile.vector_encoding
    requested = model()
    call = connection.begin(request_options)

    async def send_batches() -> list[Embeddings]:
        batches: list[Embeddings] = []
        start = 0
        while start < len(texts):
            length = len(batches[-1].vectors[0]) if batches else dimensions
            size = batch_size or min(profile.embed_batch, fitting_batch_size(length))
            operation = build_operation(
                texts[start : start + size], model=requested, dimensions=dimensions, encoding=chosen, settings=settings
            )
            batch = await connection.execute(operation, call=call, acquire_slot=True, retry=call.policy)
            mismatch = await connection.served_model.find_mismatch(requested, batch.served_model)
            if mismatch is not None:
                raise mismatch
            batches.append(batch)
            start += size
        return batches

    embeddings = merge_embeddings(await connection.in_flight(send_batches))
    lengths = {len(vector) for vector in embeddings.vectors}
    if len(lengths) > 1 or 0 in lengths or (dimensions is not None and lengths != {dimensions}):
        expected = f"{dimensions}" if dimensions is not None else "one length"
        raise connection.annotate(
            MalformedResponseError(f"unexpected lengths of vectors: {sorted(lengths)}; expected {expected}")
        )
    return embeddings


def _find_unsupported_option(
    profile: Profile, settings: WireSettings, dimensions: int | None, encoding: VectorEncoding | None
) -> UnsupportedOptionError | None:
    for option, value in (("dimensions", dimensions), ("encoding", encoding)):
        reason = find_embedding_refusal(option, profile, settings) if value is not None else None
        if reason is not None:
            return UnsupportedOptionError(option, reason)
    if encoding is not None and encoding not in profile.vector_encodings:
        return UnsupportedOptionError("encoding", f"the server supports {' or '.join(profile.vector_encodings)}")
    return None
