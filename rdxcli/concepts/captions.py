"""Captions of samples, from files, data sets and artifacts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rdxcli.artifacts import resolve_artifact
from rdxcli.artifacts.layout import slug
from rdxcli.datasets.selection import SelectionOptions
from rdxcli.errors import InputError, MissingDataError, UsageError


def load_captions(text: str | None, selection: SelectionOptions, outputs: Path) -> tuple[str, dict[str, list[str]]]:
    """Name of the data set and the captions of each sample id.

    Parameters
    ----------
    text : str or None
        ``.json``: ``{id: [caption, ...]}`` or a list of objects with an id and captions. ``.jsonl``: one object a line.
        ``.txt``: one caption a line, each its own sample. A captions artifact. None: the captions of the data set.

    Raises
    ------
    RdxError
        Nothing to read, or a malformed file.
    """
    if text is None:
        if selection.dataset is None:
            raise UsageError("which captions?", "give --captions FILE, or --dataset NAME of a data set with captions")
        dataset = selection.open()
        if dataset.captions is None:
            raise MissingDataError(
                f"the data set {dataset.name} has no captions",
                f"make them with `rdx caption --dataset {selection.dataset}`, or name them: --captions FILE",
            )
        return dataset.name, {
            str(sample): list(texts) for sample, texts in zip(dataset.sample_ids, dataset.captions, strict=True)
        }
    path = Path(text)
    if path.is_dir() or not path.exists():
        artifact = resolve_artifact(text, outputs, "captions")
        path = artifact.path / "captions.jsonl"
        name = artifact.path.parts[-3] if len(artifact.path.parts) >= 3 else artifact.path.name
    else:
        name = slug(path.stem)
    captions = read_captions(path)
    if not captions:
        raise InputError(f"{path} holds no captions")
    return name, captions


def read_captions(path: Path) -> dict[str, list[str]]:
    """Captions of each sample id in a file; see `load_captions` for the layouts.

    Raises
    ------
    InputError, MissingDataError
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise MissingDataError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text") from None
    suffix = path.suffix.lower()
    if suffix == ".txt":
        lines = [line.strip() for line in text.splitlines()]
        return {str(i): [line] for i, line in enumerate(lines) if line}
    entries: list[Any] = []
    try:
        if suffix == ".jsonl":
            entries = [json.loads(line) for line in text.split("\n") if line.strip()]
        else:
            content = json.loads(text)
            if isinstance(content, dict) and isinstance(content.get("annotations"), list):
                content = content["annotations"]  # the layout of COCO
            elif isinstance(content, dict) and isinstance(content.get("images"), list):
                content = content["images"]  # Karpathy's lists
            entries = content if isinstance(content, list) else [{"id": k, "captions": v} for k, v in content.items()]
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from None
    captions: dict[str, list[str]] = {}
    for number, entry in enumerate(entries, start=1):
        sample, texts = _entry(entry, path, number)
        captions.setdefault(sample, []).extend(texts)
    return captions


def _entry(entry: Any, path: Path, number: int) -> tuple[str, list[str]]:
    """Sample id and captions of one object."""
    if not isinstance(entry, Mapping):
        raise InputError(f"{path}: entry {number} is a {type(entry).__name__}, expected an object with id and captions")
    sample = next((entry[key] for key in ("sample_id", "image_id", "id", "image", "filename") if key in entry), None)
    texts = next((entry[key] for key in ("captions", "caption", "sentences", "text") if key in entry), None)
    if sample is None or texts is None:
        found = ", ".join(map(str, list(entry)[:6]))
        raise InputError(f"{path}: entry {number} has {found}, expected an id and captions")
    listed = [texts] if isinstance(texts, str) else list(texts)
    raw = [text["raw"] if isinstance(text, Mapping) and "raw" in text else text for text in listed]
    words = [text for text in raw if isinstance(text, str)]
    if len(words) < len(raw):
        raise InputError(f"{path}: the captions of entry {number} are not text")
    return str(sample), words
