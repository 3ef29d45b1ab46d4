"""Images, audio and documents in messages."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

import msgspec

_IMAGE_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # of two characters or more: C: is a drive of Windows


def _detect_media_type(data: bytes) -> str:
    for signature, media_type in _IMAGE_SIGNATURES:
        if data.startswith(signature):
            return media_type
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    raise ValueError("unknown image format: not PNG, JPEG, GIF or WebP; pass media_type=")


def _describe(data: bytes | None) -> str:
    return "None" if data is None else f"<{len(data)} bytes>"


def parse_data_url(url: str) -> tuple[bytes, str]:
    """Return the data and the media type of a ``data:`` URL (RFC 2397)."""
    header, comma, payload = url.partition(",")
    media_type, *parameters = header[len("data:") :].split(";")
    invalid = ValueError("invalid data: URL; write data:image/png;base64,<data>")
    if not comma:
        raise invalid
    try:
        data = unquote_to_bytes(payload)
        if "base64" in (parameter.strip().lower() for parameter in parameters):
            data = base64.b64decode(data, validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise invalid from None
    return data, media_type.strip().lower() or _detect_media_type(data)


class ImagePart(msgspec.Struct, frozen=True, gc=False, tag="image", omit_defaults=True, forbid_unknown_fields=True):
    """An image, as bytes or as a URL that the *server* fetches.

    Build it with :meth:`from_bytes` or :meth:`from_url`.

    Attributes:
        data: The bytes of the image, None for a URL.
        media_type: The media type of ``data``, such as ``image/png``.
        url: The URL, None for bytes.
    """

    data: bytes | None = None
    media_type: str | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        if (self.data is None) == (self.url is None):
            raise ValueError("an ImagePart takes either data or url")
        if self.data is not None and not self.media_type:
            raise ValueError("image data needs a media_type, such as image/png")
        if self.data is not None and self.media_type and not self.media_type.lower().startswith("image/"):
            raise ValueError(f"not an image: {self.media_type}; use an AudioPart for audio and a FilePart for a PDF")

    def __repr__(self) -> str:
        return f"ImagePart(data={_describe(self.data)}, media_type={self.media_type!r}, url={self.url!r})"

    @classmethod
    def from_bytes(cls, data: bytes, *, media_type: str | None = None) -> ImagePart:
        """Build a part from the content of an image file.

        Args:
            data: The content of the file.
            media_type: Required if the format is not PNG, JPEG, GIF or WebP.

        Raises:
            ValueError: The format is unknown and ``media_type`` is missing.
        """
        return cls(bytes(data), media_type or _detect_media_type(bytes(data)))

    @classmethod
    def from_url(cls, url: str) -> ImagePart:
        """Build a part from a URL that the server fetches, if it supports that, or from a ``data:`` URL.

        Raises:
            ValueError: It has no scheme, or a ``data:`` URL is invalid or not an image.
        """
        if not _SCHEME.match(url):
            raise ValueError(f"not a URL: {url!r:.80}; for a file, use ImagePart.from_bytes(path.read_bytes())")
        return cls(*parse_data_url(url)) if url[:5].lower() == "data:" else cls(url=url)

    @property
    def base64(self) -> str:
        """The data as base64 text."""
        return base64.b64encode(self.data or b"").decode("ascii")

    @property
    def data_url(self) -> str:
        """The image as a ``data:`` URL, or the URL itself."""
        return self.url if self.url is not None else f"data:{self.media_type};base64,{self.base64}"


_AUDIO_FORMATS: Mapping[str, str] = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/vnd.wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "audio/flac": "flac",
    "audio/x-flac": "flac",
    "audio/ogg": "ogg",
    "audio/opus": "opus",
    "audio/aac": "aac",
    "audio/mp4": "m4a",
    "audio/x-m4a": "m4a",
    "audio/aiff": "aiff",
    "audio/pcm": "pcm16",
}


AUDIO_TYPES: Mapping[str, str] = {name: media_type for media_type, name in reversed(list(_AUDIO_FORMATS.items()))}
"""The media type of each short name of a format."""


class AudioPart(msgspec.Struct, frozen=True, gc=False, tag="audio", omit_defaults=True, forbid_unknown_fields=True):
    """A sound recording.

    Attributes:
        data: The bytes of the recording.
        media_type: The media type of ``data``, such as ``audio/wav``.
    """

    data: bytes
    media_type: str = "audio/wav"

    def __post_init__(self) -> None:
        if self.media_type.lower() not in _AUDIO_FORMATS:
            raise ValueError(f"unknown audio format: {self.media_type}; use one of {', '.join(_AUDIO_FORMATS)}")

    def __repr__(self) -> str:
        return f"AudioPart(data={_describe(self.data)}, media_type={self.media_type!r})"

    @classmethod
    def from_bytes(cls, data: bytes, *, media_type: str | None = None) -> AudioPart:
        """Build a part from the content of an audio file.

        Args:
            data: The content of the file.
            media_type: Required if the format is not WAV, MP3, FLAC or Ogg.

        Raises:
            ValueError: The format is unknown.
        """
        return cls(bytes(data), media_type or _detect_audio_type(bytes(data)))

    @property
    def format(self) -> str:
        """The short name of the format, such as ``wav``."""
        return _AUDIO_FORMATS[self.media_type.lower()]

    @property
    def base64(self) -> str:
        """The data as base64 text."""
        return base64.b64encode(self.data).decode("ascii")


def _detect_audio_type(data: bytes) -> str:
    if data.startswith(b"RIFF") and data[8:12] == b"WAVE":
        return "audio/wav"
    if data.startswith((b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")):
        return "audio/mpeg"
    if data.startswith(b"fLaC"):
        return "audio/flac"
    if data.startswith(b"OggS"):
        return "audio/ogg"
    raise ValueError("unknown audio format: not WAV, MP3, FLAC or Ogg; pass media_type=")


class FilePart(msgspec.Struct, frozen=True, gc=False, tag="file", omit_defaults=True, forbid_unknown_fields=True):
    """A PDF document.

    Attributes:
        data: The bytes of the document.
        name: The name of the file, for the model.
    """

    data: bytes
    name: str = "document.pdf"

    def __post_init__(self) -> None:
        if b"%PDF-" not in self.data[:1024]:
            raise ValueError("not a PDF document; send other files as text")

    def __repr__(self) -> str:
        return f"FilePart(data={_describe(self.data)}, name={self.name!r})"

    @classmethod
    def from_bytes(cls, data: bytes, *, name: str = "document.pdf") -> FilePart:
        """Build a part from the content of a PDF file.

        Args:
            data: The content of the file.
            name: The name of the file, for the model.

        Raises:
            ValueError: The data is not a PDF document.
        """
        return cls(bytes(data), name)

    @property
    def base64(self) -> str:
        """The data as base64 text."""
        return base64.b64encode(self.data).decode("ascii")
