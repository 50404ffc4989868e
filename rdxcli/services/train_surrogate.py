"""``rdx train-surrogate``: fit a concept surrogate of a vision-language embedding."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rdxcli.artifacts import Draft, write_json
from rdxcli.artifacts.layout import array_dataset, slug, surrogates_folder
from rdxcli.concepts.encodings import load_encodings
from rdxcli.concepts.surrogates import state_of
from rdxcli.concepts.teacher import read_teacher
from rdxcli.concepts.word_options import TrainOptions
from rdxcli.errors import ArtifactError, DependencyError, RdxError, UsageError
from rdxcli.lazy import safetensors_torch
from rdxcli.methods.costs import documented
from rdxcli.models.devices import pick_device
from rdxcli.parameters import estimator_parameters, result_parameters
from rdxcli.progress import human_count, log, track
from rdxcli.records import TrainedSurrogate
from rdxcli.services.base import Analysis

CHECKPOINTS, TENSORBOARD = "checkpoints", "tensorboard"
COMMAND = "train-surrogate"


class TrainAnalysis(Analysis[TrainOptions]):
    """One surrogate, from encodings and a teacher's embeddings; an interrupted training goes on."""

    kind = "surrogate"
    version = "2"
    resumes = True

    def check(self) -> Mapping[str, Any]:
        from rdxcli.methods.surrogate.training import SurrogateTrainer

        options = self.options
        needed = {"encodings": options.encodings}
        if options.teacher is None:
            needed |= {name: getattr(options, name) for name in ("image_embeddings", "text_embeddings")}
        for name, value in needed.items():
            if not value:
                raise UsageError(f"--{name.replace('_', '-')} is missing", "give it on the command line or in --config")
        if options.tensorboard and find_spec("tensorboard") is None:
            raise DependencyError("tensorboard", "tensorboard")
        given, _ = estimator_parameters(COMMAND, SurrogateTrainer, options.parameters)
        device = str(pick_device(options.device))
        self.trainer = SurrogateTrainer(**given, random_state=options.seed, device=device)
        self.trainer.check()
        return result_parameters(self.trainer)

    def gather(self) -> Mapping[str, Any]:
        options = self.options
        self.encodings = load_encodings(options.encodings, options.outputs)
        self.source = read_teacher(options, list(map(str, self.encodings.ids)))
        return {
            "encodings": self.encodings.arrays(),
            "samples": list(map(str, self.encodings.ids)),
            "concepts": list(map(str, self.encodings.concepts)),
            "teacher": self.source,
        }

    def folder(self) -> Path:
        options = self.options
        return surrogates_folder(options.outputs, options.name or self.source.name, options.run or "surrogate")

    def compute(self, draft: Draft) -> TrainedSurrogate:
        trainer, source, options = self.trainer, self.source, self.options
        with (
            track("train the surrogate", trainer.epochs, "epochs") as advance,
            _tensorboard(draft.path / TENSORBOARD, options.tensorboard) as board,
        ):

            def told(row: Mapping[str, Any]) -> None:
                advance(1)
                board(row)

            trainer.fit(
                self.encodings,
                source.images,
                source.texts,
                text_offsets=source.offsets,
                class_embeddings=source.classes,
                sample_ids=source.ids,
                checkpoint=draft.path / CHECKPOINTS,
                checkpoint_seconds=options.checkpoint_seconds,
                callback=told,
            )
        if trainer.resumed_at_ is not None:
            log.info("took up the training at epoch %d, step %d", *trainer.resumed_at_)
        safetensors_torch.save_file(state_of(trainer.surrogate_), draft.path / "surrogate.safetensors")
        _write_metrics(draft.path / "metrics.csv", trainer.history_)
        write_json(draft.path / "vocabulary.json", [[c.lemma, c.pos] for c in self.encodings.concepts])
        write_json(draft.path / "samples.json", _split(trainer, source.ids))
        draft.manifest.rows = len(source.images)
        draft.manifest.details = {"teacher": options.teacher, "encodings": options.encodings, **source.details}
        draft.discard_at_end(CHECKPOINTS)
        return TrainedSurrogate(
            method="surrogate",
            parameters=self.settings,
            seed=options.seed,
            notes=trainer.notes_,
            n=len(source.ids),
            concepts=len(self.encodings.concepts),
            dimensions=trainer.surrogate_.dim,
            best_epoch=trainer.best_epoch_,
            epochs=len(trainer.history_),
            scores=trainer.scores_,
        )

    def headline(self) -> str:
        images, concepts = self.encodings.shape
        return (
            f"{COMMAND}: {human_count(len(self.source.ids), 'image')} with "
            f"{human_count(len(self.source.texts), 'caption')} of the teacher, "
            f"joined by ids with {human_count(images, 'encoding')} over {human_count(concepts, 'concept')}"
        )

    def sizes(self) -> Mapping[str, float]:
        try:
            encodings = self.encodings if self.records else load_encodings(self.options.encodings, self.options.outputs)
        except ArtifactError:
            return {}
        n, c = encodings.shape
        d = self.source.images.shape[1] if self.records else 512
        epochs, batch = self.settings["epochs"], min(n, self.settings["batch_size"])
        return {"n": n, "c": c, "d": d, "e": epochs, "b": batch, "s": epochs * -(-n // batch)}

    def plan(self) -> dict[str, Any]:
        """What `run` would do. Embeds nothing and loads no weights."""
        options = self.options
        self.settings = settings = self.check()
        steps = {name: settings[name] for name in ("epochs", "batch_size", "loss")} | {"device": options.device}
        name = options.name or _planned_name(options)
        document: dict[str, Any] = {"teacher": options.teacher or "arrays", "encodings": options.encodings}
        try:
            encodings = load_encodings(options.encodings, options.outputs)
        except ArtifactError as error:
            return document | {"missing": f"{error.message}; make it with `rdx encode-concepts`", **steps}
        images, concepts = encodings.shape
        return document | {
            "images": images,
            "concepts": concepts,
            **steps,
            **documented(self.expected()),
            "artifact": surrogates_folder(options.outputs, name, options.run or "surrogate"),
        }


@contextmanager
def _tensorboard(folder: Path, wanted: bool | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that writes a row of ``metrics.csv`` for TensorBoard, while the training runs.

    A training that was taken up tells its rows from the first one on, so what was written before goes.
    """
    if wanted is False or (wanted is None and find_spec("tensorboard") is None):
        yield lambda row: None
        return
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as writer:  # type: ignore[no-untyped-call]

        def write(row: Mapping[str, Any]) -> None:
            for name, value in row.items():
                if name not in ("epoch", "step") and isinstance(value, int | float):
                    writer.add_scalar(name, value, int(row["epoch"]))  # type: ignore[no-untyped-call]

        yield write


def _split(trainer: Any, ids: Sequence[str]) -> dict[str, list[str]]:
    """Sample ids that trained the surrogate, those that chose its epoch, and those that did neither."""
    split = trainer.split_
    rows = {"train": split.train, "validation": [], "held_out": []}
    if split.held_out:
        untouched = split.test is not split.validation
        rows |= {"validation": split.validation, "held_out": split.test if untouched else []}
    return {name: [ids[row] for row in chosen] for name, chosen in rows.items()}


def _write_metrics(path: Path, history: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in history for name in row))
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=columns)
        writer.writeheader()
        writer.writerows(history)


def _planned_name(options: TrainOptions) -> str:
    """The folder of the outputs, as far as it can be told without the images."""
    if options.image_embeddings is not None:
        return array_dataset(slug(Path(options.image_embeddings).stem))
    try:
        return slug(options.selection.open().name)
    except RdxError:
        return slug(str(options.selection.dataset))
