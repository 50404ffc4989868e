"""Archives unpacked as if they were hostile.

Nothing is handed to an archive library's own ``extractall``. Every member is judged by its name and type, its bytes are
counted while they are written, and each file is created anew below a fresh folder that holds no links. Links inside an
archive become copies of the file they point to; a link that points elsewhere, a device, a pipe, an absolute name or a
name with ``..`` refuses the whole archive. The caller renames the folder when all of it is there.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from threading import Event
from typing import IO, Any, Literal

from rdxcli.errors import RdxError

from .expected import Stopped

Format = Literal["zip", "tar", "tgz", "gz"]
MOST_MEMBERS = 5_000_000
_CHUNK = 1 << 20
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    gzip.BadGzipFile,
    lzma.LZMAError,
    EOFError,
    struct.error,
    NotImplementedError,
    RuntimeError,
    UnicodeError,
    ValueError,
    OverflowError,
)


class ArchiveError(RdxError):
    """An archive is damaged, too large, or tries to write outside its folder."""


@dataclass(frozen=True)
class Entry:
    """A file that was unpacked: path relative to the folder (with ``/``), bytes, SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class _Member:
    name: str
    kind: Literal["file", "folder", "link", "refused"]
    size: int
    open: Callable[[], IO[bytes]] | None = None
    target: str = ""
    what: str = ""


def unpack(
    archive: Path,
    folder: Path,
    form: Format,
    *,
    limit: int,
    strip: int = 0,
    only: Sequence[str] = (),
    whole: bool = False,
    stop: Event | None = None,
    advance: Callable[[int], None] = lambda steps: None,
) -> list[Entry]:
    """Unpack ``archive`` into ``folder``, which must not exist yet.

    Raises `ArchiveError` (damaged, hostile, larger than ``limit``, or without any wanted file) or `OSError` (the disk
    is full or cannot be written).

    Parameters
    ----------
    form : str
        ``zip``, ``tar``, ``tgz`` (gzip, bzip2, xz) or ``gz`` (one file; its name without ``.gz``).
    limit : int
        Most bytes that may be written.
    strip : int
        Leading folders to drop from each name; members above them are left out.
    only : sequence of str
        Glob patterns of the names that are wanted (after stripping); empty for all.
    whole : bool
        Whether a hash has shown that the archive is the published one. Otherwise a tar without its end mark is refused:
        it may have been cut.
    stop : Event, optional
        When set, `Stopped` is raised.
    advance : callable
        Told the bytes of the archive as they are read.

    Returns
    -------
    list of Entry
        In the archive's order.
    """
    folder.mkdir(parents=True)
    unpacking = _Unpacking(archive, folder, limit, strip, tuple(only), stop or Event())
    try:
        with open(archive, "rb") as raw:
            counted: Any = _Counting(raw, advance)
            if form == "gz":
                unpacking.single(counted)
            elif form == "zip":
                with zipfile.ZipFile(counted) as opened:
                    unpacking.all(_zip_members(opened))
            else:
                # a stream is read once from front to back, so compression costs no seeking
                with tarfile.open(fileobj=counted, mode="r:" if form == "tar" else "r:*") as opened_tar:
                    unpacking.all(_tar_members(opened_tar))
                    _check_end(archive, opened_tar, whole)
    except ArchiveError:
        raise
    except _BROKEN as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise ArchiveError(f"{archive.name} is no intact {form} archive: {text[:160]}") from None
    return unpacking.finish()


class _Unpacking:
    def __init__(self, archive: Path, folder: Path, limit: int, strip: int, only: tuple[str, ...], stop: Event) -> None:
        self.archive, self.folder, self.limit = archive, folder, limit
        self.strip, self.only, self.stop = strip, only, stop
        self.written = 0
        self.count = 0
        self.entries: dict[str, Entry] = {}
        self.links: dict[str, str] = {}
        self.folders: set[str] = set()

    def refuse(self, name: str, why: str) -> ArchiveError:
        shown = name.encode("unicode_escape").decode()[:120]
        return ArchiveError(f"{self.archive.name} was refused: the member `{shown}` {why}; nothing was unpacked")

    def all(self, members: Iterator[_Member]) -> None:
        for member in members:
            if self.stop.is_set():
                raise Stopped
            self.count += 1
            if self.count > MOST_MEMBERS:
                raise ArchiveError(f"{self.archive.name} was refused: more than {MOST_MEMBERS} members")
            path = self._judge(member)
            if path is None:
                continue
            if member.kind == "folder":
                self._folder(path, member.name)
            elif member.kind == "link":
                self._link(path, member)
            elif member.kind == "file" and member.open is not None:
                with member.open() as stream:
                    self._file(path, member, stream)

    def single(self, stream: Any) -> None:
        """One gzip-compressed file."""
        name = self.archive.name.removesuffix(".gz")
        with gzip.GzipFile(fileobj=stream) as opened:
            self._file(name, _Member(name, "file", -1), opened)

    def finish(self) -> list[Entry]:
        for name, target in self.links.items():
            final, hops = target, 0
            while final in self.links:
                final, hops = self.links[final], hops + 1
                if hops > 40:
                    raise self.refuse(name, "is a link that leads in a circle")
            if final not in self.entries:
                raise self.refuse(name, f"is a link to `{target}`, which is no file of the archive")
            entry = self.entries[final]
            self._count(name, entry.size)
            self._parents(name, name)
            shutil.copyfile(self.folder / final, self.folder / name)
            self.entries[name] = Entry(name, entry.size, entry.sha256)
        if not self.entries:
            wanted = f" that match {', '.join(self.only)}" if self.only else ""
            raise ArchiveError(f"{self.archive.name} holds no files{wanted}")
        return list(self.entries.values())

    def _judge(self, member: _Member) -> str | None:
        """The path to write relative to the folder; None when the member is not wanted."""
        name = member.name
        if member.kind == "refused":
            raise self.refuse(name, member.what)
        path = self._clean(name, name)
        parts = path.split("/") if path else []
        if parts and (parts[0] == "__MACOSX" or parts[-1] == ".DS_Store" or parts[-1].startswith("._")):
            return None  # what a Mac adds
        kept = "/".join(parts[self.strip :])
        if not kept:
            if member.kind == "file" and not parts:
                raise self.refuse(name, "has an empty name")
            return None
        if self.only and member.kind != "folder" and not any(fnmatchcase(kept, pattern) for pattern in self.only):
            return None
        return None if self.only and member.kind == "folder" else kept

    def _clean(self, text: str, name: str) -> str:
        if "\0" in text or any(ord(character) < 32 for character in text):
            raise self.refuse(name, "has control characters in its name")
        if "\\" in text:
            raise self.refuse(name, "has a backslash in its name")
        if text.startswith("/") or re.match(r"[A-Za-z]:", text):
            raise self.refuse(name, "has an absolute name")
        parts = [part for part in text.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise self.refuse(name, "points above its folder")
        if any(len(os.fsencode(part)) > 255 for part in parts) or len(parts) > 64:
            raise self.refuse(name, "has a name that is too long")
        return "/".join(parts)

    def _count(self, name: str, size: int) -> None:
        self.written += size
        if self.written > self.limit:
            raise self.refuse(name, f"brings it above {self.limit} bytes, the limit of its recipe")

    def _folder(self, path: str, name: str) -> None:
        if path in self.entries or path in self.links:
            raise self.refuse(name, "is a folder and a file")
        if path not in self.folders:
            self._parents(path, name)
            (self.folder / path).mkdir(exist_ok=True)
            self.folders.add(path)

    def _parents(self, path: str, name: str) -> None:
        parent = path.rpartition("/")[0]
        if not parent or parent in self.folders:
            return
        for ancestor in [*PurePosixPath(parent).parents, PurePosixPath(parent)]:
            text = ancestor.as_posix()
            if text in self.entries or text in self.links:
                raise self.refuse(name, f"lies in `{text}`, which is a file")
        (self.folder / parent).mkdir(parents=True, exist_ok=True)
        self.folders.add(parent)

    def _link(self, path: str, member: _Member) -> None:
        if path in self.entries or path in self.folders:
            raise self.refuse(member.name, "occurs twice, as a link and as something else")
        target = member.target
        if target.startswith("/") or re.match(r"[A-Za-z]:", target) or "\\" in target or "\0" in target:
            raise self.refuse(member.name, "is a link out of the archive")
        resolved: list[str] = []
        for part in target.split("/"):
            if part in ("", "."):
                continue
            if part == "..":
                if not resolved:
                    raise self.refuse(member.name, "is a link out of the archive")
                resolved.pop()
            else:
                resolved.append(part)
        kept = "/".join(resolved[self.strip :])
        if not kept:
            raise self.refuse(member.name, "is a link to a folder")
        self.links[path] = kept

    def _file(self, path: str, member: _Member, stream: IO[bytes] | gzip.GzipFile) -> None:
        if path in self.folders or path in self.links:
            raise self.refuse(member.name, "occurs twice, as a file and as something else")
        self._parents(path, member.name)
        place = self.folder / path
        if path in self.entries:
            # a tar may hold a file twice: the last one counts
            self.written -= self.entries[path].size
            place.unlink()
        if member.size > self.limit - self.written:
            self._count(member.name, member.size)
        digest, size = hashlib.sha256(), 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with open(os.open(place, flags, 0o644), "wb") as out:
            while chunk := stream.read(_CHUNK):
                if self.stop.is_set():
                    raise Stopped
                self._count(member.name, len(chunk))
                size += len(chunk)
                digest.update(chunk)
                out.write(chunk)
        if member.size >= 0 and size != member.size:
            raise ArchiveError(
                f"{self.archive.name} is no intact archive: `{member.name}` has {size} bytes, not {member.size}"
            )
        self.entries[path] = Entry(path, size, digest.hexdigest())


def _tar_members(opened: tarfile.TarFile) -> Iterator[_Member]:
    for member in opened:
        if member.isdir():
            yield _Member(member.name, "folder", 0)
        elif member.isreg():
            yield _Member(member.name, "file", member.size, lambda member=member: _opened(opened, member))  # type: ignore[misc]
        elif member.issym():
            # relative to the folder of the link; a hard link is relative to the archive
            base = member.name.rpartition("/")[0]
            absolute = member.linkname.startswith("/")
            target = member.linkname if absolute or not base else f"{base}/{member.linkname}"
            yield _Member(member.name, "link", 0, target=target)
        elif member.islnk():
            yield _Member(member.name, "link", 0, target=member.linkname)
        else:
            kind = "device" if member.ischr() or member.isblk() else "pipe" if member.isfifo() else "special file"
            yield _Member(member.name, "refused", 0, what=f"is a {kind}")
        # the library keeps every header it has seen, which is gigabytes for millions of images
        opened.members.clear()  # type: ignore[attr-defined]


def _check_end(archive: Path, opened: Any, whole: bool) -> None:
    """The library stops without a word at a damaged or missing header: look at what it stopped at."""
    opened.fileobj.seek(opened.offset)
    block = opened.fileobj.read(tarfile.BLOCKSIZE)
    if any(block) or (len(block) < tarfile.BLOCKSIZE and not whole):
        raise ArchiveError(f"{archive.name} is no intact tar archive: it breaks off at byte {opened.offset}")
    while opened.fileobj.read(_CHUNK):
        pass  # to the end, where the checksum of the compression is


def _opened(opened: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = opened.extractfile(member)
    if stream is None:
        raise tarfile.ReadError(f"no data for {member.name}")
    return stream


def _zip_members(opened: zipfile.ZipFile) -> Iterator[_Member]:
    seen: set[str] = set()
    for info in opened.infolist():
        # the library rewrites names with a zero byte or, on Windows, backslashes: judge what the archive says
        name = info.orig_filename
        mode = info.external_attr >> 16
        kind = stat.S_IFMT(mode)
        if name in seen:
            yield _Member(name, "refused", 0, what="occurs twice")
        seen.add(name)
        if info.flag_bits & 0x1:
            yield _Member(name, "refused", 0, what="is encrypted")
        elif name.endswith("/") or kind == stat.S_IFDIR:
            yield _Member(name, "folder", 0)
        elif kind == stat.S_IFLNK:
            if info.file_size > 4096:
                yield _Member(name, "refused", 0, what="is a link with too long a target")
            target = opened.read(info).decode("utf-8", "surrogateescape")
            base = name.rpartition("/")[0]
            yield _Member(name, "link", 0, target=target if target.startswith("/") or not base else f"{base}/{target}")
        elif kind not in (0, stat.S_IFREG):
            yield _Member(name, "refused", 0, what="is a special file")
        else:
            yield _Member(name, "file", info.file_size, lambda info=info: opened.open(info))  # type: ignore[misc]


class _Counting:
    """A binary file that tells how far it has been read for the first time."""

    def __init__(self, raw: IO[bytes], advance: Callable[[int], None]) -> None:
        self._raw, self._advance, self._furthest = raw, advance, 0

    def read(self, size: int = -1) -> bytes:
        data = self._raw.read(size)
        here = self._raw.tell()
        # the directory at the end of a zip is read first: only steady reading counts
        if self._furthest < here <= self._furthest + max(len(data), 1) + (1 << 22):
            self._advance(here - self._furthest)
            self._furthest = here
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._raw.close()

    @property
    def closed(self) -> bool:
        return self._raw.closed


__all__ = ["MOST_MEMBERS", "ArchiveError", "Entry", "unpack"]
