"""What to compare, and how."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdxcli.concepts.options import NamingOptions
from rdxcli.datasets.selection import ArrayOptions, SelectionOptions
from rdxcli.errors import UsageError
from rdxcli.options import REQUIRED, WithShortcuts, option, parameters_option

if TYPE_CHECKING:
    from rdxcli.records import Representation

GATE = "Gate"
MANY = "Many layers or models"
METHOD = "Method"

AUTO = "auto"
"""The number of concepts that is chosen by the data."""


@dataclass(frozen=True)
class CompareOptions(WithShortcuts):
    """What to compare and how; what each option is stands in its help.

    Parameters
    ----------
    a, b : str or Representation
        From Python also several layers of one thing.
    k, gamma, beta, approximate, landmarks : optional
        Short ways to give the hyper-parameters ``n_clusters``, ``gamma``, ``beta``, ``approximate``, ``landmarks``.
    labels_a, labels_b, sample_ids_a, sample_ids_b : Path, optional
        In place of those in ``arrays``.
    yardstick : {"jitter", "halves", "seeds"}, optional
        See `rdxcli.methods.difference.yardsticks`.
    predictions_a, predictions_b : str, optional
        See `rdxcli.concepts.predictions.read_predictions`.
    classes_a, classes_b : Path, optional
        See `rdxcli.concepts.heads`.
    metadata : Path, optional
        See `rdxcli.datasets.metadata.read_metadata`.
    planted : str, optional
        See `rdxcli.methods.difference.planted.planted_difference`.
    fail_on : sequence of str
        See `rdxcli.report.gates.parse_gates`.
    """

    a: str | Representation = option(
        "First model, array file or artifact.",
        default=REQUIRED,
        type=str,
        argument=True,
        read="stdin",
        complete="models",
    )
    b: str | Representation = option(
        "Second one; may be left out with --layers.", type=str, argument=True, complete="models"
    )
    more: Sequence[str] = option("Further ones: a matrix of all of them.", default=(), argument=True, complete="models")
    k: int | str | None = option(
        "Concepts per direction (default: 3); auto: as many as are stable and stronger than by chance.",
        "--k",
        "-k",
        type=str,
        parameter="n_clusters",
    )
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    layer_a: str | None = option("Layer of the first model.", complete="layers:a")
    layer_b: str | None = option("Layer of the second model.", complete="layers:b")
    layers: str | None = option(
        "Every layer of A against every layer of B (or of A itself): all, blocks, or names and patterns like "
        "conv1,layer3.*; `consecutive` follows concepts through the depth of A. Of many models: the layer to read.",
        panel=MANY,
        complete="layers:a",
    )
    timeline: bool = option(
        "The models are checkpoints of one training, in this order: follow concepts through it.",
        "--timeline",
        default=False,
        panel=MANY,
    )
    pairs: int = option(
        "Pairs of layers or models whose concepts are shown: the most different ones.",
        default=2,
        low=0,
        panel=MANY,
    )
    reference_runs: Sequence[str] = option(
        "A run that differs by chance only, such as another seed; give at least two: are the models more different?",
        default=(),
        panel=MANY,
    )
    drop_a: str | None = option("Columns of the first representation to leave out, like 0-63,70.")
    drop_b: str | None = option("The same for the second one.")
    pool: str = option("auto, avg, max, first, cls, mean or none.", default="auto")
    dtype: str = option("Of the models: float32, float16 (for GPUs) or bfloat16.", default="float32")
    arrays: ArrayOptions = field(default_factory=ArrayOptions)
    labels_a: Path | None = option("Labels of the first array only.")
    labels_b: Path | None = option("Labels of the second one only.")
    sample_ids_a: Path | None = option("Ids of the rows of the first array only.")
    sample_ids_b: Path | None = option("Ids of the rows of the second one only.")
    reference: tuple[str, str] | None = option(
        "A second pair, for example one model under two seeds: is A B more different?"
    )
    reference_layer: str | None = option("Layer of both models of the reference pair.", complete="layers:a")
    yardstick: str | None = option(
        "A reference pair made of the first model: jitter (10 % of noise), halves (of its dimensions) or seeds (two "
        "sets of random read-outs)."
    )
    predictions_a: str | None = option(
        "Predictions of the first model: a table with ids, one a line, or logits (n, classes)."
    )
    predictions_b: str | None = option("Predictions of the second model.")
    classes_a: Path | None = option(
        "Names of the outputs of the first model, one a line, where the two heads have different outputs (default: the "
        "data set's classes if there are as many, ImageNet's for 1,000)."
    )
    classes_b: Path | None = option("Names of the outputs of the second model.")
    metadata: Path | None = option(
        "A table about the images (device, place, date, age ...), joined by id: what do the images of a group share?"
    )
    properties: bool = option(
        "Measure the pictures (brightness, sharpness, borders ...): what do those of a group share?",
        "--properties/--no-properties",
        default=True,
    )
    test: bool = option("Test whether there is a difference at all.", "--test/--no-test", default=True)
    paired: bool | None = option(
        "Whether dimension j means the same in both, as in two edits of one network: the verdict then says whether the "
        "model changed at all (default: as most dimensions correlate).",
        "--paired/--unpaired",
    )
    bootstraps: int = option("Resamplings for the stability of each concept.", default=20, low=0)
    fail_on: Sequence[str] = option(
        "Exit with 3 when this holds: verdict, reference, score>X, strength>X, p<X, flips>1%, "
        "negative-flips>1%; may be repeated.",
        default=(),
        panel=GATE,
    )
    fail_above: float | None = option(
        "Exit with 3 when the difference score is above this (--fail-on score>X).", panel=GATE
    )
    on_change: str | None = option(
        "Where a run of this name was made from other inputs: fail, replace it, or make a new one beside it (default: "
        "new with a gate, else fail).",
        panel=GATE,
    )
    method: str = option(
        "See `rdx list methods`; `all`, or names with commas, for a scoreboard.",
        default="rdx",
        complete="methods:compare",
        panel=METHOD,
    )
    gamma: float | None = option("Slope of the difference (default: 0.1).", panel=METHOD, parameter="gamma")
    beta: float | None = option("Sharpness of the affinity (default: 5).", panel=METHOD, parameter="beta")
    guidance: str = option(
        "none, labels, classifier or outcome: pairs with different labels (of the data set, predicted by a linear "
        "classifier, or predicted and right or wrong) count as far.",
        default="none",
        panel=METHOD,
    )
    align: bool = option("First take away what a linear map can explain.", "--align", default=False, panel=METHOD)
    approximate: str | None = option(
        "auto (above 20,000 images), never or always: landmarks are grouped exactly, the others join them; the "
        "agreement with the exact method is measured and printed.",
        panel=METHOD,
        parameter="approximate",
    )
    landmarks: int | None = option(
        "Images that are grouped exactly where that is approximate (default: 8,000); more agree better with the exact "
        "method and take more memory.",
        panel=METHOD,
        parameter="landmarks",
    )
    budget: str | None = option(
        "Time of one method of a scoreboard, like 60s or 5min: one that is not done then is left out.", panel=METHOD
    )
    patches: bool = option(
        "Where in the images? On the page a click on a place shows what each model finds like it (two models, layers "
        "with places).",
        "--patches",
        default=False,
    )
    planted: str | None = option(
        "Labels that a model is known to merge, for scores: 3,5 (the first) or b:3,5.", panel=METHOD
    )
    naming: NamingOptions = field(default_factory=NamingOptions)
    parameters: Mapping[str, Any] = parameters_option()
    outputs: Path = Path("outputs")
    run: str | None = None
    seed: int = 0
    device: str = "auto"
    force: bool = False

    def __post_init__(self) -> None:
        if self.k is not None and self.k != AUTO and not (str(self.k).isdecimal() and int(self.k) > 0):
            raise UsageError(f"--k {self.k}: expected a whole number of at least 1, or auto")
        super().__post_init__()

    @property
    def automatic(self) -> bool:
        """Whether the number of concepts is chosen by the data."""
        return bool(self.parameters.get("n_clusters") == AUTO)

    @property
    def policy(self) -> str:
        """What ``on_change`` is: a gate runs every night, on files of the same name."""
        gated = bool(self.fail_on) or self.fail_above is not None
        return self.on_change or ("new" if gated else "fail")

    @property
    def seconds(self) -> float | None:
        """The budget. Raises `UsageError` (not a time)."""
        if self.budget is None:
            return None
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(s|sec|m|min|h)?\s*", self.budget)
        if match is None or float(match[1]) == 0.0:
            raise UsageError(f"--budget {self.budget}: this is no time", "write 60s, 5min or 1h")
        return float(match[1]) * {"m": 60.0, "min": 60.0, "h": 3600.0}.get(match[2] or "s", 1.0)
