"""Stored regions and directions that are applied to other samples (``--apply``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdxcli.artifacts import Artifact, resolve_artifact
from rdxcli.errors import InputError, UsageError
from rdxcli.services.explain.options import ExplainOptions

if TYPE_CHECKING:
    from rdxcli.records import Representation


def stored_artifact(options: ExplainOptions, kind: str) -> Artifact:
    """The artifact that ``--apply`` names.

    Raises `RdxError` (there is none, it holds something else, or it was made by another method than ``--method``).
    """
    if not Path(str(options.apply)).name:
        raise UsageError(f"--apply: `{options.apply}` is no artifact", f"`rdx list artifacts {kind}`")
    artifact = resolve_artifact(str(options.apply), options.outputs, kind)
    if artifact.kind != kind:
        raise UsageError(
            f"--apply: {artifact.path} holds {artifact.kind}, expected {kind}", f"`rdx list artifacts {kind}`"
        )
    method = artifact.manifest.request.parameters.get("method")
    if method != options.method:
        raise UsageError(
            f"--apply: {artifact.path} was made by `{method}`, not by `{options.method}`", f"give --method {method}"
        )
    return artifact


def same_place(options: ExplainOptions, artifact: Artifact, inputs: str) -> ExplainOptions:
    """The options with the stored model, layer and pooling where none is given.

    `inputs`: name of the representation among the artifact's inputs.
    """
    stored: Mapping[str, Any] = artifact.manifest.request.inputs.get(inputs) or {}
    pool = options.pool if options.pool != "auto" else str(stored.get("pool") or "none")
    if options.activations is not None:
        return replace(options, pool=pool)
    model, layer = options.model or stored.get("model"), options.layer or stored.get("layer")
    if model is None:
        raise UsageError(
            f"--apply: {artifact.path} was made from an array, so which samples is it for?", "give --activations FILE"
        )
    return replace(options, model=str(model), layer=layer, pool=pool)


def check_layer(artifact: Artifact, source: Representation) -> list[str]:
    """Refuse another layer; a note when the model is another one. Raises `InputError`."""
    stored = artifact.document()["model"]
    if stored["layer"] and source.layer and stored["layer"] != source.layer:
        raise InputError(
            f"{artifact.path} is about layer `{stored['layer']}` of {stored['name']}, got layer `{source.layer}`",
            f"give --layer {stored['layer']}",
        )
    if stored["name"] != source.name:
        return [
            f"found in {stored['name']} and applied to {source.name}: that means something only where their units do, "
            "as in two versions of one model"
        ]
    return []
