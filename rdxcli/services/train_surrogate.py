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

from rdxcli.artifacts import Artifact, Request, create, fingerprint_array, fingerprint_json, write_json
from rdxcli.artifacts.layout import slug, surrogates_folder
from rdxcli.concepts.captions import load_captions
from rdxcli.concepts.encodings import details_of, load_encodings
from rdxcli.datasets.selection import SelectionOptions
from rdxcli.errors import ArtifactError, DependencyError, InputError, RdxError, UsageError
from rdxcli.progress import log, track
from rdxcli.services.base import check_parameters

CODE = "1"
CHECKPOINTS, TENSORBOARD = "checkpoints", "tensorboard"


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
class Outcome:
    """A trained surrogate."""

    artifact: Artifact
    document: Mapping[str, Any]


def train_surrogate(options: TrainOptions) -> Outcome:
    """Train, continuing an interrupted run of the same request, and store the result.

    Raises
    ------
    RdxError, ValueError
        Unusable inputs or parameters.
    """
    from rdxcli.methods.surrogate.training import SurrogateTrainer
    from rdxcli.models.devices import pick_device

    if options.tensorboard and find_spec("tensorboard") is None:
        raise DependencyError("tensorboard", "tensorboard")
    known = [name for name in SurrogateTrainer().get_params() if name not in ("random_state", "device")]
    check_parameters("train-surrogate", options.parameters, known)
    trainer = SurrogateTrainer(**options.parameters, random_state=options.seed, device=str(pick_device(options.device)))
    trainer.check()
    encodings = load_encodings(options.encodings, options.outputs)
    source = _from_teacher(options, encodings.ids) if options.teacher else _from_arrays(options, encodings)
    request = Request(
        kind="surrogate",
        parameters={name: value for name, value in trainer.get_params().items() if name != "device"},
        inputs={
            "encodings": fingerprint_json({name: fingerprint_array(a) for name, a in encodings.arrays().items()}),
            "samples": fingerprint_json(list(map(str, encodings.ids))),
            "concepts": fingerprint_json(list(map(str, encodings.concepts))),
            "images": fingerprint_array(source.images),
            "texts": fingerprint_array(source.texts),
            "offsets": None if source.offsets is None else fingerprint_array(source.offsets),
            "classes": None if source.classes is None else fingerprint_array(source.classes),
        },
        seed=options.seed,
        code=CODE,
    )
    folder = surrogates_folder(options.outputs, options.name or source.name, options.run or "surrogate")
    with create(folder, request, force=options.force, resume=True) as draft:
        if not draft.reused:
            from safetensors.torch import save_file

            with (
                track("train the surrogate", trainer.epochs, "epochs") as advance,
                _tensorboard(draft.path / TENSORBOARD, options.tensorboard) as board,
            ):

                def told(row: Mapping[str, Any]) -> None:
                    advance(1)
                    board(row)

                trainer.fit(
                    encodings,
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
            write_json(draft.path / "vocabulary.json", [[c.lemma, c.pos] for c in encodings.concepts])
            write_json(draft.path / "surrogate.json", _document(options, request, trainer, encodings, folder))
            draft.manifest.rows = len(source.images)
            write_json(draft.path / "samples.json", _split(trainer, source.ids or list(map(str, encodings.ids))))
            draft.manifest.details = {
                "teacher": options.teacher,
                "encodings": options.encodings,
                "captions": source.captions,
                "embeddings": source.origin,
                "teacher_model": source.teacher,
            }
            draft.discard_at_end(CHECKPOINTS)
    document = json.loads((draft.result.path / "surrogate.json").read_text("utf-8"))
    return Outcome(draft.result, document)


@dataclass(frozen=True)
class _Source:
    """The teacher's embeddings: images (n, d), texts (t, d), where each image's texts begin, classes (J, d)."""

    name: str
    images: Any
    texts: Any
    offsets: Any
    classes: Any
    ids: list[str] | None
    origin: list[str]
    captions: str | None = None
    teacher: Mapping[str, Any] = field(default_factory=dict)


def _from_arrays(options: TrainOptions, encodings: Any) -> _Source:
    from rdxcli.datasets.arrays import load_representation

    if options.image_embeddings is None or options.text_embeddings is None:
        raise UsageError("what did the teacher say?", "give --teacher and --dataset, or arrays of its embeddings")
    images = load_representation(options.image_embeddings)
    texts = load_representation(options.text_embeddings)
    if images.sample_ids is None and images.n != len(encodings.ids):
        raise InputError(
            f"{images.name} has {images.n} rows, the encodings have {len(encodings.ids)}, and there are no ids to match"
        )
    ids = None if images.sample_ids is None else [str(sample) for sample in images.sample_ids]
    classes, offsets = _classes(options.class_embeddings), _offsets(options.text_offsets)
    origin = [options.image_embeddings, options.text_embeddings]
    return _Source(slug(images.name), images.values, texts.values, offsets, classes, ids, origin)


def _from_teacher(options: TrainOptions, encoded: Sequence[str]) -> _Source:
    """Embed images, captions and classes, or find their embeddings in the outputs."""
    import numpy as np

    from rdxcli.concepts.embeddings import class_embeddings
    from rdxcli.concepts.image_text import image_embeddings, text_embeddings
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
    known = set(map(str, encoded))
    keep = [i for i, sample in enumerate(images.sample_ids) if sample in known and captions.get(sample)]
    if not keep:
        raise InputError(
            f"no image of {dataset.name} has both an encoding and a caption",
            "encode the captions of this data set: `rdx encode-concepts --dataset ...`",
        )
    if len(keep) < len(dataset):
        log.warning("%d of %d images have no encoding, caption or embedding", len(dataset) - len(keep), len(dataset))
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
    embedded = np.array(images.values[keep])
    texts_of, known_as = np.array(said.values), teacher.description()
    return _Source(slug(dataset.name), embedded, texts_of, offsets, classes, ids, origin, told, known_as)


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

    from rdxcli.artifacts import resolve_artifact
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
    import numpy as np

    from rdxcli.datasets.arrays import load_representation

    return np.array(load_representation(text).values)  # a copy: torch warns about memory that is mapped read-only


def _offsets(text: str | None) -> Any:
    if text is None:
        return None
    import numpy as np

    try:
        return np.load(text, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"--text-offsets: cannot read {text}: {error}") from None


def _split(trainer: Any, ids: Sequence[str]) -> dict[str, list[str]]:
    """Sample ids on which the surrogate was trained, and those held out; the latter are none of the former."""
    split = trainer.split_
    held = [ids[row] for row in split.validation] if split.held_out else []
    return {"train": [ids[row] for row in split.train], "held_out": held}


def _write_metrics(path: Path, history: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in history for name in row))
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=columns)
        writer.writeheader()
        writer.writerows(history)


def _document(options: TrainOptions, request: Request, trainer: Any, encodings: Any, folder: Path) -> dict[str, Any]:
    from rdxcli.records import SCHEMA_VERSION, plain

    return plain(
        {
            "schema_version": SCHEMA_VERSION,
            "kind": "surrogate",
            "artifact": folder.as_posix(),
            "method": "surrogate",
            "parameters": request.parameters,
            "seed": options.seed,
            "notes": list(trainer.notes_),
            "n": len(encodings.ids),
            "concepts": len(encodings.concepts),
            "dimensions": trainer.surrogate_.dim,
            "best_epoch": trainer.best_epoch_,
            "epochs": len(trainer.history_),
            "scores": trainer.scores_,
        }
    )


def _planned_name(options: TrainOptions) -> str:
    """The folder of the outputs, as far as it can be told without the images."""
    if options.image_embeddings is not None:
        return slug(Path(options.image_embeddings).stem)
    try:
        return slug(options.selection.open().name)
    except RdxError:
        return slug(str(options.selection.dataset))


def plan(options: TrainOptions) -> dict[str, Any]:
    """What `train_surrogate` would do. Embeds nothing and loads no weights."""
    from rdxcli.methods.surrogate.training import SurrogateTrainer

    known = [name for name in SurrogateTrainer().get_params() if name not in ("random_state", "device")]
    check_parameters("train-surrogate", options.parameters, known)
    trainer = SurrogateTrainer(**options.parameters)
    trainer.check()
    steps = {"epochs": trainer.epochs, "batch_size": trainer.batch_size, "loss": trainer.loss, "device": options.device}
    name = options.name or _planned_name(options)
    document: dict[str, Any] = {"teacher": options.teacher or "arrays", "encodings": options.encodings}
    try:
        encodings = load_encodings(options.encodings, options.outputs)
    except ArtifactError as error:
        return document | {"missing": f"{error.message}; make it with `rdx encode-concepts`", **steps}
    images, concepts = encodings.shape
    # weights, gradients and three moments of the optimiser, for embeddings of 512 dimensions; similarities of a batch
    memory = (20 * 512 * concepts + 12 * trainer.batch_size**2) / 2**20
    return document | {
        "images": images,
        "concepts": concepts,
        **steps,
        "memory": f"about {memory:.0f} MiB beside the embeddings",
        "artifact": surrogates_folder(options.outputs, name, options.run or "surrogate"),
    }
