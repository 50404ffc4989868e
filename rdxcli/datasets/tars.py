"""Tar archives in the WebDataset layout: files that share a stem are one sample.

``cat001.jpg`` is the image, ``cat001.cls`` its class, ``cat001.txt`` its caption; ``cat001.json`` may hold ``label``
and ``caption``. Archives are indexed once by their headers and read in place, never unpacked.
"""

from __future__ import annotations

import glob
import hashlib
import io
import json
import os
import re
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import numpy as np

from rdxcli.datasets.base import Dataset, folder_name
from rdxcli.datasets.files import EXTENSIONS, is_hidden, looks_like_image, with_options
from rdxcli.datasets.images import CONTENT_LIMIT, ImageSource, decode
from rdxcli.datasets.pixelrange import PixelRange, parse_range
from rdxcli.datasets.tables import require_file
from rdxcli.datasets.words import UNLABELLED, escaped, text_of
from rdxcli.errors import InputError, MissingDataError
from rdxcli.progress import log

if TYPE_CHECKING:
    from PIL import Image

_NOTES = {"cls", "txt", "json"}
_NOTE_LIMIT = 2**20  # bytes of a class, caption or JSON file that are read


@dataclass
class _Member:
    archive: int
    offset: int
    size: int


@dataclass
class _Sample:
    images: dict[str, _Member] = field(default_factory=dict)  # by ending
    notes: dict[str, _Member] = field(default_factory=dict)


class TarImages(ImageSource):
    """Images inside uncompressed tar archives.

    Parameters
    ----------
    archives : list of Path
    members : list of (archive, offset, size)
        Where each image lies.
    """

    def __init__(
        self, archives: list[Path], members: list[tuple[int, int, int]], pixels: PixelRange | None = None
    ) -> None:
        self.archives, self.members, self.pixels = archives, members, pixels

    def __len__(self) -> int:
        return len(self.members)

    def raw(self, row: int) -> Image.Image:
        archive, offset, size = self.members[row]
        return decode(io.BytesIO(_read(self.archives[archive], offset, size)))

    def location(self, row: int) -> str | None:
        return str(self.archives[self.members[row][0]])

    def fingerprint(self, rows: np.ndarray) -> dict[str, Any]:
        digest = hashlib.sha256(repr(self.pixels).encode() if self.pixels is not None else b"")
        by_content = sum(self.members[row][2] for row in rows) <= CONTENT_LIMIT
        stamps = [] if by_content else [f"{s.st_size}:{s.st_mtime_ns}" for s in map(os.stat, self.archives)]
        for row in rows:
            archive, offset, size = self.members[row]
            if by_content:
                digest.update(hashlib.sha256(_read(self.archives[archive], offset, size)).digest())
            else:
                digest.update(f"{stamps[archive]}:{offset}:{size}\n".encode())
        return {"by": "content" if by_content else "size and time", "sha256": digest.hexdigest()}


def tar(text: str) -> Dataset:
    """``PATH.tar``, a pattern (``shard-*.tar``) or a numbered range (``shard-{000..009}.tar``); ``?image=jpg``
    chooses one of several images of a sample, ``?range=0,4095`` the range of deep ones.

    Raises
    ------
    MissingDataError
        No such archive.
    InputError
        Not an uncompressed tar, or no images in it.
    """
    location, options = with_options(text, ("image", "range"))
    archives = _archives(location)
    shards: list[dict[str, _Sample]] = []  # a key is a sample of its shard: shards may repeat keys
    left_out: Counter[str] = Counter()
    for number, path in enumerate(archives):
        samples: dict[str, _Sample] = {}
        for name, member in _members(path, number):
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
            elif f".{kind}" in EXTENSIONS or looks_like_image(_read(path, member.offset, min(16, member.size))):
                if ending.lower() in sample.images:
                    raise InputError(f"{path}: the sample `{key}` has more than one image")
                sample.images[ending.lower()] = member
            else:
                left_out[f".{escaped(ending)}" if ending else "without an ending"] += 1
        shards.append(samples)
    chosen = _image_ending(location, [sample for shard in shards for sample in shard.values()], options.get("image"))
    kept: list[tuple[str, _Sample, _Member]] = []
    for path, samples in zip(archives, shards, strict=True):
        for key, sample in samples.items():
            if not sample.images:
                left_out["samples without an image"] += 1
            elif chosen is not None and chosen not in sample.images:
                left_out[f"samples without .{chosen}"] += 1
            else:
                member = next(iter(sample.images.values())) if chosen is None else sample.images[chosen]
                kept.append((f"{path.stem}/{key}", sample, member))
    if not kept:
        raise InputError(f"{text} holds no images")
    bare = [name.partition("/")[2] for name, _, _ in kept]
    repeated = len(set(bare)) < len(bare)
    if repeated:
        log.info("%s: keys repeat in several shards; the shard's name stands before them", location)
    if left_out:
        log.info(
            "%s: %d images; left out: %s", location, len(kept), ", ".join(f"{n} {why}" for why, n in left_out.items())
        )
    notes = [_notes(archives, sample) for _, sample, _ in kept]
    images = [image for _, _, image in kept]
    first = archives[0].resolve()
    query = "?" + urlencode(options) if options else ""
    return Dataset(
        name=folder_name(first) if len(archives) == 1 else f"{folder_name(first)}-{len(archives)}",
        spec=f"tar:{Path(location).expanduser().absolute()}{query}",
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
        log.warning("%s: %d of %d samples have no label; theirs is `%s`", location, missing, len(labels), UNLABELLED)
    return [UNLABELLED if label is None else text_of(label) for label in labels]


def _captions(location: str, notes: list[dict[str, Any]]) -> list[list[str]] | None:
    captions = [note.get("caption") for note in notes]
    missing = sum(caption is None for caption in captions)
    if missing == len(captions):
        return None
    if missing:
        log.warning("%s: %d of %d samples have no caption", location, missing, len(captions))
    return [[] if caption is None else [text_of(caption)] for caption in captions]


def _archives(text: str) -> list[Path]:
    path = str(Path(text).expanduser())
    if os.path.exists(path):
        return [require_file(path, "tar archive")]
    numbered = re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", path)
    if numbered:
        head, first, last, tail = numbered.groups()
        return [
            require_file(f"{head}{i:0{len(first)}d}{tail}", "tar archive") for i in range(int(first), int(last) + 1)
        ]
    found = sorted(glob.glob(path))
    if not found:
        raise MissingDataError(f"no such tar archive: {text}")
    return [Path(name) for name in found]


def _members(path: Path, number: int) -> list[tuple[str, _Member]]:
    try:
        with tarfile.open(path, "r:") as archive:
            return [
                (member.name, _Member(number, member.offset_data, member.size)) for member in archive if member.isreg()
            ]
    except (tarfile.TarError, OSError) as error:
        hint = "unpack compressed archives first" if path.suffix in {".gz", ".tgz", ".bz2", ".xz", ".zst"} else None
        raise InputError(f"{path} cannot be read as a plain tar archive: {error}", hint) from None


def _notes(archives: list[Path], sample: _Sample) -> dict[str, Any]:
    texts = {
        kind: _read(archives[member.archive], member.offset, min(member.size, _NOTE_LIMIT)).decode("utf-8", "replace")
        for kind, member in sample.notes.items()
    }
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


def _read(path: Path, offset: int, size: int) -> bytes:
    with open(path, "rb") as stream:
        stream.seek(offset)
        data = stream.read(size)
    if len(data) != size:
        raise InputError(f"{path} ends before the image is complete")
    return data
