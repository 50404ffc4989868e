"""ImageNet-1k in the layouts that people have: class folders, Kaggle's, and an index of either."""

from __future__ import annotations

import csv
import os
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rdxcli.datasets.files import EXTENSIONS
from rdxcli.datasets.layouts import Gathered
from rdxcli.download.catalogue import get
from rdxcli.errors import InputError

if TYPE_CHECKING:
    from rdxcli.download.catalogue import Recipe

# a PNG under another name that the RDX experiments leave out
_BROKEN = {"n04266014_10835.JPEG"}
INDEX = "index.csv"


def imagenet(folder: Path, recipe: Recipe) -> Gathered:
    """ImageNet-1k: ``train`` and ``val`` with a folder per WordNet id, also inside ``Data/CLS-LOC`` (Kaggle), or such
    folders alone. The flat validation folder of Kaggle is read with ``LOC_val_solution.csv``.

    Classes are ordered by WordNet id; ids are paths relative to the folder of the splits.
    """
    base, top = _base(folder)
    rows: list[tuple[Path, str, str, str | None]] = []
    splits = [name for name in ("train", "val") if (base / name).is_dir()]
    for split in splits:
        rows += [(path, f"{split}/{sample}", wnid, split) for path, sample, wnid in _class_folders(base / split)]
        if split == "val" and not any(row[3] == "val" for row in rows):
            rows += [(path, f"val/{path.name}", wnid, "val") for path, wnid in _flat_validation(base / "val", top)]
    if not splits:
        rows += [(path, sample, wnid, None) for path, sample, wnid in _class_folders(base)]
    if not rows:
        raise InputError(f"{folder} holds no images in folders that are called like WordNet ids (n01440764 ...)")
    return _table(rows)


def write_index(folder: Path, target: Path) -> int:
    """Write down every image of ``folder`` so that opening need not look for them again; returns their number."""
    table = imagenet(folder, get("imagenet"))
    draft = target.with_name(target.name + ".tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(draft, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("path", "id", "wnid", "split"))
        splits = table.splits or [""] * len(table.ids)
        for path, sample, wnid, split in zip(table.paths, table.ids, table.keys, splits, strict=True):
            writer.writerow((path.relative_to(folder).as_posix(), sample, wnid, split))
    os.replace(draft, target)
    return len(table.ids)


def read_index(folder: Path, index: Path) -> Gathered:
    """The table that `write_index` wrote."""
    with open(index, encoding="utf-8", newline="") as stream:
        reader = csv.reader(stream)
        next(reader)
        return _table([(folder / path, sample, wnid, split or None) for path, sample, wnid, split in reader])


def synset_names() -> dict[str, str]:
    """First English name of each of the 1,000 classes, by WordNet id, from the tables that timm carries.

    Names that two classes share (``crane``) get the id behind them.
    """
    spec = find_spec("timm")
    if spec is None or spec.origin is None:
        return {}
    tables = Path(spec.origin).parent / "data" / "_info"
    try:
        wanted = set(tables.joinpath("imagenet_synsets.txt").read_text("utf-8").split())
        lemmas = tables.joinpath("imagenet_synset_to_lemma.txt").read_text("utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("\t") for line in lemmas)
    names = {wnid: text.split(",")[0].strip() for wnid, _, text in pairs if wnid in wanted}
    count = Counter(names.values())
    return {wnid: f"{name} ({wnid})" if count[name] > 1 else name for wnid, name in names.items()}


def _table(rows: list[tuple[Path, str, str, str | None]]) -> Gathered:
    wnids = sorted({wnid for _, _, wnid, _ in rows})
    names = synset_names()
    table = Gathered(class_names=[names.get(wnid, wnid) for wnid in wnids])
    for path, sample, wnid, split in rows:
        table.add(path, sample, names.get(wnid, wnid), split)
        table.keys.append(wnid)
    return table


def _base(folder: Path) -> tuple[Path, Path]:
    """Folder of the splits, and the one with Kaggle's tables."""
    for top in (folder, folder / "ILSVRC"):
        if (top / "Data" / "CLS-LOC").is_dir():
            return top / "Data" / "CLS-LOC", folder
    return folder, folder


def _is_wnid(name: str) -> bool:
    return len(name) == 9 and name[0] == "n" and name[1:].isdecimal()


def _class_folders(folder: Path) -> list[tuple[Path, str, str]]:
    found = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if not (_is_wnid(entry.name) and entry.is_dir()):
            continue
        for name in sorted(os.listdir(entry.path)):
            if os.path.splitext(name)[1].lower() in EXTENSIONS and name not in _BROKEN:
                found.append((Path(entry.path, name), f"{entry.name}/{name}", entry.name))
    return found


def _flat_validation(folder: Path, top: Path) -> list[tuple[Path, str]]:
    table = next((p for p in (top / "LOC_val_solution.csv", folder / "LOC_val_solution.csv") if p.is_file()), None)
    if table is None:
        raise InputError(
            f"{folder} has no folder per class and there is no LOC_val_solution.csv",
            "sort the validation images into one folder per WordNet id",
        )
    with open(table, encoding="utf-8", newline="") as stream:
        labels = {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(stream)}
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS)
    unknown = next((path for path in images if path.stem not in labels), None)
    if unknown is not None:
        raise InputError(f"{table} says nothing of {unknown.name}")
    return [(path, labels[path.stem]) for path in images]
