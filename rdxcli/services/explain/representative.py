"""``rdx explain --method representative``: samples on the target's side of sampled pieces of the decision boundary."""

from __future__ import annotations

from typing import Any

from rdxcli.artifacts import Request, create, write_json
from rdxcli.errors import UsageError
from rdxcli.records import plain
from rdxcli.services.base import Outcome, check_parameters
from rdxcli.services.explain import region_record as record
from rdxcli.services.explain.base import ExplainOptions, folder_of, representation
from rdxcli.services.explain.heads import head_of
from rdxcli.services.explain.samples import targets_of

CODE = "2"


def explain(options: ExplainOptions) -> Outcome:
    """Find the regions of single samples and store them.

    Raises
    ------
    RdxError, ValueError
        Unusable input or options.
    """
    from rdxcli.methods.regions.representative import RepresentativeInterpretation

    known = [n for n in RepresentativeInterpretation().get_params() if n not in ("random_state", "device")]
    check_parameters(options.method, options.parameters, known)
    if options.apply is not None:
        raise UsageError("--apply: `representative` keeps no rule that could be applied", "use --method rdr")
    if options.target is None:
        raise UsageError("which sample?", "give --target with a sample id or a row")
    source = representation(options, spatial=True, pool="none" if options.pool == "auto" else options.pool)
    targets = targets_of(options.target, source)
    if isinstance(targets, str):
        raise UsageError(f"--target {options.target}: `representative` explains single samples", "give ids or rows")
    request = Request(
        kind="regions",
        parameters={"method": options.method, **dict(options.parameters), "target": options.target},
        inputs={"activations": dict(source.source), "images": source.dataset},
        seed=options.seed,
        code=CODE,
    )
    folder = folder_of(options, source)
    with create(folder, request, force=options.force) as draft:
        if not draft.reused:
            import numpy as np

            head = head_of(options, source)
            entries, notes = [], []
            for target in targets:
                found = RepresentativeInterpretation(**options.parameters, random_state=options.seed)
                found.fit(np.array(source.values), head, target=target)
                notes += [note for note in found.notes_ if note not in notes]
                counts: dict[str, int] = {}
                if source.labels is not None and len(found.members_):
                    names, sizes = np.unique(source.labels[found.members_].astype(str), return_counts=True)
                    counts = {str(names[i]): int(sizes[i]) for i in np.argsort(-sizes, kind="stable")}
                entry: dict[str, Any] = {
                    "target": target,
                    "status": "bounded" if len(found.members_) else "empty",
                    "neighbours": [],
                    "neurons": [],
                    "states": [],
                    "scores": found.scores_,
                    "members": found.members_,
                    "boundaries": found.selected_,
                    "labels": counts,
                }
                entries.append(plain(entry))
            stored = record.document(options, request, record.View(source), entries, notes, folder.as_posix())
            write_json(draft.path / "regions.json", stored)
            draft.manifest.rows = source.n
    return record.outcome(draft.result, f"regions of {source.name} ({source.layer})")
