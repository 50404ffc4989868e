"""Concept scores of images by a vision-language model, for explaining and simulating units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdxcli.concepts.image_text import embeddings_of, text_embeddings
from rdxcli.concepts.labels import label_matrix
from rdxcli.concepts.options import ConceptOptions
from rdxcli.concepts.sets import RECIPE, default_set, read_concept_set
from rdxcli.download.catalogue import find
from rdxcli.download.hub import cached
from rdxcli.download.store import Home
from rdxcli.errors import InputError, MissingDataError, UsageError
from rdxcli.methods.neurons.concepts import CALIBRATION, LazyCosines, clean_concepts, fit_sigmoid
from rdxcli.models.registry import resolve
from rdxcli.models.vision_language import load_vision_language, published_name, resolve_vision_language
from rdxcli.places import data_root
from rdxcli.progress import human_count, log

if TYPE_CHECKING:
    import numpy as np

    from rdxcli.models.vision_language import VisionLanguageModel
    from rdxcli.records import Representation

DEFAULT_MODEL: Mapping[str, str] = {"le-siglip": "siglip"}
CALIBRATED = ("le-siglip", "simulate", "logical")
"""Methods that read sigmoid(a (cos + b)); the others read cosines."""

PARAMETERS = ("a", "b", "calibrate", "template")
EMBEDDINGS = frozenset({"image_embeddings", "text_embeddings"})
"""Names of ``--file`` that bring embeddings made elsewhere."""


@dataclass(frozen=True)
class Scorer:
    """A loaded model and the words it will score.

    Attributes
    ----------
    words : list of str
        Distinct.
    label : str
        Name of the set, for people.
    """

    model: VisionLanguageModel
    words: list[str]
    label: str
    notes: list[str]


def wanted(options: ConceptOptions) -> str | None:
    """The vision-language model that the options need, or None when concepts come from elsewhere."""
    given = options.concepts is not None or bool(EMBEDDINGS & set(options.files))
    if given:
        if options.vlm is not None:
            raise UsageError("--vlm has nothing to do: concept scores or embeddings are given", "leave one of them out")
        return None
    return options.vlm or DEFAULT_MODEL.get(options.method)


def open_scorer(options: ConceptOptions, words: Sequence[str] | None = None) -> Scorer | None:
    """Read the words and load the model, before anything expensive starts; None when no model is needed.

    `words`: instead of the concept set. Raises `RdxError` (unknown names, missing words or weights, parameters that
    contradict each other).
    """
    name = wanted(options)
    if name is None:
        return None

    spec = resolve_vision_language(name)
    notes: list[str] = []
    label = "words"
    if words is None:
        given = options.concept_set or default_set(dataset_name(options))
        label = Path(given).stem
        cleaned = clean_concepts(read_concept_set(given, options.selection.root))
        words, notes = cleaned.names, cleaned.notes
    if options.method in CALIBRATED:
        _check_constants(options, spec)
    return Scorer(load_vision_language(spec, device=options.device), list(words), label, notes)


def check_calibration(options: ConceptOptions) -> None:
    """Refuse contradicting constants of the scores before anything is read. Raises `UsageError`."""
    name = wanted(options)
    if name is not None and options.method in CALIBRATED:
        _check_constants(options, resolve_vision_language(name))


def missing_downloads(options: ConceptOptions) -> list[str]:
    """Recipes that would bring what is missing on this machine for these options."""
    names = [options.model, dataset_name(options), options.vlm or DEFAULT_MODEL.get(options.method)]
    if wanted(options) and (options.concept_set is None or not Path(options.concept_set).expanduser().is_file()):
        names.append(RECIPE)
    missing: list[str] = []
    for name in names:
        recipe = find(name) if name else None
        if recipe is None or recipe.name in missing:
            continue
        here = cached(recipe) is not None if recipe.hub else Home(data_root(options.selection.root), recipe).ready()
        if not here:
            missing.append(recipe.name)
    return missing


def with_downloads(error: MissingDataError, options: ConceptOptions) -> MissingDataError:
    """The error with one command that fetches all that is missing, not only what was missed first."""
    names = missing_downloads(options)
    if len(names) > 1:
        error.hint = f"`rdx download {' '.join(names)}` fetches all that is missing"
    return error


def score(
    options: ConceptOptions, scorer: Scorer, representation: Representation
) -> tuple[Any, dict[str, Any], list[str]]:
    """Scores of the words on the rows of a representation.

    Returns
    -------
    values : LazyCosines of shape (n, c)
    source : dict
        Fingerprints.
    notes : list of str
    """
    template = str(options.parameters.get("template", "{}"))
    images, image_print = embeddings_of(representation, scorer.model, options.selection, options.outputs)
    texts = text_embeddings(scorer.model, scorer.words, options.outputs, name=scorer.label, template=template)
    constants, notes = _constants(options, scorer.model, images, representation, template)
    source = {
        "model": scorer.model.name,
        "weights": scorer.model.weights_sha256,
        "images": image_print,
        "texts": texts.fingerprint,
        **constants,
    }
    return LazyCosines(images, texts.values, **constants), source, [*scorer.notes, *notes]


def _check_constants(options: ConceptOptions, spec: Any) -> None:
    """Fail before anything is computed when a and b are not known."""
    given = [name for name in ("a", "b") if name in options.parameters]
    calibrate = options.parameters.get("calibrate", False)
    if not isinstance(calibrate, bool):
        raise UsageError(f"got calibrate={calibrate}, expected true or false")
    if len(given) == 1:
        raise UsageError(f"--param {given[0]} needs its partner", "give both, for example --param a=60 --param b=-0.09")
    if given and calibrate:
        raise UsageError("a and b are given, so there is nothing to calibrate", "leave one of them out")
    if not given and not calibrate and published_name(spec) is None:
        raise UsageError(
            f"`{spec.name}` has no published calibration of its scores",
            "--param calibrate=true finds a and b from the labels; or give both with --param a=A --param b=B",
        )


def _constants(
    options: ConceptOptions,
    model: VisionLanguageModel,
    images: np.ndarray,
    representation: Representation,
    template: str,
) -> tuple[dict[str, float], list[str]]:
    """Scale and shift of the sigmoid; none for methods that read cosines."""
    if options.method not in CALIBRATED:
        return {}, []
    if "a" in options.parameters:
        return {name: float(options.parameters[name]) for name in ("a", "b")}, []
    if not options.parameters.get("calibrate", False):
        a, b = CALIBRATION[str(model.known_as)]
        return {"a": a, "b": b}, []
    labels = label_matrix(options, representation)
    texts = text_embeddings(model, labels.names, options.outputs, name="class-names", template=template)
    try:
        a, b, loss = fit_sigmoid(LazyCosines(images, texts.values), labels.values)
    except ValueError as error:
        raise InputError(f"`{model.name}` cannot be calibrated with these labels: {error}") from None
    log.info("calibrated: a %.4g, b %.4g, cross entropy %.4g", a, b, loss)
    note = (
        f"scores are sigmoid({a:.4g} (cos + {b:.4g})), calibrated on "
        f"{human_count(representation.n, 'image')} and "
        f"{human_count(len(labels.names), 'class name')} (cross entropy {loss:.4g})"
    )
    return {"a": a, "b": b}, [note]


def dataset_name(options: ConceptOptions) -> str | None:
    """The data set that the options mean: the named one, or the model's default."""
    if options.selection.dataset is not None:
        return options.selection.dataset
    if options.model is None:
        return None

    return resolve(options.model).default_dataset
