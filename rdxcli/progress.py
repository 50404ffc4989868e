"""How services say how far they are without knowing who listens.

Messages go through the standard logger ``rdxcli``; progress goes through `track`, which does nothing until a
front end (the command line) calls `set_tracker`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rdxcli.errors import OutOfTimeError

log = logging.getLogger("rdxcli")

Advance = Callable[[int], None]
Tracker = Callable[[str, int | None, str], AbstractContextManager[Advance]]


@contextmanager
def _silent(description: str, total: int | None, unit: str) -> Iterator[Advance]:
    yield lambda steps: None


_tracker: Tracker = _silent


def set_tracker(tracker: Tracker | None) -> None:
    """Send progress to ``tracker``; None silences it."""
    global _tracker
    _tracker = tracker or _silent


def track(description: str, total: int | None = None, unit: str = "rows") -> AbstractContextManager[Advance]:
    """Context manager that yields ``advance(steps)``.

    Parameters
    ----------
    description : str
        What is being done, for example ``"extract digits"``.
    total : int, optional
        Number of steps, if known.
    unit : str
        What a step is, for the rate that is shown.
    """
    return _tracker(description, total, unit)


ASK_ABOVE = 3600.0
"""Seconds of expected work from which a front end asks first."""

_asker: Callable[[str], None] | None = None


def set_asker(asker: Callable[[str], None] | None) -> None:
    """Let ``asker(what)`` raise when nobody wants hours of work; without it, as in Python, the work begins."""
    global _asker
    _asker = asker


def approve(seconds: float, what: str) -> None:
    """Ask before hours of work.

    Parameters
    ----------
    seconds : float
        Expected.
    what : str
        What takes them, for people.

    Raises
    ------
    UsageError
        Nobody said yes.
    """
    if seconds > ASK_ABOVE and _asker is not None:
        _asker(what)


_deadline: tuple[float, float] | None = None


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Context in which long loops end when ``seconds`` are over; None sets no limit."""
    global _deadline
    before, _deadline = _deadline, None if seconds is None else (time.monotonic() + seconds, seconds)
    try:
        yield
    finally:
        _deadline = before


def out_of_time() -> bool:
    """Whether the limit of `time_limit` is reached: for loops that have something to give when they end early."""
    return _deadline is not None and time.monotonic() > _deadline[0]


def check_time() -> None:
    """For every turn of a long loop.

    Raises
    ------
    OutOfTimeError
    """
    if out_of_time():
        assert _deadline is not None
        raise OutOfTimeError(f"it took longer than {human_seconds(_deadline[1])}")


def human_bytes(size: float) -> str:
    """``size`` bytes as people write it."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def human_count(count: int, noun: str) -> str:
    """A count with its noun: ``1 image``, ``2,000 images``, ``3 classes``."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun}{'es' if noun.endswith('s') else 's'}"


def human_seconds(seconds: float) -> str:
    """``seconds`` as people say it: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
