"""What the files of an artifact hold, byte for byte: their hashes, and when these were last compared.

A hash costs a second for every gigabyte, so a file is read in full only when something may have changed it. Beside the
manifest stands `STAMPS`: for every file the size, the times of its content and of its entry, and its number on the disk
as they were when its hash was last right. The time of the entry cannot be set back, so a byte that was flipped is
noticed even where the size and the time of the content are what they were.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from rdxcli.errors import ArtifactError

STAMPS = ".verified.json"
_SIZE = 32  # bytes of a hash


def digest_bytes(data: bytes | memoryview) -> str:
    """BLAKE2b of ``data``, 64 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=_SIZE).hexdigest()


def digest_file(path: Path) -> str:
    """BLAKE2b of a file's bytes, read in blocks."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=_SIZE)).hexdigest()


def digest_files(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """`digest_file` of several files below ``folder``, a few at a time: hashing lets go of the interpreter."""
    wanted = list(names)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1, max(1, len(wanted)))) as pool:
        return dict(zip(wanted, pool.map(lambda name: digest_file(folder / name), wanted), strict=True))


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """``document`` with the hash of itself under ``digest``; `is_intact` notices when anything of it is changed."""
    body = {key: value for key, value in document.items() if key != "digest"}
    body = json.loads(json.dumps(body, allow_nan=False))  # as it will be read again
    return {**body, "digest": _digest_of(body)}


def is_intact(document: Mapping[str, Any]) -> bool:
    """Whether a document that `sealed` gave is what it was."""
    return document.get("digest") == _digest_of({key: value for key, value in document.items() if key != "digest"})


def _digest_of(body: Mapping[str, Any]) -> str:
    return digest_bytes(json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode())


def check_files(
    folder: Path, sizes: Mapping[str, int], hashes: Mapping[str, str], seal: str | None, full: bool | None = None
) -> None:
    """Compare the files of an artifact with what its manifest says of them.

    Raises `ArtifactError` (a file is missing, has another size, or other bytes).

    Parameters
    ----------
    sizes, hashes : mapping of str to int, and of str to str
        By the path of the file below ``folder``. Files without a hash are judged by their size.
    seal : str, optional
        Hash of the manifest; stamps that were made under another one do not count.
    full : bool, optional
        True reads every file; False none; by default those are read that may have changed since they were last read.
    """
    for name, size in sizes.items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != size:
            raise ArtifactError(
                f"{file} is missing or damaged (expected {size} bytes)", "make the artifact again with --force"
            )
    if full is False or not hashes:
        return
    known = {} if full else _read_stamps(folder, seal)
    changed = [name for name in hashes if known.get(name) != _stamp(folder / name)]
    if not changed:
        return
    try:
        found = digest_files(folder, changed)
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be read: {error.strerror or error}") from None
    for name in changed:
        if found[name] != hashes[name]:
            raise ArtifactError(
                f"{folder / name} is damaged: its bytes are not the ones that were written",
                "make the artifact again with --force",
            )
    write_stamps(folder, hashes, seal)


def write_stamps(folder: Path, names: Iterable[str], seal: str | None) -> None:
    """Note that the hashes of ``names`` are right. In a folder that cannot be written to nothing is noted."""
    document = {"manifest": seal, "files": {name: _stamp(folder / name) for name in names}}
    temporary = folder / f"{STAMPS}.{os.getpid()}.tmp"
    try:
        temporary.write_text(json.dumps(document), "utf-8")
        os.replace(temporary, folder / STAMPS)
    except OSError:
        with suppress(OSError):
            temporary.unlink()


def _read_stamps(folder: Path, seal: str | None) -> dict[str, list[int]]:
    try:
        document = json.loads((folder / STAMPS).read_text("utf-8"))
        return dict(document["files"]) if document["manifest"] == seal else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
