"""Counting concepts in captions: the language, the tagger for it, and chunks that an interrupted run finds again."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from rdxcli.errors import InputError, MissingDataError
from rdxcli.methods.surrogate import hanta
from rdxcli.methods.surrogate.extraction import Concept, ConceptExtractor, load_extractor
from rdxcli.methods.surrogate.languages import NAMES, detect
from rdxcli.methods.surrogate.nltk_data import find
from rdxcli.methods.surrogate.vocabulary import ConceptCounts, count_concepts, merge_counts
from rdxcli.places import data_root
from rdxcli.progress import human_count, log, track

CHUNK = 500  # images that are lost when the program is killed


def language_of(
    captions: Mapping[str, Sequence[str]], language: str, source: str, *, given: bool
) -> tuple[str, list[str]]:
    """The language of the captions, and what is to be remarked of it.

    Raises `InputError` (there is no tagger for it, and no list of words to look for).

    Parameters
    ----------
    language : str
        ``auto`` to look at them.
    source : str
        Tagger.
    given : bool
        Whether a list of words to look for is there.
    """
    if language != "auto":
        return language, []
    if not hanta.installed():
        return "en", []
    found = detect([text for texts in captions.values() for text in texts])
    if found.code in (hanta.MODELS if source in ("auto", "hanta") else ("en",)):
        return str(found.code), []
    told = (
        f"the captions seem to be {found.name}: {found.share:.0%} of their words are in its dictionary, "
        f"{found.english:.0%} in the English one"
    )
    if given:
        return "en", [f"{told}; the words of --vocabulary are looked for as they are"]
    taught = ", ".join(NAMES[code] for code in hanta.MODELS)
    raise InputError(
        told,
        f"concepts are found in {taught} (--tagger hanta); translate the captions, name the words to look for with "
        "--vocabulary FILE, or insist with --language en",
    )


def open_extractor(source: str, language: str, terms: Sequence[str] | None, **given: str | None) -> ConceptExtractor:
    """Tagger and lemmatiser; NLTK data is looked for where `rdx download nltk` puts it, then where NLTK looks.

    Parameters
    ----------
    terms : sequence of str, optional
        Concepts that will be counted, found by the tagger or looked for in the words.
    **given
        ``normalisation`` and ``phrases``; None for those of the tagger.
    """
    own: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        extractor = load_extractor(source, nltk_data=find(data_root() / "nltk"), language=language, **own)
    except FileNotFoundError:
        raise MissingDataError(
            "the published tagger and WordNet are not on this machine",
            "`rdx download nltk` fetches them; --tagger hanta needs no download",
        ) from None
    parsed = [Concept.parse(term) for term in terms or ()]
    # the tagger finds nouns, adjectives, verbs and names; what it has no tag for is looked for in the words
    missed = [c for c in parsed if c.pos == "*" or (c.pos == "p" and extractor.phrases in ("none", "merged"))]
    missed += [c for c in parsed if c.pos not in ("p", "*") and " " in c.lemma and not extractor.finds(c)]
    extractor.look_for(missed)
    return extractor


def counted(captions: Mapping[str, Sequence[str]], extractor: Any, folder: Path) -> ConceptCounts:
    """Concepts of every image. Chunks that are finished lie in ``folder``, where an interrupted run finds them."""
    ids, parts, found = list(captions), [], 0
    folder.mkdir(exist_ok=True)
    with track("read captions", len(ids), "images") as advance:
        for start in range(0, len(ids), CHUNK):
            chunk, path = ids[start : start + CHUNK], folder / f"{start:09d}.npz"
            part = load_counts(path)
            if part is None or list(part.ids) != chunk:
                part = count_concepts({key: captions[key] for key in chunk}, extractor)
                save_counts(path, part)
            else:
                found += len(chunk)
            parts.append(part)
            advance(len(chunk))
    if found:
        log.info("%d of %s were done before", found, human_count(len(ids), "image"))
    return merge_counts(parts)


def save_counts(path: Path, counts: ConceptCounts) -> None:
    """Write counts in one step: a reader sees the whole file or none."""
    names = json.dumps([list(counts.ids), [list(concept) for concept in counts.concepts]], ensure_ascii=False)
    fresh = path.with_suffix(".writing")
    with open(fresh, "wb") as stream:
        np.savez(
            stream,
            indptr=counts.matrix.indptr,
            indices=counts.matrix.indices,
            data=counts.matrix.data,
            num_captions=counts.num_captions,
            names=np.frombuffer(names.encode(), np.uint8),
        )
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(fresh, path)


def load_counts(path: Path) -> ConceptCounts | None:
    """What `save_counts` wrote; None when it is not there or cannot be read."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            ids, concepts = json.loads(file["names"].tobytes())
            shape = (len(ids), len(concepts))
            matrix = csr_array((file["data"], file["indices"], file["indptr"]), shape=shape)
            return ConceptCounts(ids, [Concept(*concept) for concept in concepts], matrix, file["num_captions"])
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        log.warning("%s is damaged and made again: %s", path, error)
        return None
