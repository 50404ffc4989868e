"""Gates of ``rdx compare``: conditions on the finished document that end a job with exit code 3."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rdxcli.errors import UsageError, near_matches
from rdxcli.progress import human_count, human_p
from rdxcli.records import Verdict

VERDICT, REFERENCE = "verdict", "reference"
PREDICTED = ("flips", "negative-flips")

OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}

NUMBERS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "score": (("difference", "score"), "the difference score"),
    "strength": (("difference", "strength", "value"), "the strength of the strongest group"),
    "p": (("difference", "null_p"), "the p-value"),
    "flips": (("predictions", "churn", "value"), "the share of changed predictions"),
    "negative-flips": (("predictions", "negative_flips", "value"), "the share of right predictions that became wrong"),
}
"""Numbers a gate can compare: where they stand in the document, and what they are called."""


@dataclass(frozen=True)
class Gate:
    """One condition under which the comparison fails.

    Attributes
    ----------
    text : str
        As it was written.
    name : str
        ``verdict``, ``reference`` or one of `NUMBERS`.
    sign : str
        One of `OPERATORS`; empty for the words.
    """

    text: str
    name: str
    sign: str = ""
    limit: float = 0.0

    def needs_predictions(self, *, given: bool, judged: bool) -> None:
        """Refuse a gate on predictions where there are none, or on right ones where that is not known.

        Raises `UsageError`.
        """
        if self.name == "negative-flips" and given and not judged:
            raise UsageError(
                f"--fail-on {self.text} needs to know which predictions are right",
                "give --labels FILE, spelled as the predictions are; or use `flips`",
            )
        if self.name in PREDICTED and not given:
            raise UsageError(
                f"--fail-on {self.text} needs the predictions of both models",
                "give --predictions-a FILE and --predictions-b FILE, or --labels FILE for a linear probe",
            )

    def needs(self, *, test: bool, reference: bool) -> None:
        """Refuse a gate on something that will not be measured. Raises `UsageError`."""
        if self.name in PREDICTED:
            return
        if not test:
            number = "difference score" if self.name == "score" else self.name
            raise UsageError(f"{self.option} needs the {number}, which --no-test leaves out")
        if self.name == REFERENCE and not reference:
            raise UsageError(
                "--fail-on reference needs a reference pair", "give --reference C D or --yardstick jitter|halves|seeds"
            )

    def reachable(self, least_p: float, images: int) -> None:
        """Refuse a gate on a p-value that no comparison of so many images reaches. Raises `UsageError`."""
        if self.name == "p" and self.sign[0] == "<" and not OPERATORS[self.sign](least_p, self.limit):
            raise UsageError(
                f"{self.option}: with {human_count(images, 'image')} the p-value of two models that have nothing in "
                f"common may be {least_p:.2g}, so this gate would let them pass",
                "use `verdict`, or `p<0.05`",
            )

    @property
    def option(self) -> str:
        """How people gave it."""
        return "--fail-above" if self.text.startswith("above ") else f"--fail-on {self.text}"

    def reason(self, document: Mapping[str, Any]) -> str | None:
        """Why the gate is not met; None when it is.

        Raises `UsageError` (the document does not have the number, as with a method that has no such score).
        """
        difference = document["difference"]
        if self.name == VERDICT:
            verdict = Verdict(difference["verdict"])
            return None if verdict is Verdict.NONE else f"the verdict is: {verdict} ({difference.get('question')})"
        if self.name == REFERENCE:
            pair = difference["reference"]
            return f"the pair is {pair['verdict']} (p {human_p(pair['p_value'], 3)})" if pair["exceeded"] else None
        path, words = NUMBERS[self.name]
        value: Any = document
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is None:
            raise UsageError(
                f"{self.option}: {words} is not in {document.get('artifact')}", "run it again with --force"
            )
        if not OPERATORS[self.sign](value, self.limit):
            return None
        relation = {">": "above", "<": "below", ">=": "at or above", "<=": "at or below"}[self.sign]
        return f"{words} {value:.4f} is {relation} {self.limit:g}"


def parse_gates(given: Sequence[str], fail_above: float | None) -> tuple[Gate, ...]:
    """The gates of ``--fail-on`` (several, or one text with commas) and of ``--fail-above``.

    Raises `UsageError` (malformed, or limits that no number can reach).
    """
    gates = [] if fail_above is None else [Gate(f"above {fail_above:g}", "score", ">", fail_above)]
    if gates and not 0.0 <= gates[0].limit <= 1.0:
        raise UsageError(f"--fail-above {fail_above:g}: the difference score lies between 0 and 1")
    for text in (part.strip() for one in given for part in one.split(",")):
        if text in (VERDICT, REFERENCE):
            gates.append(Gate(text, text))
            continue
        match = re.fullmatch(r"([a-z-]+)\s*(>=|<=|>|<)\s*([0-9.]+(?:e-?[0-9]+)?)(%?)", text)
        start = re.split(r"[^a-z-]", text)[0]
        if match is None and start in NUMBERS:
            usual = "p<0.05" if start == "p" else f"{start}>0.1"
            raise UsageError(f"--fail-on {text}: expected a limit above zero for `{start}`", f"such as `{usual}`")
        if match is None or match[1] not in NUMBERS:
            known = [VERDICT, REFERENCE, *(f"{name}>X" for name in NUMBERS if name != "p"), "p<X"]
            near = near_matches(re.split(r"[<>]", text)[0].strip(), [VERDICT, REFERENCE, *NUMBERS])
            hint = f"did you mean {' or '.join(f'`{name}`' for name in near)}? " if near else ""
            raise UsageError(f"--fail-on {text}: unknown condition", f"{hint}expected {', '.join(known)}")
        try:
            limit = float(match[3]) / (100.0 if match[4] else 1.0)
        except ValueError:
            raise UsageError(f"--fail-on {text}: `{match[3]}` is no number") from None
        most = math.inf if match[1] == "strength" else 1.0
        if not 0.0 <= limit <= most:
            raise UsageError(f"--fail-on {text}: this number lies between 0 and 1", "write 0.01 or 1%")
        never, always = {">": (most, None), ">=": (None, 0.0), "<": (0.0, None), "<=": (None, most)}[match[2]]
        if limit in (never, always):
            who = "no comparison" if limit == never else "every comparison"
            raise UsageError(f"--fail-on {text}: {who} fails this gate, the number lies between 0 and {most:g}")
        gates.append(Gate(text, match[1], match[2], limit))
    return tuple(gates)
