"""Names of the methods on the command line. Nothing heavy is imported until a method is loaded.

A method is one module plus one line here; other packages add theirs through the entry point group ``rdx.methods``
(an entry point that loads to a `Method`).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    parameters : mapping
        Hyper-parameters that make this method out of the estimator's defaults.
    analysis : str
        Of the family ``explain``: what runs the estimator, ``units``, ``captions``, ``dissection``, ``search``,
        ``directions``, ``regions``, ``representative``, ``surrogate``, ``splice`` or ``embeddings``, or the dotted path
        of a module of another package.
    """

    name: str
    family: str
    target: str
    summary: str
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    analysis: str = ""

    def load(self) -> Any:
        """The estimator class (or function)."""
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)


_RDX = "rdxcli.methods.difference.rdx:RDX"
_BASELINES = "rdxcli.methods.difference.baselines"

_BUILT_IN = (
    Method("rdx", "compare", _RDX, "representational difference explanations", {"twins": 0.15}),
    Method(
        "rdx-pagerank",
        "compare",
        _RDX,
        "RDX with central nodes and their strongest neighbours instead of spectral clusters",
        {"clustering": "pagerank"},
    ),
    Method(
        "rdx-v2",
        "compare",
        _RDX,
        "later variant of RDX: symmetrised ranks, concepts dropped by an affinity threshold",
        {"symmetrize": "ranks", "null_cluster": False, "affinity_threshold": 1.1, "twins": 0.15},
    ),
    Method("kmeans", "compare", f"{_BASELINES}.classic:KMeans", "baseline: clusters of each model"),
    Method("pca", "compare", f"{_BASELINES}.classic:PCA", "baseline: principal components of each model"),
    Method("nmf", "compare", f"{_BASELINES}.classic:NMF", "baseline: non-negative factorisation (features >= 0)"),
    Method("cnmf", "compare", f"{_BASELINES}.classic:ConvexNMF", "baseline: convex NMF, features of any sign"),
    Method("snmf", "compare", f"{_BASELINES}.classic:SemiNMF", "baseline: semi-NMF, features of any sign"),
    Method("sae", "compare", f"{_BASELINES}.autoencoders:SAE", "baseline: sparse autoencoder of each model"),
    Method("topk-sae", "compare", f"{_BASELINES}.autoencoders:TopKSAE", "baseline: Top-K sparse autoencoder"),
    Method("nlmcd", "compare", f"{_BASELINES}.nlmcd:NLMCD", "baseline: HDBSCAN clusters of a UMAP without counterpart"),
    Method("usae", "compare", f"{_BASELINES}.usae:USAE", "baseline: universal sparse autoencoder, by firing entropy"),
    Method(
        "crosscoder",
        "compare",
        f"{_BASELINES}.crosscoder:Crosscoder",
        "baseline: one dictionary of both models; latents shared, only in a or only in b, by decoder norms",
    ),
    Method(
        "le-label",
        "explain",
        "rdxcli.methods.neurons.linear:LinearExplanation",
        "linear explanations of units by class labels and superclasses",
        analysis="units",
    ),
    Method(
        "le-siglip",
        "explain",
        "rdxcli.methods.neurons.linear:LinearExplanation",
        "linear explanations of units by vision-language scores",
        analysis="units",
    ),
    Method(
        "logical",
        "explain",
        "rdxcli.methods.neurons.formulas:LogicalExplanation",
        "logical formulas of concepts (AND, OR, NOT) for units",
        analysis="units",
    ),
    Method(
        "clip-dissect",
        "explain",
        "rdxcli.methods.neurons.clip_dissect:ClipDissect",
        "one concept per unit by similarity over images (CLIP-Dissect)",
        analysis="units",
    ),
    Method(
        "describe",
        "explain",
        "rdxcli.methods.neurons.descriptions:UnitDescriptions",
        "free text for units: captions of their strongest images, chosen by other images (as MILAN)",
        analysis="captions",
    ),
    Method(
        "find-units",
        "explain",
        "rdxcli.methods.neurons.search:UnitSearch",
        "the units that respond to a word, a class or an image",
        analysis="search",
    ),
    Method(
        "network-dissection",
        "explain",
        "rdxcli.methods.neurons.network_dissection:NetworkDissection",
        "one concept per unit by overlap with concept masks (Network Dissection)",
        analysis="dissection",
    ),
    Method(
        "uibe",
        "explain",
        "rdxcli.methods.directions.uibe:UIBE",
        "orthonormal interpretable directions",
        analysis="directions",
    ),
    Method(
        "eddp",
        "explain",
        "rdxcli.methods.directions.eddp:EDDP",
        "encoding-decoding direction pairs",
        analysis="directions",
    ),
    Method(
        "pca",
        "explain",
        "rdxcli.methods.directions.baselines:PCADirections",
        "directions: principal axes",
        analysis="directions",
    ),
    Method(
        "nmf",
        "explain",
        "rdxcli.methods.directions.baselines:NMFDirections",
        "directions: non-negative factors",
        analysis="directions",
    ),
    Method(
        "ica",
        "explain",
        "rdxcli.methods.directions.baselines:ICADirections",
        "directions: independent components",
        analysis="directions",
    ),
    Method(
        "kmeans",
        "explain",
        "rdxcli.methods.directions.baselines:KMeansDirections",
        "directions: cluster centres",
        analysis="directions",
    ),
    Method(
        "natural",
        "explain",
        "rdxcli.methods.directions.baselines:NaturalBasis",
        "directions: the channels themselves",
        analysis="directions",
    ),
    Method(
        "sae",
        "explain",
        "rdxcli.methods.dictionaries.sae:SparseAutoencoder",
        "directions: latents of a sparse autoencoder (five kinds), learned or given",
        analysis="directions",
    ),
    Method(
        "tcav",
        "explain",
        "rdxcli.methods.directions.tcav:TCAV",
        "directions: concepts that you show with --concept-images (TCAV, Pattern-CAV)",
        analysis="directions",
    ),
    Method(
        "craft",
        "explain",
        "rdxcli.methods.directions.craft:CRAFT",
        "directions: non-negative concepts of one class, from crops, with Sobol importance (CRAFT)",
        analysis="directions",
    ),
    Method(
        "ice",
        "explain",
        "rdxcli.methods.directions.craft:CRAFT",
        "directions: non-negative concepts of one class, from the places of its maps (ICE)",
        {"crop": None},
        analysis="directions",
    ),
    Method(
        "rdr",
        "explain",
        "rdxcli.methods.regions.rdr:RDR",
        "relaxed decision regions: sets of unit states",
        analysis="regions",
    ),
    Method(
        "representative",
        "explain",
        "rdxcli.methods.regions.representative:RepresentativeInterpretation",
        "regions between sampled pieces of the decision boundary (baseline of RDR)",
        analysis="representative",
    ),
    Method(
        "surrogate",
        "explain",
        "rdxcli.methods.surrogate.attribution:image_scores",
        "words that explain an embedding, by a concept surrogate (EXPLAIN-R)",
        analysis="surrogate",
    ),
    Method(
        "splice",
        "explain",
        "rdxcli.methods.surrogate.splice:SpLiCE",
        "embeddings as sparse sums of words (baseline of the surrogate)",
        analysis="splice",
    ),
    Method(
        "all",
        "explain",
        "rdxcli.methods.surrogate.faithfulness:measure",
        "every explainer side by side: of units, or with --surrogate of embeddings (surrogate, splice, sae)",
        analysis="embeddings",
    ),
)


@cache
def methods() -> dict[tuple[str, str], Method]:
    """Every method by (family, name), built-in ones first.

    Raises `ValueError` when two methods of one family share a name.
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
    """The method ``name`` of the command ``family``. Raises `UnknownNameError` with near matches."""
    try:
        return methods()[family, name]
    except KeyError:
        raise UnknownNameError("method", name, names(family), "rdx list methods") from None
