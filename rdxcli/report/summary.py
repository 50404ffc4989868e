"""What there is to say about an artifact, said once: pages, Markdown, the terminal, tables and figures show this.

A kind of artifact has one builder (see `rdxcli.report.kinds`) that turns its document into a `Summary`; nothing that
shows a summary knows the kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from markupsafe import Markup

from rdxcli.progress import human_count, human_p
from rdxcli.records import Verdict
from rdxcli.report.text import LONGEST, clean

MAIN_AXES = "main axes"
"""What the first layout of a map is called."""

PRINTED = 40
"""Rows of a table in the terminal."""


@dataclass(frozen=True)
class Column:
    """What the values of a column are.

    Parameters
    ----------
    meaning : str
        A sentence for a reader who does not know the name.
    unit : str
        ``share`` (from 0 to 1, shown in per cent), ``logit``, ``s`` ...; empty for pure numbers and text.
    better : {"higher", "lower", ""}
        Which values are good; empty where neither is.
    brief : bool
        Stands in the table of the terminal too.
    on_card : bool
        Stands on the card of an item too; not what the card says in other ways.
    """

    name: str
    meaning: str = ""
    unit: str = ""
    better: Literal["higher", "lower", ""] = ""
    brief: bool = True
    on_card: bool = True


@dataclass(frozen=True)
class Table:
    """Rows of values under columns that say what they are.

    Parameters
    ----------
    rows : sequence of sequences
        Numbers as numbers, intervals as pairs, None for what is missing.
    folded : bool
        For those who look for it.
    left_out : int
        Rows that exist and are not here.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    text: str = ""
    folded: bool = False
    left_out: int = 0

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers and intervals alone."""
        cells = [[row[i] for row in self.rows if row[i] not in (None, "")] for i in range(len(self.columns))]
        return [bool(own) and not any(isinstance(one, str | bool) for one in own) for own in cells]


@dataclass(frozen=True)
class Chart:
    """A small chart.

    Parameters
    ----------
    shape : {"curves", "histogram", "stacked", "scatter"}
        Curves and scatters have points (x, y) or (x, y, low, high), histograms values, stacks percentages by band.
    x, y : str
        What the axes are.
    y_range : (float, float), optional
    edges : sequence of float
        Of the bands of a stack.
    """

    title: str
    shape: Literal["curves", "histogram", "stacked", "scatter"]
    series: Mapping[str, Sequence[Any]]
    x: str
    y: str = ""
    y_range: tuple[float, float] | None = None
    edges: Sequence[float] = ()

    def __post_init__(self) -> None:
        if self.shape != "stacked":
            kept = {name: [one for one in line if np.all(np.isfinite(one))] for name, line in self.series.items()}
            object.__setattr__(self, "series", kept)


@dataclass(frozen=True)
class Heat:
    """A matrix as colours.

    Parameters
    ----------
    colours : ndarray of shape (r, c, 3), uint8
    rows, columns : sequence of str
        Names along the sides; empty where there is no room.
    ramp : ndarray of shape (m, 3)
        Colours of the scale, from ``ends[0]`` to ``ends[1]``.
    ends : (float, float)
    beside : str
        What the other colours mean.
    """

    colours: np.ndarray
    rows: Sequence[str]
    columns: Sequence[str]
    ramp: np.ndarray
    ends: tuple[float, float]
    beside: str


@dataclass(frozen=True)
class Drawing:
    """A picture of a kind that no other has, as markup of this package, with the same in a table.

    Parameters
    ----------
    markup : Markup
        Every foreign text in it is escaped.
    table : Table, optional
        What it shows, for readers and formats without pictures.
    heat : Heat, optional
        The same for figures.
    """

    title: str
    markup: Markup
    table: Table | None = None
    heat: Heat | None = None


@dataclass(frozen=True)
class Against:
    """A number beside what it is when nothing is the case.

    Parameters
    ----------
    low, mean, high : float
        Of the null.
    reference : float, optional
        The same of a pair that was given for comparison.
    decisive : bool
        The verdict rests on it.
    most : float
        Right end of the scale, which begins at 0.
    ends : (str, str)
        What both ends of the scale mean.
    marks : mapping of str to float
        The same of pairs that give the number a scale.
    """

    name: str
    value: float
    low: float
    mean: float
    high: float
    p_value: float | None = None
    reference: float | None = None
    decisive: bool = False
    most: float = 1.0
    ends: tuple[str, str] = ("", "")
    marks: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """A sample that is shown.

    Parameters
    ----------
    strong : bool
        Draw a frame around it (the target).
    heat : sequence of sequence of float, optional
        A map over the image, values from 0 to 1.
    """

    sample_id: str
    caption: str = ""
    strong: bool = False
    heat: Sequence[Sequence[float]] | None = None


@dataclass(frozen=True)
class Bar:
    """A labelled bar: ``value`` sets its length on the scale of its section, ``text`` is printed beside it.

    ``chance`` is what the value would be by chance, drawn as a mark.
    """

    label: str
    value: float
    text: str
    chance: float | None = None


@dataclass(frozen=True)
class Item:
    """One thing that is explained: a concept, a unit, a region, a direction, an image.

    Parameters
    ----------
    key : str or int
        Its id, the same in the terminal, in the address of the page and in tables.
    values : sequence
        Under the columns of its section.
    text : str
        A sentence.
    status : str
        Why it is in doubt, or what else must be known before it is believed.
    doubtful : bool
        Not better than chance, below a threshold, idle: drawn weaker and later.
    grid : sequence of sequence of float, optional
        A small map (unit positions), values from 0 to 1.
    beside : sequence of str
        Lines beside that map.
    group : (str, int), optional
        Side and number of the group of the maps that holds its members.
    """

    key: str | int
    title: str
    values: Sequence[Any] = ()
    text: str = ""
    status: str = ""
    doubtful: bool = False
    pictures: Sequence[Picture] = ()
    bars: Sequence[Bar] = ()
    grid: Sequence[Sequence[float]] | None = None
    beside: Sequence[str] = ()
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    group: tuple[str, int] | None = None


@dataclass(frozen=True)
class Section:
    """Things of one sort under one heading, the most interesting first.

    Parameters
    ----------
    key : str
        Its id.
    noun : str
        What one of them is.
    columns : sequence of Column
        Of the values of the items.
    scale : float, optional
        Value of the longest bar; by default the largest.
    printed : bool
        Its items and tables are what the terminal shows.
    folded : bool
        For those who look for it.
    maps : str
        Side (``a``, ``b``) whose groups colour the maps that stand here; empty without maps.
    matrix : ndarray of shape (m, m), optional
        A matrix in [-1, 1] to be drawn.
    left_out : int
        Items that exist and are not here.
    doubt : str
        Why its doubtful items are in doubt.
    part : int
        Number of the artifact that it is of, where there are several: names lead to items of the same one.
    """

    title: str
    key: str
    items: Sequence[Item] = ()
    noun: str = "name"
    columns: Sequence[Column] = ()
    text: str = ""
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    drawings: Sequence[Drawing] = ()
    scale: float | None = None
    printed: bool = False
    folded: bool = False
    maps: str = ""
    matrix: np.ndarray | None = None
    left_out: int = 0
    doubt: str = ""
    part: int = 0

    @property
    def longest(self) -> float:
        """`scale`, by default the largest value of all bars."""
        return self.scale or max((abs(bar.value) for item in self.items for bar in item.bars), default=0.0) or 1.0

    @property
    def diverging(self) -> bool:
        """Some bar is negative, so that zero is in the middle of all."""
        return any(bar.value < 0 for item in self.items for bar in item.bars)

    @property
    def table(self) -> Table:
        """The items as rows, their ids first."""
        rows = [[item.key, *item.values] for item in self.items]
        return Table(self.title, [Column(self.noun), *self.columns], rows, self.text, self.folded, self.left_out)


@dataclass(frozen=True)
class Maps:
    """Every row in both maps.

    Parameters
    ----------
    ids : ndarray of shape (n,), str
    points : mapping of side to (n, 2) float
        Along the two main axes.
    groups : mapping of side to (n,) int
        0 for rows of no group.
    labels : ndarray of shape (n,), str, optional
    shown : ndarray of shape (m,), int
        Rows whose nearest neighbours are known.
    neighbours : mapping of side to (m, k) int
        Rows, the nearest first.
    layouts : mapping of name to mapping of side to (n, 2) float
        Other places of the same rows, for example by UMAP.
    """

    ids: np.ndarray
    points: Mapping[str, np.ndarray]
    groups: Mapping[str, np.ndarray]
    labels: np.ndarray | None = None
    shown: np.ndarray | None = None
    neighbours: Mapping[str, np.ndarray] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    layouts: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)

    @property
    def placed(self) -> dict[str, Mapping[str, np.ndarray]]:
        """All places of the rows by name, the main axes first."""
        return {MAIN_AXES: self.points, **self.layouts}


@dataclass(frozen=True)
class Summary:
    """All there is to say about an artifact.

    Parameters
    ----------
    kicker, title, facts : str
        What it is, what it is about, and in numbers.
    verdict : Verdict, optional
        None where nothing can be tested.
    question : str
        What the verdict answers.
    said : sequence of str
        What was found, in sentences.
    notes : sequence of str
        What a reader must know first.
    provenance : sequence of (name, value)
    dataset : str, optional
        Opens the images again.
    """

    kind: str
    method: str
    kicker: str
    title: str
    facts: str
    sections: Sequence[Section]
    verdict: Verdict | None = None
    question: str = ""
    said: Sequence[str] = ()
    against: Sequence[Against] = ()
    notes: Sequence[str] = ()
    provenance: Sequence[tuple[str, Any]] = ()
    dataset: str | None = None
    maps: Maps | None = None

    @property
    def chip(self) -> str:
        """The verdict with the question it answers, in words; empty without one."""
        return "" if self.verdict is None else f"{self.verdict}{f' ({self.question})' if self.question else ''}"

    def tables(self) -> Iterator[tuple[str, Table]]:
        """Every table with an id of its own: items of a section as rows, the others in their order."""
        taken: set[str] = set()

        def unused(name: str) -> str:
            key = "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split()) or "table"
            while key in taken:
                key += "-2"
            taken.add(key)
            return key

        for section in self.sections:
            if section.items:
                yield unused(section.key), section.table
            for table in section.tables:
                yield unused(f"{section.key} {table.title}" if table.title else section.key), table
            for drawing in section.drawings:
                if drawing.table is not None:
                    yield unused(f"{section.key} {drawing.title}"), drawing.table
            for item in section.items:
                for table in item.tables:
                    yield unused(f"{item.key} {table.title}"), table
        if self.against:
            yield unused("verdict"), against_table(self.against)

    def printed(self) -> Iterator[Table]:
        """What the terminal shows: items of sections of one sort joined, columns that are brief, a few rows."""
        merged: dict[tuple[Column, ...], list[Table]] = {}
        for section in self.sections:
            if section.printed:
                for table in ([section.table] if section.items else []) + list(section.tables):
                    merged.setdefault(tuple(table.columns), []).append(table)
        for columns, tables in merged.items():
            rows = [row for table in tables for row in table.rows]
            kept = [place for place, column in enumerate(columns) if column.brief]
            shown = [[row[place] for place in kept] for row in rows[:PRINTED]]
            title = tables[0].title if len(tables) == 1 else self.title
            left_out = sum(table.left_out for table in tables) + len(rows) - len(shown)
            yield Table(title, [columns[place] for place in kept], shown, left_out=left_out)

    def lines(self) -> list[str]:
        """What the terminal says under its tables."""
        verdict = [f"verdict: {self.chip}"] if self.verdict is not None else []
        return [*verdict, *self.said, *(f"note: {note}" for note in self.notes)]

    def shown_ids(self) -> list[str]:
        """Samples whose pictures are shown, each once."""
        pictures = (picture for section in self.sections for item in section.items for picture in item.pictures)
        return list(dict.fromkeys(picture.sample_id for picture in pictures))


def against_table(against: Sequence[Against]) -> Table:
    """Numbers beside their nulls, as a table."""
    marks = list(dict.fromkeys(mark for one in against for mark in one.marks))
    columns = [
        Column("number"),
        Column("value"),
        Column("null", "Mean when nothing is the case"),
        Column("null, 95 %", "Where it lies when nothing is the case"),
        Column("p", "How often it is as large when nothing is the case", better="lower"),
        Column("reference", "The same of the reference pair"),
        *(Column(mark, "The same of this pair, for a scale") for mark in marks),
    ]
    rows = [
        [one.name, one.value, one.mean, (one.low, one.high), one.p_value, one.reference]
        + [one.marks.get(mark) for mark in marks]
        for one in against
    ]
    return Table("Against chance", columns, rows)


def images_of(count: int, dataset: str | None, noun: str = "image") -> str:
    """``300 images of birds/train``, the end of a path; without a name of the data set the count alone."""
    path = (dataset or "").partition(":")[2]
    name = "/".join(Path(path).parts[-2:]) if "/" in path or "\\" in path else dataset
    return human_count(count, noun) + (f" of {name}" if name else "")


def written(value: Any, column: Column | None = None, longest: int = LONGEST) -> str:
    """A value as people read it: three significant digits, per cent for shares, ``-`` for what is missing."""
    if value is None or value == "" or value != value:  # NaN: a score that is not defined
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return " to ".join(written(one, column) for one in value)
    if isinstance(value, int | float) and column is not None and column.unit == "share":
        return f"{100 * value:.3g} %"
    if isinstance(value, float):
        return human_p(value, 3).removeprefix("= ") if column is not None and column.name == "p" else f"{value:.3g}"
    return clean(value, longest)
