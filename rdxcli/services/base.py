"""What the analyses share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rdxcli.artifacts import Artifact
from rdxcli.errors import UsageError, near_matches


@dataclass(frozen=True)
class Outcome:
    """A finished explanation.

    Parameters
    ----------
    artifact : Artifact
    document : dict
        The JSON document of the artifact.
    title : str
        Of the table for people.
    columns, rows : sequences
        That table.
    lines : sequence of str
        Further words for people.
    """

    artifact: Artifact
    document: Mapping[str, Any]
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    lines: Sequence[str] = ()


def check_parameters(method: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse hyper-parameters that the method does not have, naming near ones.

    Raises
    ------
    UsageError
    """
    for name in given:
        if name not in known:
            near = near_matches(name, known)
            hint = (
                f"did you mean {' or '.join(f'`{n}`' for n in near)}?" if near else f"it has {', '.join(sorted(known))}"
            )
            raise UsageError(f"the method `{method}` has no parameter `{name}`", hint)


def parse_units(text: str | None, count: int, option: str = "--units") -> list[int]:
    """Unit numbers of ``0-63,70`` among ``count`` units; all of them for None.

    Raises
    ------
    UsageError
        Malformed text, or a unit that does not exist.
    """
    if text is None:
        return list(range(count))
    chosen: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise UsageError(f"{option}: cannot read `{part.strip()}`", "write numbers like 0-63,70")
        low, high = int(first), int(last) if dash else int(first)
        if high < low or high >= count:
            raise UsageError(f"{option}: `{part.strip()}` is outside of 0 to {count - 1}")
        chosen.update(dict.fromkeys(range(low, high + 1)))
    return list(chosen)
