"""``rdx train-surrogate``: fit a concept surrogate of a vision-language embedding."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rdxcli.artifacts import Artifact, Request, create, fingerprint_array, fingerprint_json, write_json
from rdxcli.artifacts.layout import slug, surrogates_folder
from rdxcli.errors import InputError, UsageError
from rdxcli.progress import log, track
from rdxcli.services.encode_concepts import load_encodings
from rdxcli.services.explain import check_parameters

CODE = "1"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class TrainOptions:
    """What to train on and how.

    Parameters
    ----------
    encodings : str
        Artifact of ``encode-concepts``, or a matrix file.
    image_embeddings, text_embeddings : str
        Arrays of the teacher's embeddings. With as many text rows as images there is one caption per image.
    text_offsets : str, optional
        Array (n + 1,) of where each image's captions begin.
    class_embeddings : str, optional
        Text embeddings of classes, for the agreement of zero-shot predictions.
    parameters : mapping
        Of `rdxcli.methods.surrogate.training.SurrogateTrainer`.
    """

    encodings: str
    image_embeddings: str
    text_embeddings: str
    text_offsets: str | None = None
    class_embeddings: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    checkpoint_seconds: float = 60.0
    dataset: str | None = None
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
    from rdxcli.datasets.arrays import load_representation
    from rdxcli.methods.surrogate.training import SurrogateTrainer
    from rdxcli.models.devices import pick_device

    known = [name for name in SurrogateTrainer().get_params() if name not in ("random_state", "device")]
    check_parameters("train-surrogate", options.parameters, known)
    trainer = SurrogateTrainer(**options.parameters, random_state=options.seed, device=str(pick_device(options.device)))
    encodings = load_encodings(options.encodings, options.outputs)
    images = load_representation(options.image_embeddings)
    texts = load_representation(options.text_embeddings)
    classes = _classes(options.class_embeddings)
    offsets = _offsets(options.text_offsets)
    if images.sample_ids is None and images.n != len(encodings.ids):
        raise InputError(
            f"{images.name} has {images.n} rows, the encodings have {len(encodings.ids)}, and there are no ids to match"
        )
    request = Request(
        kind="surrogate",
        parameters={name: value for name, value in trainer.get_params().items() if name != "device"},
        inputs={
            "encodings": fingerprint_json({name: fingerprint_array(a) for name, a in encodings.arrays().items()}),
            "images": fingerprint_array(images.values),
            "texts": fingerprint_array(texts.values),
            "offsets": None if offsets is None else fingerprint_array(offsets),
            "classes": None if classes is None else fingerprint_array(classes),
        },
        seed=options.seed,
        code=CODE,
    )
    folder = surrogates_folder(options.outputs, options.dataset or slug(images.name), options.run or "surrogate")
    with create(folder, request, force=options.force, resume=True) as draft:
        if not draft.reused:
            from safetensors.torch import save_file

            total = trainer.epochs
            with track("train the surrogate", total, "epochs") as advance:
                trainer.fit(
                    encodings,
                    images.values,
                    texts.values,
                    text_offsets=offsets,
                    class_embeddings=classes,
                    sample_ids=None if images.sample_ids is None else [str(s) for s in images.sample_ids],
                    checkpoint=draft.path / CHECKPOINTS,
                    checkpoint_seconds=options.checkpoint_seconds,
                    callback=lambda row: advance(1),
                )
            if trainer.resumed_at_ is not None:
                log.info("took up the training at epoch %d, step %d", *trainer.resumed_at_)
            save_file(_state(trainer), draft.path / "surrogate.safetensors")
            _write_metrics(draft.path / "metrics.csv", trainer.history_)
            write_json(draft.path / "vocabulary.json", [[c.lemma, c.pos] for c in encodings.concepts])
            write_json(draft.path / "surrogate.json", _document(options, request, trainer, encodings, folder))
            draft.manifest.rows = images.n
            draft.discard_at_end(CHECKPOINTS)
    document = json.loads((draft.result.path / "surrogate.json").read_text("utf-8"))
    return Outcome(draft.result, document)


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


def plan(options: TrainOptions) -> dict[str, Any]:
    """What `train_surrogate` would do."""
    encodings = load_encodings(options.encodings, options.outputs)
    return {
        "images": len(encodings.ids),
        "concepts": len(encodings.concepts),
        "parameters": dict(options.parameters),
        "device": options.device,
    }
