"""Readers of the published data sets: from a folder as its archive unpacks to paths, ids, labels, splits and captions.

Ids, orders and class numbers are those of the papers' own loaders, so that published row numbers (splits, concept
scores) fit: CUB in the order of the lists of the concept bottleneck models, Places365 and CIFAR-100 in the order of
their files, ImageNet by WordNet id, COCO by image id.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from safetensors.numpy import load_file

from rdxcli.datasets.images import ArrayImages, FileImages, ImageSource
from rdxcli.errors import InputError
from rdxcli.lazy import scipy
from rdxcli.progress import human_count

if TYPE_CHECKING:
    from rdxcli.download.catalogue import Recipe


@dataclass
class Gathered:
    """Rows of a data set while they are gathered; ``keys`` are WordNet ids of the labels, where there are any."""

    paths: list[Path] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    captions: list[list[str]] = field(default_factory=list)
    class_names: list[str] | None = None
    images: np.ndarray | None = None
    keys: list[str] = field(default_factory=list)

    def add(self, path: Path, sample: str, label: str | None = None, split: str | None = None) -> None:
        self.paths.append(path)
        self.ids.append(sample)
        if label is not None:
            self.labels.append(label)
        if split is not None:
            self.splits.append(split)

    def source(self, name: str) -> ImageSource:
        return ArrayImages(self.images, name) if self.images is not None else FileImages(self.paths)


def inner(folder: Path, *candidates: str) -> Path:
    """The first of ``candidates`` that is a folder below ``folder``, else ``folder`` itself."""
    return next((folder / name for name in candidates if (folder / name).is_dir()), folder)


def lines(path: Path) -> list[str]:
    """Lines of a text file without their ends; empty ones are left out."""
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def document(path: Path) -> Any:
    """Content of a JSON file."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def pairs(path: Path) -> Iterator[tuple[str, str]]:
    """Two columns of a text file, split at the first space."""
    for line in lines(path):
        first, _, second = line.partition(" ")
        yield first, second.strip()


def _number(path: Path, text: str, most: int) -> int:
    if not text.isdecimal() or int(text) >= most:
        raise InputError(f"{path}: got the class {text!r}, expected a number below {most}")
    return int(text)


def cub(folder: Path, recipe: Recipe) -> Gathered:
    """CUB-200-2011. With the lists of the concept bottleneck models their splits (train, val, test) and order; without
    them the official train and test. Ids are ``<class folder>/<file>``, class names lose number and underscores.
    """
    base = inner(folder, "CUB_200_2011")
    names = {number: name.partition(".")[2].replace("_", " ") for number, name in pairs(base / "classes.txt")}
    table = Gathered(class_names=list(names.values()))
    lists = _cbm_lists(folder)
    if lists:
        for split, path in lists.items():
            for row in document(path):
                sample = str(row["path"]).removeprefix("images/")
                label = table.class_names[_number(path, str(row["class_label"]), len(names))]  # type: ignore[index]
                table.add(base / "images" / sample, sample, label, split)
        return table
    classes = dict(pairs(base / "image_class_labels.txt"))
    training = dict(pairs(base / "train_test_split.txt"))
    for number, sample in pairs(base / "images.txt"):
        split = "train" if training[number] == "1" else "test"
        table.add(base / "images" / sample, sample, names[classes[number]], split)
    return table


def _cbm_lists(folder: Path) -> dict[str, Path]:
    for pattern in ("class_attr_data_10", "*/class_attr_data_10", "."):
        for place in sorted(folder.glob(pattern)) if pattern != "." else [folder]:
            found = {split: place / f"{split}.json" for split in ("train", "val", "test")}
            if all(path.is_file() for path in found.values()):
                return found
    return {}


def cub_attributes(folder: Path) -> tuple[list[str], np.ndarray]:
    """Ids, and attributes of shape (n, a), float32 0 or 1, from the concept bottleneck models; rows as in `cub`."""
    ids: list[str] = []
    parts = []
    for path in _cbm_lists(folder).values():
        ids += [str(row["path"]).removeprefix("images/") for row in document(path)]
        parts.append(load_file(path.with_suffix(".safetensors"))["attribute_label"].astype(np.float32))
    if not parts:
        raise InputError(f"{folder} lacks the attribute lists of the concept bottleneck models", "rdx download cub")
    return ids, np.concatenate(parts)


def inat_subset(folder: Path, recipe: Recipe) -> Gathered:
    """The iNaturalist subset of RDX: ``data.json`` with paths, labels, names and the indices of two splits."""
    base = folder if (folder / "data.json").is_file() else folder / "inat_subset"
    data = document(base / "data.json")
    names = data["class_names"]
    names = [str(names[str(i)] if isinstance(names, Mapping) else names[i]) for i in range(len(names))]
    split = dict.fromkeys(data["train_indices"], "train") | dict.fromkeys(data["test_indices"], "test")
    table = Gathered(class_names=names)
    for row, (path, label) in enumerate(zip(data["file_paths"], data["class_labels"], strict=True)):
        number = _number(base / "data.json", str(label), len(names))
        table.add(base / path, str(path), names[number], split.get(row, "rest"))
    return table


def places365(folder: Path, recipe: Recipe) -> Gathered:
    """Places365-Standard, 256-pixel images; class names without the leading letter (``airfield``)."""
    names = [name.removeprefix("/").partition("/")[2] for name, _ in pairs(folder / "categories_places365.txt")]
    table = Gathered(class_names=names)
    for split, listing, places in (
        ("train", "places365_train_standard.txt", ("data_256_standard", "data_256")),
        ("val", "places365_val.txt", ("val_256",)),
    ):
        images = next((folder / place for place in places if (folder / place).is_dir()), None)
        if images is None or not (folder / listing).is_file():
            continue
        for name, number in pairs(folder / listing):
            sample = name.removeprefix("/")
            table.add(images / sample, sample, names[_number(folder / listing, number, len(names))], split)
    return table


def cifar100(folder: Path, recipe: Recipe) -> Gathered:
    """CIFAR-100 with its fine labels; ids ``train/00000`` ..., rows in the order of the files."""
    names = [str(name) for name in document(folder / "meta.json")["fine_label_names"]]
    table = Gathered(class_names=names)
    parts = []
    for split in ("train", "test"):
        images = np.load(folder / f"{split}.npy", mmap_mode="r", allow_pickle=False)
        labels = document(folder / f"{split}.json")["fine_labels"]
        if len(labels) != len(images):
            raise InputError(
                f"{folder / split}: got {human_count(len(images), 'image')} but {human_count(len(labels), 'label')}"
            )
        parts.append(images)
        table.ids += [f"{split}/{i:05d}" for i in range(len(images))]
        table.labels += [names[_number(folder / split, str(label), len(names))] for label in labels]
        table.splits += [split] * len(images)
    table.images = np.concatenate(parts)
    return table


def coco(folder: Path, recipe: Recipe) -> Gathered:
    """COCO 2017 with its captions; ids are image ids, in ascending order."""
    base = inner(folder, "2017")
    table = Gathered()
    for split in ("train", "val"):
        listing, images = base / "annotations" / f"captions_{split}2017.json", base / f"{split}2017"
        if not listing.is_file() or not images.is_dir():
            continue
        data = document(listing)
        captions: dict[int, list[str]] = {int(image["id"]): [] for image in data["images"]}
        for entry in sorted(data["annotations"], key=lambda entry: int(entry["id"])):
            captions[int(entry["image_id"])].append(str(entry["caption"]).strip())
        files = {int(image["id"]): str(image["file_name"]) for image in data["images"]}
        for number in sorted(files):
            table.add(images / files[number], str(number), split=split)
            table.captions.append(captions[number])
    return table


def flickr30k(folder: Path, recipe: Recipe) -> Gathered:
    """Flickr30k; ids are file names, sorted as text. Splits come from the caption files that there are."""
    images = inner(folder, "flickr30k-images", "flickr30k_images", "images")
    rows: dict[str, tuple[str | None, list[str]]] = {}
    karpathy = folder / "dataset_flickr30k.json"
    listings = sorted(folder.glob("flickr30k_*.tsv"))
    if listings:
        for path in listings:
            split = path.stem.removeprefix("flickr30k_")
            rows |= {name: (split, captions) for name, captions in _token_lines(path).items()}
    elif karpathy.is_file():
        for entry in document(karpathy)["images"]:
            captions = [str(sentence["raw"]).strip() for sentence in entry["sentences"]]
            rows[str(entry["filename"])] = (str(entry["split"]), captions)
    else:
        rows = {name: (None, captions) for name, captions in _token_lines(folder / "results_20130124.token").items()}
    table = Gathered()
    for name in sorted(rows):
        split_name, captions = rows[name]
        table.add(images / name, name, split=split_name)
        table.captions.append(captions)
    return table


def _token_lines(path: Path) -> dict[str, list[str]]:
    """Lines ``name.jpg#n<TAB>caption``."""
    captions: dict[str, list[str]] = {}
    for line in lines(path):
        key, tab, caption = line.partition("\t")
        if not tab:
            raise InputError(f"{path}: got the line {line[:60]!r}, expected `name.jpg#n<TAB>caption`")
        captions.setdefault(key.rpartition("#")[0] or key, []).append(caption.strip())
    return captions


def sun397(folder: Path, recipe: Recipe) -> Gathered:
    """SUN397; ids are paths below the archive's folder (``a/abbey/sun_x.jpg``).

    Splits are the text files beside the images (``test.txt``) if there are any, else the first official partition;
    images of neither are ``rest``.
    """
    base = inner(folder, "SUN397")
    names = [line.lstrip("/").partition("/")[2] for line in lines(base / "ClassName.txt")]
    listings = {path.stem: path for path in sorted(base.glob("*.txt")) if path.stem in {"train", "val", "test"}}
    if not listings:
        official = {"train": "Training_01.txt", "test": "Testing_01.txt"}
        for place in (folder / "partitions", folder / "Partitions", folder, base):
            listings = listings or {s: place / name for s, name in official.items() if (place / name).is_file()}
    split = {line.lstrip("/"): name for name, path in listings.items() for line in lines(path)}
    table = Gathered(class_names=names)
    known = set(names)
    for path in sorted(base.glob("?/**/*.jpg"), key=lambda path: path.relative_to(base).as_posix()):
        sample = path.relative_to(base).as_posix()
        label = sample.partition("/")[2].rpartition("/")[0]
        if label not in known:
            raise InputError(f"{path}: `{label}` is no class of {base / 'ClassName.txt'}")
        table.add(path, sample, label, split.get(sample, "rest") if listings else None)
    return table


def flowers102(folder: Path, recipe: Recipe) -> Gathered:
    """Oxford 102 Flowers; ids are file names, splits in the order of ``setid.mat``."""
    base = inner(folder, "flowers-102")
    numbers = scipy.io.loadmat(base / "imagelabels.mat")["labels"].ravel()
    sets = scipy.io.loadmat(base / "setid.mat")
    table = Gathered(class_names=list(recipe.class_names))
    for split, key in (("train", "trnid"), ("val", "valid"), ("test", "tstid")):
        for image in sets[key].ravel():
            name = f"image_{int(image):05d}.jpg"
            label = recipe.class_names[_number(base / "imagelabels.mat", str(int(numbers[int(image) - 1]) - 1), 102)]
            table.add(base / "jpg" / name, name, label, split)
    return table


def food101(folder: Path, recipe: Recipe) -> Gathered:
    """Food-101; ids and class names as in its lists (``apple_pie/1005649``)."""
    base = inner(folder, "food-101")
    table = Gathered(class_names=lines(base / "meta" / "classes.txt"))
    for split in ("train", "test"):
        for sample in lines(base / "meta" / f"{split}.txt"):
            table.add(base / "images" / f"{sample}.jpg", sample, sample.partition("/")[0], split)
    return table


def voc(folder: Path, recipe: Recipe) -> Gathered:
    """PASCAL VOC 2007, splits train, val and test. An image shows several classes: its label is the one whose boxes
    cover the largest area; `rdxcli.datasets.published.concepts` gives all of them.
    """
    table = Gathered(class_names=list(recipe.class_names))
    for base, sample, split in voc_images(folder):
        areas = voc_areas(base, sample)
        best = max(recipe.class_names, key=lambda name: areas.get(name, 0.0))
        table.add(base / "JPEGImages" / f"{sample}.jpg", sample, best, split)
    return table


def voc_images(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Folder, id and split of every image."""
    base = inner(folder, "VOCdevkit/VOC2007", "VOC2007")
    for split in ("train", "val", "test"):
        listing = base / "ImageSets" / "Main" / f"{split}.txt"
        for sample in lines(listing) if listing.is_file() else ():
            yield base, sample, split


def voc_areas(base: Path, sample: str) -> dict[str, float]:
    """Total area of the boxes of each class in an image, square pixels."""
    path = base / "Annotations" / f"{sample}.xml"
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    areas: dict[str, float] = {}
    for entry in root.iter("object"):
        box = entry.find("bndbox")
        name = entry.findtext("name", "")
        left, top, right, bottom = (
            float(box.findtext(key, "0") or 0) if box is not None else 0.0 for key in ("xmin", "ymin", "xmax", "ymax")
        )
        areas[name] = areas.get(name, 0.0) + max(right - left, 1.0) * max(bottom - top, 1.0)
    return areas


def mini_imagenet(folder: Path, recipe: Recipe) -> Gathered:
    """mini-ImageNet (open copy). Its classes are numbers; where parts use the same number for different classes, the
    part's name is put before it.
    """
    rows: list[tuple[Path, str, str, str]] = []
    for split in ("train", "validation", "test"):
        for listing in sorted((folder / split).glob("*.csv")):
            with open(listing, encoding="utf-8", newline="") as stream:
                for row in csv.DictReader(stream):
                    rows.append((folder / split / row["path"], f"{split}/{row['path']}", row["label"], split))
    parts: dict[str, set[str]] = {}
    for _, _, label, split in rows:
        parts.setdefault(label, set()).add(split)
    shared = any(len(splits) > 1 for splits in parts.values())
    table = Gathered()
    for path, sample, label, split in rows:
        table.add(path, sample, f"{split}/{label}" if shared else label, split)
    order = {"train": 0, "validation": 1, "test": 2}
    found = {(order[split], int(label), name) for (_, _, label, split), name in zip(rows, table.labels, strict=True)}
    table.class_names = [name for _, _, name in sorted(found)]
    return table
