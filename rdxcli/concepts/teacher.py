"""A teacher's embeddings for training a surrogate: of images, their captions and classes, joined with the encodings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rdxcli.artifacts import fingerprint_array, fingerprint_json
from rdxcli.artifacts.layout import array_dataset, slug
from rdxcli.concepts.captions import load_captions
from rdxcli.concepts.embeddings import caption_embeddings, class_embeddings, take_captions
from rdxcli.concepts.encodings import details_of
from rdxcli.concepts.image_text import image_embeddings, text_embeddings
from rdxcli.concepts.word_options import TrainOptions
from rdxcli.datasets.arrays import load_representation
from rdxcli.datasets.words import find, taken_as_one
from rdxcli.errors import InputError, UsageError
from rdxcli.models.vision_language import load_vision_language, resolve_vision_language
from rdxcli.progress import human_count, log


@dataclass(frozen=True)
class GivenTeacher:
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
        arrays = {"images": self.images, "texts": self.texts, "offsets": self.offsets, "classes": self.classes}
        known = {name: None if value is None else fingerprint_array(value) for name, value in arrays.items()}
        return {"ids": fingerprint_json(self.ids), **known}


def read_teacher(options: TrainOptions, encoded: Sequence[str]) -> GivenTeacher:
    """The teacher's embeddings of the images that have an encoding.

    `encoded`: ids of the encodings. Raises `RdxError` (nothing to read, or nothing that fits the encodings).
    """
    return _from_model(options, encoded) if options.teacher else _from_arrays(options, encoded)


def _from_arrays(options: TrainOptions, encoded: Sequence[str]) -> GivenTeacher:
    """Arrays of embeddings; rows with ids are joined by them, images without ids stand in the encodings' order."""
    if options.image_embeddings is None or options.text_embeddings is None:
        raise UsageError("what did the teacher say?", "give --teacher and --dataset, or arrays of its embeddings")
    images = load_representation(options.image_embeddings)
    if images.sample_ids is None and images.n != len(encoded):
        raise InputError(
            f"{images.name} has {human_count(images.n, 'row')}, the encodings have {len(encoded)}, and "
            "there are no ids to match"
        )
    ids = list(encoded) if images.sample_ids is None else [str(sample) for sample in images.sample_ids]
    texts, offsets = caption_embeddings(options.text_embeddings, options.text_offsets, ids, images.n, "--text-offsets")
    found, note = find(ids, encoded)
    places = found.tolist()
    keep = [i for i, place in enumerate(places) if place >= 0 and offsets[i] < offsets[i + 1]]
    if not keep:
        raise InputError(
            f"no image of {images.name} has both an encoding and a caption embedding",
            f"the embeddings have `{ids[0]}`, the encodings `{encoded[0]}`" if encoded else None,
        )
    if len(keep) < len(ids):
        log.warning(
            "%d of %s have no encoding or no caption embedding", len(ids) - len(keep), human_count(len(ids), "image")
        )
    if note:
        log.info("%s", taken_as_one(note, images.name, "the encodings"))
    keep.sort(key=lambda i: encoded[places[i]])  # the order of the files has no influence
    texts, offsets = take_captions(texts, offsets, keep)
    origin = [options.image_embeddings, options.text_embeddings]
    return GivenTeacher(
        array_dataset(slug(images.name)),
        [encoded[places[i]] for i in keep],
        np.array(images.values[keep]),
        texts,
        offsets,
        _classes(options.class_embeddings),
        {"captions": None, "embeddings": origin, "teacher_model": {}},
    )


def _from_model(options: TrainOptions, encoded: Sequence[str]) -> GivenTeacher:
    """Embed images, captions and classes, or find their embeddings in the outputs."""
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
    told_of = list(captions)
    places = find(images.sample_ids, encoded)[0].tolist()
    spoken, note = find(images.sample_ids, told_of)
    said_of = spoken.tolist()
    keep = [i for i in range(len(places)) if places[i] >= 0 and said_of[i] >= 0 and captions[told_of[said_of[i]]]]
    if not keep:
        raise InputError(
            f"no image of {dataset.name} has both an encoding and a caption",
            "encode the captions of this data set: `rdx encode-concepts --dataset ...`",
        )
    if len(keep) < len(dataset):
        log.warning(
            "%d of %s have no encoding, caption or embedding",
            len(dataset) - len(keep),
            human_count(len(dataset), "image"),
        )
    if note:
        log.info("%s", taken_as_one(note, dataset.name, "the captions"))
    keep.sort(key=lambda i: encoded[places[i]])
    ids = [encoded[places[i]] for i in keep]
    lists = [captions[told_of[said_of[i]]] for i in keep]
    texts = [text for one in lists for text in one]
    offsets = np.cumsum([0, *map(len, lists)])
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
    return GivenTeacher(slug(dataset.name), ids, embedded, np.array(said.values), offsets, classes, details)


def _classes(text: str | None) -> Any:
    if text is None:
        return None
    return np.array(load_representation(text).values)  # a copy: torch warns about memory that is mapped read-only
