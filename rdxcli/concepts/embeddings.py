"""What explainers of embeddings read: the teacher's embeddings of images, captions, classes and words.

They come as arrays (``--file NAME=PATH``) or from a vision-language model (``--vlm``), whose embeddings of the data set
are made once and found again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdxcli.concepts.options import ConceptOptions
from rdxcli.errors import InputError, MissingDataError, UsageError, near_matches

if TYPE_CHECKING:
    import numpy as np

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
    notes : list of str
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
    notes: list[str] = field(default_factory=list)

    def fingerprint(self) -> dict[str, Any]:
        """Of every array and list, for the artifact's request."""
        import numpy as np

        from rdxcli.artifacts import fingerprint_array, fingerprint_json

        out: dict[str, Any] = {}
        for key, value in vars(self).items():
            if key in ("notes", "name") or value is None:
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


def check_files(options: ConceptOptions) -> None:
    """Refuse inputs that no explainer of embeddings has, naming near ones.

    Raises
    ------
    UsageError
    """
    for name in options.files:
        if name not in FILES:
            near = near_matches(name, FILES)
            known = f"did you mean `{near[0]}`?" if near else f"it reads {', '.join(FILES)}"
            raise UsageError(f"--file {name}=...: the method `{options.method}` has no such input", known)


def gather(options: ConceptOptions, *, images: bool, words: Sequence[str] | None, teacher: str | None = None) -> Inputs:
    """Read or make the embeddings that the options name.

    Parameters
    ----------
    options : ConceptOptions
    images : bool
        Whether images and captions are wanted, or classes only.
    words : sequence of str, optional
        Words to embed with a vision-language model when no list is given; None embeds none.
    teacher : str, optional
        Vision-language model when the options name neither one nor arrays.

    Raises
    ------
    RdxError
        Missing, unreadable or contradictory inputs.
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
    import numpy as np

    if found.classes is not None:
        alike = len(found.classes) - len(np.unique(found.classes, axis=0))
        if alike:
            found.notes.append(f"{alike} of {len(found.classes)} classes have the text embedding of another class")
    return found


def read_lines(path: str) -> list[str]:
    """The lines of a text file that are not empty.

    Raises
    ------
    MissingDataError, InputError
    """
    try:
        return [line.strip() for line in Path(path).read_text("utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise MissingDataError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text") from None


def _array(options: ConceptOptions, name: str) -> np.ndarray | None:
    from rdxcli.datasets.arrays import load_representation

    if name not in options.files:
        return None
    import numpy as np

    return np.array(load_representation(options.files[name]).values)  # a copy: torch warns about read-only memory


def _named(path: str | None, embeddings: np.ndarray | None, what: str) -> list[str] | None:
    """One name per row of ``embeddings``."""
    if embeddings is None:
        return None
    if path is None:
        return [f"{what} {i}" for i in range(len(embeddings))]
    names = read_lines(path)
    if len(names) != len(embeddings):
        raise InputError(f"{path} has {len(names)} names, the embeddings have {len(embeddings)} rows")
    return names


def _from_arrays(options: ConceptOptions, images: bool, words: bool) -> Inputs:
    import numpy as np

    from rdxcli.datasets.arrays import load_representation

    found = Inputs(classes=_array(options, "text_embeddings"), image_mean=_vector(options))
    # --concept-set names what the method is about: words where it explains by words, else classes
    named = options.files.get("class_names", None if words else options.concept_set)
    found.class_names = _named(named, found.classes, "class")
    if words:
        found.word_embeddings = _array(options, "word_embeddings")
        found.words = _named(options.concept_set, found.word_embeddings, "word")
    if not images or "image_embeddings" not in options.files:
        return found
    record = load_representation(
        options.files["image_embeddings"], labels=options.arrays.labels, sample_ids=options.arrays.sample_ids
    )
    found.images, found.name = np.array(record.values), record.name
    found.ids = None if record.sample_ids is None else [str(sample) for sample in record.sample_ids]
    found.labels = None if record.labels is None else [str(label) for label in record.labels]
    texts = _array(options, "caption_embeddings")
    if texts is not None:
        first = _offsets(options, len(found.images), len(texts))
        found.captions = texts[first]
    return found


def _vector(options: ConceptOptions) -> np.ndarray | None:
    """``--file image_mean=PATH``: (d,)."""
    if "image_mean" not in options.files:
        return None
    import numpy as np

    from rdxcli.datasets.arrayfiles import read_array

    values = np.asarray(read_array(options.files["image_mean"]).values, dtype=np.float64).ravel()
    if not np.all(np.isfinite(values)):
        raise InputError(f"{options.files['image_mean']} holds NaN or infinite values")
    return values


def _offsets(options: ConceptOptions, n: int, texts: int) -> np.ndarray:
    """Row of each image's first caption."""
    import numpy as np

    if "caption_offsets" not in options.files:
        if texts != n:
            raise InputError(
                f"got {texts} caption embeddings for {n} images", "say where each image's begin: --file caption_offsets"
            )
        return np.arange(n)
    try:
        offsets = np.load(options.files["caption_offsets"], allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"--file caption_offsets: cannot read it: {error}") from None
    if offsets.shape != (n + 1,) or offsets[0] != 0 or offsets[-1] != texts or (np.diff(offsets) < 1).any():
        raise InputError(f"got caption offsets of shape {offsets.shape}, expected ({n + 1},) rising from 0 to {texts}")
    return offsets[:-1].astype(np.int64)


def _from_model(options: ConceptOptions, vlm: str, images: bool, words: Sequence[str] | None) -> Inputs:
    import numpy as np

    from rdxcli.concepts.image_text import image_embeddings, text_embeddings
    from rdxcli.methods.surrogate.prompts import clean
    from rdxcli.models.vision_language import load_vision_language, resolve_vision_language

    model = load_vision_language(resolve_vision_language(vlm), options.device)
    dataset = options.selection.open() if options.selection.dataset is not None else None
    if images and dataset is None:
        raise UsageError(f"`{vlm}` embeds the images of a data set", "give --dataset NAME")
    found = Inputs(image_mean=_vector(options))
    if "class_names" in options.files:
        found.class_names = read_lines(options.files["class_names"])
    elif words is None and options.concept_set is not None:
        found.class_names = read_lines(options.concept_set)
    elif dataset is not None and dataset.class_names is not None and len(dataset.class_names) > 1:
        found.class_names = list(dataset.class_names)
    name = dataset.name if dataset is not None else "list"
    if found.class_names is not None:
        found.classes = class_embeddings(model, found.class_names, (), options.outputs, name)[0]
    if words is not None:
        listed = read_lines(options.concept_set) if options.concept_set is not None else list(words)
        found.words = list(dict.fromkeys(clean(word) for word in listed))
        embedded = text_embeddings(model, found.words, options.outputs, name="words")
        found.word_embeddings = np.array(embedded.values)
    if images and dataset is not None:
        seen = image_embeddings(model, dataset, options.outputs)
        found.images, found.ids, found.name = np.array(seen.values), list(seen.sample_ids), dataset.name
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
    model : VisionLanguageModel
    names : sequence of str, length J
    templates : sequence of str
        With ``{}`` for the class; ``a photo of a {}.`` without one. The mean of the unit embeddings of several.
    outputs : Path
    dataset : str
        For the folder's name.
    """
    import numpy as np

    from rdxcli.concepts.image_text import text_embeddings
    from rdxcli.methods.surrogate.prompts import TEMPLATE, prompts
    from rdxcli.methods.surrogate.splice import unit

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
    import numpy as np

    from rdxcli.concepts.captions import load_captions
    from rdxcli.concepts.image_text import text_embeddings

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
        found.notes.append(f"{len(found.ids) - len(keep)} images without a caption are left out")
        found.take(keep)
    texts = [captions[sample][0] for sample in found.ids]
    found.captions = np.array(text_embeddings(model, texts, options.outputs, name=f"first-{found.name}").values)
