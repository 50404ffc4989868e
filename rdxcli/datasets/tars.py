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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdxcli.datasets.base import Dataset, folder_name
from rdxcli.datasets.folders import EXTENSIONS
from rdxcli.datasets.images import CONTENT_LIMIT, ImageSource, eight_bits
from rdxcli.datasets.tables import require_file
from rdxcli.errors import InputError, MissingDataError

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
    image: _Member | None = None
    notes: dict[str, _Member] = field(default_factory=dict)


class TarImages(ImageSource):
    """Images inside uncompressed tar archives.

    Parameters
    ----------
    archives : list of Path
    members : list of (archive, offset, size)
        Where each image lies.
    """

    def __init__(self, archives: list[Path], members: list[tuple[int, int, int]]) -> None:
        self.archives, self.members = archives, members

    def __len__(self) -> int:
        return len(self.members)

    def image(self, row: int) -> Image.Image:
        from PIL import Image

        archive, offset, size = self.members[row]
        with Image.open(io.BytesIO(_read(self.archives[archive], offset, size))) as image:
            image.load()
            return eight_bits(image)

    def location(self, row: int) -> str | None:
        return str(self.archives[self.members[row][0]])

    def fingerprint(self, rows: np.ndarray) -> dict[str, Any]:
        digest = hashlib.sha256()
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
    """``PATH.tar``, a pattern (``shard-*.tar``) or a numbered range (``shard-{000..009}.tar``).

    Raises
    ------
    MissingDataError
        No such archive.
    InputError
        Not an uncompressed tar, or no images in it.
    """
    archives = _archives(text)
    samples: dict[str, _Sample] = {}
    for number, path in enumerate(archives):
        for name, member in _members(path, number):
            stem, _, ending = name.rpartition("/")[2].partition(".")
            key = f"{name.rpartition('/')[0]}/{stem}".lstrip("./")
            kind = ending.rpartition(".")[2].lower()
            sample = samples.setdefault(key, _Sample())
            if f".{kind}" in EXTENSIONS:
                if sample.image is not None:
                    raise InputError(f"{path}: the sample `{key}` has more than one image")
                sample.image = member
            elif kind in _NOTES:
                sample.notes[kind] = member
    kept = {key: sample for key, sample in samples.items() if sample.image is not None}
    if not kept:
        raise InputError(f"{text} holds no images")
    notes = [_notes(archives, sample) for sample in kept.values()]
    labels = [note.get("label") for note in notes]
    captions = [note.get("caption") for note in notes]
    images = [sample.image for sample in kept.values() if sample.image is not None]
    first = archives[0].resolve()
    return Dataset(
        name=folder_name(first) if len(archives) == 1 else f"{folder_name(first)}-{len(archives)}",
        spec=f"tar:{Path(text).expanduser().absolute()}",
        source=TarImages(archives, [(image.archive, image.offset, image.size) for image in images]),
        sample_ids=list(kept),
        labels=[str(label) for label in labels] if all(label is not None for label in labels) else None,
        captions=[[str(caption)] for caption in captions] if all(c is not None for c in captions) else None,
    )


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
