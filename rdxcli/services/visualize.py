"""``rdx visualize``: from an artifact to a page (or a picture) a person can open and share."""

from __future__ import annotations

import csv
import importlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from rdxcli.artifacts import Artifact, find_artifacts, resolve_artifact
from rdxcli.artifacts.manifest import MANIFEST
from rdxcli.datasets.registry import open_dataset
from rdxcli.errors import ArtifactError, RdxError, UsageError
from rdxcli.progress import log, track
from rdxcli.report import comparison, figures, gallery, surrogate
from rdxcli.report.html import render as template
from rdxcli.report.thumbnails import data_uri

if TYPE_CHECKING:
    import numpy as np

    from rdxcli.report.gallery import Page

FORMATS = ("html", "png", "pdf", "svg")
WIDTHS = {"column": 3.3, "page": 6.9}
"""Inches of a figure across one column of a paper, and across a page."""


@dataclass(frozen=True)
class Report:
    """A written report.

    Parameters
    ----------
    artifact : Artifact
    path : Path
    unread : sequence of str
        Images that should be on it and could not be read; the page says so too.
    """

    artifact: Artifact
    path: Path
    unread: Sequence[str] = ()


@dataclass(frozen=True)
class Pictures:
    """Thumbnails by sample id, and the ids whose image could not be read."""

    uris: Mapping[str, str]
    unread: Sequence[str] = ()

    @property
    def notes(self) -> list[str]:
        """What the reader of the report must know."""
        if not self.unread:
            return []
        some = ", ".join(self.unread[:3]) + (" ..." if len(self.unread) > 3 else "")
        wanted = len(self.unread) + len(self.uris)
        return [f"{len(self.unread)} of {wanted} images could not be read, moved or damaged: {some}"]


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


def render(
    artifact: Artifact, outputs: Path, form: str = "html", to: Path | None = None, width: str = "page"
) -> Report:
    """Write the report of ``artifact``.

    Parameters
    ----------
    artifact : Artifact
    outputs : Path
        The outputs directory; the report goes to ``reports/`` of the artifact's data set.
    form : {"html", "png", "pdf", "svg"}
    to : Path, optional
        Write here instead.
    width : {"column", "page"}
        Of figures: 3.3 or 6.9 inches.

    Raises
    ------
    UsageError
        Unknown format or width, or a kind of artifact that has no such report.
    """
    if form not in FORMATS:
        raise UsageError(f"unknown format `{form}`", f"choose one of {', '.join(FORMATS)}")
    if width not in WIDTHS:
        raise UsageError(f"unknown width `{width}`", f"choose one of {', '.join(WIDTHS)}")
    if artifact.kind not in _PAGES:
        raise UsageError(
            f"{artifact.path} holds {artifact.kind}, which has no report", "`rdx list artifacts` shows others"
        )
    path = to or report_path(artifact, outputs, form)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{os.getpid()}-{path.name}")
        try:
            unread = _PAGES[artifact.kind](artifact, form, temporary, WIDTHS[width])
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(
            f"cannot write {path}: {error.strerror or error}", "choose another place with --to"
        ) from None
    return Report(artifact, path, unread)


def index(outputs: Path) -> tuple[Path, list[Report]]:
    """A page that links the reports of all artifacts below ``outputs``; those that are missing or old are made.

    Returns
    -------
    path : Path
        ``<outputs>/reports/index.html``.
    made : list of Report
        Reports that were written now.
    """
    found = [artifact for artifact in find_artifacts(outputs) if artifact.kind in _PAGES]
    if not found:
        choose(None, outputs)  # says what to do
    path, made, rows = outputs / "reports" / "index.html", [], []
    for artifact in sorted(found, key=lambda one: one.manifest.created, reverse=True):
        report = report_path(artifact, outputs, "html")
        if not report.is_file() or report.stat().st_mtime < (artifact.path / MANIFEST).stat().st_mtime:
            made.append(render(artifact, outputs))
        difference = artifact.document().get("difference") or {}
        rows.append(
            {
                "name": artifact.path.relative_to(outputs).as_posix(),
                "link": quote(Path(os.path.relpath(report, path.parent)).as_posix()),
                "kind": artifact.kind,
                "verdict": difference.get("verdict"),
                "made": artifact.manifest.created,
            }
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    temporary.write_text(template("index.html", rows=rows), "utf-8")
    os.replace(temporary, path)
    return path, made


def target(to: Path | None, form: str | None, force: bool = False) -> str:
    """The format of a report: what is asked for, else what the ending of ``to`` says, else html.

    Raises
    ------
    UsageError
        The ending of ``to`` is that of no format, or of another than ``form``; or the file exists and may not be
        replaced.
    """
    if to is None:
        return form or "html"
    ending = {"htm": "html"}.get(to.suffix[1:].lower(), to.suffix[1:].lower())
    if ending not in FORMATS:
        raise UsageError(
            f"`{to}` ends in the name of no format", f"end it in {', '.join(f'.{known}' for known in FORMATS)}"
        )
    if form is not None and form != ending:
        raise UsageError(f"`--format {form}` and the file `{to}` contradict each other", "leave one of them out")
    if to.exists() and not force:
        raise UsageError(f"{to} exists already", "replace it with --force, or choose another place")
    return ending


def report_path(artifact: Artifact, outputs: Path, form: str) -> Path:
    """``<outputs>/<dataset>/reports/<model, layer, explanations, run ...>.<form>``: one file for each artifact."""
    try:
        parts = artifact.path.resolve().relative_to(outputs.resolve()).parts
    except ValueError:
        return artifact.path.parent / f"{artifact.path.name}.{form}"
    depth = 2 if parts[0] == "arrays" and len(parts) > 2 else 1
    name = "--".join(parts[depth:]) or parts[-1]
    return outputs.joinpath(*parts[:depth]) / "reports" / f"{name}.{form}"


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Everything in an ``.npz`` file."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def thumbnails(samples: Mapping[str, Any], ids: Iterable[str]) -> Pictures:
    """Pictures of the samples ``ids`` as ``data:`` URIs; nothing where no data set with images is known.

    Parameters
    ----------
    samples : mapping
        The ``samples`` entry of a document: ``dataset`` opens the images.
    ids : iterable of str
    """
    spec, wanted = samples.get("dataset"), list(ids)
    if not spec or not wanted:
        return Pictures({})
    try:
        dataset = open_dataset(spec)
    except RdxError as error:
        log.warning("no images in the report: %s", error.message)
        return Pictures({}, wanted)
    found, unread = {}, []
    with track("read images", len(wanted), "images") as advance:
        for sample, index in zip(wanted, dataset.locate(wanted), strict=True):
            try:
                if index < 0:
                    raise KeyError(sample)
                found[sample] = data_uri(dataset.image(int(index)))
            except (KeyError, OSError, ValueError, RdxError):
                unread.append(sample)
            advance(1)
    pictures = Pictures(found, unread)
    for note in pictures.notes:
        log.warning(note)
    return pictures


def _comparison(artifact: Artifact, form: str, path: Path, width: float) -> Sequence[str]:
    document = artifact.document()
    arrays = load_arrays(artifact.path / "arrays.npz")
    pictures = thumbnails(document["samples"], comparison.shown_ids(document))
    document = {**document, "notes": [*document["notes"], *pictures.notes]}
    if form == "html":
        labels = {}
        if "labels" in arrays:
            labels = dict(zip(arrays["sample_ids"].tolist(), arrays["labels"].tolist(), strict=True))
        scoreboard = None
        if "methods" in document:
            from rdxcli.report.scoreboard import table

            scoreboard = table(document)
        page = comparison.page(document, arrays, pictures.uris, labels, artifact.manifest.command, scoreboard)
        path.write_text(page, "utf-8")
    else:
        figures.comparison_figure(document, arrays, pictures.uris, path, form, width)
    return pictures.unread


def _gallery(module: str) -> Callable[[Artifact, str, Path, float], Sequence[str]]:
    """Renderer of a kind whose page is made of cards: ``rdxcli.report.<module>.page(document, command)``."""

    def write(artifact: Artifact, form: str, path: Path, width: float) -> Sequence[str]:
        document = artifact.document()
        page = importlib.import_module(f"rdxcli.report.{module}").page(document, artifact.manifest.command)
        return _write(page, document.get("samples", {}), form, path, width)

    return write


def _surrogate(artifact: Artifact, form: str, path: Path, width: float) -> Sequence[str]:
    history = []
    with open(artifact.path / "metrics.csv", encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            numbers = {name: value for name, value in row.items() if name != "best" and value}
            history.append({name: float(value) for name, value in numbers.items()})
    return _write(surrogate.page(artifact.document(), history, artifact.manifest.command), {}, form, path, width)


def _write(page: Page, samples: Mapping[str, Any], form: str, path: Path, width: float) -> Sequence[str]:
    if form != "html":
        raise UsageError(f"{page.kicker.lower()}: there is no {form} form", "use --format html and print the page")
    pictures = thumbnails(samples, page.shown_ids())
    page = replace(page, notes=[*page.notes, *pictures.notes])
    path.write_text(gallery.html(page, pictures.uris), "utf-8")
    return pictures.unread


_PAGES: dict[str, Callable[[Artifact, str, Path, float], Sequence[str]]] = {
    "comparison": _comparison,
    "attributions": _gallery("attributions"),
    "directions": _gallery("directions"),
    "explanations": _gallery("neurons"),
    "similarities": _gallery("similarities"),
    "simulation": _gallery("simulation"),
    "regions": _gallery("regions"),
    "surrogate": _surrogate,
}
