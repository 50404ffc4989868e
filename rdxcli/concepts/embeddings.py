"""What explainers of embeddings read: the teacher's embeddings of images, captions, classes and words.

They come as arrays (``--file NAME=PATH``) or from a vision-language model (``--vlm``), whose embeddings of the data set
are made once and found again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdxcli.artifacts import fingerprint_array, fingerprint_json
from rdxcli.concepts.captions import load_captions
from rdxcli.concepts.image_text import image_embeddings, text_embeddings
from rdxcli.concepts.options import ConceptOptions
from rdxcli.concepts.sets import read_concept_set
from rdxcli.concepts.vocabularies import list_of
from rdxcli.datasets.arrayfiles import read_array
from rdxcli.datasets.arrays import check_values, load_representation
from rdxcli.datasets.tables import UNREADABLE
from rdxcli.datasets.words import find, taken_as_one
from rdxcli.errors import InputError, MissingDataError, UsageError, did_you_mean
from rdxcli.methods.surrogate.encoding import entries_of
from rdxcli.methods.surrogate.prompts import TEMPLATE, clean, prompts
from rdxcli.methods.surrogate.splice import unit
from rdxcli.models.vision_language import load_vision_language, resolve_vision_language
from rdxcli.progress import human_count, log

if TYPE_CHECKING:
    from rdxcli.models.vision_language import VisionLanguageModel

FILES = (
    "image_embeddings",
    "text_embeddings",
    "class_names",
    "caption_embeddings",
    "caption_offsets",
    "captions",
    "word_embeddings",
    "image_mean",
)


@dataclass
class Inputs:
    """The teacher's embeddings; None for what was not given.

    Attributes
    ----------
    images : ndarray (n, d)
    ids : list of str, length n
        None for arrays without ids, which are matched by order.
    labels : list of str, length n
    class_names : list of str, length J
    classes : ndarray (J, d)
    captions : ndarray (n, d)
        The first caption of each image.
    words : list of str, length w
    word_embeddings : ndarray (w, d)
    image_mean : ndarray (d,)
        Mean unit image embedding of the teacher over many images.
    name : str
        Of the images.
    dataset : bool
        Whether that is a data set, and not a file of arrays.
    """

    images: np.ndarray | None = None
    ids: list[str] | None = None
    labels: list[str] | None = None
    class_names: list[str] | None = None
    classes: np.ndarray | None = None
    captions: np.ndarray | None = None
    words: list[str] | None = None
    word_embeddings: np.ndarray | None = None
    image_mean: np.ndarray | None = None
    name: str = "embeddings"
    dataset: bool = False
    notes: list[str] = field(default_factory=list)

    def said(self) -> str:
        """What was read, in a line."""
        if self.images is None:
            return f"{human_count(0 if self.classes is None else len(self.classes), 'class')}"
        parts = [f"{human_count(len(self.images), 'image')} of {self.name}, {'by ids' if self.ids else 'by position'}"]
        for value, what in ((self.captions, "captions"), (self.classes, "classes"), (self.word_embeddings, "words")):
            if value is not None:
                parts.append(f"{len(value):,} {what}")
        return ", ".join(parts)

    def identity(self) -> dict[str, Any]:
        """Fingerprints of every array and list, for the artifact's request."""
        out: dict[str, Any] = {}
        for key, value in vars(self).items():
            if key in ("notes", "name", "dataset") or value is None:
                continue
            out[key] = fingerprint_array(value) if isinstance(value, np.ndarray) else fingerprint_json(value)
        return out

    def take(self, rows: Sequence[int]) -> None:
        """Keep some images, in the given order."""
        for key in ("images", "captions"):
            if getattr(self, key) is not None:
                setattr(self, key, getattr(self, key)[list(rows)])
        for key in ("ids", "labels"):
            if getattr(self, key) is not None:
                setattr(self, key, [getattr(self, key)[row] for row in rows])


def class_numbers(given: Inputs, notes: list[str]) -> np.ndarray | None:
    """True classes as numbers; None, with a remark added to ``notes``, when labels are no class names."""
    if given.labels is None or given.class_names is None:
        return None
    number = {name: i for i, name in reversed(list(enumerate(given.class_names)))}
    if strange := sorted({label for label in given.labels if label not in number}):
        notes.append(f"no accuracy: the label `{strange[0]}` is none of the classes")
        return None
    return np.array([number[label] for label in given.labels])


def check_files(options: ConceptOptions) -> None:
    """Refuse inputs that no explainer of embeddings has, naming near ones. Raises `UsageError`."""
    for name in options.files:
        if name not in FILES:
            known = did_you_mean(name, FILES, f"it reads {', '.join(FILES)}")
            raise UsageError(f"--file {name}=...: the method `{options.method}` has no such input", known)


def gather(options: ConceptOptions, *, images: bool, words: Sequence[str] | None, teacher: str | None = None) -> Inputs:
    """Read or make the embeddings that the options name.

    Raises `RdxError` (missing, unreadable or contradictory inputs).

    Parameters
    ----------
    images : bool
        Whether images and captions are wanted, or classes only.
    words : sequence of str, optional
        Words to embed with a vision-language model when no list is given; None embeds none.
    teacher : str, optional
        Vision-language model when the options name neither one nor arrays.
    """
    check_files(options)
    vlm = options.vlm or (teacher if "image_embeddings" not in options.files else None)
    if vlm is None:
        return _remarked(_from_arrays(options, images, words is not None))
    if options.vlm and (given := [name for name in options.files if name.endswith("_embeddings")]):
        raise UsageError("--vlm embeds images and texts itself", f"leave out --vlm, or --file {given[0]}=...")
    return _remarked(_from_model(options, vlm, images, words))


def _remarked(found: Inputs) -> Inputs:
    """Adds what a reader must know about the classes."""
    if found.classes is not None:
        alike = len(found.classes) - len(np.unique(found.classes, axis=0))
        if alike:
            found.notes.append(
                f"{alike} of {human_count(len(found.classes), 'class')} have the text embedding of another class"
            )
    return found


def _array(options: ConceptOptions, name: str) -> tuple[np.ndarray | None, list[str] | None]:
    """Embeddings of texts, and the ids of their rows."""
    if name not in options.files:
        return None, None
    found = load_representation(options.files[name])
    ids = None if found.sample_ids is None else [str(sample) for sample in found.sample_ids]
    return np.array(found.values), ids  # a copy: torch warns about read-only memory


def named_rows(
    names: list[str] | None, path: str | None, embeddings: np.ndarray | None, ids: list[str] | None, what: str
) -> tuple[np.ndarray | None, list[str] | None]:
    """Embeddings and one name per row; rows that carry the names as their ids are joined by them."""
    if embeddings is None:
        return None, None
    if names is None:
        return embeddings, ids or [f"{what} {i}" for i in range(len(embeddings))]
    if ids is None:
        if len(names) != len(embeddings):
            raise InputError(
                f"{path} has {human_count(len(names), 'name')}, the embeddings have "
                f"{human_count(len(embeddings), 'row')}"
            )
        return embeddings, names
    row = {sample: i for i, sample in enumerate(ids)}
    if missing := [name for name in names if name not in row]:
        raise InputError(
            f"{len(missing)} of the {human_count(len(names), 'name')} in {path} are no ids of the {what} "
            "embeddings, for example "
            f"`{missing[0]}`",
            f"the embeddings have `{ids[0]}`; rows that have ids are matched by them",
        )
    return embeddings[[row[name] for name in names]], names


def _words(options: ConceptOptions) -> list[str] | None:
    """Words that a method explains by: what ``--concept-set`` means everywhere, a file or a published set."""
    return None if options.concept_set is None else read_concept_set(options.concept_set, options.selection.root)


def _class_names(options: ConceptOptions) -> list[str] | None:
    """Names of classes: ``--file class_names=FILE``."""
    return list_of(Path(options.files["class_names"])) if "class_names" in options.files else None


def _from_arrays(options: ConceptOptions, images: bool, words: bool) -> Inputs:
    found = Inputs(image_mean=_vector(options))
    file = options.files.get("class_names")
    classes = _class_names(options)
    found.classes, found.class_names = named_rows(classes, file, *_array(options, "text_embeddings"), "class")
    if words:
        listed = _words(options)
        found.word_embeddings, found.words = named_rows(
            listed, options.concept_set, *_array(options, "word_embeddings"), "word"
        )
    if not images or "image_embeddings" not in options.files:
        return found
    record = load_representation(
        options.files["image_embeddings"], labels=options.arrays.labels, sample_ids=options.arrays.sample_ids
    )
    found.images, found.name = np.array(record.values), record.name
    found.ids = None if record.sample_ids is None else [str(sample) for sample in record.sample_ids]
    found.labels = None if record.labels is None else [str(label) for label in record.labels]
    if "caption_embeddings" in options.files:
        file, starts = options.files["caption_embeddings"], options.files.get("caption_offsets")
        texts, offsets = caption_embeddings(file, starts, found.ids, len(found.images), "--file caption_offsets")
        keep = np.flatnonzero(np.diff(offsets))
        found.captions = texts[np.minimum(offsets[:-1], len(texts) - 1)]
        if len(keep) < len(found.images):
            found.notes.append(f"left out: {human_count(len(found.images) - len(keep), 'image')} without a caption")
            found.take(keep.tolist())
    if found.ids is not None:
        found.take(np.argsort(np.array(found.ids), kind="stable").tolist())  # the file's order has no influence
    return found


def caption_embeddings(
    text: str, offsets: str | None, images: Sequence[str] | None, n: int, option: str
) -> tuple[np.ndarray, np.ndarray]:
    """Caption embeddings in the order of n images, and where each image's captions begin.

    Raises `RdxError` (ids or offsets that do not fit the images or each other).

    Parameters
    ----------
    text : str
        File of arrays. With ids, one per row and as often as the image has captions, rows are joined by them.
    offsets : str, optional
        File of an array (n + 1,): captions of image i are rows ``offsets[i]:offsets[i + 1]``. Without ids and offsets
        there is one caption per image.
    images : sequence of str, length n, optional
        Ids of the images.
    option : str
        That names the offsets, for messages.

    Returns
    -------
    values : (t, d)
    starts : (n + 1,) int64
        Equal neighbours for an image without captions, which only ids allow.
    """
    file = read_array(text)
    values = check_values(file.values, file.path.stem, minimum=1)
    starts = None if offsets is None else _starts(offsets, None if file.sample_ids is not None else n, len(values))
    if file.sample_ids is None:
        if starts is None and len(values) != n:
            raise InputError(
                f"got {human_count(len(values), 'caption embedding')} for {human_count(n, 'image')}",
                f"say where each image's begin ({option}), or give every row the id of its image",
            )
        return np.array(values), np.arange(n + 1) if starts is None else starts
    ids = [str(sample) for sample in file.sample_ids]
    if images is None:
        raise InputError(
            f"{file.path.name} has ids, the images have none",
            "rows with ids are joined by them: give the ids of the images (--sample-ids FILE, or in their file)",
        )
    if starts is not None:
        mixed = [i for i in range(len(starts) - 1) if len(set(ids[starts[i] : starts[i + 1]])) > 1]
        if mixed:
            raise InputError(
                f"the offsets put rows of different ids together: block {mixed[0]} of {file.path.name}",
                f"leave out {option}: rows that have ids are joined by them",
            )
    rows: dict[str, list[int]] = {}
    for row, sample in enumerate(ids):
        rows.setdefault(sample, []).append(row)
    held = list(rows)
    places, note = find(images, held)
    blocks = [rows[held[place]] if place >= 0 else [] for place in places]
    if note:
        log.info("%s", taken_as_one(note, "the images", file.path.name))
    if not any(blocks):
        raise InputError(
            f"none of the {human_count(n, 'image')} has a caption embedding in {file.path.name}",
            f"the images have `{images[0]}`, the embeddings `{ids[0]}`",
        )
    order = [row for block in blocks for row in block]
    return np.array(values[order]), np.cumsum([0, *map(len, blocks)])


def take_captions(values: np.ndarray, starts: np.ndarray, rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Captions of some images, in their order: values and starts as of `caption_embeddings`."""
    entries, selected = entries_of(starts.astype(np.int64), np.asarray(rows, dtype=np.int64))
    return values[entries], selected


def _vector(options: ConceptOptions) -> np.ndarray | None:
    """``--file image_mean=PATH``: (d,)."""
    if "image_mean" not in options.files:
        return None
    values = np.asarray(read_array(options.files["image_mean"]).values, dtype=np.float64).ravel()
    if not np.all(np.isfinite(values)):
        raise InputError(f"{options.files['image_mean']} holds NaN or infinite values")
    return values


def _starts(path: str, n: int | None, texts: int) -> np.ndarray:
    """Row of each image's first caption, and the number of captions."""
    try:
        offsets = np.load(path, allow_pickle=False)
    except UNREADABLE as error:
        raise UsageError(f"cannot read the caption offsets {path}: {error}") from None
    right = offsets.ndim == 1 and len(offsets) > 1 and offsets[0] == 0 and offsets[-1] == texts
    if not right or (n is not None and len(offsets) != n + 1) or (np.diff(offsets) < 1).any():
        expected = "(n + 1,)" if n is None else f"({n + 1},)"
        raise InputError(f"got caption offsets of shape {offsets.shape}, expected {expected} rising from 0 to {texts}")
    return offsets.astype(np.int64)


def _from_model(options: ConceptOptions, vlm: str, images: bool, words: Sequence[str] | None) -> Inputs:
    model = load_vision_language(resolve_vision_language(vlm), options.device)
    dataset = options.selection.open() if options.selection.dataset is not None else None
    if images and dataset is None:
        raise UsageError(f"`{vlm}` embeds the images of a data set", "give --dataset NAME")
    found = Inputs(image_mean=_vector(options))
    found.class_names = _class_names(options)
    if (
        found.class_names is None
        and dataset is not None
        and dataset.class_names is not None
        and len(dataset.class_names) > 1
    ):
        found.class_names = list(dataset.class_names)
    name = dataset.name if dataset is not None else "list"
    if found.class_names is not None:
        found.classes = class_embeddings(model, found.class_names, (), options.outputs, name)[0]
    if words is not None:
        found.words = list(dict.fromkeys(clean(word) for word in _words(options) or words))
        embedded = text_embeddings(model, found.words, options.outputs, name="words")
        found.word_embeddings = np.array(embedded.values)
    if images and dataset is not None:
        seen = image_embeddings(model, dataset, options.outputs)
        found.images, found.ids, found.name = np.array(seen.values), list(seen.sample_ids), dataset.name
        found.dataset = True
        if dataset.labels is not None:
            by_id = dict(zip(dataset.sample_ids, dataset.labels, strict=True))
            found.labels = [str(by_id[sample]) for sample in found.ids]
        _captions(options, found, model)
    return found


def class_embeddings(
    model: VisionLanguageModel, names: Sequence[str], templates: Sequence[str], outputs: Path, dataset: str
) -> tuple[np.ndarray, list[str]]:
    """Text embeddings (J, d) of classes, and the folders that keep them.

    Parameters
    ----------
    names : sequence of str, length J
    templates : sequence of str
        With ``{}`` for the class; ``a photo of a {}.`` without one. The mean of the unit embeddings of several.
    dataset : str
        For the folder's name.
    """
    parts, folders = [], []
    for template in templates or (TEMPLATE,):
        found = text_embeddings(model, prompts(names, template), outputs, name=f"classes-{dataset}")
        parts.append(np.array(found.values))
        folders.append(found.folder.as_posix())
    if len(parts) == 1:
        return parts[0], folders
    return np.mean([unit(part) for part in parts], axis=0), folders


def _captions(options: ConceptOptions, found: Inputs, model: VisionLanguageModel) -> None:
    """The first caption of each image, embedded; images without a caption leave."""
    given = options.files.get("captions")
    try:
        _, captions = load_captions(given, options.selection, options.outputs)
    except MissingDataError:
        if given is not None:
            raise
        found.notes.append("no retrieval: the images have no captions; give --file captions=FILE")
        return
    assert found.ids is not None
    keep = [i for i, sample in enumerate(found.ids) if captions.get(sample)]
    if not keep:
        raise InputError(f"no image of {found.name} has a caption in {given}")
    if len(keep) < len(found.ids):
        found.notes.append(f"left out: {human_count(len(found.ids) - len(keep), 'image')} without a caption")
        found.take(keep)
    texts = [captions[sample][0] for sample in found.ids]
    found.captions = np.array(text_embeddings(model, texts, options.outputs, name=f"first-{found.name}").values)
