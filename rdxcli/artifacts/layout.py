"""Where artifacts live below the outputs directory (DESIGN section 2), and how names become legal folders."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

_MAX_SLUG = 100
_RESERVED = {"con", "prn", "aux", "nul", *(f"com{i}" for i in range(1, 10)), *(f"lpt{i}" for i in range(1, 10))}


def slug(name: str) -> str:
    """A folder name that is legal on every system and still readable.

    Letters, digits, ``.``, ``_``, ``@``, ``+`` and ``-`` stay; every other run of characters becomes one ``-``. When
    that loses or folds something that could tell two names apart, six hexadecimal digits of the SHA-256 are appended.
    """
    text = unicodedata.normalize("NFC", str(name)).strip()
    text = re.sub(r"\[(\w+)\]", r".\1", text)  # mlp[1] and mlp.1 are the same layer
    simple = re.sub(r"[^A-Za-z0-9._@+-]+", "-", text).strip(".-") or "unnamed"
    # `:` and `/` are so common in model names that they alone do not earn a suffix
    faithful = re.sub(r"[:/]+", "-", text).strip(".-") == simple
    if simple.split(".")[0].lower() in _RESERVED:
        simple, faithful = f"_{simple}", False
    if not faithful or len(simple) > _MAX_SLUG:
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]
        simple = f"{simple[: _MAX_SLUG - 7]}-{digest}"
    return simple


def short_name(name: str) -> str:
    """What people call a model: of a name that holds a path (``file:``, ``hf:`` of a folder, ``PATH.py:factory``)
    the last part without ending and options; every other name as it is.
    """
    scheme, colon, rest = name.partition(":")
    if scheme in ("file", "hf", "folder", "images") and colon:
        path = rest.partition("?")[0].rstrip("/")
        if scheme == "file" or path.startswith((".", "/", "~")) or path.count("/") > 1:
            return path.rsplit("/", 1)[-1].rsplit(".", 1)[0] or name
    if scheme.endswith(".py") and colon:
        return f"{scheme.rsplit('/', 1)[-1].removesuffix('.py')}:{rest.partition('?')[0]}"
    return name


def model_slug(name: str) -> str:
    """`slug` of a model; a shortened name gets six hexadecimal digits of the whole name's SHA-256."""
    short = short_name(name)
    return (
        slug(name)
        if short == name
        else f"{slug(short)}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:6]}"
    )


def dataset_folder(root: Path, dataset: str) -> Path:
    """``root/<dataset>``; plain arrays (`array_dataset`) keep their two levels."""
    if dataset.startswith("arrays/"):
        return root / "arrays" / slug(dataset.removeprefix("arrays/"))
    return root / slug(dataset)


def activations_folder(root: Path, dataset: str, model: str, layer: str, pool: str) -> Path:
    return dataset_folder(root, dataset) / model_slug(model) / slug(layer) / "activations" / slug(pool)


def explanations_folder(root: Path, dataset: str, model: str, layer: str, run: str) -> Path:
    return dataset_folder(root, dataset) / model_slug(model) / slug(layer) / "explanations" / slug(run)


def simulations_folder(root: Path, dataset: str, model: str, layer: str, run: str) -> Path:
    return dataset_folder(root, dataset) / model_slug(model) / slug(layer) / "simulations" / slug(run)


def comparisons_folder(root: Path, dataset: str, a: str, b: str, run: str) -> Path:
    return dataset_folder(root, dataset) / "comparisons" / f"{slug(a)}--{slug(b)}" / slug(run)


def captions_folder(root: Path, dataset: str, captioner: str) -> Path:
    return dataset_folder(root, dataset) / "captions" / slug(captioner)


def concepts_folder(root: Path, dataset: str, run: str) -> Path:
    return dataset_folder(root, dataset) / "concepts" / slug(run)


def image_text_folder(root: Path, dataset: str, vlm: str) -> Path:
    return dataset_folder(root, dataset) / "image-text" / slug(vlm)


def surrogates_folder(root: Path, dataset: str, run: str) -> Path:
    return dataset_folder(root, dataset) / "surrogates" / slug(run)


def array_dataset(name: str) -> str:
    """Work on plain arrays goes under ``outputs/arrays/<name of the first file>/`` in the same shape."""
    return f"arrays/{name}"


def report_path(artifacts: Sequence[Path], outputs: Path, form: str) -> Path:
    """``<outputs>/<dataset>/reports/<model, layer, explanations, run ...>.<form>``: one file for each artifact.

    Several artifacts have one in ``<outputs>/reports``, named after all of them.
    """
    if len(artifacts) > 1:
        names = [below(artifact, outputs) for artifact in artifacts]
        joined = "--and--".join(name.replace("/", "--") for name in names)
        if len(joined) > 120:
            joined = f"{joined[:100]}-{blake2b(joined.encode(), digest_size=4).hexdigest()}"
        return outputs / "reports" / f"{joined}.{form}"
    path = artifacts[0]
    try:
        parts = path.resolve().relative_to(outputs.resolve()).parts
    except ValueError:
        return path.parent / f"{path.name}.{form}"
    depth = 2 if parts[0] == "arrays" and len(parts) > 2 else 1
    name = "--".join(parts[depth:]) or parts[-1]
    return outputs.joinpath(*parts[:depth]) / "reports" / f"{name}.{form}"


def below(artifact: Path, outputs: Path) -> str:
    """The path of an artifact below the outputs directory."""
    try:
        return artifact.resolve().relative_to(outputs.resolve()).as_posix()
    except ValueError:
        return artifact.name
