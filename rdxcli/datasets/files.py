"""Image files below a folder: which files are images, and what was left out and why."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from PIL import Image, UnidentifiedImageError

from rdxcli.datasets.addresses import address
from rdxcli.datasets.words import escaped
from rdxcli.errors import UsageError, did_you_mean
from rdxcli.places import cache_root

EXTENSIONS = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".bmp", ".dib"),
        *(".tif", ".tiff", ".webp", ".gif", ".jp2", ".j2k", ".jpx", ".tga", ".ico", ".pcx", ".sgi", ".avif", ".mpo"),
        *(".psd", ".dds"),
    }
)
"""File name endings that are images, compared without case."""

_MAGIC = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  "),
    *(b"P1\n", b"P2\n", b"P3\n", b"P4\n", b"P5\n", b"P6\n", b"Pf\n", b"8BPS"),
)
_SAFE = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "PSD", "WEBP", "AVIF")
_NEVER = {".dng", ".nef", ".cr2", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".svs", ".ndpi", ".scn"}
"""Written like TIFF, but what Pillow reads of them is a thumbnail, or gigabytes."""
_SIDECARS = {"__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "@eadir", "$recycle.bin"}
_MANY = 1000  # images from which on the list of a folder is kept
_QUIET = 2_000_000_000  # nanoseconds: what changed so shortly before may change again within one tick of its clock
_TRIED = 50  # files of one unusual ending that are looked into before the rest of that ending is passed over


@dataclass(frozen=True)
class Walk:
    """Images below a folder.

    Attributes
    ----------
    names : list of str
        Paths relative to the folder, with ``/``, sorted as text.
    left_out : mapping of str to int
        Number of entries by reason.
    """

    names: list[str]
    left_out: Mapping[str, int]

    def left_out_line(self) -> str:
        """What was left out, for people: ``3 hidden, 5 .txt``; empty when nothing was."""
        return ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())


def walk(root: str) -> Walk:
    """Every image below ``root``.

    An image is what has a usual ending, or what Pillow opens whatever its ending. Hidden and sidecar files are none.
    Links to folders are followed unless they lead back to a folder they lie in, also one above ``root``. A pipe or a
    socket with an image's ending counts as an image, which then fails by name.

    Of a large folder the list is kept in the cache, with the times of all folders in it: as long as these are what they
    were nothing can have come or gone.
    """
    memory = cache_root() / "folders" / f"{hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:32]}.json"
    known = _remembered(root, memory)
    if known is not None:
        return known
    begun = time.time_ns()
    folders: dict[str, list[int]] = {}
    names: list[str] = []
    odd: dict[str, list[str]] = {}
    left_out: Counter[str] = Counter()

    def visit(folder: str, prefix: str, above: frozenset[tuple[int, int]]) -> None:
        try:
            folders[prefix] = _stamp(folder)
            entries = list(os.scandir(folder))
        except OSError:
            folders[prefix] = []
            left_out["folders that cannot be read"] += 1
            return
        for entry in entries:
            name = entry.name
            if is_hidden(name):
                left_out["hidden"] += 1
                continue
            ending = os.path.splitext(name)[1].lower()
            try:
                is_folder = entry.is_dir()
            except OSError:
                is_folder = False
            if is_folder:
                stat = entry.stat()
                key = (stat.st_dev, stat.st_ino)
                if key in above:
                    left_out["links to a folder above"] += 1
                else:
                    visit(entry.path, f"{prefix}{name}/", above | {key})
            elif ending in EXTENSIONS:
                names.append(prefix + name)
            elif _is_file(entry):
                odd.setdefault(ending, []).append(prefix + name)
            else:
                left_out["pipes, sockets, devices and broken links"] += 1

    real = os.path.realpath(root)
    stats = [os.stat(folder) for folder in (real, *map(str, Path(real).parents))]
    visit(root, "", frozenset((stat.st_dev, stat.st_ino) for stat in stats))
    looked = {name: _stamp(os.path.join(root, name)) for files in odd.values() for name in files}
    for ending, files in odd.items():
        files.sort()
        found = [] if ending in _NEVER else [name for name in files[:_TRIED] if is_image(os.path.join(root, name))]
        if found:
            found += [name for name in files[_TRIED:] if is_image(os.path.join(root, name))]
        names += found
        if len(files) > len(found):
            left_out[escaped(ending) or "without an ending"] += len(files) - len(found)
    names.sort()
    quiet = all(stamp and max(stamp[:2]) < begun - _QUIET for stamp in (*folders.values(), *looked.values()))
    if len(names) >= _MANY and quiet:
        _remember(memory, {"folders": folders, "looked": looked, "names": names, "left_out": left_out})
    return Walk(names, left_out)


def _stamp(path: str) -> list[int]:
    """What changes when something comes into a folder or goes, or when a file is written."""
    found = os.stat(path)
    return [found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _remembered(root: str, memory: Path) -> Walk | None:
    try:
        kept = json.loads(memory.read_text("utf-8"))
        for name, stamp in (*kept["folders"].items(), *kept["looked"].items()):
            if _stamp(os.path.join(root, name)) != stamp:
                return None
        return Walk(kept["names"], kept["left_out"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _remember(memory: Path, content: Mapping[str, object]) -> None:
    temporary = memory.with_name(f"{memory.name}.{os.getpid()}.tmp")
    with suppress(OSError, ValueError):  # a cache that cannot be written to costs time and nothing else
        memory.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content), "utf-8")
        os.replace(temporary, memory)


def sift(names: Iterable[str]) -> Walk:
    """The images among the files of an archive or of a folder elsewhere, by their endings."""
    kept: list[str] = []
    left_out: Counter[str] = Counter()
    for name in names:
        *folders, base = name.split("/")
        ending = os.path.splitext(base)[1].lower()
        if is_hidden(base) or any(is_hidden(folder) for folder in folders if folder not in ("", ".", "..")):
            left_out["hidden"] += 1
        elif ending in EXTENSIONS:
            kept.append(name)
        else:
            left_out[escaped(ending) or "without an ending"] += 1
    return Walk(sorted(kept), left_out)


def is_hidden(name: str) -> bool:
    """Whether a file is what systems leave beside images: ``.x``, ``._x``, ``Thumbs.db``, ``__MACOSX``."""
    return name.startswith(".") or name.lower() in _SIDECARS


def looks_like_image(head: bytes) -> bool:
    """Whether a file may be an image by its first 16 bytes."""
    return head.startswith(_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or head[4:12] == b"ftypavif"


def is_image(path: str) -> bool:
    """Whether Pillow opens a file; decided by its first bytes, then by its header."""
    try:
        with open(path, "rb") as stream:
            if not looks_like_image(stream.read(16)):
                return False
            stream.seek(0)
            Image.init()
            # a Pillow that was built without one of them does not know its name
            with Image.open(stream, formats=[kind for kind in _SAFE if kind in Image.OPEN]):
                return True
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def with_options(text: str, allowed: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """``PATH?key=value&key=value`` taken apart; a question mark in the name of an existing file does not separate.

    Raises `UsageError` (a key that is not ``allowed``).
    """
    path, mark, query = text.rpartition("?")
    if not mark or "=" not in query or os.path.exists(os.path.expanduser(text)):
        return text, {}
    options = dict(parse_qsl(query, keep_blank_values=True))
    if address(text) is not None and not set(options) & set(allowed):
        return text, {}  # it belongs to the address
    for key in options:
        if key not in allowed:
            hint = did_you_mean(key, allowed, f"it takes {', '.join(allowed)}")
            raise UsageError(f"{path} takes no `{key}`", hint)
    return path, options
