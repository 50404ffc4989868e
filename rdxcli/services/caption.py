"""``rdx caption``: sentences about images, from a model, from people, or from a published file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdxcli.artifacts import Artifact, Draft, Request, create, fingerprint_json, join
from rdxcli.artifacts.layout import captions_folder, model_slug, slug
from rdxcli.concepts.captions import read_captions
from rdxcli.datasets.selection import SelectionOptions
from rdxcli.engines.activations import default_workers
from rdxcli.engines.captions import OUTPUT, CaptionTask
from rdxcli.engines.local import RunOptions, RunReport
from rdxcli.engines.shards import ShardPlan, ShardStore, assemble
from rdxcli.engines.sharing import Making, make_one
from rdxcli.errors import InputError, MissingDataError, UsageError
from rdxcli.progress import log
from rdxcli.records import SCHEMA_VERSION, plain

if TYPE_CHECKING:
    from rdxcli.datasets.base import Dataset
    from rdxcli.models.caption_server import CaptionServer
    from rdxcli.models.captioners import Captioner, Sampling

CODE = "1"
CAPTIONS, SAMPLES = "captions.jsonl", "samples.parquet"
HUMAN = "human"
ATTRIBUTES = (
    "List what this image shows, in this form: objects: ...; attributes: ... (an adjective and its object each); "
    "relations: ... (object, verb or preposition, object). Nothing else."
)
BATCH = {"cpu": 4, "cuda": 32}
MOST_SHARDS = 4000


@dataclass(frozen=True)
class CaptionOptions:
    """What to caption and how.

    Parameters
    ----------
    model : str, optional
        Captioner; ``human`` takes the captions that belong to the data set. Without one: those where there are any,
        else the default captioner.
    source : Path, optional
        File with captions (.json, .jsonl) that are taken in place of making any.
    captions, temperature, top_p, top_k, max_tokens, prompt
        See `rdxcli.models.captioners.Sampling`.
    base_url, parallel
        Of a server, see `rdxcli.models.caption_server.CaptionServer`.
    dtype : str, optional
        Half precision on a GPU by default.
    batch_size, workers : int, optional
        Neither changes a caption.
    strict : bool
        The first image that fails ends the run.
    """

    model: str | None = None
    source: Path | None = None
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    captions: int = 10
    temperature: float = 1.0
    top_p: float = 0.9
    top_k: int = 50
    max_tokens: int = 100
    prompt: str | None = None
    base_url: str | None = None
    parallel: int = 8
    dtype: str | None = None
    batch_size: int | None = None
    workers: int | None = None
    strict: bool = False
    max_errors: int | None = None
    outputs: Path = Path("outputs")
    run: str | None = None
    seed: int = 0
    device: str = "auto"
    force: bool = False


@dataclass(frozen=True)
class Outcome:
    """Finished captions and what to say about them."""

    artifact: Artifact
    document: Mapping[str, Any]


def caption(options: CaptionOptions) -> Outcome:
    """Make or import captions, continuing an interrupted run of the same request.

    Raises
    ------
    RdxError
        Unknown names, missing weights, unreadable files.
    """
    if options.source is not None:
        return _imported(options)
    dataset = _dataset(options)
    name = _captioner_name(options, dataset)
    return _human(options, dataset) if name == HUMAN else _made(options, dataset, name)


def plan(options: CaptionOptions) -> dict[str, Any]:
    """What `caption` would do. Loads no weights."""
    if options.source is not None:
        found = read_captions(options.source)
        return {"source": options.source, "images": len(found), "captions": sum(map(len, found.values()))}
    dataset = _dataset(options)
    name = _captioner_name(options, dataset)
    made = {} if name == HUMAN else {"captions_per_image": options.captions, "temperature": options.temperature}
    folder = captions_folder(options.outputs, dataset.name, options.run or model_slug(name))
    return {"data_set": dataset.name, "images": len(dataset), "captioner": name, **made, "artifact": folder}


def _dataset(options: CaptionOptions) -> Dataset:
    if options.selection.dataset is None:
        raise UsageError("which images?", "give --dataset NAME, --dataset folder:PATH or --dataset images:PATH")
    return options.selection.open()


def _captioner_name(options: CaptionOptions, dataset: Dataset) -> str:
    from rdxcli.models.caption_server import SCHEME
    from rdxcli.models.captioners import DEFAULT, resolve_captioner

    if options.model is None:
        if dataset.captions is None:
            return DEFAULT
        log.info("%s has captions of its own, which are taken; --model %s makes others", dataset.name, DEFAULT)
        return HUMAN
    if options.model == HUMAN:
        if dataset.captions is None:
            raise MissingDataError(f"the data set {dataset.name} has no captions", f"--model {DEFAULT} makes some")
        return HUMAN
    if options.model.startswith(SCHEME):
        _server(options)
    else:
        resolve_captioner(options.model)
        if options.base_url is not None:
            raise UsageError("--base-url is of a server", f"name a model of it: --model {SCHEME}NAME")
    return options.model


def _server(options: CaptionOptions) -> CaptionServer:
    from rdxcli.models.caption_server import CaptionServer

    return CaptionServer(str(options.model), options.base_url, parallel=options.parallel)


# -- by a model ---------------------------------------------------------------------------------------------------


def _made(options: CaptionOptions, dataset: Dataset, name: str) -> Outcome:
    from rdxcli.models.caption_server import SCHEME
    from rdxcli.models.captioners import Sampling, load_captioner

    how = Sampling(
        captions=options.captions,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        max_tokens=options.max_tokens,
        prompt=options.prompt,
        seed=options.seed,
    )
    how.check()
    for label, number, least in (("batch-size", options.batch_size, 1), ("workers", options.workers, 0)):
        if number is not None and number < least:
            raise UsageError(f"--{label}: got {number}, expected at least {least}")
    captioner: Captioner | CaptionServer
    if name.startswith(SCHEME):
        captioner = _server(options)
    else:
        captioner = load_captioner(name, options.device, options.dtype)
    known, described = captioner.description(), dataset.description()
    parameters = {**how.to_dict(), "prompt": captioner.prompt(how.prompt)}
    request = Request(
        kind="captions",
        parameters={"captioner": known["name"], "provenance": known["provenance"], "dtype": known["dtype"]}
        | {key: value for key, value in parameters.items() if key != "seed"},
        inputs={
            "weights": known["weights_sha256"],
            "dataset": {key: described[key] for key in ("name", "n", "selection", "fingerprint")},
        },
        seed=options.seed,
        code=CODE,
    )
    folder = captions_folder(options.outputs, dataset.name, options.run or model_slug(name))
    draft = join(folder, request, force=options.force)
    if not draft.reused:
        _run(options, captioner, dataset, how, folder, draft, {"dataset": described, "sampling": parameters})
    return _outcome(folder, draft.result, dataset.name, name)


def _run(
    options: CaptionOptions,
    captioner: Captioner | CaptionServer,
    dataset: Dataset,
    how: Sampling,
    folder: Path,
    draft: Draft,
    details: dict[str, Any],
) -> None:
    kind = captioner.device.type
    batch = min(options.batch_size or BATCH.get(kind, BATCH["cpu"]), len(dataset))
    # captions are slow to make: a kill costs a batch, as long as the folder does not fill with files
    wanted = ShardPlan.of(len(dataset), batch, shard_rows=max(batch, -(-len(dataset) // MOST_SHARDS)))
    log.info("captioning %d images of %s with %s, device %s", len(dataset), dataset.name, captioner.name, kind)
    run = RunOptions(
        workers=default_workers(kind) if options.workers is None else options.workers,
        batch_size=options.batch_size,
        strict=options.strict,
        max_errors=options.max_errors,
        description=f"caption {dataset.name}",
    )

    def finish(plan: ShardPlan, store: ShardStore, draft: Draft, report: RunReport) -> None:
        done = assemble(store, plan, draft.path / CAPTIONS, draft.path / SAMPLES, {"label": dataset.labels})
        draft.manifest.rows, draft.manifest.device = done.rows, str(captioner.device)
        draft.manifest.details = {
            "failed": len(done.failures),
            "images_per_second": round(report.rate, 3),
            "captioner": captioner.description(),
            **details,
        }

    task = CaptionTask(captioner, dataset, how)
    make_one(Making(folder, draft, finish), OUTPUT, wanted, dataset.sample_ids, task, run)


# -- by people, or from a file -------------------------------------------------------------------------------------


def _human(options: CaptionOptions, dataset: Dataset) -> Outcome:
    assert dataset.captions is not None
    captions = {str(s): list(c) for s, c in zip(dataset.sample_ids, dataset.captions, strict=True)}
    return _stored(options, dataset.name, HUMAN, captions, {"source": dataset.spec})


def _imported(options: CaptionOptions) -> Outcome:
    path = Path(str(options.source))
    captions = read_captions(path)
    name = slug(path.stem)
    if options.selection.dataset is not None:
        dataset = _dataset(options)
        captions, name = _matched(captions, dataset, path), dataset.name
    if not captions:
        raise InputError(f"{path} holds no captions")
    return _stored(options, name, f"imported-{path.stem}", captions, {"source": path.name})


def _matched(captions: Mapping[str, Sequence[str]], dataset: Dataset, path: Path) -> dict[str, list[str]]:
    """Captions under the data set's own ids, in its order.

    Published files name images by id, by path or by bare file name; whichever fits the most images is used.
    """
    by_name: dict[str, str | None] = {}
    for key in captions:
        for spelling in {key, Path(key).name, Path(key).stem}:
            by_name[spelling] = key if spelling not in by_name else None  # None: stands for several
    found: dict[str, list[str]] = {}
    for sample in map(str, dataset.sample_ids):
        spellings = (sample, Path(sample).name, Path(sample).stem)
        near = next((by_name[spelling] for spelling in spellings if by_name.get(spelling)), None)
        match = sample if sample in captions else near
        if match is not None:
            found[sample] = list(captions[match])
    if not found:
        first, own = next(iter(captions), "none"), dataset.sample_ids[0]
        raise InputError(f"{path} names none of the images of {dataset.name}: it has `{first}`, the data set `{own}`")
    if len(found) < len(dataset):
        log.warning("%d of %d images of %s are not in %s", len(dataset) - len(found), len(dataset), dataset.name, path)
    return found


def _stored(
    options: CaptionOptions, name: str, origin: str, captions: Mapping[str, Sequence[str]], details: dict[str, Any]
) -> Outcome:
    request = Request(
        kind="captions",
        parameters={"captioner": origin, **details},
        inputs={"captions": fingerprint_json(captions)},
        code=CODE,
    )
    folder = captions_folder(options.outputs, name, options.run or origin)
    with create(folder, request, force=options.force) as draft:
        if not draft.reused:
            rows = (
                {"sample_id": sample, "captions": [" ".join(t.split()) for t in texts]}
                for sample, texts in captions.items()
            )
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (draft.path / CAPTIONS).write_text(text, "utf-8")
            draft.manifest.rows = len(captions)
            draft.manifest.details = {"failed": 0, **details}
    return _outcome(folder, draft.result, name, origin)


def _outcome(folder: Path, artifact: Artifact, dataset: str, captioner: str) -> Outcome:
    images, total = 0, 0
    examples: list[dict[str, Any]] = []
    with open(artifact.path / CAPTIONS, encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            images, total = images + 1, total + len(row["captions"])
            if len(examples) < 5:
                examples.append(row)
    failed: list[dict[str, str]] = []
    if artifact.manifest.details["failed"]:
        import pyarrow.parquet as pq

        table = pq.read_table(artifact.path / SAMPLES, columns=["sample_id", "error"])
        failed = table.slice(images).to_pylist()
    document = {
        "schema_version": SCHEMA_VERSION,
        "kind": "captions",
        "artifact": folder.as_posix(),
        "dataset": dataset,
        "captioner": captioner,
        "parameters": artifact.manifest.request.parameters,
        "seed": artifact.manifest.request.seed,
        "images": images,
        "captions": total,
        "failed": failed,
        "examples": examples,
    }
    return Outcome(artifact, plain(document))
