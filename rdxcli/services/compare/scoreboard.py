"""``rdx compare --method all``: every method on the same input, one table of the same scores."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from rdxcli.errors import InputError, RdxError
from rdxcli.methods.difference.evaluation import Evaluation
from rdxcli.methods.difference.guidance import Supervision
from rdxcli.progress import log
from rdxcli.records import Comparison, plain
from rdxcli.representations.joining import Joined
from rdxcli.services.compare.fitting import difference_of, fit
from rdxcli.services.compare.options import CompareOptions
from rdxcli.services.compare.record import make_record

LEADS = ("rdx", "rdx-v2", "rdx-pagerank")
"""Methods whose concepts the report of a scoreboard shows, the first that ran."""

DOCUMENT = "document"
"""Among the arrays of a method that is done: its document."""

STABILITY = ("rdx",)
"""Methods whose concepts are also bootstrapped in a scoreboard."""


def run_all(
    options: CompareOptions,
    estimators: Mapping[str, Any],
    joined: Joined,
    reference: Joined | None,
    evaluation: Evaluation,
    supervision: Supervision,
    kept: MutableMapping[str, Any],
) -> Comparison:
    """Run every method and score it; one that cannot run says so and the others go on.

    The difference test is made once, with the settings of `rdx`. Every method has its own random streams, so the order
    and the choice of methods change nothing. Each that is done is put into ``kept``, where the next run finds it.
    Raises `InputError` (no method can run).

    Returns
    -------
    Comparison
        Of the leading method, with the labels of all methods among its arrays as ``labels_a.METHOD``, and with a
        document per method, with ``seconds`` and ``error``, in ``scoreboard``.
    """
    tested = LEADS[0]
    test, difference = difference_of(options, estimators.get(tested), joined, reference)
    records: dict[str, Comparison] = {}
    documents: list[dict[str, Any]] = []
    for name, estimator in estimators.items():
        if name in kept:
            found = dict(vars(kept[name]))
            documents.append(json.loads(str(found.pop(DOCUMENT))))
            records[name] = Comparison.of_document(documents[-1], found)
            log.info("%s was done before", name)
            continue
        started = time.perf_counter()
        try:
            fit(estimator, name, joined, supervision, options.seconds)
        except (ValueError, RdxError) as error:
            reason = " ".join(str(getattr(error, "message", error)).split())
            log.warning("%s cannot run: %s", name, reason)
            documents.append(_failed(name, estimator, options, reason))
            continue
        seconds = time.perf_counter() - started
        bootstraps = options.bootstraps if name in STABILITY else 0
        record = make_record(
            options,
            name,
            estimator,
            joined,
            evaluation,
            supervision,
            test if name == tested else None,  # p-values of concepts belong to the method that was tested
            difference,
            bootstraps,
        )
        records[name] = record
        documents.append({**record.to_document(), "seconds": round(seconds, 2), "error": None})
        kept[name] = SimpleNamespace(**{DOCUMENT: np.array(json.dumps(documents[-1])), **record.arrays})
    if not records:
        raise InputError(
            "no method can run on this input: " + "; ".join(f"{one['method']}: {one['error']}" for one in documents)
        )
    lead = next((name for name in LEADS if name in records), next(iter(records)))
    arrays = dict(records[lead].arrays)
    for name, record in records.items():
        arrays |= {f"labels_{side}.{name}": record.arrays[f"labels_{side}"] for side in ("a", "b")}
    board = {"method": options.method, "lead": lead, "methods": documents}
    return replace(records[lead], arrays=arrays, scoreboard=board)


def _failed(name: str, estimator: Any, options: CompareOptions, reason: str) -> dict[str, Any]:
    return plain(
        {
            "kind": "comparison",
            "method": name,
            "parameters": estimator.get_params(),
            "seed": options.seed,
            "concepts": [],
            "scores": {},
            "notes": [],
            "seconds": None,
            "error": reason,
        }
    )
