"""A data set: sample ids, optional labels, splits, captions and masks, and images that are decoded when asked for.

A `Dataset` is rows of an `ImageSource`. Sources hold files or arrays and never keep decoded images; data sets hold the
words. Selecting rows makes another `Dataset` on the same source, so nothing is read or copied.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdxcli.datasets.addresses import Place, address, whole
from rdxcli.datasets.images import ImageSource
from rdxcli.datasets.tables import read_lines, require_file
from rdxcli.datasets.words import composed, find, names_in
from rdxcli.errors import InputError, UnknownNameError, UsageError
from rdxcli.progress import human_count

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Dataset:
    """Images with names.

    Parameters
    ----------
    name : str
        Short name; the folder below the outputs directory. A selection adds to it (``digits@limit-100``).
    spec : str
        What opens it again, for example ``folder:/data/birds``.
    sample_ids : sequence of str, length n
        Unique, stable names of the samples.
    labels : sequence of str, length n, optional
        Class name of each sample.
    class_names : sequence of str, optional
        In their canonical order; by default the sorted labels.
    splits : sequence of str, length n, optional
        ``train``, ``val``, ``test`` ...
    captions : sequence of sequences of str, length n, optional
    mask : callable, optional
        ``mask(row)`` gives an integer array of shape (h, w): the concept at each pixel, -1 for none.
    mask_names : sequence of str, optional
        Name of each integer in the masks.
    rows : ndarray of shape (n,), int, optional
        Row of each sample in ``source``; all of them by default.
    selection : mapping
        How this selection was made, empty for the whole set.
    """

    name: str
    spec: str
    source: ImageSource
    sample_ids: Sequence[str]
    labels: Sequence[str] | None = None
    class_names: Sequence[str] | None = None
    splits: Sequence[str] | None = None
    captions: Sequence[Sequence[str]] | None = None
    mask: Callable[[int], np.ndarray] | None = None
    mask_names: Sequence[str] | None = None
    rows: np.ndarray | None = None
    selection: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.sample_ids)
        if self.rows is None:
            object.__setattr__(self, "rows", np.arange(len(self.source)))
        for what, given in (
            ("images", self.rows),
            ("labels", self.labels),
            ("splits", self.splits),
            ("captions", self.captions),
        ):
            if given is not None and len(given) != n:
                raise InputError(f"data set {self.name}: got {human_count(n, 'sample id')} but {len(given)} {what}")
        if n == 0:
            raise InputError(f"data set {self.name} has no images")
        if len(set(self.sample_ids)) != n:
            repeated = _first_repeated(self.sample_ids)
            raise InputError(f"data set {self.name}: the sample id `{repeated}` occurs more than once")
        # one name in two Unicode forms would be two classes that print alike
        if self.labels is not None:
            object.__setattr__(self, "labels", [composed(label) for label in self.labels])
        if self.class_names is not None:
            object.__setattr__(self, "class_names", list(dict.fromkeys(map(composed, self.class_names))))
        if self.labels is not None and self.class_names is None:
            object.__setattr__(self, "class_names", sorted(set(self.labels)))

    def __len__(self) -> int:
        return len(self.sample_ids)

    def image(self, index: int) -> Image.Image:
        """Decoded image of sample ``index``; raises when it is missing or broken."""
        assert self.rows is not None  # set in __post_init__
        return self.source.image(int(self.rows[index]))

    def location(self, index: int) -> str | None:
        """Path of sample ``index``, or None."""
        assert self.rows is not None
        return self.source.location(int(self.rows[index]))

    def mask_of(self, index: int) -> np.ndarray:
        """Concept mask of sample ``index``: int array of shape (h, w), -1 for no concept."""
        if self.mask is None:
            raise InputError(f"data set {self.name} has no concept masks")
        assert self.rows is not None
        return self.mask(int(self.rows[index]))

    def fingerprint(self) -> str:
        """SHA-256 over ids, labels and the images themselves. Any change of a selected sample changes it."""
        assert self.rows is not None
        digest = hashlib.sha256()
        for column in (self.sample_ids, self.labels):
            digest.update("\x1f".join(column or ["none"]).encode())
            digest.update(b"\x1e")
        digest.update(self.source.fingerprint(self.rows)["sha256"].encode())
        return digest.hexdigest()

    def description(self) -> dict[str, Any]:
        """What a manifest keeps: ``{name, spec, n, classes, selection, fingerprint}``."""
        return {
            "name": self.name,
            "spec": self.spec,
            "n": len(self),
            "classes": len(self.class_names) if self.class_names is not None else None,
            "selection": dict(self.selection),
            "fingerprint": self.fingerprint(),
        }

    def locate(self, ids: Sequence[str]) -> np.ndarray:
        """Index of each of ``ids`` in this data set, -1 where it has none; int64 of shape (len(ids),).

        Names are compared as `rdxcli.datasets.words.find` does, with and without folders and endings.
        """
        return find(ids, self.sample_ids)[0]

    def take(self, indices: np.ndarray | Sequence[int], selection: Mapping[str, Any], suffix: str) -> Dataset:
        """The samples ``indices``, in that order, as a data set named ``<name><suffix>``."""
        assert self.rows is not None
        chosen = np.asarray(indices, dtype=np.int64)

        def pick(column: Sequence[Any] | None) -> list[Any] | None:
            return None if column is None else [column[i] for i in chosen]

        labels = pick(self.labels)
        kept = set(labels) if labels is not None else set()
        return replace(
            self,
            name=self.name + suffix,
            sample_ids=pick(self.sample_ids) or [],
            labels=labels,
            class_names=[name for name in self.class_names if name in kept] if self.class_names is not None else None,
            splits=pick(self.splits),
            captions=pick(self.captions),
            rows=self.rows[chosen],
            selection={**self.selection, **selection},
        )

    def select(
        self,
        *,
        split: str | None = None,
        include: str | None = None,
        exclude: str | None = None,
        classes: Sequence[str] | str | None = None,
        per_class: int | None = None,
        sample: int | None = None,
        limit: int | None = None,
        seed: int = 0,
    ) -> Dataset:
        """Part of the data set, in the data set's own order.

        Raises `UsageError` (a number below 1, a split or labels that the data set does not have), `UnknownNameError`
        (no such split or class) or `InputError` (nothing is left).

        Parameters
        ----------
        split : str, optional
            Only this split.
        include, exclude : str, optional
            Only, or all but, the samples whose id fits one of these patterns; see `fitting`.
        classes : sequence of str or comma-separated str, optional
            Only these classes, by name or by number (``#5`` is the sixth).
        per_class : int, optional
            At most this many of each class, drawn at random (see `draw`).
        sample : int, optional
            This many samples, drawn at random without replacement (see `draw`); all of them when there are fewer.
        limit : int, optional
            The first so many of what is left.
        seed : int
            Seed of ``per_class`` and ``sample``.

        Returns
        -------
        Dataset
            This data set itself when nothing is asked for.
        """
        for what, number in (("limit", limit), ("sample", sample), ("per-class", per_class)):
            if number is not None and number < 1:
                raise UsageError(f"--{what}: got {number}, expected at least 1")
        keep = np.arange(len(self))
        done: dict[str, Any] = {}
        parts: list[str] = []
        if split is not None:
            keep = keep[np.asarray(self._split_mask(split))]
            done["split"] = split
            parts.append(split)
        for what, patterns in (("include", include), ("exclude", exclude)):
            if patterns is not None:
                fits = fitting([self.sample_ids[int(i)] for i in keep], patterns, f"--{what}", self.name)
                keep = keep[fits if what == "include" else ~fits]
                done[what] = patterns
                readable = re.fullmatch(r"[\w.+-]{1,40}", patterns) is not None
                parts.append(f"{what}-{patterns if readable else short_digest([patterns])}")
        if classes is not None:
            given = names_in(classes, self.class_names or ()) if isinstance(classes, str) else list(classes)
            names = self._class_names(given)
            keep = keep[np.isin(np.asarray(self.labels)[keep], names)]
            done["classes"] = names
            joined = "-".join(names)
            readable = len(joined) <= 40 and all(re.fullmatch(r"[\w.]+", name) for name in names)
            parts.append(f"classes-{joined if readable else short_digest(names)}")
        if per_class is not None:
            keep = self._draw_per_class(keep, per_class, seed)
            done |= {"per_class": per_class, "seed": seed}
            parts.append(f"per-class-{per_class}-seed-{seed}")
        if sample is not None:
            keep = keep[draw([self.sample_ids[int(i)] for i in keep], sample, seed)]
            done |= {"sample": sample, "seed": seed}
            parts.append(f"sample-{sample}-seed-{seed}")
        if limit is not None:
            keep = keep[:limit]
            done["limit"] = limit
            parts.append(f"limit-{limit}")
        if not parts:
            return self
        if len(keep) == 0:
            raise InputError(f"data set {self.name}: no samples are left after {', '.join(f'--{key}' for key in done)}")
        return self.take(keep, done, "@" + "+".join(parts))

    def _split_mask(self, split: str) -> list[bool]:
        if self.splits is None:
            raise UsageError(f"--split: the data set {self.name} has no splits")
        if split not in set(self.splits):
            known = list(dict.fromkeys(self.splits))
            raise UnknownNameError(f"split of {self.name} (it has {', '.join(known)})", split, known)
        return [value == split for value in self.splits]

    def _class_names(self, given: Sequence[str]) -> list[str]:
        """Classes given by name, or by their place in the list of classes (``#5``)."""
        if self.labels is None or self.class_names is None:
            raise UsageError(f"--classes: the data set {self.name} has no labels")
        return named_classes(given, list(self.class_names), self.name)

    def _draw_per_class(self, keep: np.ndarray, count: int, seed: int) -> np.ndarray:
        if self.labels is None or self.class_names is None:
            raise UsageError(f"--per-class: the data set {self.name} has no labels")
        labels = np.asarray(self.labels, dtype=object)[keep]
        chosen = []
        for name in self.class_names:
            members = keep[labels == name]
            chosen.append(members[draw([self.sample_ids[int(i)] for i in members], count, seed)])
        return np.sort(np.concatenate(chosen))


def named_classes(given: Sequence[str], known: Sequence[str], whose: str) -> list[str]:
    """Classes given by name, or by their place in a list of classes (``#5`` is the sixth).

    Raises `UsageError` or `UnknownNameError` (no such place or name).
    """
    names = []
    for name in given:
        if name not in known and re.fullmatch(r"#\d+", name):
            if int(name[1:]) >= len(known):
                raise UsageError(f"--classes: {name} is not one of the {human_count(len(known), 'class')} of {whose}")
            names.append(known[int(name[1:])])
        elif name in known or composed(name) in known:
            names.append(name if name in known else composed(name))
        else:
            raise UnknownNameError(f"class of {whose}", name, known)
    return names


def fitting(ids: Sequence[str], patterns: str, option: str, whose: str) -> np.ndarray:
    """Which ids fit one of some patterns; bool of shape (len(ids),).

    Raises `UsageError` (no id fits).

    Parameters
    ----------
    patterns : str
        Separated by commas: ``*`` stands for any characters (``/`` too), ``?`` for one, ``[ab]`` for one of some;
        case counts. ``@FILE`` reads patterns, or whole ids, from a text file, one a line.
    option, whose : str
        For messages: ``--include``, the data set.
    """
    if patterns.startswith("@"):
        file = require_file(patterns[1:], f"list for {option}")
        given = {composed(line.strip()) for line in read_lines(file) if line.strip()}
    else:
        given = {composed(part.strip()) for part in patterns.split(",") if part.strip()}
    shapes = [pattern for pattern in given if any(sign in pattern for sign in "*?[")]
    shape = re.compile("|".join(map(fnmatch.translate, shapes))) if shapes else None
    names = [composed(sample) for sample in ids]
    found = np.array([name in given or bool(shape and shape.match(name)) for name in names], bool)
    if not found.any():
        raise UsageError(
            f"{option} {patterns}: none of the {human_count(len(ids), 'id')} of {whose} fits",
            f"ids look like `{ids[0]}`" if len(ids) else None,
        )
    return found


def draw(ids: Sequence[str], count: int, seed: int) -> np.ndarray:
    """Positions of ``count`` ids drawn without replacement, ascending; all of them when there are fewer.

    The draw depends on the seed and on the ids only, not on their order: each id gets a number from a hash of seed and
    id, and the smallest numbers are drawn. So two files with the same samples in another order give the same draw.
    """
    if count >= len(ids):
        return np.arange(len(ids))
    prefix = f"rdx.sample\x1f{int(seed)}\x1f"
    numbers = [hashlib.sha256(f"{prefix}{sample}".encode()).digest() for sample in ids]
    order = sorted(range(len(ids)), key=numbers.__getitem__)
    return np.sort(np.array(order[:count], dtype=np.int64))


def natural_ids(count: int) -> list[str]:
    """Row numbers as ids, padded with zeros so that they sort: ``0000``, ``0001`` ..."""
    width = max(4, len(str(max(count - 1, 0))))
    return [f"{i:0{width}d}" for i in range(count)]


def folder_name(path: Path | str) -> str:
    """Short name for data at a path or an address: its last part and six digits that tell equal last parts apart."""
    where = address(path)
    if where is not None:
        return f"{Place(where).name}-{short_digest([whole(path)])}"
    resolved = Path(path).expanduser().resolve()
    return f"{resolved.name or 'root'}-{short_digest([resolved.as_posix()])}"


def short_digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:6]


def _first_repeated(values: Sequence[str]) -> str:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return ""
