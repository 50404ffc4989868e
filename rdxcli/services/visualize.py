"""``rdx visualize``: from an artifact to a page (or a picture) a person can open and share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdxcli.artifacts import Artifact, find_artifacts, resolve_artifact
from rdxcli.errors import ArtifactError, RdxError, UsageError
from rdxcli.progress import log, track

if TYPE_CHECKING:
    import numpy as np

FORMATS = ("html", "png", "pdf")
_FAMILIES = {"comparisons", "explanations", "simulations"}  # folders that say nothing in a file name


def choose(text: str | None, outputs: Path) -> Artifact:
    """The artifact that ``text`` names; without a name, the newest one that can be shown."""
    if text:
        return resolve_artifact(text, outputs)
    shown = [artifact for artifact in find_artifacts(outputs) if artifact.kind in _PAGES]
    if not shown:
        raise ArtifactError(
            f"nothing to show in {outputs}", "make something first, for example `rdx compare digits-cnn-m35 digits-cnn`"
        )
    return shown[-1]


def visualize(artifact: Artifact, outputs: Path, form: str = "html", to: Path | None = None) -> Path:
    """Write the report of ``artifact`` and return its path.

    Parameters
    ----------
    artifact : Artifact
    outputs : Path
        The outputs directory; the report goes to ``reports/`` of the artifact's data set.
    form : {"html", "png", "pdf"}
    to : Path, optional
        Write here instead.

    Raises
    ------
    UsageError
        Unknown format, or a kind of artifact that has no such report.
    """
    if form not in FORMATS:
        raise UsageError(f"unknown format `{form}`", f"choose one of {', '.join(FORMATS)}")
    if artifact.kind not in _PAGES:
        raise UsageError(
            f"{artifact.path} holds {artifact.kind}, which has no report", "`rdx list artifacts` shows others"
        )
    path = to or report_path(artifact, outputs, form)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{os.getpid()}-{path.name}")
        try:
            _PAGES[artifact.kind](artifact, form, temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(
            f"cannot write {path}: {error.strerror or error}", "choose another place with --to"
        ) from None
    return path


def report_path(artifact: Artifact, outputs: Path, form: str) -> Path:
    """``<outputs>/<dataset>/reports/<model, layer, run ...>.<form>``."""
    try:
        parts = artifact.path.resolve().relative_to(outputs.resolve()).parts
    except ValueError:
        return artifact.path.parent / f"{artifact.path.name}.{form}"
    depth = 2 if parts[0] == "arrays" and len(parts) > 2 else 1
    name = "--".join(part for part in parts[depth:] if part not in _FAMILIES) or parts[-1]
    return outputs.joinpath(*parts[:depth]) / "reports" / f"{name}.{form}"


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Everything in an ``.npz`` file."""
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def thumbnails(samples: Mapping[str, Any], ids: Iterable[str]) -> dict[str, str]:
    """Pictures of the samples ``ids`` as ``data:`` URIs; ids without an image are left out.

    Parameters
    ----------
    samples : mapping
        The ``samples`` entry of a document: ``dataset`` opens the images.
    ids : iterable of str
    """
    from rdxcli.datasets.registry import open_dataset
    from rdxcli.report.thumbnails import data_uri

    spec = samples.get("dataset")
    if not spec:
        return {}
    try:
        dataset = open_dataset(spec)
    except RdxError as error:
        log.warning("no images in the report: %s", error.message)
        return {}
    wanted = list(ids)
    pictures, missing = {}, []
    with track("read images", len(wanted), "images") as advance:
        for sample, index in zip(wanted, dataset.locate(wanted), strict=True):
            try:
                if index < 0:
                    raise KeyError(sample)
                pictures[sample] = data_uri(dataset.image(int(index)))
            except (KeyError, OSError, ValueError) as error:
                missing.append(f"{sample} ({type(error).__name__})")
            advance(1)
    if missing:
        log.warning("%d images could not be shown: %s", len(missing), ", ".join(missing[:3]))
    return pictures


def _comparison(artifact: Artifact, form: str, path: Path) -> None:
    from rdxcli.report import comparison, figures

    document = artifact.document()
    arrays = load_arrays(artifact.path / "arrays.npz")
    pictures = thumbnails(document["samples"], comparison.shown_ids(document))
    if form == "html":
        labels = {}
        if "labels" in arrays:
            labels = dict(zip(arrays["sample_ids"].tolist(), arrays["labels"].tolist(), strict=True))
        scoreboard = None
        if "methods" in document:
            from rdxcli.services.compare.scoreboard import table

            scoreboard = table(document)
        page = comparison.page(document, arrays, pictures, labels, artifact.manifest.command, scoreboard)
        path.write_text(page, "utf-8")
    else:
        figures.comparison_figure(document, arrays, pictures, path, form)


def _gallery(module: str) -> Callable[[Artifact, str, Path], None]:
    """Renderer of a kind whose page is made of cards: ``rdxcli.report.<module>.page(document, command)``."""

    def write(artifact: Artifact, form: str, path: Path) -> None:
        if form != "html":
            raise UsageError(f"{artifact.kind} have no {form} form", "use --format html and print the page")
        import importlib

        from rdxcli.report import gallery

        document = artifact.document()
        page = importlib.import_module(f"rdxcli.report.{module}").page(document, artifact.manifest.command)
        path.write_text(gallery.html(page, thumbnails(document.get("samples", {}), page.shown_ids())), "utf-8")

    return write


def _surrogate(artifact: Artifact, form: str, path: Path) -> None:
    import csv

    from rdxcli.report import gallery, surrogate

    if form != "html":
        raise UsageError(f"a surrogate has no {form} form", "use --format html and print the page")
    history = []
    with open(artifact.path / "metrics.csv", encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            numbers = {name: value for name, value in row.items() if name != "best" and value}
            history.append({name: float(value) for name, value in numbers.items()})
    page = surrogate.page(artifact.document(), history, artifact.manifest.command)
    path.write_text(gallery.html(page, {}), "utf-8")


_PAGES: dict[str, Callable[[Artifact, str, Path], None]] = {
    "comparison": _comparison,
    "attributions": _gallery("attributions"),
    "directions": _gallery("directions"),
    "explanations": _gallery("neurons"),
    "simulation": _gallery("simulation"),
    "regions": _gallery("regions"),
    "surrogate": _surrogate,
}
