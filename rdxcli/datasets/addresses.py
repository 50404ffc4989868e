"""Files that are not on this machine: ``s3://``, ``gs://``, ``https://``, ``hf://``, ``memory://``, and inside of zips.

Everything that names a file or a folder may name one elsewhere, by its address. Arrays, tables and lists are copied to
the cache once for each version of them (`local_copy`); images and shards are read where they are, a piece at a time
(`Place`). What tells versions apart is what the server says: a tag or hash, else size and time.

The packages that speak to a kind of storage are those of fsspec, which also finds keys and settings as their users know
them: ``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, ``FSSPEC_S3_ANON=true`` and so on.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TypeVar

from rdxcli.errors import DependencyError, InputError, MissingDataError, RdxError, without_passwords
from rdxcli.places import cache_root
from rdxcli.progress import human_bytes, log

# scheme -> the package that speaks it, and the extra of rdx that brings it
_PACKAGES: dict[str, tuple[str, str | None]] = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gs"),
    "gcs": ("gcsfs", "gs"),
    "az": ("adlfs", None),
    "abfs": ("adlfs", None),
    "http": ("aiohttp", None),
    "https": ("aiohttp", None),
    "hf": ("huggingface_hub", None),
    "memory": ("fsspec", None),
    "ftp": ("fsspec", None),
    "sftp": ("paramiko", None),
}
SCHEMES = tuple(f"{scheme}://" for scheme in _PACKAGES)
_ADDRESS = re.compile(rf"zip://.*?::.|(?:{'|'.join(_PACKAGES)})://.", re.I | re.S)
_VERSIONS = ("ETag", "etag", "e_tag", "md5Hash", "crc32c", "Content-MD5", "Digest", "blob_id", "CRC", "content_md5")
_TIMES = ("Last-Modified", "LastModified", "last_modified", "mtime", "updated", "created", "date_time")
TRIES, PAUSE = 3, 0.5
_BLOCK = 2**16
AT_ONCE = 16
"""Files that are asked for at once: a server answers slowly, and many at a time."""
_KEYS = {
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; for public data FSSPEC_S3_ANON=true",
    "gs": "sign in with `gcloud auth application-default login`; for public data FSSPEC_GS_TOKEN=anon",
    "hf": "sign in with `hf auth login`, or set HF_TOKEN",
}
_complete: dict[str, str] = {}
"""Addresses with their passwords by what is said and written of them, for as long as the process lives."""

Given = TypeVar("Given")
Answer = TypeVar("Answer")


def address(given: str | Path) -> str | None:
    """The address that ``given`` is, or None when it is a path of this machine.

    A `Path` loses one of the two slashes of an address, which is given back.
    """
    text = with_slashes(given) if isinstance(given, Path) else str(given)
    return _complete.get(text, text) if _ADDRESS.match(text) else None


def with_slashes(given: Path) -> str:
    """What was typed before it became a path, which keeps one of the slashes of an address."""
    return re.sub(rf"(^|::|^[a-z]+:)(zip|{'|'.join(_PACKAGES)}):/(?=[^/])", r"\1\2://", str(given))


def archive(given: str | Path) -> str | None:
    """The address of what lies in a zip archive, here or elsewhere; None when ``given`` names none."""
    text = address(given) or str(given)
    if not _base(text).lower().endswith(".zip") or "::" in text:
        return None
    return f"zip://::{text if address(text) else Path(text).expanduser().absolute()}"


def localised(given: Given) -> Given:
    """``given`` with every address in it replaced by a local copy: text (``s3://b/a.npz:key``), paths, lists."""
    if isinstance(given, list | tuple):
        return type(given)(map(localised, given))  # type: ignore[return-value]
    if not isinstance(given, str | Path) or (found := address(given)) is None:
        return given
    folder, _, name = found.rpartition("/")
    name, colon, key = name.partition(":") if "?" not in name and "::" not in found else (name, "", "")
    copy = local_copy(f"{folder}/{name}")
    return type(given)(f"{copy}{colon}{key}")  # type: ignore[return-value, call-arg]


def whole(given: str | Path) -> str:
    """An absolute path, or an address without a password: what opens a file again, in this process or with keys."""
    where = address(given)
    if where is None:
        return str(Path(given).expanduser().resolve())
    shown = without_passwords(where)
    if shown != where:
        _complete[shown] = where
    return shown


@dataclass(frozen=True)
class Place:
    """A file, on this machine or elsewhere.

    Parameters
    ----------
    text : str
        Path or address.
    known : mapping, optional
        What its server said of it when a folder was listed.
    system : tuple of file system and path, optional
        Where it was listed; archives are opened once.
    """

    text: str
    known: Mapping[str, Any] | None = None
    system: tuple[Any, str] | None = None

    @property
    def remote(self) -> bool:
        return address(self.text) is not None

    @property
    def name(self) -> str:
        """Its last part."""
        return _base(self.text)

    @property
    def stem(self) -> str:
        return self.name.rpartition(".")[0] or self.name

    @cached_property
    def info(self) -> Mapping[str, Any]:
        """Size in bytes, and what tells versions apart."""
        if self.known is not None:
            return self.known
        if not self.remote:
            found = os.stat(self.text)
            return {"size": found.st_size, "mtime": found.st_mtime_ns}
        return self._asked(lambda system, path: system.info(path))

    @property
    def size(self) -> int | None:
        size = self.info.get("size")
        return None if size is None else int(size)

    @property
    def version(self) -> str | None:
        """What changes when the file does; None when its server does not say."""
        return version_of(self.info)

    def read(self, start: int = 0, size: int | None = None) -> bytes:
        """Some bytes, or all. Raises `InputError` (there are fewer, or the server gives others than were asked for)."""
        end = None if size is None else start + size
        if not self.remote:
            if not os.path.isfile(self.text) and os.path.exists(self.text):
                raise InputError(f"{self.text} is no file")
            with open(self.text, "rb") as stream:
                stream.seek(start)
                data = stream.read() if size is None else stream.read(size)
        elif start == 0 and size is None:
            data = self._asked(lambda system, path: system.cat_file(path))
        else:
            data = self._asked(lambda system, path: system.cat_file(path, start=start, end=end))
        if size is not None and len(data) != size:
            raise InputError(f"{self.text}: got {len(data)} bytes from {start} on, expected {size}")
        return data

    def open(self) -> IO[bytes]:
        """The file for reading, with a position."""
        if not self.remote:
            return open(self.text, "rb")
        return io.BufferedReader(_Stream(self.text, self._asked(lambda system, path: system.open(path, "rb"))), _BLOCK)

    def _asked(self, question: Callable[[Any, str], Answer]) -> Answer:
        return _asked(self.text, question, self.system)


class _Stream(io.RawIOBase):
    """A file elsewhere: a piece that does not come is asked for again, and what is wrong is said as for whole files."""

    def __init__(self, where: str, stream: IO[bytes]) -> None:
        self._where, self._stream = where, stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readinto(self, buffer: Any) -> int:
        start = self.tell()

        def piece(*_: object) -> bytes:
            self.seek(start)
            return self._stream.read(len(buffer))

        data = _asked(self._where, piece, (None, self._where))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def version_of(info: Mapping[str, Any]) -> str | None:
    """What tells versions of a file apart, from what its server says of it."""
    size = info.get("size", "")
    for names in (_VERSIONS, _TIMES):
        known = [str(info[name]) for name in names if info.get(name)]
        if known:
            return f"{size} {known[0]}"
    return None


def ask_all(places: Sequence[Place]) -> None:
    """Ask for the `Place.info` of many files at once; what goes wrong comes out where it is used."""

    def ask(place: Place) -> None:
        with suppress(RdxError, OSError):
            _ = place.info

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(ask, [place for place in places if place.known is None and place.remote]))


def listing(folder: str) -> dict[str, Place]:
    """The files below an address, at any depth, by their path below it, in the order of these.

    Raises `MissingDataError` (nothing is there) or `InputError` (it cannot be listed: web servers keep no lists).
    """
    if folder.lower().startswith(("http://", "https://")):
        raise InputError(
            f"{without_passwords(folder)}: what a web server holds cannot be listed",
            "give a list of addresses (images:LIST.csv), or a tar or zip archive",
        )
    system, path, entries = _asked(folder, lambda system, path: (system, path, system.find(path, detail=True)))
    head = path.rstrip("/") + "/" if path.strip("/") else ""
    chained = folder.partition("::")[2]
    files = {}
    for name, info in entries.items():
        if info.get("type", "file") == "file" and name.startswith(head):
            text = f"zip://{name}::{chained}" if chained else system.unstrip_protocol(name)
            files[name[len(head) :]] = Place(text, info, (system, name))
    if not files:
        raise MissingDataError(f"nothing is at {without_passwords(folder)}")
    return dict(sorted(files.items()))


def glob(pattern: str) -> list[str]:
    """Addresses that fit a pattern, sorted."""
    return _asked(pattern, lambda system, path: sorted(map(system.unstrip_protocol, system.glob(path))))


def local_copy(text: str | Path) -> Path:
    """A copy of the file at an address, in the cache; fetched again when the server has another version.

    Raises `MissingDataError` (no such file) or `InputError` (it cannot be read; no room for it).
    """
    where = address(text) or str(text)
    place = Place(where)
    folder = cache_root() / "fetched" / _digits(where)
    version = place.version
    target = folder / _digits(version or "unknown") / place.name
    if version is not None and target.is_file():
        return target
    shown = without_passwords(where)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise InputError(
            f"{shown} cannot be kept in {folder}: {error.strerror}", "name a folder with RDX_CACHE"
        ) from None
    if place.size is not None and place.size > free:
        raise InputError(
            f"{shown} has {human_bytes(place.size)}, and {folder} has room for {human_bytes(free)}",
            "name a folder with more room with RDX_CACHE",
        )
    log.info("fetching %s%s", shown, f", {human_bytes(place.size)}" if place.size else "")
    temporary = target.with_name(f"{target.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        _asked(where, lambda system, path: system.get_file(path, str(temporary)))
        got = temporary.stat().st_size
        if place.size is not None and got != place.size:
            raise InputError(f"{shown}: got {got} bytes, expected {place.size}", "run the same command again")
        os.replace(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink()
    for other in folder.iterdir():  # older versions
        if other != target.parent:
            shutil.rmtree(other, ignore_errors=True)
    return target


def _asked(where: str, question: Callable[[Any, str], Answer], opened: tuple[Any, str] | None = None) -> Answer:
    """Ask the server of an address; again when it did not answer."""
    scheme = _scheme(where)
    for number in range(TRIES):
        try:
            return question(*(opened or _system(where)))
        except (RdxError, MemoryError):
            raise
        except Exception as error:  # each kind of storage has its own family of errors
            trouble = _trouble(error, where, scheme)
            if trouble is not None:
                raise trouble from None
            if number + 1 == TRIES:
                raise InputError(f"{where} cannot be read: {_words(error, where)}") from None
        time.sleep(PAUSE * 2**number)
    raise AssertionError  # (the last try returns or raises)


def _system(where: str) -> tuple[Any, str]:
    import fsspec.core

    package, extra = _PACKAGES.get(_scheme(where), ("fsspec", None))
    try:
        # proxies are those of the environment, as everywhere
        options = {"client_kwargs": {"trust_env": True}} if _scheme(where) in ("http", "https") else {}
        if where.lower().startswith("zip://"):
            return fsspec.core.url_to_fs(where, **({_scheme(where): options} if options else {}))
        return fsspec.core.url_to_fs(where, **options)
    except ImportError:
        raise DependencyError(package, extra) from None


def _chain(error: BaseException) -> list[BaseException]:
    """An error and what it comes from."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    return chain


def _words(error: BaseException, where: str) -> str:
    """What an error says besides the address."""
    states = [state for item in _chain(error) if isinstance(state := getattr(item, "status", None), int)]
    if states:
        return f"its server answers HTTP {states[0]}"
    text = " ".join(str(error).replace(where, "").split())[:200]
    return text or type(error).__name__


def _trouble(error: BaseException, where: str, scheme: str) -> RdxError | None:
    """What is wrong, when asking again does not help; None when it may."""
    chain = _chain(error)
    kinds = {kind.__name__ for item in chain for kind in type(item).__mro__}
    states = {getattr(item, "status", None) for item in chain}
    if isinstance(error, IsADirectoryError):
        return InputError(f"{where} is a folder, expected a file")
    if kinds & {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"}:
        return InputError(f"{where}: no keys for {scheme}://", _KEYS.get(scheme))
    if isinstance(error, PermissionError) or states & {401, 403}:
        return InputError(f"{where}: access is denied", _KEYS.get(scheme))
    if kinds & {"ClientConnectorError", "EndpointConnectionError", "ConnectError", "ConnectTimeoutError"}:
        return InputError(f"{where} cannot be reached: no answer from its server", "check the address and the network")
    if isinstance(error, FileNotFoundError) and not any(isinstance(s, int) and s >= 500 for s in states):
        return MissingDataError(f"no such file: {where}")
    if kinds & {"BadZipFile"}:
        return InputError(f"{where}: the archive is damaged or no zip")
    return None


def _scheme(where: str) -> str:
    found = re.search(r"(?:^|::)([a-z0-9]+)://(?!.*::)", where, re.I)
    return found[1].lower() if found else ""


def _base(text: str) -> str:
    first = text.partition("::")[0]
    if address(text) is not None:
        first = first.partition("?")[0]
    return first.rstrip("/").rpartition("/")[2] or "data"


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
