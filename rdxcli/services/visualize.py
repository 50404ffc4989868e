"""``rdx visualize``: from an artifact to a page, a figure or data that a person can open and share."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from rdxcli.artifacts import Artifact, find_artifacts, resolve_artifact
from rdxcli.artifacts.layout import below, report_path, short_name
from rdxcli.artifacts.manifest import MANIFEST
from rdxcli.artifacts.store import DOCUMENTS
from rdxcli.datasets.base import Dataset
from rdxcli.datasets.registry import open_dataset
from rdxcli.errors import ArtifactError, RdxError, UsageError
from rdxcli.numerics.axes import principal_axes
from rdxcli.numerics.umap_axes import require_umap
from rdxcli.progress import human_count, log, track
from rdxcli.report import exports
from rdxcli.report.figures import WIDTHS, figure
from rdxcli.report.formats import FORMATS
from rdxcli.report.html import render as template
from rdxcli.report.kinds import BUILDERS, summarize
from rdxcli.report.markdown import markdown
from rdxcli.report.page import Images, sprites, write_page
from rdxcli.report.several import several
from rdxcli.report.summary import Maps, Summary
from rdxcli.report.thumbnails import data_uri, square
from rdxcli.representations.maps import umap_map
from rdxcli.representations.stored import stored_values

MAPS = ("axes", "umap")
"""What --map may be: the main axes, which every report has, and UMAP beside them."""

SMALL, SMALL_EDGE = 2000, 48
"""Small pictures of a comparison, and their edge in pixels."""


@dataclass(frozen=True)
class Report:
    """A written report.

    Parameters
    ----------
    unread : sequence of str
        Images that should be on it and could not be read; the page says so too.
    beside : sequence of Path
        Further files: other tables, pictures of a large page.
    """

    artifacts: Sequence[Artifact]
    path: Path
    unread: Sequence[str] = ()
    beside: Sequence[Path] = ()


def choose(text: str | None, outputs: Path) -> Artifact:
    """The artifact that ``text`` names; without a name, the newest one that has a document."""
    if text:
        return resolve_artifact(text, outputs)
    shown = [artifact for artifact in find_artifacts(outputs) if artifact.kind in DOCUMENTS]
    if not shown:
        raise ArtifactError(
            f"nothing to show in {outputs}", "make something first, for example `rdx compare digits-cnn-m35 digits-cnn`"
        )
    return shown[-1]


def summary_of(artifact: Artifact) -> Summary:
    """What there is to say about an artifact. Raises `UsageError` (a kind of artifact that has no report)."""
    if artifact.kind not in BUILDERS:
        raise UsageError(
            f"{artifact.path} holds {artifact.kind}, which has no report", "`rdx list artifacts` shows others"
        )
    manifest = artifact.manifest
    document = (
        artifact.document()
        if artifact.kind in DOCUMENTS
        else {
            "kind": artifact.kind,
            "name": short_name(str(manifest.request.parameters.get("model", ""))),
            "parameters": manifest.request.parameters,
            "seed": manifest.request.seed,
            "details": manifest.details,
        }
    )
    return summarize(document, artifact.path, manifest.command)


def render(
    artifacts: Artifact | Sequence[Artifact],
    outputs: Path,
    form: str = "html",
    to: Path | None = None,
    width: str = "page",
    vectors: bool = False,
    layout: str = MAPS[0],
    pictures: bool = False,
    whole: bool = False,
) -> Report:
    """Write the report of an artifact, or one of several artifacts.

    Raises `UsageError` (unknown format or width, or a kind of artifact that has no such report).

    Parameters
    ----------
    outputs : Path
        The outputs directory; the report goes to ``reports/`` of the artifact's data set.
    form : {"html", "md", "csv", "json", "parquet", "png", "pdf", "svg"}
    to : Path, optional
        Write here instead.
    width : {"column", "page"}
        Of figures: 3.3 or 6.9 inches.
    vectors : bool
        Of Parquet: the values of every sample too.
    layout : {"axes", "umap"}
        Of comparisons: the main axes, or also where UMAP places the images.
    pictures : bool
        Of Parquet: a small picture of every sample too.
    whole : bool
        A large page too keeps its pictures inside.
    """
    if form not in FORMATS:
        raise UsageError(f"unknown format `{form}`", f"choose one of {', '.join(FORMATS)}")
    if width not in WIDTHS:
        raise UsageError(f"unknown width `{width}`", f"choose one of {', '.join(WIDTHS)}")
    if layout not in MAPS:
        raise UsageError(f"unknown map `{layout}`", f"choose one of {', '.join(MAPS)}")
    for option, asked in (("--vectors", vectors), ("--pictures", pictures)):
        if asked and form != "parquet":
            raise UsageError(f"{option} is for --format parquet", "leave it out")
    chosen = [artifacts] if isinstance(artifacts, Artifact) else list(artifacts)
    if len(chosen) == 1:
        summary = summary_of(chosen[0])
        summary = _with_umap(summary, chosen[0], outputs) if layout == "umap" else summary
    elif layout == "umap":
        raise UsageError("--map umap is for one comparison", "leave it out, or show one artifact")
    else:
        summary = several({below(one.path, outputs): summary_of(one) for one in chosen})
    path = to or report_path([one.path for one in chosen], outputs, form)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{os.getpid()}-{path.name}")
        try:
            unread, beside = _write(
                summary, chosen, outputs, form, temporary, path, WIDTHS[width], vectors, pictures, whole
            )
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(
            f"cannot write {path}: {error.strerror or error}", "choose another place with --to"
        ) from None
    return Report(chosen, path, unread, beside)


def content(
    artifacts: Sequence[Artifact],
    outputs: Path,
    form: str = "html",
    width: str = "page",
    vectors: bool = False,
    layout: str = MAPS[0],
    pictures: bool = False,
) -> tuple[bytes, Sequence[str]]:
    """The report as `render` writes it, in one piece: a page keeps its pictures, of tables there is the first alone.

    Returns
    -------
    content : bytes
    unread : sequence of str
        Images that should be on it and could not be read.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"report.{form}"
        report = render(artifacts, outputs, form, path, width, vectors, layout, pictures, whole=True)
        if report.beside:
            log.warning("the first of %d tables; --to FILE.csv writes all", len(report.beside) + 1)
        return path.read_bytes(), report.unread


def _write(
    summary: Summary,
    artifacts: Sequence[Artifact],
    outputs: Path,
    form: str,
    temporary: Path,
    path: Path,
    width: float,
    vectors: bool,
    pictures: bool,
    whole: bool,
) -> tuple[Sequence[str], Sequence[Path]]:
    """Write ``temporary``, which becomes ``path``; images that could not be read, and files beside it."""
    if form == "md":
        temporary.write_text(markdown(summary), "utf-8")
    elif form == "json":
        temporary.write_text(exports.as_json(summary), "utf-8")
    elif form == "csv":
        return (), exports.write_tables(summary, temporary, path)
    elif form == "parquet":
        return _write_samples(summary, artifacts, outputs, temporary, vectors, pictures), ()
    else:
        images, unread = read_images(summary, small=form == "html")
        summary = replace(summary, notes=[*summary.notes, *_said(unread, len(images.uris) + len(unread))])
        if form == "html":
            return unread, write_page(summary, images, temporary, path, whole)
        figure(summary, images.uris, temporary, form, width)
        return unread, ()
    return (), ()


def _said(unread: Sequence[str], wanted: int) -> list[str]:
    """What the reader of the report must know."""
    if not unread:
        return []
    some = ", ".join(unread[:3]) + (" ..." if len(unread) > 3 else "")
    return [f"{len(unread)} of {human_count(wanted, 'image')} could not be read, moved or damaged: {some}"]


def _write_samples(
    summary: Summary, artifacts: Sequence[Artifact], outputs: Path, temporary: Path, vectors: bool, pictures: bool
) -> list[str]:
    """One row a sample; ids of the images that should be in it and could not be read."""
    dataset, unread = _open(summary.dataset), list[str]()

    def locate(ids: Sequence[str]) -> list[str | None]:
        if dataset is None:
            return [None] * len(ids)
        return [dataset.location(int(place)) if place >= 0 else None for place in dataset.locate(ids)]

    def draw(ids: Sequence[str]) -> list[bytes | None]:
        drawn = dict(_images_of(dataset, ids))
        unread.extend(sample for sample in ids if drawn.get(sample) is None)
        uris = (None if image is None else data_uri(image) for image in map(drawn.get, ids))
        return [None if uri is None else base64.b64decode(uri.partition(",")[2]) for uri in uris]

    values: dict[str, np.ndarray] = {}
    points = None
    if summary.kind == "activations":
        found = np.load(artifacts[0].path / "activations.npy", mmap_mode="r", allow_pickle=False)
        flat = found.reshape(len(found), -1)
        points = (*exports.read_samples(artifacts[0].path, len(found)), principal_axes(flat))
        values = {"vector": flat} if vectors else {}
    elif vectors and summary.maps is not None:
        values = {f"vector_{side}": _vectors(artifacts[0], side, summary.maps, outputs) for side in summary.maps.points}
    elif vectors:
        raise UsageError(f"{summary.kind} has no vectors", "use it with a comparison, or what `rdx extract` made")
    exports.samples(summary, temporary, locate, values, points, draw if pictures else None)
    return unread


def _images_of(dataset: Dataset | None, ids: Sequence[str]) -> Iterator[tuple[str, Image.Image | None]]:
    """Each sample with its image; None for what cannot be read."""
    if dataset is None:
        yield from ((sample, None) for sample in ids)
        return
    with track("read images", len(ids), "images") as advance:
        for sample, index in zip(ids, dataset.locate(ids), strict=True):
            try:
                yield sample, dataset.image(int(index)) if index >= 0 else None
            except (OSError, ValueError, RdxError):
                yield sample, None
            advance(1)


def _vectors(artifact: Artifact, side: str, maps: Maps, outputs: Path) -> np.ndarray:
    """The values that one side of a comparison was made from, in the order of its samples."""
    width, source = int(artifact.document()[side]["d"]), artifact.manifest.request.inputs.get(side) or {}
    return stored_values(source, maps.ids.tolist(), width, outputs, f"{maps.names[side]} ({side})")


def _with_umap(summary: Summary, artifact: Artifact, outputs: Path) -> Summary:
    """The summary of a comparison with where UMAP places the rows of both sides."""
    maps = summary.maps
    if maps is None:
        raise UsageError(f"{artifact.path} holds {artifact.kind}, which has no maps", "--map is for comparisons")
    require_umap()
    try:
        dataset = artifact.path.resolve().relative_to(outputs.resolve()).parts
    except ValueError:
        dataset = (artifact.path.parent.name,)
    place = "/".join(dataset[: 2 if dataset[0] == "arrays" else 1])
    ids = list(map(str, maps.ids))
    points = {
        side: umap_map(_vectors(artifact, side, maps, outputs), ids, outputs, place, maps.names[side])
        for side in maps.points
    }
    return replace(summary, maps=replace(maps, layouts={"UMAP": points}))


def _open(spec: str | None) -> Dataset | None:
    if not spec:
        return None
    try:
        return open_dataset(spec)
    except RdxError as error:
        log.warning("no images in the report: %s", error.message)
        return None


def read_images(summary: Summary, small: bool = True) -> tuple[Images, list[str]]:
    """The pictures of a summary, and the ids of those that could not be read.

    `small`: with small pictures of the samples of its maps.
    """
    wanted = summary.shown_ids()
    if not summary.dataset or not wanted:
        return Images(), []
    dataset = _open(summary.dataset)
    if dataset is None:
        return Images(), wanted
    rows = {str(summary.maps.ids[row]): row for row in _pictured(summary.maps)} if small and summary.maps else {}
    uris: dict[str, str] = {}
    tiles: dict[int, Image.Image] = {}
    unread = []
    shown, every = set(wanted), list(dict.fromkeys([*wanted, *rows]))
    for sample, image in _images_of(dataset, every):
        if image is not None and sample in rows:
            tiles[rows[sample]] = square(image, SMALL_EDGE)
        if sample in shown and image is None:
            unread.append(sample)
        elif sample in shown and image is not None:
            uris[sample] = data_uri(image)
    for note in _said(unread, len(wanted)):
        log.warning(note)
    across = 20
    sheets, places = sprites(tiles, SMALL_EDGE, across)
    return Images(uris, sheets, SMALL_EDGE, across, across * across, places), unread


def _pictured(maps: Maps) -> list[int]:
    """Rows that get a small picture: neighbours of what is shown, members of the groups, then every so many."""
    n = len(maps.ids)
    first = [row for rows in maps.neighbours.values() for row in rows.ravel().tolist()]
    first += [row for group in maps.groups.values() for row in np.flatnonzero(group).tolist()]
    spread = np.linspace(0, n - 1, min(n, SMALL)).astype(int).tolist()
    return list(dict.fromkeys([*first, *spread]))[:SMALL]


def index(outputs: Path) -> tuple[Path, list[Report]]:
    """A page that links the reports of all artifacts below ``outputs``; those that are missing or old are made.

    Returns
    -------
    path : Path
        ``<outputs>/reports/index.html``.
    made : list of Report
        Reports that were written now.
    """
    found = [artifact for artifact in find_artifacts(outputs) if artifact.kind in BUILDERS]
    if not found:
        choose(None, outputs)  # says what to do
    path, made, rows = outputs / "reports" / "index.html", [], []
    newest = sorted(found, key=lambda one: one.manifest.created, reverse=True)
    for artifact in sorted(newest, key=lambda one: one.kind not in DOCUMENTS):
        report = report_path([artifact.path], outputs, "html")
        if not report.is_file() or report.stat().st_mtime < (artifact.path / MANIFEST).stat().st_mtime:
            made.append(render(artifact, outputs))
        difference: Mapping[str, Any] = {}
        if artifact.kind in DOCUMENTS:
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
