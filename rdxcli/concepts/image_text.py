"""Embeddings of images and texts in a vision-language model's space, as artifacts that are made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdxcli.artifacts import Draft, Request, fingerprint_json, join
from rdxcli.artifacts.layout import image_text_folder, model_slug, slug
from rdxcli.datasets.registry import open_dataset
from rdxcli.engines.activations import ActivationTask, default_batch_size, default_workers
from rdxcli.engines.local import RunOptions, RunReport
from rdxcli.engines.shards import ShardPlan, ShardStore, assemble
from rdxcli.engines.sharing import Making, make_one
from rdxcli.engines.texts import EMBEDDINGS, TextTask
from rdxcli.errors import InputError
from rdxcli.lazy import pyarrow as pa
from rdxcli.models.taps import OUTPUT
from rdxcli.models.vision_language import TEXT_BATCH, fill_template, load_vision_language
from rdxcli.places import data_root
from rdxcli.progress import human_count, log

if TYPE_CHECKING:
    from rdxcli.datasets.base import Dataset
    from rdxcli.datasets.selection import SelectionOptions
    from rdxcli.models.spec import ModelSpec
    from rdxcli.models.vision_language import VisionLanguageModel
    from rdxcli.records import Representation

CODE = "1"
FEATURES, SAMPLES, WORDS = "features.npy", "samples.parquet", "words.txt"
TEXTS = "texts"
"""Stands in the place of a data set for embeddings of words, which belong to none."""


@dataclass(frozen=True)
class Embeddings:
    """Embeddings with the ids of their rows.

    Attributes
    ----------
    values : (n, d) float32
        Not normalised; memory-mapped.
    sample_ids : list of str
        Of images that could be read; for texts the texts themselves.
    fingerprint : str
        Of what they were made from.
    failed : int
        Images that could not be read.
    """

    values: np.ndarray
    sample_ids: list[str]
    folder: Path
    fingerprint: str
    failed: int = 0


def image_embeddings(
    model: VisionLanguageModel,
    dataset: Dataset,
    outputs: Path,
    *,
    batch_size: int | None = None,
    workers: int | None = None,
    force: bool = False,
) -> Embeddings:
    """Image embeddings of a data set: ``<outputs>/<dataset>/image-text/<model>/features.npy``.

    Raises `RdxError` (no image can be read, or the folder holds embeddings of something else). `batch_size`, `workers`:
    chosen from the size of the inputs and the machine when not given; `force`: make them again.
    """
    images = model.images
    kind = images.device.type
    batch = batch_size or default_batch_size(images.input_size, kind)
    description = dataset.description()
    request = _request(
        model, {"of": "images"}, {key: description[key] for key in ("name", "n", "selection", "fingerprint")}
    )
    folder = image_text_folder(outputs, dataset.name, model_slug(model.name))
    draft = join(folder, request, force=force)
    if not draft.reused:
        log.info(
            "embedding %s of %s with %s, device %s", human_count(len(dataset), "image"), dataset.name, model.name, kind
        )
        columns = {"label": dataset.labels, "split": dataset.splits}
        threads = default_workers(kind, dataset.source.waits) if workers is None else workers
        run = RunOptions(workers=threads, description=f"embed {dataset.name}")

        def finish(plan: ShardPlan, store: ShardStore, draft: Draft, report: RunReport) -> None:
            _finish(model, plan, store, draft, {"dataset": description}, columns)

        with ActivationTask(images, dataset, [OUTPUT], "auto") as task:
            wanted = ShardPlan.of(len(dataset), batch)
            how_opened = (model.spec, kind, str(images.dtype).removeprefix("torch."), images.untrained)
            elsewhere = (open_images, (how_opened, dataset.spec, dict(dataset.selection), data_root().absolute()))
            make_one(Making(folder, draft, finish), OUTPUT, wanted, dataset.sample_ids, task, run, elsewhere)
    return _opened(folder, draft)


def open_images(
    how: tuple[ModelSpec, str, str, bool], spec: str, selection: Mapping[str, Any], root: Path
) -> ActivationTask:
    """The task of `image_embeddings`, opened anew: what a worker process of another engine starts with."""
    model, device, dtype, untrained = how
    images = load_vision_language(model, device, dtype, untrained).images
    return ActivationTask(images, open_dataset(spec, root=root).select(**selection), [OUTPUT], "auto")


def embeddings_of(
    representation: Representation, model: VisionLanguageModel, selection: SelectionOptions, outputs: Path
) -> tuple[np.ndarray, str]:
    """Image embeddings of the rows of a representation, and their fingerprint.

    Raises `InputError` (a row has no image in the data set).
    """
    dataset = selection.open(representation.dataset)
    found = image_embeddings(model, dataset, outputs)
    if representation.sample_ids is None:
        if found.failed or len(found.values) != representation.n:
            raise InputError(
                f"{representation.name} has {human_count(representation.n, 'row')} without ids, {dataset.name} has "
                f"{human_count(len(found.values), 'image')}",
                "give the ids of the rows with --sample-ids FILE",
            )
        return np.asarray(found.values), found.fingerprint
    places = dataset.locate(representation.ids())
    row = {sample: i for i, sample in enumerate(found.sample_ids)}
    rows = np.array([row.get(dataset.sample_ids[i], -1) if i >= 0 else -1 for i in places])
    if (rows < 0).any():
        first = representation.sample_ids[int(np.argmax(rows < 0))]
        raise InputError(
            f"{human_count(int((rows < 0).sum()), 'sample')} of {representation.name} have no image in "
            f"{dataset.name}, for example "
            f"`{first}`"
        )
    return np.asarray(found.values)[rows], found.fingerprint


def text_embeddings(
    model: VisionLanguageModel,
    texts: Sequence[str],
    outputs: Path,
    *,
    name: str = "words",
    template: str = "{}",
    force: bool = False,
) -> Embeddings:
    """Text embeddings: ``<outputs>/texts/image-text/<model>/<name>-<digest of the texts>/features.npy``.

    Parameters
    ----------
    name : str
        For people; the digest tells lists of one name apart.
    template : str
        See `VisionLanguageModel.encode_text`.
    """
    prompts = fill_template(template, texts)
    digest = fingerprint_json(prompts)
    request = _request(model, {"of": "texts", "template": template}, {"texts": digest})
    folder = image_text_folder(outputs, TEXTS, model_slug(model.name)) / f"{slug(name)}-{digest[:8]}"
    draft = join(folder, request, force=force)
    if not draft.reused:
        log.info("embedding %d texts with %s", len(texts), model.name)
        ids = [f"{i}: {text}" for i, text in enumerate(texts)]

        def finish(plan: ShardPlan, store: ShardStore, draft: Draft, report: RunReport) -> None:
            _finish(model, plan, store, draft, {"texts": len(texts)})
            (draft.path / WORDS).write_text("".join(f"{text}\n" for text in texts), "utf-8")

        wanted = ShardPlan.of(len(ids), TEXT_BATCH)
        run = RunOptions(description="embed texts")
        make_one(Making(folder, draft, finish), EMBEDDINGS, wanted, ids, TextTask(model, prompts), run)
    found = _opened(folder, draft)
    return Embeddings(found.values, list(texts), folder, found.fingerprint)


def _request(model: VisionLanguageModel, parameters: Mapping[str, Any], inputs: Mapping[str, Any]) -> Request:
    known = model.description()
    shown = ("source", "options", "dtype", "untrained", "preprocessing")
    return Request(
        kind="image-text",
        parameters={"model": known["name"], **{name: known[name] for name in shown}, **parameters},
        inputs={"weights": known["weights_sha256"], **inputs},
        code=CODE,
    )


def _finish(
    model: VisionLanguageModel,
    plan: ShardPlan,
    store: ShardStore,
    draft: Draft,
    details: Mapping[str, Any],
    columns: Mapping[str, Any] | None = None,
) -> None:
    """Join the shards, and note what came out."""
    done = assemble(store, plan, draft.path / FEATURES, draft.path / SAMPLES, columns)
    draft.manifest.rows, draft.manifest.device = done.rows, str(model.images.device)
    draft.manifest.details = {
        "shape": list(done.shape),
        "failed": len(done.failures),
        "model": model.description(),
        **details,
    }


def _opened(folder: Path, draft: Draft) -> Embeddings:
    values = np.load(folder / FEATURES, mmap_mode="r", allow_pickle=False)
    ids = pa.parquet.read_table(folder / SAMPLES, columns=["sample_id"]).slice(0, len(values))["sample_id"].to_pylist()
    manifest = draft.result.manifest
    failed = int(manifest.details["failed"])
    if failed:
        log.warning("%s of %s could not be read and have no embedding", human_count(failed, "image"), folder)
    return Embeddings(values, ids, folder, manifest.fingerprint, failed)
