"""Reads the two NLTK packages that the published concept extraction uses, from a folder or from their zip archives.

Nothing is downloaded and no NLTK code is run: the tagger's weights are JSON, WordNet's index is text.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable
from pathlib import Path

TAGGER = "taggers/averaged_perceptron_tagger_eng"
WORDNET = "corpora/wordnet"
TAGGER_FILES = tuple(f"averaged_perceptron_tagger_eng.{part}.json" for part in ("weights", "tagdict", "classes"))
WORDNET_FILES = ("index.noun", "index.verb", "index.adj", "noun.exc", "verb.exc", "adj.exc")


def read(folder: str | Path, package: str, name: str) -> bytes:
    """One file of an NLTK package.

    Raises `FileNotFoundError` (when neither the folder ``package`` nor ``package.zip`` holds the file).

    Parameters
    ----------
    folder : path
        The folder that NLTK calls ``nltk_data``.
    package : str
        `TAGGER` or `WORDNET`.
    name : str
        File name inside the package.
    """
    base = Path(folder) / package
    plain = base / name
    if plain.is_file():
        return plain.read_bytes()
    archive = base.with_name(base.name + ".zip")
    if archive.is_file():
        with zipfile.ZipFile(archive) as packed:
            member = f"{base.name}/{name}"
            if member in packed.namelist():
                return packed.read(member)
    raise FileNotFoundError(f"Got no {package}/{name} under {folder}, expected the NLTK data packages")


def _has(folder: Path, package: str, names: Iterable[str]) -> bool:
    base = folder / package
    if all((base / name).is_file() for name in names):
        return True
    archive = base.with_name(base.name + ".zip")
    if not archive.is_file():
        return False
    try:
        with zipfile.ZipFile(archive) as packed:
            return {f"{base.name}/{name}" for name in names} <= set(packed.namelist())
    except zipfile.BadZipFile:
        return False


def find(folder: str | Path | None = None) -> Path | None:
    """The first folder that holds both packages, or None.

    Parameters
    ----------
    folder : path, optional
        Looked at first; without it, NLTK's own search path (which honours the variable ``NLTK_DATA``).
    """
    if folder is not None:
        candidates = [Path(folder)]
    else:
        from nltk.data import path as search

        candidates = [Path(str(entry)) for entry in search if str(entry)]
    for candidate in candidates:
        if _has(candidate, TAGGER, TAGGER_FILES) and _has(candidate, WORDNET, WORDNET_FILES):
            return candidate
    return None


def sha256(content: bytes) -> str:
    """Hexadecimal digest, for provenance."""
    return hashlib.sha256(content).hexdigest()
