"""``rdx caption``: sentences about images, from a model, from people, or from a published file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdxcli.artifacts import Draft, Request, join, write_json
from rdxcli.artifacts.layout import captions_folder, model_slug, slug
from rdxcli.artifacts.store import DOCUMENTS
from rdxcli.concepts.captions import captions_of_images, counted_captions, read_captions, write_captions
from rdxcli.concepts.word_options import CaptionOptions
from rdxcli.engines.activations import default_workers
from rdxcli.engines.captions import OUTPUT, CaptionTask
from rdxcli.engines.local import RunOptions, RunReport
from rdxcli.engines.shards import ShardPlan, ShardStore, assemble, failed_samples
from rdxcli.engines.sharing import Making, make_one
from rdxcli.engines.tasks import seconds_of_one
from rdxcli.errors import InputError, MissingDataError, UsageError
from rdxcli.methods.costs import Cost, documented, expected
from rdxcli.models.caption_server import check_captioner, open_captioner
from rdxcli.models.captioners import ATTRIBUTES, DEFAULT, Sampling
from rdxcli.places import data_root
from rdxcli.progress import human_count, log
from rdxcli.records import Captions
from rdxcli.services.base import Analysis

if TYPE_CHECKING:
    from rdxcli.datasets.base import Dataset
    from rdxcli.models.caption_server import CaptionServer
    from rdxcli.models.captioners import Captioner

CAPTIONS, SAMPLES = "captions.jsonl", "samples.parquet"
HUMAN = "human"
BATCH = {"cpu": 4, "cuda": 32}
MOST_SHARDS = 4000
WORTH_TRYING = 20
"""Images from which one is described to see how long that takes."""


class CaptionAnalysis(Analysis[CaptionOptions]):
    """Captions of images. Those of a model are made in shards, which an interrupted run finds again."""

    kind = "captions"
    version = "2"
    resumes = True
    dataset: Dataset | None = None
    how: Sampling | None = None
    """None for captions that are there."""

    def check(self) -> Mapping[str, Any]:
        options = self.options
        if options.selection.dataset is not None:
            self.dataset = options.selection.open()
        if options.source is not None:
            return {"captioner": f"imported-{options.source.stem}", "source": options.source.name}
        if self.dataset is None:
            raise UsageError("which images?", "give --dataset NAME, --dataset folder:PATH or --dataset images:PATH")
        name = _captioner_name(options, self.dataset)
        if name == HUMAN:
            return {"captioner": HUMAN, "source": self.dataset.spec}
        self.how = _sampling(options)
        return {"captioner": name, **{key: value for key, value in self.how.to_dict().items() if key != "seed"}}

    def gather(self) -> Mapping[str, Any]:
        options, dataset = self.options, self.dataset
        if self.how is None or dataset is None:
            return {"captions": self._given()}
        self.captioner = _opened(options, self.settings["captioner"])
        self.settings = {**self.settings, "prompt": self.captioner.prompt(self.how.prompt)}
        described = dataset.description()
        return {
            "captioner": self.captioner.description(),
            "dataset": {key: described[key] for key in ("name", "n", "selection", "fingerprint")},
        }

    def folder(self) -> Path:
        options, name = self.options, self.settings["captioner"]
        of = self.dataset.name if self.dataset is not None else slug(Path(str(options.source)).stem)
        return captions_folder(options.outputs, of, options.run or (name if self.how is None else model_slug(name)))

    def headline(self) -> str:
        if self.dataset is None or self.how is None:
            return f"caption: {human_count(len(self.records['captions']), 'image')} from {self.settings['source']}"
        where = f"with {self.captioner.name}, device {self.captioner.device.type}"
        asked = self._asked()
        words = f"; {asked['requests']:,} requests, at most {asked['tokens_at_most']:,} tokens" if asked else ""
        return f"caption: {human_count(len(self.dataset), 'image')} of {self.dataset.name} {where}{words}"

    def _asked(self) -> dict[str, int]:
        """What a server will be asked for, which it may want to be paid; nothing where no server is asked."""
        if self.how is None or not isinstance(getattr(self.captioner, "model", None), str):
            return {}
        requests = len(self.dataset or ()) * self.how.captions
        return {"requests": requests, "tokens_at_most": requests * self.how.max_tokens}

    def compute(self, draft: Draft) -> Captions:
        captions = self.records["captions"]
        write_captions(draft.path / CAPTIONS, captions)
        draft.manifest.rows = len(captions)
        draft.manifest.details = {"failed": 0, "source": self.settings["source"]}
        return self._record(draft.path)

    def make(self, folder: Path, request: Request) -> Draft:
        if self.how is None or self.dataset is None:
            return super().make(folder, request)
        options, dataset, kind = self.options, self.dataset, self.captioner.device.type
        draft = join(folder, request, force=options.force)
        if draft.reused:
            return draft
        self.announce()
        batch = min(options.batch_size or BATCH.get(kind, BATCH["cpu"]), len(dataset))
        # captions are slow to make: a kill costs a batch, as long as the folder does not fill with files
        wanted = ShardPlan.of(len(dataset), batch, shard_rows=max(batch, -(-len(dataset) // MOST_SHARDS)))
        run = RunOptions(
            workers=default_workers(kind) if options.workers is None else options.workers,
            batch_size=options.batch_size,
            strict=options.strict,
            max_errors=options.max_errors,
            description=f"caption {dataset.name}",
        )

        def finish(plan: ShardPlan, store: ShardStore, draft: Draft, report: RunReport) -> None:
            done = assemble(store, plan, draft.path / CAPTIONS, draft.path / SAMPLES, {"label": dataset.labels})
            draft.manifest.rows, draft.manifest.device = done.rows, str(self.captioner.device)
            draft.manifest.details = {
                "failed": len(done.failures),
                "images_per_second": round(report.rate, 3),
                "captioner": self.captioner.description(),
                "dataset": dataset.description(),
            }
            write_json(draft.path / DOCUMENTS[self.kind], self._record(draft.path).to_document(folder.as_posix()))

        task = CaptionTask(self.captioner, dataset, self.how)
        selection = replace(options.selection, dataset=dataset.spec, root=data_root(options.selection.root).absolute())
        elsewhere = (open_task, (replace(options, selection=selection), self.settings["captioner"]))
        make_one(Making(folder, draft, finish), OUTPUT, wanted, dataset.sample_ids, task, run, elsewhere)
        return draft

    def expected(self) -> Cost | None:
        if self.how is None or self.dataset is None:
            return None
        n, took = len(self.dataset), None
        network = getattr(self.captioner, "model", None)
        tensors = None if network is None or isinstance(network, str) else network.parameters()  # a server's is a name
        if n >= WORTH_TRYING and tensors is not None:  # a server would do its work twice
            took = seconds_of_one(CaptionTask(self.captioner, self.dataset, self.how), n)
        weights = sum(part.numel() * part.element_size() for part in tensors or ())
        cost = expected(self.kind, "", {"n": n, "t": self.how.captions, "weights": weights})
        return cost if cost is None or took is None else replace(cost, parts={"captions": n * took})

    def plan(self) -> dict[str, Any]:
        self.settings = self.check()
        if self.how is None:
            found = self._given()
            return {**self.settings, "images": len(found), "captions": sum(map(len, found.values()))}
        read: dict[str, Any] = {"images": len(self.dataset or ()), "artifact": self.folder()}
        try:
            self.captioner = _opened(self.options, self.settings["captioner"])
        except MissingDataError as error:
            return {**self.settings, **read, "missing": error.message}
        return {**self.settings, **read, **self._asked(), **documented(self.expected())}

    def _given(self) -> dict[str, list[str]]:
        """Captions that are there: of a file, of the data set."""
        dataset, source = self.dataset, self.options.source
        if source is None:
            assert dataset is not None
            assert dataset.captions is not None
            return {str(s): list(c) for s, c in zip(dataset.sample_ids, dataset.captions, strict=True)}
        captions = read_captions(source)
        if dataset is not None:
            captions = captions_of_images(captions, dataset, source)
        if not captions:
            raise InputError(f"{source} holds no captions")
        return captions

    def _record(self, folder: Path) -> Captions:
        """What the files of a folder hold."""
        images, total, examples = counted_captions(folder / CAPTIONS)
        failed = failed_samples(folder / SAMPLES, images) if (folder / SAMPLES).is_file() else []
        return Captions(
            method=self.settings["captioner"],
            parameters=self.settings,
            seed=self.options.seed,
            dataset=self.dataset.name if self.dataset is not None else None,
            captioner=self.settings["captioner"],
            images=images,
            captions=total,
            failed=failed,
            examples=examples,
        )


def _sampling(options: CaptionOptions) -> Sampling:
    """How captions are drawn, checked."""
    how = Sampling(
        captions=options.captions,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        max_tokens=options.max_tokens,
        prompt=ATTRIBUTES if options.attributes and options.prompt is None else options.prompt,
        seed=options.seed,
    )
    how.check()
    for label, number, least in (("batch-size", options.batch_size, 1), ("workers", options.workers, 0)):
        if number is not None and number < least:
            raise UsageError(f"--{label}: got {number}, expected at least {least}")
    return how


def open_task(options: CaptionOptions, name: str) -> CaptionTask:
    """The task of `CaptionAnalysis`, opened anew: what a worker process of another engine starts with."""
    return CaptionTask(_opened(options, name), options.selection.open(), _sampling(options))


def _captioner_name(options: CaptionOptions, dataset: Dataset) -> str:
    """The captioner that the options mean, which exists as far as its name tells."""
    if options.model is None:
        if dataset.captions is None:
            return DEFAULT
        log.info("%s has captions of its own, which are taken; --model %s makes others", dataset.name, DEFAULT)
        return HUMAN
    if options.model == HUMAN:
        if dataset.captions is None:
            raise MissingDataError(f"the data set {dataset.name} has no captions", f"--model {DEFAULT} makes some")
    else:
        check_captioner(options.model, options.base_url, options.parallel)
    return options.model


def _opened(options: CaptionOptions, name: str) -> Captioner | CaptionServer:
    address, parallel = options.base_url, options.parallel
    return open_captioner(name, options.device, options.dtype, base_url=address, parallel=parallel)
