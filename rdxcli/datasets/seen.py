"""What a file held, and what it was taken for: which columns are features, which name the rows, which are neither.

Tables written by other tools carry row numbers, index columns, ids, labels, splits and scores beside the features. A
row number among the features makes two unrelated tables look alike, so every column is decided by what wrote it (pandas
notes its index), by its name, and by its content; what stays in doubt is an error that shows how to choose.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rdxcli.datasets.selection import Choice
from rdxcli.datasets.tables import DataTable, names_an_index, numbers, pick_column, squashed, unknown_column
from rdxcli.errors import InputError
from rdxcli.lazy import pyarrow as pa
from rdxcli.progress import human_count

ID_NAMES = (
    *("sample_id", "sample_ids", "id", "ids", "image_id", "img_id", "image_ids", "file", "files", "path", "paths"),
    *("filename", "filenames", "file_name", "file_names", "filepath", "file_path", "image_path", "image_paths"),
    *("img_path", "image_file", "image_name", "img_name", "image", "img", "fname", "uid", "uuid", "guid", "key"),
    *("__key__", "_id", "example_id", "item_id", "object_id", "photo_id", "sample", "url", "image_url", "name"),
)
LABEL_NAMES = (
    *("label", "labels", "class", "class_name", "category", "target", "targets", "y", "class_id", "class_index"),
    *("class_label", "class_idx", "category_id", "category_name", "label_name", "label_id", "label_idx", "y_true"),
    *("fine_label", "ground_truth", "gt", "gt_label", "true_label", "classname", "species", "coarse_label", "cls"),
)
FILE, ANOTHER_FILE = "the file", "another file"  # where ids and labels come from that are no column
COUNTS, COUNTS_FROM_1 = "counts the rows", "counts the rows from 1"
_EXTRA_NAMES = {
    *("split", "splits", "fold", "folds", "subset", "partition", "set", "istrain", "istest", "isval", "train", "test"),
    *("score", "scores", "confidence", "conf", "prob", "probability", "probabilities", "loss", "weight", "weights"),
    *("pred", "prediction", "predictions", "predicted", "ypred", "predlabel", "correct", "rank", "seed", "epoch"),
    *("timestamp", "date", "time", "shard", "similarity", "distance", "cluster", "clusterid", "patchidx", "token"),
    *("filesize", "size", "bytes", "width", "height", "imagewidth", "imageheight", "originalwidth", "originalheight"),
    *("nsfw", "punsafe", "pwatermark", "aesthetic", "md5", "sha256", "exif", "status", "lang", "caption", "text"),
    *("batch", "step", "logit", "logits", "softmax", "bbox", "entropy", "accuracy", "margin"),
}
_BOOKKEEPING = {"id", "idx", "index", "label", "labels", "split", "fold", "score", "class", "target", "category"}
_WORDS = re.compile(r"[a-z]+|[A-Z][a-z]*|[A-Z]+(?![a-z])")


@dataclass(frozen=True)
class Seen:
    """The columns of one file.

    Attributes
    ----------
    rows, columns : int
        Of the file.
    features : sequence of str
        Names of the columns that are features; empty when they have none.
    ids, labels : str or None
        Where they come from.
    left_out : mapping of str to str
        Every other column, and why it is no feature.
    notes : sequence of str
        Other conclusions: the separator, a missing header, a range of pixels.
    """

    name: str
    rows: int
    columns: int
    features: Sequence[str] = ()
    ids: str | None = None
    labels: str | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def remarkable(self) -> bool:
        """Whether something was decided that a reader should know."""
        return bool(self.left_out or self.ids is not None or self.labels or self.notes or self.features)

    def line(self) -> str:
        """One line for people."""
        shown = f" ({_shown(self.features)})" if self.features else ""
        parts = [f"{human_count(self.rows, 'row')}, {self.columns} feature{'s' if self.columns != 1 else ''}{shown}"]
        parts += [
            f"{what} from {_quoted(column)}"
            for what, column in (("ids", self.ids), ("labels", self.labels))
            if column is not None
        ]
        if self.ids is None:
            parts.append("no ids")
        if self.left_out:
            out = [f"{_quoted(name)} ({why})" for name, why in list(self.left_out.items())[:6]]
            more = f" and {len(self.left_out) - 6} more" if len(self.left_out) > 6 else ""
            parts.append(f"left out: {', '.join(out)}{more}")
        return f"{self.name}: " + "; ".join([*parts, *self.notes])

    def describe(self) -> dict[str, Any]:
        """For manifests."""
        return {
            "rows": self.rows,
            "features": _shown(self.features) if self.features else self.columns,
            "n_features": self.columns,
            "ids": self.ids,
            "labels": self.labels,
            "left_out": dict(self.left_out),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Taken:
    """The columns of a table by their part."""

    features: list[str]
    values: dict[str, np.ndarray]
    lists: str | None
    ids: str | None
    labels: str | None
    left_out: dict[str, str]


def take_columns(table: DataTable, key: str | None, choice: Choice, concepts: bool = False) -> Taken:
    """Decide what each column of ``table`` is.

    Raises `InputError` (a column that does not exist, no numbers, or a column that could be a feature or bookkeeping).

    Parameters
    ----------
    key : str, optional
        Columns named with the file (``a.csv:f*``): they win over ``choice.features``.
    concepts : bool
        Columns are scores of concepts, whose names may be any word and which may be true or false.
    """
    names = list(table.columns)
    wanted = key if key is not None else choice.features
    if wanted == "all" and "all" not in names:
        wanted = None
        accept = True
    else:
        accept = False
    lists = [name for name in names if _is_list(table, name)]
    explicit: dict[str, str] = {}
    for part, given in (("id", choice.ids), ("label", choice.labels)):
        if given is not None:
            if concepts and not any(name in names for name in [given, *map(str.strip, given.split(","))]):
                continue  # it names a column of the features' table
            explicit[part] = _first_known(table, given)
    if wanted is not None:
        features = _named(table, wanted, names)
        if len(features) == 1 and features[0] in lists:
            return _finish(table, [], {}, features[0], explicit, {})
        values = {name: _numbers(table, name) for name in features}
        for name, column in values.items():
            if column is None or name in lists:
                kind = table.columns[name].type
                raise InputError(f"{table.path}: the column `{name}` holds {kind}, expected numbers")
        return _finish(table, features, {n: v for n, v in values.items() if v is not None}, None, explicit, {})
    if len(lists) == 1:
        return _finish(table, [], {}, lists[0], explicit, {})
    parsed = {
        name: column
        for name in names
        if name not in lists and name not in explicit.values() and (column := _numbers(table, name)) is not None
    }
    if lists or not parsed:
        raise InputError(
            f"{table.path}: which column holds the values? columns are: {', '.join(names)}",
            f"write `{table.path}:COLUMN`",
        )
    return _decide(table, parsed, explicit, accept, concepts)


def _decide(
    table: DataTable, parsed: dict[str, np.ndarray], explicit: dict[str, str], accept: bool, concepts: bool
) -> Taken:
    families = _families(parsed)
    member = {name: prefix for prefix, group in families.items() for name in group}
    whole = {name: _is_whole(column) for name, column in parsed.items()}
    roles: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for name, column in parsed.items():
        part = _part_of(name, bool(families), concepts)
        if name in member and part != "index" and not _counts(column):
            continue
        if _counts(column) and len(parsed) > 1:
            left_out[name] = _counting(column)
            roles[name] = "index"
        elif name in table.index:
            left_out[name] = "the index of pandas"
            roles[name] = "index"
        elif part in ("index", "id") and whole[name]:
            left_out[name] = "numbers the rows" if part == "index" else "ids"
            roles[name] = part
        elif (part == "label" and whole[name]) or part == "extra":
            left_out[name] = "label" if part == "label" else "bookkeeping"
            roles[name] = part
    features = [name for name in parsed if name not in roles]
    if not features and len(roles) == len(parsed):
        # every column is called like bookkeeping: nothing but the names speaks against them
        raise _doubt(table, list(parsed), "their names say bookkeeping, and there are no others")
    if not accept:
        _check_doubts(table, parsed, whole, member, features, concepts)
    return _finish(table, features, {name: parsed[name] for name in features}, None, explicit, left_out)


def _check_doubts(
    table: DataTable,
    parsed: dict[str, np.ndarray],
    whole: dict[str, bool],
    member: dict[str, str],
    features: list[str],
    concepts: bool,
) -> None:
    """Refuse columns that could be features or bookkeeping."""
    graded = [name for name in features if not whole[name]]
    if len(features) < 2 or not graded:
        return
    for name in features:
        column = parsed[name]
        suspicious = _part_of(name, True, concepts) is not None or _ends_like_bookkeeping(name)
        if whole[name] and _distinct(column) and len(column) > 4:
            raise _doubt(table, [name], "it holds whole numbers that are all different, the others do not")
        if concepts or name in member:
            continue
        if suspicious and not whole[name] and squashed(name) != "y":
            raise _doubt(table, [name], "its name says bookkeeping, its numbers do not")
        if whole[name] and np.ptp(column) > 0:
            raise _doubt(table, [name], f"it holds {len(np.unique(column))} different whole numbers, the others do not")
    if concepts:
        return
    largest = max(
        ({n for n in features if member.get(n) == prefix} for prefix in set(member.values())), key=len, default=set()
    )
    strangers = [name for name in features if name not in member]
    if len(largest) > 2 and 2 * len(largest) >= len(features) and strangers:
        raise _doubt(table, strangers[:1], f"its name is unlike the others, {_shown(sorted(largest)[:2])} ...")
    prefixes = {member[name] for name in features if name in member}
    odd = [
        prefix for prefix in prefixes if _part_of(prefix, True, False) or _ends_like_bookkeeping(prefix.rstrip("_.- "))
    ]
    if len(prefixes) > 1 and odd:
        raise _doubt(table, [n for n in features if member.get(n) in odd], "their names say bookkeeping")


def _why(table: DataTable, name: str) -> str:
    """Why a column that nobody asked for is no feature."""
    column = _index(table, name)
    if column is not None and _counts(column):
        return _counting(column)
    return "the index of pandas" if name in table.index else _kind(table, name)


def _index(table: DataTable, name: str) -> np.ndarray | None:
    """The numbers of a column that is called an index, or is the index of pandas; None for every other."""
    index = name in table.index or _part_of(name, True, False) == "index"
    return _numbers(table, name) if index and not _is_list(table, name) else None


def _counting(column: np.ndarray) -> str:
    return COUNTS if column[0] == 0 else COUNTS_FROM_1


def _tells_apart(table: DataTable, name: str) -> bool:
    """Whether a column is an index that tells the rows apart and is not their order."""
    column = _index(table, name)
    return column is not None and _is_whole(column) and _distinct(column) and not _counts(column)


def counted_ids(seen: Mapping[str, Any] | None, n: int, others: Sequence[str]) -> list[str] | None:
    """Numbers as ids of the n rows of a table that counts them, where the ids of another table are such numbers.

    `seen`: what `Seen.describe` told of the table.
    """
    reasons = set((seen or {}).get("left_out", {}).values())
    first = 0 if COUNTS in reasons else 1 if COUNTS_FROM_1 in reasons else None
    own = [] if first is None else [str(number) for number in range(first, first + n)]
    return own if own and set(others) <= set(own) else None


def _doubt(table: DataTable, names: Sequence[str], why: str) -> InputError:
    asked = f"are the columns {_shown(names)} features" if len(names) > 1 else f"is the column `{names[0]}` a feature"
    return InputError(
        f"{table.path}: {asked}? {why}",
        f"--feature-columns all takes every number, --feature-columns '!{names[0]}' leaves it out, "
        f"--id-column '{names[0]}' or --label-column '{names[0]}' says what it is",
    )


def _finish(
    table: DataTable,
    features: list[str],
    values: dict[str, np.ndarray],
    lists: str | None,
    explicit: dict[str, str],
    left_out: dict[str, str],
) -> Taken:
    """Ids and labels among what is no feature, and a reason for all the rest."""
    rest = [name for name in table.columns if name not in features and name != lists]
    ids, labels = explicit.get("id"), explicit.get("label")
    free = [name for name in rest if name not in explicit.values()]
    if ids is None:
        named = [name for name in table.index if name in free and _is_text(table, name)]
        known = {name: None for name in free if not _is_list(table, name)}
        ids = named[0] if len(named) == 1 else _fitting(table, known, ID_NAMES)
        if ids is None:
            words = [
                name
                for name in free
                if _part_of(name, True, False) in (None, "id", "index")
                and _is_words(table, name)
                and _differ(table, name)
            ]
            ids = words[0] if len(words) == 1 else None
    if labels is None:
        known = {name: None for name in free if name != ids and not _is_list(table, name)}
        labels = pick_column(known, LABEL_NAMES)
    if ids is None:
        # an index that is not the order of the rows says which rows they are
        index = [name for name in free if name != labels and _tells_apart(table, name)]
        ids = index[0] if len(index) == 1 else None
    for name in rest:
        if name not in (ids, labels):
            left_out.setdefault(name, _why(table, name))
    return Taken(features, values, lists, ids, labels, {n: w for n, w in left_out.items() if n not in (ids, labels)})


def _fitting(table: DataTable, known: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The first column with a usual name whose values tell the rows apart; with none, the first with such a name."""
    found = [name for wanted in names for name in known if squashed(name) == squashed(wanted)]
    distinct = [name for name in found if _differ(table, name)]
    certain = [name for name in found if squashed(name) not in ("name", "url", "image", "img", "key", "sample", "file")]
    return next(iter([*distinct, *certain]), None)


def _first_known(table: DataTable, given: str) -> str:
    names = list(table.columns)
    for name in [given, *(part.strip() for part in given.split(","))]:
        if name in table.columns:
            return name
    raise unknown_column(table.path, given, names)


def _named(table: DataTable, wanted: str, names: Sequence[str]) -> list[str]:
    """Columns that a list of names and patterns means, in their order."""
    if wanted in names:
        return [wanted]
    kept: list[str] = []
    without: set[str] = set()
    parts = [part.strip() for part in wanted.split(",") if part.strip()]
    for part in parts:
        pattern = part.removeprefix("!")
        found = [name for name in names if name == pattern] or [n for n in names if fnmatch.fnmatchcase(n, pattern)]
        if not found:
            raise unknown_column(table.path, pattern, names)
        if part.startswith("!"):
            without |= set(found)
        else:
            kept += found
    if not kept:
        kept = [
            name
            for name in names
            if name not in without
            and _part_of(name, True, False) is None
            and name not in table.index
            and not _is_list(table, name)
            and (column := _numbers(table, name)) is not None
            and not _counts(column)
        ]
    chosen = [name for name in dict.fromkeys(kept) if name not in without]
    if not chosen:
        raise InputError(f"{table.path}: no column is left by `{wanted}`; columns are: {', '.join(names)}")
    return chosen


def _families(parsed: Mapping[str, Any]) -> dict[str, list[str]]:
    """Columns whose names differ by their number only: f0, f1, f2."""
    groups: dict[str, list[str]] = {}
    for name in parsed:
        found = re.fullmatch(r"(.*?)\d+", name, re.S)
        if found:
            groups.setdefault(found[1], []).append(name)
    return {prefix: group for prefix, group in groups.items() if len(group) > 1}


def _part_of(name: str, families: bool, concepts: bool) -> str | None:
    """What a column is by its name alone."""
    plain = squashed(name)
    if names_an_index(name) or (plain in {"i", "no", "order", "number"} and not concepts):
        return "index"
    if plain in {squashed(n) for n in ID_NAMES}:
        return "id"
    if plain in {squashed(n) for n in LABEL_NAMES} and not (plain == "y" and not families):
        return "label"
    if concepts:
        return "extra" if plain in {"split", "splits", "fold", "score", "scores"} else None
    if plain in _EXTRA_NAMES and (families or plain not in {"width", "height", "size", "weight", "time", "distance"}):
        return "extra"
    return None


def _ends_like_bookkeeping(name: str) -> bool:
    words = _WORDS.findall(name)
    return len(words) > 1 and words[-1].lower() in _BOOKKEEPING


def _is_whole(column: np.ndarray) -> bool:
    known = column[np.isfinite(column)]
    return bool(len(known)) and bool(np.all(known == np.floor(known)))


def _counts(column: np.ndarray) -> bool:
    """Whether a column is 0, 1, 2 ... or 1, 2, 3 ... in the order of the rows."""
    return len(column) > 2 and column[0] in (0, 1) and bool(np.all(np.diff(column) == 1))


def _distinct(column: np.ndarray) -> bool:
    return bool(np.isfinite(column).all()) and len(np.unique(column)) == len(column)


def _is_list(table: DataTable, name: str) -> bool:
    kind = table.columns[name].type
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _numbers(table: DataTable, name: str) -> np.ndarray | None:
    """The numbers of a column; text of a file that knows types is no number."""
    return None if table.typed and _is_text(table, name) else numbers(table.columns[name])


def _is_text(table: DataTable, name: str) -> bool:
    return pa.types.is_string(table.columns[name].type)


def _is_words(table: DataTable, name: str) -> bool:
    """Whether a column holds words, not numbers that are written as text."""
    return _is_text(table, name) and _numbers(table, name) is None


def _differ(table: DataTable, name: str) -> bool:
    values = table.texts(name)
    return len(set(values)) == len(values) and "" not in values


def _kind(table: DataTable, name: str) -> str:
    if _is_list(table, name):
        return "lists"
    return (
        "text" if _is_words(table, name) else "not chosen" if _is_text(table, name) else str(table.columns[name].type)
    )


def _shown(names: Sequence[str]) -> str:
    if len(names) <= 6:
        return ", ".join(name or "''" for name in names)
    return f"{names[0] or repr('')} ... {names[-1]}"


def _quoted(name: str) -> str:
    return name if name == FILE else f"`{name}`" if name else "the column without a name"


def check_columns(values: np.ndarray, name: str, concepts: bool = False) -> None:
    """Refuse bookkeeping among the columns of an array that has no names.

    Raises `InputError` (a column counts the rows, or holds different whole numbers where the others do not).

    Parameters
    ----------
    values : ndarray of shape (n, d)
        May be memory-mapped: only columns that look suspicious in the first rows are read whole.
    """
    if values.ndim != 2 or values.shape[1] < 2 or len(values) < 5 or values.dtype.kind not in "fiu":
        return
    head = np.asarray(values[:256], dtype=np.float64)
    with np.errstate(invalid="ignore"):
        whole = np.all(head == np.floor(head), axis=0)
        steps = np.all(np.diff(head, axis=0) == 1, axis=0) & np.isin(head[0], (0, 1))
    for column in np.flatnonzero(steps):
        if _counts(np.asarray(values[:, column], dtype=np.float64)):
            raise _array_doubt(values, name, int(column), "it counts the rows")
    if concepts or whole.all():
        return
    few = int((whole & (np.ptp(head, axis=0) > 0)).sum()) <= max(3, values.shape[1] // 100)
    for column in np.flatnonzero(whole & ~steps):
        different = len(np.unique(head[:, column]))
        if few and 2 < different < len(head) and _is_whole(np.asarray(values[:, column], dtype=np.float64)):
            raise _array_doubt(
                values, name, int(column), f"it holds {different} different whole numbers, others do not: labels?"
            )
        if different < len(head):
            continue
        content = np.asarray(values[:, column], dtype=np.float64)
        if _is_whole(content) and _distinct(content):
            raise _array_doubt(
                values, name, int(column), "it holds whole numbers that are all different, others do not"
            )


def _array_doubt(values: np.ndarray, name: str, column: int, why: str) -> InputError:
    last = values.shape[1] - 1
    rest = [part for part in (_span(0, column - 1), _span(column + 1, last)) if part]
    return InputError(
        f"{name}: is column {column} a feature? {why}",
        f"--feature-columns {','.join(rest)} leaves it out, --feature-columns all takes every column",
    )


def _span(first: int, last: int) -> str:
    return "" if last < first else str(first) if last == first else f"{first}-{last}"


def pick_positions(values: np.ndarray, wanted: str, name: str) -> np.ndarray:
    """Columns of an array without names by position: ``0-511,600``, or ``!0``."""
    count = values.shape[1]
    parts = [part.strip() for part in wanted.split(",") if part.strip()]
    kept: list[int] = []
    without: set[int] = set()
    for part in parts:
        found = re.fullmatch(r"(!?)(\d+)(?:-(\d+))?", part)
        if not found or not int(found[2]) <= int(found[3] or found[2]) < count:
            raise InputError(
                f"{name}: its {human_count(count, 'column', 'have')} no names, got `{part}`",
                f"--feature-columns 0-{count - 1} takes all",
            )
        places = range(int(found[2]), int(found[3] or found[2]) + 1)
        if found[1]:
            without |= set(places)
        else:
            kept += places
    chosen = [place for place in dict.fromkeys(kept or range(count)) if place not in without]
    if not chosen:
        raise InputError(f"{name}: no column is left by `{wanted}`")
    return np.asarray(values[:, chosen])
