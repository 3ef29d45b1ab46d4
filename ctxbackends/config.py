"""`.ctxrc` -> frozen, checked values with line numbers; knows no transport and no registry, opens no file on import.

What is read is strict: a key that is misspelt, given twice or of the wrong kind is an error with its place, never a
silent default. Other top-level keys of the file belong to other programs and are not looked at. A value that could be
an API key is never repeated in a message. The write is :mod:`ctxbackends.config_write`.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping
from difflib import get_close_matches
from fractions import Fraction
from ipaddress import IPv6Address
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, Protocol
from urllib.parse import urlsplit

import attrs

from ctxbackends.errors import (
    ConfigError,
    DuplicateBackendError,
    InvalidEndpointError,
    MissingKeyError,
    UnknownBackendError,
    UnknownBackendTypeError,
)
from ctxbackends.profiles import PROFILES, BackendType, MismatchPolicy, Profile

FILE_NAME = ".ctxrc"
MAX_FILE_SIZE = 1024 * 1024
"""Bytes. A configuration is a few kilobytes; what is larger is another file by mistake."""

_MAX_DEPTH = 64  # of nested YAML collections: keeps recursion away from the interpreter's limit
_MAX_MERGED = 100  # mappings in one entry: a file could make the same thousands count in thousands of entries
_MAX_COUNT = 2**31 - 1  # llama.cpp keeps these numbers in a C int

# --- durations ----------------------------------------------------------------------------------------

# Grammar and units of https://pkg.go.dev/time#ParseDuration, which reads the same files; both Unicode letters mu.
_UNITS: Mapping[str, int] = MappingProxyType(
    {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
)
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([^0-9.]*)")
_MAX_DURATION = 2**63 - 1  # nanoseconds: Go's limit
_DURATION_HINT = "write a number with a unit, such as 300ms, 30s, 2m or 1h30m"


def parse_duration(text: str) -> float:
    """Seconds of a Go duration (``300ms``, ``1h30m``, ``1.5h``, ``0``). Raises ValueError that says what is right."""
    if len(text) > 64:
        raise ValueError(f"no duration has {len(text)} characters; {_DURATION_HINT}")
    if text.startswith("-"):
        raise ValueError(f"{shown(text)} is negative; {_DURATION_HINT}")
    body = text.removeprefix("+")
    if body == "0":
        return 0.0
    total, position = Fraction(0), 0
    while position < len(body) or not body:
        part = _PART.match(body, position)
        if part is not None and part.group(1) == body:
            raise ValueError(f"{text} has no unit; write {text}s")
        if part is None or not part.group(2):
            raise ValueError(f"{shown(text)} is not a duration; {_DURATION_HINT}")
        number, unit = part.groups()
        if unit not in _UNITS:
            raise ValueError(f"{shown(text)} has an unknown unit; the units are ns, us, ms, s, m and h")
        total += Fraction("0" + number.removesuffix(".")) * _UNITS[unit]
        position = part.end()
    if total > _MAX_DURATION:
        raise ValueError(f"{shown(text)} is longer than 292 years; {_DURATION_HINT}")
    return float(total / 10**9)


def format_duration(seconds: float) -> str:
    """The shortest Go form, to the nanosecond: ``1m30s``, ``300ms``, ``30s``."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    left = round(Fraction(seconds) * 10**9)
    if left == 0:
        return "0s"
    if left < 10**9:
        unit = next(unit for unit in ("ms", "µs", "ns") if left >= _UNITS[unit])
        return _decimal(left, _UNITS[unit]) + unit
    parts = []
    for unit in ("h", "m"):
        whole, left = divmod(left, _UNITS[unit])
        parts += [f"{whole}{unit}"] if whole else []
    return "".join(parts) + (_decimal(left, 10**9) + "s" if left else "")


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    return f"{whole}.{rest:0{len(str(unit)) - 1}d}".rstrip("0").rstrip(".")


# --- what a message may show --------------------------------------------------------------------------

_KEY_PREFIXES = ("sk-", "sk_", "pk-", "rk_", "xai-", "gsk_", "hf_", "AIza", "ghp_", "nvapi-", "r8_")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def looks_like_key(text: str) -> bool:
    """Whether ``text`` could be an API key: a known prefix, or a long run of digits mixed with small letters."""
    for word in re.split("[^A-Za-z0-9_-]+", text):
        if word.startswith(_KEY_PREFIXES) and (word.startswith("sk-") or len(word) >= 20):
            return True
        for run in re.split("[_-]", word):
            if len(run) >= 16 and any(c.isdigit() for c in run) and any(c.islower() for c in run):
                return True
    return False


def shown(text: str) -> str:
    """``text`` as a message shows it: short, on one line, and not at all where it looks like a key."""
    if looks_like_key(text):
        return "the value (not shown: it looks like a key)"
    return repr(text) if len(text) <= 60 else f"{text[:57]!r}..."


def _name_shown(name: str) -> str:
    return "(not shown)" if looks_like_key(name) or _unsafe(name) or len(name) > 100 else name


def _unsafe(text: str) -> bool:
    # Controls, lone surrogates and line separators: they break lines of the file, of logs and of HTTP headers.
    return any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)


# --- endpoints ----------------------------------------------------------------------------------------

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?", re.ASCII)
_ENDPOINT_HINT = "write it like http://localhost:8080"


def normalise_endpoint(url: str) -> str:
    """The base URL of a server: no trailing slash, and no trailing ``/v1``, which the codec adds.

    Raises InvalidEndpointError, which shows no more of the URL than its scheme and host, and nothing of it where it
    holds credentials.
    """
    given: Any = url
    if not isinstance(given, str) or not given:
        raise InvalidEndpointError(f"the endpoint is empty or no text; {_ENDPOINT_HINT}", key="endpoint")
    if any(c.isspace() for c in url) or _unsafe(url):
        raise _bad_endpoint("contains white space or control characters", url)
    if "?" in url or "#" in url:
        raise _bad_endpoint("has a query or a fragment; only scheme, host, port and a path belong here", url)
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise _bad_endpoint(f"does not begin with http:// or https://; {_ENDPOINT_HINT}", url)
    if "@" in rest.partition("/")[0]:
        raise _bad_endpoint("holds a user name or password; put the key into an environment variable", url)
    parts = _split(url)
    if parts is None:
        raise _bad_endpoint(f"has a bad host or port; {_ENDPOINT_HINT}", url)
    scheme, host, port, path = parts
    path = path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{scheme}://{host}{'' if port is None else f':{port}'}{path}"


def _split(url: str) -> tuple[str, str, int | None, str] | None:
    """Scheme, host, port and path; None for a bad host or port, since Python's errors repeat what stands there."""
    try:  # urlsplit refuses unbalanced brackets, .port what is no port, ipaddress what is in brackets and no address
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
        valid = port != 0 and (_HOST.fullmatch(host) or (":" in host and not IPv6Address(host).scope_id))
    except ValueError:
        return None
    host = f"[{host}]" if ":" in host else host
    # urlsplit passes over what stands between "]" and the port, an empty port, and the brackets around a name.
    written = parts.netloc.lower() if port is None else parts.netloc.lower().rpartition(":")[0]
    return (parts.scheme, host, port, parts.path) if valid and written == host else None


def _bad_endpoint(problem: str, url: str) -> InvalidEndpointError:
    # Past the host there may be a token in the path or the query; an "@" anywhere may follow a password.
    start = re.sub(r"^((?:[A-Za-z][A-Za-z0-9+.-]*://)?[^/?#\\]*).*", r"\1", url, flags=re.DOTALL)
    what = "the endpoint" if "@" in url or looks_like_key(start) else f"the endpoint {shown(start)}"
    return InvalidEndpointError(f"{what} {problem}", key="endpoint")


# --- values -------------------------------------------------------------------------------------------

_DURATIONS = ("timeout", "connect_timeout", "ready_timeout", "first_token_timeout", "idle_timeout")
_COUNTS = ("ctx_size", "parallel", "threads")
LOCAL_ONLY = (*_COUNTS, "embeddings")
"""Fields that mean something only beside ``model_path``."""


def unknown_type(name: str, types: Collection[str], *, implied: bool) -> UnknownBackendTypeError:
    key = "name" if implied else "type"
    error = UnknownBackendTypeError(_name_shown(name), tuple(types), key=key)
    error.problem += "; a backend with a name of its own needs a type" if implied else ""
    return error


def _type_of_name(config: BackendConfig) -> str:
    config._check_text("name")
    if config.name not in PROFILES:
        raise unknown_type(config.name, PROFILES, implied=True)
    return config.name


def _known_type(value: Any) -> Any:
    return BackendType(value) if isinstance(value, str) and value in PROFILES else value


@attrs.frozen(kw_only=True)
class BackendConfig:
    """One backend, checked when it is built: ConfigError and its kinds say which field is wrong, in ``key``.

    ``type`` is the name where that is a backend type. A type that is not built in is accepted, since users register
    their own. ``endpoint`` is the type's default where there is one. ``api_key_env`` names an environment variable;
    None is the type's default one, ``""`` is no key. ``api_key`` is for code alone and is in no file and no repr.
    Times are seconds; None is the type's default, and ``ready_timeout=0`` waits for no cold start.
    ``model_path`` (type llamacpp) is a GGUF file that the SDK serves itself, in the place of an endpoint; ``ctx_size``,
    ``parallel``, ``threads`` and ``embeddings`` are for it alone.
    """

    name: str
    type: str = attrs.field(default=attrs.Factory(_type_of_name, takes_self=True), converter=_known_type)
    endpoint: str | None = None
    api_key_env: str | None = None
    api_key: str | None = attrs.field(default=None, repr=False)
    default_model: str | None = None
    timeout: float | None = None
    connect_timeout: float | None = None
    ready_timeout: float | None = None
    first_token_timeout: float | None = None
    idle_timeout: float | None = None
    model_mismatch: MismatchPolicy | None = None
    model_path: str | None = None
    ctx_size: int | None = None
    parallel: int | None = None
    threads: int | None = None
    embeddings: bool = False

    def __attrs_post_init__(self) -> None:
        self._check_text("name")
        self._check_text("type")
        for field in ("default_model", "model_path"):
            if getattr(self, field) is not None:
                self._check_text(field)
        self._check_keys()
        for field in _DURATIONS:
            self._check_duration(field)
        if self.model_mismatch not in (None, "error", "warn", "ignore"):
            self._fail("model_mismatch", "must be error, warn or ignore")
        for field in _COUNTS:
            value = getattr(self, field)
            if value is not None and (type(value) is not int or not 1 <= value <= _MAX_COUNT):
                self._fail(field, f"must be a whole number from 1 to {_MAX_COUNT}")
        if type(self.embeddings) is not bool:
            self._fail("embeddings", "must be true or false")
        self._check_place()

    def _check_text(self, field: str) -> None:
        value = getattr(self, field)
        if not isinstance(value, str):
            self._fail(field, "must be a text")
        if not value or value != value.strip():
            self._fail(field, "must not be empty or have white space around it")
        if _unsafe(value):
            self._fail(field, "must not contain control characters")

    def _check_keys(self) -> None:
        variable: Any = self.api_key_env
        if variable not in (None, "") and not (
            isinstance(variable, str) and _ENV_NAME.fullmatch(variable) and not looks_like_key(variable)
        ):
            self._fail(
                "api_key_env",
                "must be the name of an environment variable (letters, digits and _), such as OPENAI_API_KEY, "
                "never the key; the value is not shown here",
            )
        key: Any = self.api_key
        if key is not None:
            if not isinstance(key, str) or not key:
                self._fail("api_key", 'must be a text that is not empty; for no key write api_key_env=""')
            _check_key(key, "the api_key argument", backend=self.name, field="api_key")

    def _check_duration(self, field: str) -> None:
        value = getattr(self, field)
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _MAX_DURATION / 10**9:
            self._fail(field, "must be a number of seconds, not more than 292 years; leave it out for the default")
        if value < 0 or (value == 0 and field != "ready_timeout"):
            self._fail(field, f"must be above zero; {_DURATION_HINT}, or leave it out for the default")
        object.__setattr__(self, field, float(value))

    def _check_place(self) -> None:
        """Where the server is: a given endpoint, the type's own, or a model file that is served here."""
        if self.model_path is not None:
            if self.type != BackendType.LLAMACPP:
                self._fail("model_path", "is for type llamacpp alone")
            if self.endpoint is not None:
                self._fail("model_path", "stands in the place of endpoint; keep one of the two")
            return
        for field in LOCAL_ONLY:
            if getattr(self, field) not in (None, False):
                self._fail(field, "has a meaning only together with model_path")
        profile = PROFILES.get(self.type)
        if self.endpoint is not None:
            try:
                object.__setattr__(self, "endpoint", normalise_endpoint(self.endpoint))
            except InvalidEndpointError as error:
                error.backend = self.name
                raise
        elif profile is not None:
            if profile.default_endpoint is None:
                problem = f"the endpoint is missing, and type {self.type} has no default; {_ENDPOINT_HINT}"
                raise InvalidEndpointError(problem, key="endpoint", backend=self.name)
            object.__setattr__(self, "endpoint", profile.default_endpoint)

    def _fail(self, field: str, problem: str) -> NoReturn:
        raise ConfigError(problem, key=field, backend=None if field == "name" else self.name)


@attrs.frozen(kw_only=True)
class CtxConfig:
    """What one ``.ctxrc`` says about backends, in the order of the file. ``path`` is that file."""

    backends: tuple[BackendConfig, ...] = ()
    default_backend: str | None = None
    path: Path | None = None


def api_key_for(config: BackendConfig, profile: Profile, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """The key and where it came from (a variable's name, or ``api_key argument``); None where no key is sent.

    Raises MissingKeyError where ``api_key_env`` names a variable that is unset or empty, and ConfigError, without the
    value, where a key could not be a header.
    """
    if config.api_key is not None:
        return config.api_key, "api_key argument"
    variable = profile.default_key_variable if config.api_key_env is None else config.api_key_env
    if not variable:
        return None
    key = environ.get(variable, "")
    if not key:
        if config.api_key_env is None:
            return None
        raise MissingKeyError(variable, backend=config.name)
    _check_key(key, f"the variable {variable}", backend=config.name, field="api_key_env")
    return key, variable


def _check_key(key: str, source: str, *, backend: str, field: str) -> None:
    # A line break in a header is an injected header; servers refuse the rest. The key itself is not for the message.
    if not all("!" <= c <= "~" for c in key):
        problem = f"{source} holds white space, control characters or non-ASCII characters, which no API key has"
        raise ConfigError(problem, key=field, backend=backend)


# --- the file -----------------------------------------------------------------------------------------


def find_ctxrc(start: Path | None = None) -> Path | None:
    """The nearest ``.ctxrc`` from ``start`` (the working directory) upwards; None where there is none."""
    try:
        folder = Path(os.path.abspath(start if start is not None else os.curdir))
    except FileNotFoundError:  # the working directory was deleted
        return None
    for candidate in (folder, *folder.parents):
        if os.path.isfile(candidate / FILE_NAME):
            return candidate / FILE_NAME
    return None


def load_ctxrc(path: Path, *, types: Collection[str] = tuple(PROFILES)) -> CtxConfig:
    """Read ``path``. ``types``: the backend types that may stand in it. Raises ConfigError and its kinds."""
    return parse_ctxrc(read_text(path), path=str(path), types=types)


def parse_ctxrc(text: str, *, path: str, types: Collection[str] = tuple(PROFILES)) -> CtxConfig:
    """``text`` as the content of ``path``, whose directory relative model paths are relative to."""
    return read_document(text, path=path, types=types).config


def read_text(path: Path) -> str:
    """The characters of the file as they stand, line ends and byte order mark included. Raises ConfigError."""
    try:
        # Looked at first, since opening a pipe waits for its writer.
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            what = "is a directory" if stat.S_ISDIR(mode) else "is no regular file"
            raise ConfigError(f"{what}; a {FILE_NAME} is a text file", path=str(path))
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_SIZE + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", path=str(path)) from error
    except ValueError:  # a NUL in the path
        raise ConfigError("is no path of a file", path=ascii(str(path))) from None
    if len(data) > MAX_FILE_SIZE:
        raise ConfigError(f"is larger than {MAX_FILE_SIZE} bytes; is it the right file?", path=str(path))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        start = error.start
    # Raised out here, so that the decoder's error, which holds all of the file, does not travel along as __context__.
    raise ConfigError("is not UTF-8 text", path=str(path), line=data.count(b"\n", 0, start) + 1)


# --- YAML ---------------------------------------------------------------------------------------------

_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"


class Mark(Protocol):
    index: int
    line: int
    column: int


class Node(Protocol):
    """What is used of ruamel.yaml's nodes. ``id``: scalar, sequence or mapping; ``value``: str, list, list of pairs."""

    id: str
    tag: str
    value: Any
    start_mark: Mark
    end_mark: Mark
    style: str | None
    flow_style: bool | None


Pair = tuple[Node, Node]


@attrs.frozen(kw_only=True)
class Entry:
    """One item of ``backends``: its node, the fields that it gives (merge keys resolved), and what they make."""

    node: Node
    fields: Mapping[str, Any]
    config: BackendConfig


@attrs.frozen(kw_only=True)
class Document:
    """A file that was read: the values, and the nodes with their places in the text (less a byte order mark)."""

    config: CtxConfig
    root: Node | None
    keys: Mapping[str, Pair]
    entries: tuple[Entry, ...]


def read_document(text: str, *, path: str, types: Collection[str]) -> Document:
    return _Reader(path, types).document(text)


def _compose(text: str, path: str) -> Node | None:
    # Composed, not constructed: nodes know their places, an alias costs nothing however often it is nested, foreign
    # values are never turned into objects, and a duplicate key in a foreign value stays that program's business.
    from ruamel.yaml import YAML  # noqa: PLC0415  # only who reads a file pays for it
    from ruamel.yaml.composer import MaxDepthExceededError  # noqa: PLC0415
    from ruamel.yaml.error import MarkedYAMLError  # noqa: PLC0415
    from ruamel.yaml.reader import ReaderError  # noqa: PLC0415

    yaml = YAML(typ="safe", pure=True)
    yaml.max_depth = _MAX_DEPTH
    yaml.composer.warn_double_anchors = False
    line: int | None = None
    try:
        root: Node | None = yaml.compose(text)
        return root
    except MaxDepthExceededError as error:
        line, problem = error.problem_mark.line + 1, f"more than {_MAX_DEPTH} levels of nesting"
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, problem = mark.line + 1, _yaml_problem(text, mark, error.problem, error.context)
    except ReaderError as error:
        line, problem = text.count("\n", 0, error.position) + 1, "not valid YAML: a control character"
    except Exception:
        # Hostile escapes and directives end in chr(), int(), assert or a missing key in ruamel.yaml, without a place.
        problem = "not valid YAML: a directive or an escape that cannot be read"
    # Raised out here: ruamel.yaml's error prints lines of the file, so it does not travel along as __context__.
    raise ConfigError(problem, path=path, line=line)


def _yaml_problem(text: str, mark: Mark, problem: str | None, context: str | None) -> str:
    if text[mark.index : mark.index + 1] == "\t":
        return "not valid YAML: a tab where only spaces may stand"
    # ruamel.yaml quotes what it took from the file, and nothing else in these sentences comes from there.
    said = [part for part in (context, problem) if part and "'" not in part and '"' not in part]
    return ", ".join([f"not valid YAML, column {mark.column + 1}", *said])


def is_text(node: Node) -> bool:
    return _is(node, "scalar", "str")


def _is(node: Node, kind: str, tag: str) -> bool:
    # Both, since a tag can be written in front of anything: !!map foo
    return node.id == kind and node.tag == _TAG + tag


def _text(node: Node) -> str:
    if not is_text(node):
        raise ValueError("must be a text; write it in quotes if it looks like something else")
    return str(node.value)


def _duration(node: Node) -> float:
    # A number goes the same way as a text: the sentence about its missing unit is the one that helps.
    if node.id != "scalar" or node.tag not in (_TAG + "str", _TAG + "int", _TAG + "float"):
        raise ValueError(f"must be a duration; {_DURATION_HINT}")
    return parse_duration(node.value)


def _count(node: Node) -> int:
    if not _is(node, "scalar", "int") or not re.fullmatch("[0-9]{1,10}", node.value):
        raise ValueError(f"must be a whole number from 1 to {_MAX_COUNT}, without quotes")
    return int(node.value)


def _flag(node: Node) -> bool:
    if not _is(node, "scalar", "bool") or node.value not in ("true", "false"):
        raise ValueError("must be true or false, without quotes")
    return bool(node.value == "true")


_FIELDS: Mapping[str, Callable[[Node], Any]] = MappingProxyType(
    {
        **dict.fromkeys(("name", "type", "endpoint", "api_key_env"), _text),
        **dict.fromkeys(("default_model", "model_mismatch", "model_path"), _text),
        **dict.fromkeys(_DURATIONS, _duration),
        **dict.fromkeys(_COUNTS, _count),
        "embeddings": _flag,
    }
)
_SECRET_MEMBERS = frozenset({"apikey", "key", "token", "apitoken", "accesstoken", "authtoken", "secret", "password"})


class _Reader:
    """Walks the nodes of one text; every error it raises says where."""

    def __init__(self, path: str, types: Collection[str]) -> None:
        self._path = path
        self._types = types

    def document(self, text: str) -> Document:
        root = _compose(text.removeprefix("\ufeff"), self._path)
        config = CtxConfig(path=Path(self._path))
        if root is None or _is(root, "scalar", "null"):
            return Document(config=config, root=root, keys={}, entries=())
        if not _is(root, "mapping", "map"):
            raise self._error("the file must hold keys and values, such as backends:", None, root)
        keys: dict[str, Pair] = {}
        for mapping in self._mappings(root, None):
            for key, value in mapping.value:
                if is_text(key) and mapping is root:
                    if key.value in keys:
                        raise self._error("is given twice", _name_shown(key.value), key)
                    keys[key.value] = (key, value)
                elif is_text(key) and key.value in ("backends", "default_backend"):
                    keys.setdefault(key.value, (key, value))
        entries = self._entries(*keys["backends"]) if "backends" in keys else ()
        backends = tuple(entry.config for entry in entries)
        default = self._default(*keys["default_backend"], backends) if "default_backend" in keys else None
        config = attrs.evolve(config, backends=backends, default_backend=default)
        return Document(config=config, root=root, keys=keys, entries=entries)

    def _entries(self, key: Node, value: Node) -> tuple[Entry, ...]:
        if _is(value, "scalar", "null"):
            return ()
        if not _is(value, "sequence", "seq"):
            raise self._error('must be a list, each item beginning with "- name:"', "backends", key, value)
        entries: dict[str, Entry] = {}
        for index, node in enumerate(value.value):
            where = f"backends[{index}]"
            if not _is(node, "mapping", "map"):
                raise self._error("must hold keys and values, such as name: and type:", where, key, node)
            pairs = self._pairs(node, where)
            entry = self._entry(node, pairs, where)
            name = entry.config.name
            if name in entries:
                line = _line(*pairs["name"])
                raise DuplicateBackendError(_name_shown(name), path=self._path, line=line, key=f"{where}.name")
            entries[name] = entry
        return tuple(entries.values())

    def _pairs(self, node: Node, where: str) -> dict[str, Pair]:
        """The members of an entry. What stands in the entry itself wins over what it merges."""
        pairs: dict[str, Pair] = {}
        for mapping in self._mappings(node, where):
            names: set[str] = set()
            for key, value in mapping.value:
                name = "<<" if key.tag == _MERGE else self._field(key, where)
                if name in names:
                    raise self._error("is given twice", f"{where}.{name}", key)
                names.add(name)
                if name != "<<":
                    pairs.setdefault(name, (key, value))
        return pairs

    def _mappings(self, node: Node, where: str | None) -> Iterator[Node]:
        """The mapping and those of its merge keys, once each, in the order of https://yaml.org/type/merge.html.

        ``where`` is the place of an entry; it is None for the whole file, whose other keys are nobody's business here.
        """
        left, seen = [node], set[int]()
        while left:
            mapping = left.pop()
            if id(mapping) in seen:
                continue
            seen.add(id(mapping))
            yield mapping
            sources: list[Node] = []
            for key, value in mapping.value:
                if key.tag == _MERGE:
                    for source in value.value if value.id == "sequence" else [value]:
                        if _is(source, "mapping", "map"):
                            sources.append(source)
                        elif where is not None:
                            raise self._error("must name a mapping or a list of mappings", f"{where}.<<", key, source)
            left += reversed(sources)
            if len(seen) + len(left) > _MAX_MERGED:
                raise self._error(f"merges more than {_MAX_MERGED} mappings", where, node)

    def _field(self, key: Node, where: str) -> str:
        if not is_text(key):
            raise self._error("the keys of a backend are plain names, such as name: and type:", where, key)
        name = str(key.value)
        if name in _FIELDS:
            return name
        if name != _name_shown(name):
            raise self._error("has a key that does not belong here", where, key)
        if name.lower().replace("-", "").replace("_", "") in _SECRET_MEMBERS:
            problem = "no key stands in this file; put it into an environment variable, and name that in api_key_env"
            raise self._error(problem, f"{where}.{name}", key)
        near = get_close_matches(name, _FIELDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; the keys are {', '.join(_FIELDS)}"
        raise self._error(f"unknown key{hint}", f"{where}.{name}", key)

    def _entry(self, node: Node, pairs: Mapping[str, Pair], where: str) -> Entry:
        fields: dict[str, Any] = {}
        for field, pair in pairs.items():
            try:
                fields[field] = _FIELDS[field](pair[1])
            except ValueError as error:
                raise self._error(str(error), f"{where}.{field}", *pair) from None
        if "name" not in fields:
            raise self._error("is missing", f"{where}.name", node)
        source = "type" if "type" in fields else "name"
        if fields[source] and fields[source] not in self._types:
            unknown = unknown_type(fields[source], self._types, implied=source == "name")
            unknown.path, unknown.line, unknown.key = self._path, _line(*pairs[source]), f"{where}.{source}"
            raise unknown
        if fields.get("model_path"):
            fields["model_path"] = resolve_model_path(fields["model_path"], self._path)
        try:
            config = BackendConfig(**{"type": fields["name"], **fields})
        except ConfigError as error:
            place = pairs.get(error.key or "", (node,))
            error.path, error.line, error.key = self._path, _line(*place), f"{where}.{error.key}"
            raise
        return Entry(node=node, fields=fields, config=config)

    def _default(self, key: Node, value: Node, backends: tuple[BackendConfig, ...]) -> str:
        if not is_text(value) or not value.value:
            raise self._error("must be the name of a backend; leave it out for none", "default_backend", key, value)
        names = [config.name for config in backends]
        if value.value not in names:
            name = _name_shown(value.value)
            raise UnknownBackendError(name, names, path=self._path, line=_line(key, value), key="default_backend")
        return str(value.value)

    def _error(self, problem: str, key: str | None, *pair: Node) -> ConfigError:
        return ConfigError(problem, path=self._path, line=_line(*pair), key=key)


def _line(key: Node, value: Node | None = None) -> int:
    # An empty value has the place of whatever comes next, lines further down.
    place = key if value is None or value.start_mark.index == value.end_mark.index else value
    return place.start_mark.line + 1


def resolve_model_path(model_path: str, path: str) -> str:
    """A model's path as ``path`` names it: ``~`` is the home directory, relative is relative to that file."""
    if _unsafe(model_path):  # refused by BackendConfig; Python's path functions cut at NUL
        return model_path
    return os.path.abspath(os.path.join(os.path.dirname(path), os.path.expanduser(model_path)))
