"""The estimators that ``rdx compare --method`` names, made with the hyper-parameters given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rdxcli.errors import UsageError, did_you_mean
from rdxcli.methods.costs import comparison
from rdxcli.methods.difference.guidance import Supervision, takes_guidance
from rdxcli.methods.difference.rdx import RDX
from rdxcli.methods.difference.selection import choose_k
from rdxcli.methods.difference.significance import difference_test
from rdxcli.methods.difference.verdict import DifferenceTest
from rdxcli.methods.registry import get, names
from rdxcli.parameters import declared, estimator_parameters
from rdxcli.progress import awaited, time_limit
from rdxcli.records import Verdict
from rdxcli.representations.joining import Joined
from rdxcli.services.compare.options import AUTO, CompareOptions


def is_scoreboard(method: str) -> bool:
    """Whether ``--method`` names several methods."""
    return method == "all" or "," in method


def make_estimators(options: CompareOptions) -> dict[str, Any]:
    """The estimators that ``--method`` names, by name.

    For several methods a parameter goes to every method that has it, and ``METHOD.NAME`` to one. Raises `UsageError` (a
    parameter that no method has, or a method named twice).
    """
    if not is_scoreboard(options.method):
        return {options.method: make_estimator(options.method, options.parameters, options.seed, options.device)}
    chosen = names("compare") if options.method == "all" else [name.strip() for name in options.method.split(",")]
    if len(set(chosen)) < len(chosen):
        raise UsageError(f"--method names a method twice: {options.method}")
    unused = set(options.parameters)
    estimators = {}
    for name in chosen:
        known = declared(get("compare", name).load())
        own, prefix = {}, name.replace("-", "_") + "."
        for key, value in options.parameters.items():
            if key in known:
                own[key] = value
                unused.discard(key)
        for key, value in options.parameters.items():
            if key.startswith(prefix):
                own[key.removeprefix(prefix)] = value
                unused.discard(key)
        estimators[name] = make_estimator(name, own, options.seed, options.device)
    if unused:
        raise UsageError(f"no method of `{options.method}` has the parameter {', '.join(sorted(unused))}")
    return estimators


def settle_k(estimators: Mapping[str, Any], joined: Joined, seed: int, device: str) -> str:
    """Give every estimator the number of concepts that the data show; what was chosen, in a sentence."""
    own = next((one for one in estimators.values() if isinstance(one, RDX)), RDX(random_state=seed, device=device))
    chosen = choose_k(own, joined.a.values, joined.b.values, random_state=seed)
    for estimator in estimators.values():
        estimator.set_params(n_clusters=chosen.k)
    return chosen.sentence()


def make_estimator(method: str, parameters: Mapping[str, Any], seed: int, device: str) -> Any:
    """The estimator of a comparison method with the given hyper-parameters.

    Raises `UnknownNameError` (no such method) or `UsageError` (a hyper-parameter that the method does not have).
    """
    parameters = {name: value for name, value in parameters.items() if (name, value) != ("n_clusters", AUTO)}
    registered = get("compare", method)
    kind = registered.load()
    given, _ = estimator_parameters(method, kind, parameters, fixed=registered.parameters)
    every = declared(kind, without=())
    own = {name: value for name, value in (("random_state", seed), ("device", device)) if name in every}
    estimator = kind(**own, **given)
    for name, allowed in getattr(kind, "CHOICES", {}).items():
        value = getattr(estimator, name)
        if value not in allowed:
            raise UsageError(
                f"got {name} `{value}`, expected one of {', '.join(allowed)}",
                did_you_mean(str(value), allowed),
            )
    return estimator


def fit(estimator: Any, method: str, joined: Joined, supervision: Supervision, seconds: float | None = None) -> None:
    """Fit an estimator on the two representations, within some seconds if they are given.

    Raises `OutOfTimeError` (it takes longer and has nothing to show before its end).
    """
    given = supervision.fit_options if takes_guidance(estimator) else {}
    width = joined.a.d + joined.b.d
    cost = comparison({method: estimator}, joined.a.n, width, tested=False, bootstraps=0, limit=seconds)
    with awaited(f"explain with {method}", cost.parts.get(method)), time_limit(seconds):
        estimator.fit(joined.a.values, joined.b.values, **given)


def difference_of(
    options: CompareOptions, estimator: Any, joined: Joined, reference: Joined | None
) -> tuple[DifferenceTest | None, dict[str, Any]]:
    """The test and the ``difference`` entry of the document; methods other than RDX are tested with RDX's defaults."""
    if not options.test:
        return None, {"score": None, "verdict": str(Verdict.NOT_TESTED)}
    pair = (reference.a.values, reference.b.values) if reference else None
    test = difference_test(
        joined.a.values,
        joined.b.values,
        reference=pair,
        estimator=estimator if isinstance(estimator, RDX) else None,
        device=options.device,
        random_state=options.seed,
        paired=options.paired,
    )
    difference = test.to_dict()
    if reference:
        difference["reference"] |= {"a": reference.a.describe(), "b": reference.b.describe()}
    return test, difference
