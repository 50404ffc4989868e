"""How services say how far they are without knowing who listens.

Messages go through the standard logger ``rdxcli``; progress goes through `track`, which does nothing until a
front end (the command line) calls `set_tracker`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rdxcli.errors import OutOfTimeError, without_passwords

log = logging.getLogger("rdxcli")


def _without_passwords(record: logging.LogRecord) -> bool:
    record.msg, record.args = without_passwords(record.getMessage()), ()
    return True


log.addFilter(_without_passwords)

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


def turns(description: str, total: int, unit: str = "steps") -> Iterator[int]:
    """``range(total)`` of a long loop: says how far it is, and ends with an error when `time_limit` is over."""
    with track(description, total, unit) as advance:
        for turn in range(total):
            check_time()
            yield turn
            advance(1)


@contextmanager
def awaited(description: str, seconds: float | None = None) -> Iterator[None]:
    """Context of a step that says nothing while it runs, such as a fit by a library: what it is, and about how long.

    Parameters
    ----------
    seconds : float, optional
        Expected; what takes longer than two is announced.
    """
    if seconds is not None and seconds > 2:
        description = f"{description}, about {human_seconds(seconds)}"
        log.info("%s", description)
    with track(description):
        yield


LEAST_P = 1e-300  # smaller ones may be 0 as floating-point numbers
ASK_ABOVE = 3600.0
"""Seconds of expected work from which a front end asks first."""

_asker: Callable[[str], None] | None = None


def set_asker(asker: Callable[[str], None] | None) -> None:
    """Let ``asker(what)`` raise when nobody wants hours of work; without it, as in Python, the work begins."""
    global _asker
    _asker = asker


def approve(seconds: float, what: str) -> None:
    """Ask before hours of work.

    Raises `UsageError` (nobody said yes). `seconds`: expected; `what`: what takes them, for people.
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
    """For every turn of a long loop. Raises `OutOfTimeError`."""
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


_IRREGULAR = {"have": "has", "are": "is", "were": "was"}


def _with_s(word: str) -> str:
    """The plural of a noun, or the form of a verb that goes with one thing."""
    if word.endswith(("s", "x", "sh", "tch", "nch", "do")):
        return f"{word}es"
    return f"{word[:-1]}ies" if word.endswith("y") and word[-2:-1] not in "aeiou" else f"{word}s"


def human_count(count: int, noun: str, verb: str = "") -> str:
    """A count with its noun and the verb that follows, given in the plural: ``2,000 images``, ``1 class has``."""
    lead, space, last = verb.rpartition(" ")
    if count != 1:
        noun = _with_s(noun)
    elif last:
        last = _IRREGULAR.get(last) or _with_s(last)
    return f"{count:,} {noun} {lead}{space}{last}".rstrip()


def human_p(value: float, digits: int = 2) -> str:
    """A p-value after the letter: ``= 0.012``; what is too small for a floating-point number is a bound, never 0."""
    return f"= {value:.{digits}g}" if value >= LEAST_P else f"< {LEAST_P:g}"


def human_seconds(seconds: float) -> str:
    """``seconds`` as people say it: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
