"""Tar archives in the WebDataset layout: files that share a stem are one sample.

``cat001.jpg`` is the image, ``cat001.cls`` its class, ``cat001.txt`` its caption; ``cat001.json`` may hold ``label``
and ``caption``. Archives are indexed once by their headers and read in place, never unpacked: also those that lie
elsewhere (``s3://``, ``https://`` ...), of which the index is kept. A compressed one (``.tar.gz`` ...) is decompressed
into the cache once, for in the middle of it nothing can be found.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlencode

import numpy as np

from rdxcli.datasets import addresses
from rdxcli.datasets.addresses import Place, address, whole
from rdxcli.datasets.base import Dataset, folder_name
from rdxcli.datasets.files import EXTENSIONS, is_hidden, looks_like_image, with_options
from rdxcli.datasets.images import CONTENT_LIMIT, ImageSource, decode
from rdxcli.datasets.pixelrange import PixelRange, parse_range
from rdxcli.datasets.tables import require_file
from rdxcli.datasets.words import UNLABELLED, escaped, text_of
from rdxcli.errors import InputError, MissingDataError, RdxError, without_passwords
from rdxcli.lazy import pyarrow as pa
from rdxcli.places import cache_root
from rdxcli.progress import human_bytes, human_count, log

if TYPE_CHECKING:
    from PIL import Image

_NOTES = {"cls", "txt", "json"}
_NOTE_LIMIT = 2**20  # bytes of a class, caption or JSON file that are read
_BLOCK, _LEAST_ROOM = 2**22, 2**29
_COMPRESSED: dict[str, Callable[[Any], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": lambda stream: pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd"),
}
_SHORT = {".gz": ".tgz"}


@dataclass
class _TarEntry:
    archive: int
    offset: int
    size: int
    text: str | None = None  # of a class, caption or JSON file


@dataclass
class _Sample:
    images: dict[str, _TarEntry] = field(default_factory=dict)  # by ending
    notes: dict[str, _TarEntry] = field(default_factory=dict)


class TarImages(ImageSource):
    """Images inside tar archives.

    Parameters
    ----------
    archives : sequence of Place
        Not compressed.
    members : sequence of (archive, offset, size)
        Where each image lies.
    """

    def __init__(
        self, archives: Sequence[Place], members: Sequence[tuple[int, int, int]], pixels: PixelRange | None = None
    ) -> None:
        self.archives, self.members, self.pixels = list(archives), list(members), pixels
        self.waits = any(archive.remote for archive in self.archives)

    def __len__(self) -> int:
        return len(self.members)

    def raw(self, row: int) -> Image.Image:
        archive, offset, size = self.members[row]
        return decode(io.BytesIO(self.archives[archive].read(offset, size)))

    def location(self, row: int) -> str | None:
        return without_passwords(self.archives[self.members[row][0]].text)

    def fingerprint(self, rows: np.ndarray) -> dict[str, Any]:
        digest = hashlib.sha256(repr(self.pixels).encode() if self.pixels is not None else b"")
        versions = {archive: self.archives[archive].version for archive in {self.members[row][0] for row in rows}}
        small = sum(self.members[row][2] for row in rows) <= CONTENT_LIMIT
        by_content = None in versions.values() or (small and not self.waits)
        for row in rows:
            archive, offset, size = self.members[row]
            if by_content:
                digest.update(hashlib.sha256(self.archives[archive].read(offset, size)).digest())
            else:
                digest.update(f"{versions[archive]}:{offset}:{size}\n".encode())
        how = "content" if by_content else "version" if self.waits else "size and time"
        return {"by": how, "sha256": digest.hexdigest()}


def is_tar(location: str) -> bool:
    """Whether a path or an address names a tar archive, compressed or not."""
    return Place(location).name.lower().endswith((".tar", ".tgz", *(f".tar{ending}" for ending in _COMPRESSED)))


def files_in_tar(location: str) -> dict[str, tuple[Place, int, int]]:
    """The files in an archive: where each lies, by its name."""
    (place,) = _archives(location)
    return {name.removeprefix("./"): (place, member.offset, member.size) for name, member in _members(place, 0)}


def tar_images(
    files: Mapping[str, tuple[Place, int, int]], names: Sequence[str], pixels: PixelRange | None
) -> TarImages:
    """Some files of one archive as images."""
    return TarImages([files[names[0]][0]] if names else [], [(0, *files[name][1:]) for name in names], pixels)


def tar(text: str) -> Dataset:
    """``PATH.tar``, a pattern (``shard-*.tar``) or a numbered range (``shard-{000..009}.tar``), compressed or not, here
    or at an address; ``?image=jpg`` chooses one of several images of a sample, ``?range=0,4095`` the range of deep
    ones.

    Raises `MissingDataError` (no such archive) or `InputError` (no tar, or no images in it).
    """
    location, options = with_options(text, ("image", "range"))
    given = _given(location)
    archives = list(map(_plain, given))
    shards: list[dict[str, _Sample]] = []  # a key is a sample of its shard: shards may repeat keys
    left_out: Counter[str] = Counter()
    for number, place in enumerate(archives):
        samples: dict[str, _Sample] = {}
        for name, member in _members(place, number):
            folder, _, base = name.removeprefix("./").rpartition("/")
            if is_hidden(base) or any(is_hidden(part) for part in folder.split("/") if part not in ("", ".", "..")):
                left_out["hidden"] += 1
                continue
            stem, _, ending = base.partition(".")
            key = f"{folder}/{stem}".lstrip("./")
            kind = ending.rpartition(".")[2].lower()
            sample = samples.setdefault(key, _Sample())
            if kind in _NOTES and ending.lower() == kind:
                sample.notes[kind] = member
            elif f".{kind}" in EXTENSIONS or _looks_like_image(place, member):
                if ending.lower() in sample.images:
                    raise InputError(f"{place.text}: the sample `{key}` has more than one image")
                sample.images[ending.lower()] = member
            else:
                left_out[f".{escaped(ending)}" if ending else "without an ending"] += 1
        shards.append(samples)
    chosen = _image_ending(location, [sample for shard in shards for sample in shard.values()], options.get("image"))
    kept: list[tuple[str, _Sample, _TarEntry]] = []
    for place, samples in zip(archives, shards, strict=True):
        for key, sample in samples.items():
            if not sample.images:
                left_out["without an image"] += 1
            elif chosen is not None and chosen not in sample.images:
                left_out[f"without .{chosen}"] += 1
            else:
                member = next(iter(sample.images.values())) if chosen is None else sample.images[chosen]
                kept.append((f"{place.stem}/{key}", sample, member))
    if not kept:
        raise InputError(f"{text} holds no images")
    bare = [name.partition("/")[2] for name, _, _ in kept]
    repeated = len(set(bare)) < len(bare)
    if repeated:
        log.info("%s: keys repeat in several shards; the shard's name stands before them", location)
    if left_out:
        log.info(
            "%s: %s; left out: %s",
            location,
            human_count(len(kept), "image"),
            ", ".join(f"{n} {why}" for why, n in left_out.items()),
        )
    notes = [_notes(sample) for _, sample, _ in kept]
    images = [image for _, _, image in kept]
    query = "?" + urlencode(options) if options else ""
    first = folder_name(given[0].text)
    return Dataset(
        name=first if len(archives) == 1 else f"{first}-{len(archives)}",
        spec=f"tar:{whole(location)}{query}",
        source=TarImages(
            archives,
            [(image.archive, image.offset, image.size) for image in images],
            parse_range(options["range"]) if "range" in options else None,
        ),
        sample_ids=[escaped(name) for name in ([name for name, _, _ in kept] if repeated else bare)],
        labels=_labels(location, notes),
        captions=_captions(location, notes),
    )


def _image_ending(location: str, samples: list[_Sample], wanted: str | None) -> str | None:
    """The ending of the images, when samples have several (``jpg`` and ``seg.png``); None when each has one."""
    endings = list(dict.fromkeys(ending for sample in samples for ending in sample.images))
    if wanted is not None:
        wanted = wanted.lower().lstrip(".")
        if wanted not in endings:
            raise InputError(f"{location} has no images that end in `.{wanted}`, but in {', '.join(endings) or 'none'}")
        return wanted
    if all(len(sample.images) < 2 for sample in samples):
        return None
    raise InputError(
        f"{location}: samples have more than one image, which end in {', '.join(f'.{ending}' for ending in endings)}",
        f"choose one: `tar:{location}?image={min(endings, key=len)}`",
    )


def _labels(location: str, notes: list[dict[str, Any]]) -> list[str] | None:
    labels = [note.get("label") for note in notes]
    missing = sum(label is None for label in labels)
    if missing == len(labels):
        return None
    if missing:
        log.warning(
            "%s: %d of %s have no label; theirs is `%s`",
            location,
            missing,
            human_count(len(labels), "sample"),
            UNLABELLED,
        )
    return [UNLABELLED if label is None else text_of(label) for label in labels]


def _captions(location: str, notes: list[dict[str, Any]]) -> list[list[str]] | None:
    captions = [note.get("caption") for note in notes]
    missing = sum(caption is None for caption in captions)
    if missing == len(captions):
        return None
    if missing:
        log.warning("%s: %d of %s have no caption", location, missing, human_count(len(captions), "sample"))
    return [[] if caption is None else [text_of(caption)] for caption in captions]


def _given(text: str) -> list[Place]:
    """The archives that a path, an address, a pattern or a numbered range names."""
    where = address(text)
    path = where or str(Path(text).expanduser())
    numbered = re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", path)
    if where is None and os.path.exists(path):
        found = [path]
    elif numbered:
        head, begin, end, tail = numbered.groups()
        found = [f"{head}{i:0{len(begin)}d}{tail}" for i in range(int(begin), int(end) + 1)]
    elif where is None:
        found = sorted(glob(path))
    else:
        found = addresses.glob(where) if "*" in where else [where]
    if not found:
        raise MissingDataError(f"no such tar archive: {text}")
    return [Place(name if where else str(require_file(name, "tar archive"))) for name in found]


def _archives(text: str) -> list[Place]:
    return list(map(_plain, _given(text)))


def _plain(place: Place) -> Place:
    """The archive itself, or a decompressed copy of it in the cache that goes by the version of the original."""
    opener = next((_COMPRESSED[e] for e in _COMPRESSED if place.name.lower().endswith((e, _SHORT.get(e, e)))), None)
    if opener is None:
        return place
    version = place.version
    target = cache_root() / "tars" / _digits(place.text, version) / f"{place.stem.removesuffix('.tar')}.tar"
    known = {"size": place.size, "ETag": version}
    if version is not None and target.is_file():
        return Place(str(target), known)
    size = f", {human_bytes(place.size)}" if place.size else ""
    log.info("decompressing %s%s into %s", without_passwords(place.text), size, target.parent)
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with place.open() as packed, opener(packed) as stream, open(temporary, "wb") as out:
            _copy(stream, out, target.parent, place.text)
        os.replace(temporary, target)
    except RdxError:
        raise
    except (OSError, EOFError, lzma.LZMAError, pa.ArrowException, ValueError) as error:
        raise InputError(f"{place.text} cannot be decompressed: {' '.join(str(error).split())[:200]}") from None
    finally:
        with suppress(OSError):
            temporary.unlink()
    return Place(str(target), known)


def _copy(stream: IO[bytes], out: IO[bytes], folder: Path, name: str) -> None:
    """What does not fit is noticed before the disk is full: a few bytes may hide a great many zeros."""
    while block := stream.read(_BLOCK):
        if shutil.disk_usage(folder).free < _LEAST_ROOM:
            raise InputError(
                f"{name}: no room in {folder} for what it holds", "name a folder with more room with RDX_CACHE"
            )
        out.write(block)


def _members(place: Place, number: int) -> list[tuple[str, _TarEntry]]:
    """Names and places of the files in an archive; of one elsewhere the list is kept."""
    memory = cache_root() / "tars" / f"{_digits(place.text, place.version)}.json" if place.remote else None
    if memory is not None and place.version is not None:
        with suppress(OSError, ValueError, TypeError):
            kept = json.loads(memory.read_text("utf-8"))
            return [(str(name), _TarEntry(number, int(offset), int(size), text)) for name, offset, size, text in kept]
    try:
        with place.open() as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            found = [
                (member.name, member.offset_data, member.size, _text(archive, member))
                for member in archive
                if member.isreg()
            ]
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"{place.text} cannot be read as a plain tar archive: {error}") from None
    if memory is not None and place.version is not None:
        with suppress(OSError):
            memory.parent.mkdir(parents=True, exist_ok=True)
            temporary = memory.with_name(f"{memory.name}.{os.getpid()}.tmp")
            temporary.write_text(json.dumps(found), "utf-8")
            os.replace(temporary, memory)
    return [(name, _TarEntry(number, offset, size, text)) for name, offset, size, text in found]


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str | None:
    """What a file says that stands beside images; read on the way, for it is small and there are many."""
    if member.name.rpartition(".")[2].lower() not in _NOTES:
        return None
    stream = archive.extractfile(member)
    return stream.read(_NOTE_LIMIT).decode("utf-8", "replace") if stream is not None else None


def _digits(*parts: str | None) -> str:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _looks_like_image(place: Place, member: _TarEntry) -> bool:
    # elsewhere, a look into every file would be a question for each
    return not place.remote and looks_like_image(place.read(member.offset, min(16, member.size)))


def _notes(sample: _Sample) -> dict[str, Any]:
    texts = {kind: member.text or "" for kind, member in sample.notes.items()}
    known: dict[str, Any] = {}
    if "json" in texts:
        try:
            content = json.loads(texts["json"])
        except ValueError:
            content = {}
        if isinstance(content, dict):
            known = {key: content[key] for key in ("label", "caption") if content.get(key) is not None}
    if "cls" in texts:
        known["label"] = texts["cls"].strip()
    if "txt" in texts:
        known["caption"] = texts["txt"].strip()
    return known
