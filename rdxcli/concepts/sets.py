"""Lists of concept words: text files, and the published sets that ``rdx download`` fetches."""

from __future__ import annotations

from pathlib import Path

from rdxcli.download.catalogue import get
from rdxcli.download.store import content_folder
from rdxcli.errors import MissingDataError, UnknownNameError, UsageError
from rdxcli.methods.neurons.concepts import text_lines

RECIPE = "linear-explanations"
FOLDER = "concept_sets"
DEFAULTS = ("imagenet", "places365", "cifar100")
"""Data sets for which the paper has a set of its own, ``combined_concepts_<data set>``."""


def published_sets() -> list[str]:
    """Names of the published sets."""
    return [item.name.removesuffix(".txt") for item in get(RECIPE).items if item.name.endswith(".txt")]


def default_set(dataset: str | None) -> str:
    """The published set of a data set. Raises `UsageError` (the paper has none for it)."""
    name = (dataset or "").partition("@")[0]
    if name not in DEFAULTS:
        raise UsageError(
            "which concept words? there is no published set for this data set",
            "give --concept-set FILE, one concept a line, or a published set: " + ", ".join(published_sets()),
        )
    return f"combined_concepts_{name}"


def read_concept_set(text: str, root: Path | None = None) -> list[str]:
    """Lines of a concept set as they are.

    Raises `MissingDataError` (a file that does not exist, or a set that was not downloaded; the hint names the command)
    or `UnknownNameError` (no such set). `text`: a text file, or the name of a published set (with or without ``.txt``);
    `root`: where downloads are.
    """
    path = Path(text).expanduser()
    if not path.is_file():
        name = text.removesuffix(".txt")
        known = published_sets()
        if name not in known:
            if "/" in text or path.suffix:
                raise MissingDataError(f"no such concept set: {text}", "a set is a text file, one concept a line")
            raise UnknownNameError("concept set", text, known)
        folder = content_folder(RECIPE, root)
        if folder is None:
            raise MissingDataError(f"the concept set {name} is not on this machine", f"rdx download {RECIPE}")
        path = folder / FOLDER / f"{name}.txt"
    try:
        return text_lines(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise MissingDataError(f"cannot read the concept set {path}: {error}") from None
