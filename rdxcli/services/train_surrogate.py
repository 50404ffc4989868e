"""``rdx train-surrogate``: fit a concept surrogate of a vision-language embedding."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.artifacts import Draft, resolve_artifact, write_json
from rdxcli.artifacts.layout import array_dataset, slug, surrogates_folder
from rdxcli.concepts.captions import load_captions
from rdxcli.concepts.embeddings import caption_embeddings, class_embeddings, take_captions
from rdxcli.concepts.encodings import details_of, load_encodings
from rdxcli.concepts.image_text import image_embeddings, text_embeddings
from rdxcli.datasets.arrays import load_representation
from rdxcli.datasets.selection import SelectionOptions
from rdxcli.errors import ArtifactError, DependencyError, InputError, RdxError, UsageError
from rdxcli.models.devices import pick_device
from rdxcli.progress import log, track
from rdxcli.records import Surrogate
from rdxcli.services.base import Analysis, Outcome, Table, estimator_parameters, identity, result_parameters

CHECKPOINTS, TENSORBOARD = "checkpoints", "tensorboard"
COMMAND = "train-surrogate"


@dataclass(frozen=True)
class TrainOptions:
    """What to train on and how.

    Parameters
    ----------
    encodings : str
        Artifact of ``encode-concepts``, or a matrix file.
    image_embeddings, text_embeddings : str, optional
        Arrays of the teacher's embeddings. With as many text rows as images there is one caption per image.
    teacher : str, optional
        Vision-language model that embeds the images of ``selection`` and their captions, once, in place of arrays.
        The classes of a labelled data set are embedded too.
    captions : str, optional
        What the teacher embeds; None takes the captions the encodings were made from, or else the data set's. See
        `rdxcli.services.encode_concepts`.
    text_offsets : str, optional
        Array (n + 1,) of where each image's captions begin.
    class_embeddings : str, optional
        Text embeddings of classes, for the agreement of zero-shot predictions.
    class_prompts : sequence of str
        What the teacher reads for a class, with ``{}`` for its name; the mean over several.
    parameters : mapping
        Of `rdxcli.methods.surrogate.training.SurrogateTrainer`.
    tensorboard : bool, optional
        Write the metrics for TensorBoard too; by default when it is installed.
    """

    encodings: str
    image_embeddings: str | None = None
    text_embeddings: str | None = None
    teacher: str | None = None
    captions: str | None = None
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    text_offsets: str | None = None
    class_embeddings: str | None = None
    class_prompts: Sequence[str] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    checkpoint_seconds: float = 60.0
    tensorboard: bool | None = None
    name: str | None = None
    outputs: Path = Path("outputs")
    run: str | None = None
    seed: int = 0
    device: str = "auto"
    force: bool = False


@dataclass(frozen=True)
class Source:
    """The teacher's embeddings of the images in the order of their ids.

    Parameters
    ----------
    name : str
        Of the data set, as a folder.
    ids : list of str, length n
    images : ndarray (n, d)
    texts : ndarray (t, d)
    offsets : ndarray (n + 1,)
        Where each image's captions begin.
    classes : ndarray (J, d), optional
    details : mapping
        For the manifest: folders of the embeddings, the captions, the teacher.
    """

    name: str
    ids: list[str]
    images: np.ndarray
    texts: np.ndarray
    offsets: np.ndarray
    classes: np.ndarray | None
    details: Mapping[str, Any] = field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        """Fingerprints of the content."""
        return {name: identity(getattr(self, name)) for name in ("ids", "images", "texts", "offsets", "classes")}


class TrainAnalysis(Analysis[TrainOptions]):
    """One surrogate, from encodings and a teacher's embeddings; an interrupted training goes on."""

    kind = "surrogate"
    version = "2"
    resumes = True

    def check(self) -> Mapping[str, Any]:
        from rdxcli.methods.surrogate.training import SurrogateTrainer

        options = self.options
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
        take = _from_teacher if options.teacher else _from_arrays
        self.source = take(options, list(map(str, self.encodings.ids)))
        return {
            "encodings": self.encodings.arrays(),
            "samples": list(map(str, self.encodings.ids)),
            "concepts": list(map(str, self.encodings.concepts)),
            "teacher": self.source,
        }

    def folder(self) -> Path:
        options = self.options
        return surrogates_folder(options.outputs, options.name or self.source.name, options.run or "surrogate")

    def compute(self, draft: Draft) -> Surrogate:
        from safetensors.torch import save_file

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
        save_file(_state(trainer), draft.path / "surrogate.safetensors")
        _write_metrics(draft.path / "metrics.csv", trainer.history_)
        write_json(draft.path / "vocabulary.json", [[c.lemma, c.pos] for c in self.encodings.concepts])
        write_json(draft.path / "samples.json", _split(trainer, source.ids))
        draft.manifest.rows = len(source.images)
        draft.manifest.details = {"teacher": options.teacher, "encodings": options.encodings, **source.details}
        draft.discard_at_end(CHECKPOINTS)
        return Surrogate(
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

    def table(self, document: Mapping[str, Any]) -> Table:
        scores = document["scores"]
        size = f"{document['concepts']} concepts to {document['dimensions']} dimensions"
        title = f"{size}, best of {document['epochs']} epochs: {document['best_epoch']}"
        names = [name for name, value in scores["test"].items() if isinstance(value, int | float)]
        rows = [[name, *(scores[part].get(name) for part in ("train", "validation", "test"))] for name in names]
        columns = ["score", "training images", "images that chose the epoch", "untouched images"]
        return Table(title, columns, rows, [f"note: {note}" for note in document["notes"]])

    def headline(self) -> str:
        images, concepts = self.encodings.shape
        return (
            f"{COMMAND}: {len(self.source.ids):,} images with {len(self.source.texts):,} captions of the teacher, "
            f"joined by ids with {images:,} encodings over {concepts:,} concepts"
        )

    def plan(self) -> dict[str, Any]:
        """What `run` would do. Embeds nothing and loads no weights."""
        options = self.options
        settings = self.check()
        steps = {name: settings[name] for name in ("epochs", "batch_size", "loss")} | {"device": options.device}
        name = options.name or _planned_name(options)
        document: dict[str, Any] = {"teacher": options.teacher or "arrays", "encodings": options.encodings}
        try:
            encodings = load_encodings(options.encodings, options.outputs)
        except ArtifactError as error:
            return document | {"missing": f"{error.message}; make it with `rdx encode-concepts`", **steps}
        images, concepts = encodings.shape
        # weights, gradients and three moments of the optimiser, for embeddings of 512 dimensions; similarities
        memory = (20 * 512 * concepts + 12 * settings["batch_size"] ** 2) / 2**20
        return document | {
            "images": images,
            "concepts": concepts,
            **steps,
            "memory": f"about {memory:.0f} MiB beside the embeddings",
            "artifact": surrogates_folder(options.outputs, name, options.run or "surrogate"),
        }


def train_surrogate(options: TrainOptions) -> Outcome:
    """Train, continuing an interrupted run of the same request, and store the result.

    Raises
    ------
    RdxError, ValueError
        Unusable inputs or parameters.
    """
    return TrainAnalysis(options).run()


def plan(options: TrainOptions) -> dict[str, Any]:
    """What `train_surrogate` would do."""
    return TrainAnalysis(options).plan()


def _from_arrays(options: TrainOptions, encoded: Sequence[str]) -> Source:
    """Arrays of embeddings; rows with ids are joined by them, images without ids stand in the encodings' order."""
    if options.image_embeddings is None or options.text_embeddings is None:
        raise UsageError("what did the teacher say?", "give --teacher and --dataset, or arrays of its embeddings")
    images = load_representation(options.image_embeddings)
    if images.sample_ids is None and images.n != len(encoded):
        raise InputError(
            f"{images.name} has {images.n} rows, the encodings have {len(encoded)}, and there are no ids to match"
        )
    ids = list(encoded) if images.sample_ids is None else [str(sample) for sample in images.sample_ids]
    texts, offsets = caption_embeddings(options.text_embeddings, options.text_offsets, ids, images.n, "--text-offsets")
    known = set(encoded)
    keep = [i for i, sample in enumerate(ids) if sample in known and offsets[i] < offsets[i + 1]]
    if not keep:
        raise InputError(
            f"no image of {images.name} has both an encoding and a caption embedding",
            f"the embeddings have `{ids[0]}`, the encodings `{encoded[0]}`" if encoded else None,
        )
    if len(keep) < len(ids):
        log.warning("%d of %d images have no encoding or no caption embedding", len(ids) - len(keep), len(ids))
    keep.sort(key=ids.__getitem__)  # the order of the files has no influence
    texts, offsets = take_captions(texts, offsets, keep)
    origin = [options.image_embeddings, options.text_embeddings]
    return Source(
        array_dataset(slug(images.name)),
        [ids[i] for i in keep],
        np.array(images.values[keep]),
        texts,
        offsets,
        _classes(options.class_embeddings),
        {"captions": None, "embeddings": origin, "teacher_model": {}},
    )


def _from_teacher(options: TrainOptions, encoded: Sequence[str]) -> Source:
    """Embed images, captions and classes, or find their embeddings in the outputs."""
    from rdxcli.models.vision_language import load_vision_language, resolve_vision_language

    if options.image_embeddings or options.text_embeddings or options.text_offsets:
        raise UsageError("--teacher embeds images and captions itself", "leave the arrays out, or the teacher")
    if options.selection.dataset is None:
        raise UsageError("--teacher needs images", "give --dataset NAME")
    spec = resolve_vision_language(str(options.teacher))
    dataset = options.selection.open()
    # those the concepts were found in, unless others are named
    told = options.captions or details_of(options.encodings, options.outputs, "encodings").get("captions")
    _, captions = load_captions(told, options.selection, options.outputs)
    teacher = load_vision_language(spec, options.device)
    images = image_embeddings(teacher, dataset, options.outputs)
    known = set(encoded)
    keep = [i for i, sample in enumerate(images.sample_ids) if sample in known and captions.get(sample)]
    if not keep:
        raise InputError(
            f"no image of {dataset.name} has both an encoding and a caption",
            "encode the captions of this data set: `rdx encode-concepts --dataset ...`",
        )
    if len(keep) < len(dataset):
        log.warning("%d of %d images have no encoding, caption or embedding", len(dataset) - len(keep), len(dataset))
    keep.sort(key=images.sample_ids.__getitem__)
    ids = [images.sample_ids[i] for i in keep]
    texts = [text for sample in ids for text in captions[sample]]
    offsets = np.cumsum([0, *(len(captions[sample]) for sample in ids)])
    said = text_embeddings(teacher, texts, options.outputs, name=f"captions-{dataset.name}")
    origin = [images.folder.as_posix(), said.folder.as_posix()]
    classes = _classes(options.class_embeddings)
    if classes is None and dataset.class_names is not None and len(dataset.class_names) > 1:
        classes, folders = class_embeddings(
            teacher, dataset.class_names, options.class_prompts, options.outputs, dataset.name
        )
        origin += folders
    details = {"captions": told, "embeddings": origin, "teacher_model": teacher.description()}
    embedded = np.array(images.values[keep])
    return Source(slug(dataset.name), ids, embedded, np.array(said.values), offsets, classes, details)


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


def _state(trainer: Any) -> dict[str, Any]:
    """``weight`` (D, C) and ``bias`` (D), and the published names for the options that have more parameters."""
    state = trainer.surrogate_.published_state()
    out = {"weight": state["query_encoder.weight"], "bias": state["query_encoder.bias"]}
    return out | {name: value for name, value in state.items() if not name.startswith("query_encoder.")}


def load_surrogate(text: str, outputs: Path) -> tuple[Any, list[str] | None]:
    """A trained surrogate and the names of its concepts, from an artifact or a ``.safetensors`` file.

    Raises
    ------
    RdxError
        No such artifact or file, or other tensors than expected.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from rdxcli.methods.surrogate.model import Surrogate

    path = Path(text)
    names: list[str] | None = None
    if not path.is_file():
        artifact = resolve_artifact(text, outputs, "surrogate")
        path = artifact.path / "surrogate.safetensors"
    beside = path.parent / "vocabulary.json"
    if beside.is_file():
        names = [lemma if pos == "*" else f"{lemma}/{pos}" for lemma, pos in json.loads(beside.read_text("utf-8"))]
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if "weight" in state and "bias" in state:
        state["query_encoder.weight"], state["query_encoder.bias"] = state.pop("weight"), state.pop("bias")
    if "query_encoder.weight" not in state:
        raise InputError(f"{path} holds {', '.join(list(state)[:6])}, expected `weight` and `bias`")
    return Surrogate.from_published_state(state), names


def _classes(text: str | None) -> Any:
    if text is None:
        return None
    return np.array(load_representation(text).values)  # a copy: torch warns about memory that is mapped read-only


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
