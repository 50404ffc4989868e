"""Names of the methods on the command line. Nothing heavy is imported until a method is loaded.

A method is one module plus one line here; other packages add theirs through the entry point group ``rdx.methods``
(an entry point that loads to a `Method`).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

from rdxcli.errors import UnknownNameError


@dataclass(frozen=True)
class Method:
    """A method as the command line knows it.

    Parameters
    ----------
    name : str
        As typed after ``--method``.
    family : str
        The command it belongs to: ``compare``, ``explain`` or ``simulate``.
    target : str
        Dotted path ``package.module:attribute`` of the estimator.
    summary : str
        One line for ``rdx list methods``.
    """

    name: str
    family: str
    target: str
    summary: str

    def load(self) -> Any:
        """The estimator class (or function)."""
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)


_BUILT_IN = (
    Method("rdx", "compare", "rdxcli.methods.difference.rdx:RDX", "representational difference explanations"),
    Method(
        "le-label",
        "explain",
        "rdxcli.methods.neurons.linear:LinearExplanation",
        "linear explanations of units by class labels and superclasses",
    ),
    Method(
        "le-siglip",
        "explain",
        "rdxcli.methods.neurons.linear:LinearExplanation",
        "linear explanations of units by vision-language scores",
    ),
    Method(
        "clip-dissect",
        "explain",
        "rdxcli.methods.neurons.clip_dissect:ClipDissect",
        "one concept per unit by similarity over images (CLIP-Dissect)",
    ),
    Method("uibe", "explain", "rdxcli.methods.directions.uibe:UIBE", "orthonormal interpretable directions"),
    Method("eddp", "explain", "rdxcli.methods.directions.eddp:EDDP", "encoding-decoding direction pairs"),
    Method("pca", "explain", "rdxcli.methods.directions.baselines:PCADirections", "directions: principal axes"),
    Method("nmf", "explain", "rdxcli.methods.directions.baselines:NMFDirections", "directions: non-negative factors"),
    Method("ica", "explain", "rdxcli.methods.directions.baselines:ICADirections", "directions: independent components"),
    Method("kmeans", "explain", "rdxcli.methods.directions.baselines:KMeansDirections", "directions: cluster centres"),
    Method(
        "natural", "explain", "rdxcli.methods.directions.baselines:NaturalBasis", "directions: the channels themselves"
    ),
    Method("rdr", "explain", "rdxcli.methods.regions.rdr:RDR", "relaxed decision regions: sets of unit states"),
    Method(
        "representative",
        "explain",
        "rdxcli.methods.regions.representative:RepresentativeInterpretation",
        "regions between sampled pieces of the decision boundary (baseline of RDR)",
    ),
)


@cache
def methods() -> dict[tuple[str, str], Method]:
    """Every method by (family, name), built-in ones first.

    Raises
    ------
    ValueError
        When two methods of one family share a name.
    """
    found: dict[tuple[str, str], Method] = {}
    outside = [entry.load() for entry in metadata.entry_points(group="rdx.methods")]
    for method in (*_BUILT_IN, *outside):
        key = (method.family, method.name)
        if key in found:
            raise ValueError(f"two methods of `rdx {method.family}` are called `{method.name}`")
        found[key] = method
    return found


def names(family: str) -> list[str]:
    """Names of the methods of one command, in the order of registration."""
    return [name for (owner, name) in methods() if owner == family]


def get(family: str, name: str) -> Method:
    """The method ``name`` of the command ``family``.

    Raises
    ------
    UnknownNameError
        With near matches.
    """
    try:
        return methods()[family, name]
    except KeyError:
        raise UnknownNameError("method", name, names(family), "rdx list methods") from None
