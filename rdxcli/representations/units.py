"""Units of a layer as people name them: ``0-63,70``."""

from __future__ import annotations

from rdxcli.errors import UsageError
from rdxcli.progress import human_count, log
from rdxcli.records import Representation

BOUNDED = ("eddp", "uibe", "pca", "nmf", "ica", "kmeans", "natural")
"""Methods that find no more directions than the layer has dimensions."""


def check_units(text: str | None, option: str = "--units") -> None:
    """Refuse malformed unit numbers before it is known how many units there are. Raises `UsageError`."""
    for part in ("all" if text is None else text).split(","):
        first, dash, last = part.strip().partition("-")
        if part.strip() != "all" and (not first.isdigit() or (dash and not last.isdigit())):
            raise UsageError(f"{option}: cannot read `{part.strip()}`", "write numbers like 0-63,70")


def parse_units(text: str | None, count: int, option: str = "--units") -> list[int]:
    """Unit numbers of ``0-63,70`` among ``count`` units; all of them for None and ``all``.

    Raises `UsageError` (malformed text, or a unit that does not exist).
    """
    if text is None or "all" in map(str.strip, text.split(",")):
        return list(range(count))
    check_units(text, option)
    chosen: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        low, high = int(first), int(last) if dash else int(first)
        if high < low or high >= count:
            raise UsageError(f"{option}: `{part.strip()}` is outside of 0 to {count - 1}")
        chosen.update(dict.fromkeys(range(low, high + 1)))
    return list(chosen)


def fitting_directions(asked: int, chosen: bool, source: Representation) -> int:
    """No more directions than the layer has dimensions: a number that was asked for is refused, the default lowered.

    Raises `UsageError`.
    """
    d = source.d
    if asked <= d:
        return asked
    most = f"{' '.join(filter(None, (source.name, source.layer)))} has {human_count(d, 'dimension')}"
    if chosen or d < 2:
        raise UsageError(
            f"--num-directions {asked}: {most}, expected at most {d}" if chosen else f"{most}, expected 2 or more",
            f"give --num-directions {d} or fewer, or another --layer" if d > 1 else "give another --layer",
        )
    log.info("%s, so %d directions are looked for, not %d", most, d, asked)
    return d
