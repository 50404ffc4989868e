"""Names and sentences for a finished comparison: it is stored first, and what fails here goes on from there."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.artifacts import Artifact, Request, check_reuse, create, write_json
from rdxcli.artifacts.store import DOCUMENTS
from rdxcli.concepts.describing import Proposals
from rdxcli.concepts.naming import Embedded, key_of, rows_of
from rdxcli.errors import ArtifactError, RdxError
from rdxcli.progress import log
from rdxcli.records import Comparison, plain

NAMING = "naming"
"""The input of the request that names come from."""


def nameless(request: Request) -> Request:
    """The request of the same comparison without names."""
    return request.model_copy(update={"inputs": {**request.inputs, NAMING: None}})


def made_before(folder: Path, request: Request) -> Artifact | None:
    """The comparison of this request in ``folder``, or the same one without names; None where there is none.

    Raises `ArtifactError` (something else is there).
    """
    try:
        return check_reuse(folder, request)
    except ArtifactError:
        if request.inputs.get(NAMING) is None:
            raise
        try:
            return check_reuse(folder, nameless(request))
        except ArtifactError:
            pass
        raise


def named(artifact: Artifact, request: Request, embedded: Embedded, seed: int) -> Artifact:
    """A finished comparison without names, with the words of its concepts."""
    log.info("%s was made before: its concepts get names", artifact.path)
    record = embedded.name(_record(artifact), seed)
    return _rewritten(artifact, request, _changed(artifact.document(), record))


def described(artifact: Artifact, embedded: Embedded, describer: Mapping[str, Any], force: bool) -> Artifact:
    """A finished comparison with sentences for its groups, by the describer of this identity.

    What the captioner says is kept beside the comparison until all of it is there, by the content that was asked about.
    Raises `RdxError` (the captioner failed; the comparison is as it was, and the next call asks for what is missing
    only).
    """
    assert embedded.describe is not None
    details, asked = artifact.manifest.details, plain(dict(describer))
    if details.get("describer") == asked and not force:
        return artifact
    folder = artifact.path.with_name(f"{artifact.path.name}.proposals")
    if force:
        shutil.rmtree(folder, ignore_errors=True)
    record = _record(artifact)
    try:
        said, remarks = embedded.describe(rows_of(record), Proposals(folder))
    except RdxError as error:
        stored = f"the comparison is stored in {artifact.path}"
        again = "the same command goes on where this one ended"
        hint = [error.hint or "", stored, "" if again in (error.hint or "").casefold() else again]
        raise RdxError(f"the groups are not described: {error}", "; ".join(filter(None, hint))) from None
    document = artifact.document()
    before = details.get("remarks", [])
    document["notes"] = [*(note for note in document["notes"] if note not in before), *remarks]
    document["parameters"]["naming"]["describer"] = asked["name"]
    for one, concept in zip(document["concepts"], record.concepts, strict=True):
        one["descriptions"] = [sentence.to_dict() for sentence in said.get(key_of(concept), ())]
    made = _rewritten(artifact, artifact.manifest.request, document, describer=asked, remarks=remarks)
    shutil.rmtree(folder, ignore_errors=True)
    return made


def _record(artifact: Artifact) -> Comparison:
    with np.load(artifact.path / "arrays.npz", allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return Comparison.of_document(artifact.document(), arrays)


def _changed(document: dict[str, Any], record: Comparison) -> dict[str, Any]:
    """The document with the concepts, parameters and notes of the record."""
    concepts = [asdict(concept) for concept in record.concepts]
    return {**document, "concepts": concepts, "parameters": dict(record.parameters), "notes": list(record.notes)}


def _rewritten(artifact: Artifact, request: Request, document: Mapping[str, Any], **details: Any) -> Artifact:
    """The artifact with another document, put in its place whole."""
    with create(artifact.path, request, force=True) as draft:
        for name in artifact.manifest.files:
            if name != DOCUMENTS[artifact.kind]:
                (draft.path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(artifact.path / name, draft.path / name)
        write_json(draft.path / DOCUMENTS[artifact.kind], plain(document))
        draft.manifest.rows, draft.manifest.device = artifact.manifest.rows, artifact.manifest.device
        draft.manifest.details = details
    return draft.result
