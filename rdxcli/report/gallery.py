"""A page of cards: a title, facts, pictures, bars. Regions, directions, units and words are all shown this way.

A method's report turns its document into a `Page`; this module turns the `Page` into HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rdxcli.report.html import render
from rdxcli.report.palette import concept_colours

if TYPE_CHECKING:
    from markupsafe import Markup


FIRST = 24
"""Cards of a section that stand in the page; the others are packed beside them and unfold on demand."""


@dataclass(frozen=True)
class Picture:
    """A sample that is shown.

    Parameters
    ----------
    sample_id : str
    caption : str
    image : str, optional
        A ``data:`` URI to show in place of the sample's own image (heat maps).
    strong : bool
        Draw a frame around it (the target).
    heat : sequence of sequence of float, optional
        A map over the image, values from 0 to 1.
    """

    sample_id: str
    caption: str = ""
    image: str | None = None
    strong: bool = False
    heat: Sequence[Sequence[float]] | None = None


@dataclass(frozen=True)
class Bar:
    """A labelled bar: ``value`` sets its length on the scale of its section, ``text`` is printed beside it."""

    label: str
    value: float
    text: str


@dataclass(frozen=True)
class Card:
    """One thing that is explained.

    Parameters
    ----------
    title : str
    facts : sequence of (name, value, hint)
    pictures : sequence of Picture
    bars : sequence of Bar
    grid : sequence of sequence of float, optional
        A small map (unit positions), values from 0 to 1.
    beside : sequence of str
        Lines beside that map.
    text : str
        A sentence under the facts.
    charts : sequence of Markup
        From `rdxcli.report.charts`.
    doubtful : bool
        Not better than chance, below a threshold, idle: drawn weaker.
    """

    title: str
    facts: Sequence[tuple[str, Any, str]] = ()
    pictures: Sequence[Picture] = ()
    bars: Sequence[Bar] = ()
    grid: Sequence[Sequence[float]] | None = None
    text: str = ""
    charts: Sequence[Markup] = ()
    beside: Sequence[str] = ()
    doubtful: bool = False


@dataclass(frozen=True)
class Section:
    """Cards under one heading. Their bars have one scale and one zero; ``scale`` is the value of the longest bar.

    ``anchor`` is what links point to; ``wide`` gives charts all the room there is.
    """

    title: str
    cards: Sequence[Card] = ()
    text: str = ""
    charts: Sequence[Markup] = ()
    table: tuple[Sequence[str], Sequence[Sequence[Any]]] | None = None
    scale: float | None = None
    anchor: str = ""
    wide: bool = False

    @property
    def longest(self) -> float:
        """`scale`, by default the largest value of all bars."""
        return self.scale or max((abs(bar.value) for card in self.cards for bar in card.bars), default=0.0) or 1.0

    @property
    def diverging(self) -> bool:
        """Some bar is negative, so that zero is in the middle of all."""
        return any(bar.value < 0 for card in self.cards for bar in card.bars)


@dataclass(frozen=True)
class Page:
    """A whole report.

    Parameters
    ----------
    kicker, title, facts : str
        The head of the page.
    sections : sequence of Section
    notes : sequence of str
    provenance : sequence of (name, value)
    """

    kicker: str
    title: str
    facts: str
    sections: Sequence[Section]
    notes: Sequence[str] = ()
    provenance: Sequence[tuple[str, Any]] = field(default_factory=tuple)

    def shown_ids(self) -> list[str]:
        """Samples whose own images are needed, each once."""
        pictures = (picture for section in self.sections for card in section.cards for picture in card.pictures)
        return list(dict.fromkeys(picture.sample_id for picture in pictures if picture.image is None))


def html(page: Page, thumbnails: Mapping[str, str]) -> str:
    """The page as HTML.

    Parameters
    ----------
    page : Page
    thumbnails : mapping
        Sample id to ``data:`` URI; samples without one are shown as text.
    """
    later = [p for section in page.sections for card in section.cards[FIRST:] for p in card.pictures]
    ids = list(dict.fromkeys(picture.sample_id for picture in later if picture.sample_id in thumbnails))
    widest = max((len(section.cards) for section in page.sections), default=0)
    return render(
        "gallery.html",
        page=page,
        thumbnails=thumbnails,
        first=FIRST,
        shared={sample: place for place, sample in enumerate(ids)},
        sheet=[thumbnails[sample] for sample in ids],
        colours=concept_colours(max(1, min(widest, 64))),
    )
