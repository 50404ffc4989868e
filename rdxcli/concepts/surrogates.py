"""Trained surrogates with the encodings they explain, and what is asked of them: an edit, a contrast."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from rdxcli.artifacts import resolve_artifact
from rdxcli.concepts.encodings import cut_concepts, details_of, load_encodings
from rdxcli.errors import InputError, RdxError, UnknownNameError, UsageError, did_you_mean
from rdxcli.lazy import safetensors_torch
from rdxcli.methods.surrogate.encoding import Encodings
from rdxcli.progress import human_count

if TYPE_CHECKING:
    from rdxcli.methods.surrogate.model import Surrogate


def state_of(surrogate: Surrogate) -> dict[str, Any]:
    """``weight`` (D, C) and ``bias`` (D), and the published names for the options that have more parameters."""
    state = surrogate.published_state()
    out = {"weight": state["query_encoder.weight"], "bias": state["query_encoder.bias"]}
    return out | {name: value for name, value in state.items() if not name.startswith("query_encoder.")}


def load_surrogate(text: str, outputs: Path) -> tuple[Any, list[str] | None]:
    """A trained surrogate and the names of its concepts, from an artifact or a ``.safetensors`` file.

    Raises `RdxError` (no such artifact or file, or other tensors than expected).
    """
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
        state = safetensors_torch.load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if "weight" in state and "bias" in state:
        state["query_encoder.weight"], state["query_encoder.bias"] = state.pop("weight"), state.pop("bias")
    if "query_encoder.weight" not in state:
        raise InputError(f"{path} holds {', '.join(list(state)[:6])}, expected `weight` and `bias`")
    return Surrogate.from_published_state(state), names


def trained(
    text: str, encodings: str | None, outputs: Path, target: str | None = None
) -> tuple[Any, Encodings, list[str]]:
    """The surrogate, the encodings it is to explain, and the names of the concepts.

    Raises `RdxError` (one is missing, or they do not fit each other).

    Parameters
    ----------
    text : str
        Artifact or file of a surrogate.
    encodings : str, optional
        Of other images than those it was trained on.
    target : str, optional
        The id or row of one image.
    """
    surrogate, names = load_surrogate(text, outputs)
    found = load_encodings(encodings_of(text, encodings, outputs), outputs)
    hint = "use the encodings the surrogate was trained on, or encode with its vocabulary: --vocabulary"
    if found.shape[1] != surrogate.num_concepts:
        raise InputError(
            f"the encodings have {human_count(found.shape[1], 'concept')}, the surrogate {surrogate.num_concepts}", hint
        )
    own = [_plain(concept) for concept in found.concepts]
    if names is None:
        names = [str(concept) for concept in found.concepts]
    elif own != [_plain(name) for name in names] and not all(name.startswith("concept") for name in own):
        first = next(i for i, (a, b) in enumerate(zip(own, map(_plain, names), strict=True)) if a != b)
        raise InputError(
            f"the encodings are over other concepts than the surrogate: column {first} is `{own[first]}`, not "
            f"`{_plain(names[first])}`",
            hint,
        )
    return surrogate, found if target is None else _targeted(target, found), names


def encodings_of(text: str, encodings: str | None, outputs: Path) -> str:
    """The encodings that are named, or those the surrogate was trained on.

    Raises `UsageError` (none are named, and the surrogate is a bare file).
    """
    told = encodings or details_of(text, outputs, "surrogate").get("encodings")
    if told is None:
        raise UsageError("which images? the surrogate does not tell what it was trained on", "give --encodings")
    return str(told)


def _plain(concept: Any) -> str:
    """A concept without its part of speech, which a list of given words does not have."""
    return str(concept).rpartition("/")[0] or str(concept)


def _targeted(target: str, encodings: Encodings) -> Encodings:
    """The encodings of one image: its id, or its row."""
    ids = list(map(str, encodings.ids))
    if target in ids:
        return encodings.take([ids.index(target)])
    if target.isdigit() and int(target) < len(ids):
        return encodings.take([int(target)])
    raise UsageError(f"--target {target}: no such image in the encodings", did_you_mean(target, ids, "give an id"))


def identities(surrogate: Any, encodings: Encodings) -> dict[str, Any]:
    """What a surrogate and encodings are, as records."""
    return {
        "surrogate": {name: value.numpy() for name, value in surrogate.published_state().items()},
        "encodings": encodings.arrays(),
        "samples": list(map(str, encodings.ids)),
    }


def contrast(given: str | None, classes: list[str] | None) -> tuple[int, int] | None:
    """Class numbers of ``--param contrast=A,B``: why A and not B. Names may hold commas."""
    if given is None:
        return None
    if classes is None:
        raise UsageError(
            "--param contrast=A,B needs classes",
            "give --vlm MODEL --dataset NAME, or --file text_embeddings=FILE --file class_names=FILE",
        )
    text = str(given)
    cuts = [i for i, letter in enumerate(text) if letter == ","]
    for cut in cuts:
        a, b = text[:cut].strip(), text[cut + 1 :].strip()
        if a in classes and b in classes:
            return classes.index(a), classes.index(b)
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2:
        raise UsageError(f"--param contrast={given}: expected two classes, A,B")
    raise UnknownNameError("class", next(part for part in parts if part not in classes), classes)


def edited(encodings: Encodings, given: str | None, names: Sequence[str], told: str, outputs: Path) -> Encodings:
    """Encodings after ``--param edit=CONCEPT=VALUE,...``: what if every image had that share of the concept?

    Raises `RdxError` or `ValueError` (malformed text, an unknown concept, a value that is no number).
    """
    if given is None:
        return encodings
    values: dict[int, float] = {}
    for part in str(given).split(","):
        name, equals, value = part.strip().rpartition("=")
        try:
            number = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise UsageError(f"--param edit={given}: cannot read `{part}`", "write CONCEPT=VALUE, for example dog/n=0")
        fitting = [j for j, known in enumerate(names) if name in (known, _plain(known))]
        if not fitting:
            why = _why_cut(told, outputs, name)
            if why is not None:
                raise UsageError(f"--param edit: {why}", "encode again with it: see rdx encode-concepts --help")
            raise UnknownNameError("concept", name, [*names, *map(_plain, names)])
        values |= dict.fromkeys(fitting, number)
    return encodings.with_values(values)


def _why_cut(told: str, outputs: Path, name: str) -> str | None:
    """Why a concept of the captions is none of the vocabulary, as its table tells; None for unknown words."""
    try:
        cut = cut_concepts(resolve_artifact(told, outputs, "encodings"))
    except RdxError:
        return None
    found = {key: reason for key, reason in cut.items() if name in (key, _plain(key))}
    return (
        None if not found else "; ".join(f"`{key}` was left out of the vocabulary: {why}" for key, why in found.items())
    )
