"""Every expected array of the linear-explanation golden vectors, compared as their manifest says.

One function per case of the manifest computes all expected arrays of the case. An entry is either our value, compared
as the manifest says, or a function ``(expected) -> None`` that asserts, for the comparisons that the manifest words
freely. A case without a function, or an expected array without an entry, fails.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdxcli.methods.neurons import concepts, inspection, saga
from rdxcli.methods.neurons.ablation import LinearHead, ablation_scores
from rdxcli.methods.neurons.greedy import Adam, LeastSquares, Search, greedy_search
from rdxcli.methods.neurons.linear import LinearExplanation
from rdxcli.methods.neurons.preparation import pool_outputs, random_split, standardise
from rdxcli.methods.neurons.simulation import correlation_scores, simulate
from rdxcli.methods.neurons.tables import clean_netdissect_label, format_explanation, format_table, parse_table
from rdxcli.numerics import elastic_net, proximal_flow
from rdxcli.numerics.elastic_net import Problem
from rdxcli.numerics.moments import column_statistics, second_moments

Data = Mapping[str, np.ndarray]
Results = dict[str, Any]
NEEDS_CONCEPT_SETS = {"label_concepts"}


def root() -> Path:
    given = os.environ.get("RDX_GOLDEN")
    return (Path(given) if given else Path(__file__).resolve().parent / "data") / "linear_explanations"


@cache
def manifest() -> dict[str, Any]:
    return json.loads((root() / "manifest.json").read_text(encoding="utf-8"))["cases"]


@cache
def load(case: str) -> Data:
    with np.load(root() / manifest()[case]["file"], allow_pickle=False) as data:
        return {name: data[name] for name in data.files}


def expected(case: str) -> list[str]:
    return [name for name, entry in manifest()[case]["arrays"].items() if entry["role"] == "expected"]


def close(tolerance: float) -> Callable[[np.ndarray, np.ndarray], None]:
    def check(actual: np.ndarray, wanted: np.ndarray) -> None:
        assert np.abs(np.asarray(actual) - wanted).max(initial=0.0) <= tolerance

    return check


def problem(X: np.ndarray, Y: np.ndarray, lam: float, alpha: float) -> Problem:
    X0, Y0 = X - X.mean(axis=0), Y - Y.mean(axis=0)
    n = len(X)
    return Problem(X0.T @ X0 / n, Y0.T @ X0 / n, (Y0**2).mean(axis=0), lam, alpha)


def prox_and_loss(z: Data) -> Results:
    W, b, X, Y = z["weight"], z["bias"], z["X"], z["Y"]
    lam, alpha = float(z["lam"]), float(z["alpha"])
    C = (Y - Y.mean(axis=0)).T @ X / len(X)
    return {
        "soft": elastic_net.soft_threshold(W, lam),
        "soft_shrink": elastic_net.soft_threshold(W, lam, alpha),
        "group": elastic_net.group_soft_threshold(W, 2 * lam),
        "group_shrink": elastic_net.group_soft_threshold(W, 2 * lam, alpha),
        "loss_gaussian": saga.gaussian_loss(X, Y, W, b, lam, alpha),
        "loss_gaussian_weighted": saga.gaussian_loss(X, Y, W, b, lam, alpha, z["sample_weight"]),
        "loss_multinomial": saga.multinomial_loss(X, z["y_class"], W, b, lam, alpha),
        "max_reg_gaussian": elastic_net.lambda_max(C, 1.0),
        "max_reg_gaussian_group": elastic_net.lambda_max(C, 1.0, grouped=True),
    }


def standardised(z: Data) -> Results:
    out = standardise(z["concepts"], z["activations"], z["train_ids"], z["val_ids"], statistics="all")
    return {"train_X": out.train_x, "train_Y": out.train_y, "val_X": out.val_x, "val_Y": out.val_y}


def saga_iterates(z: Data) -> Results:
    lam = saga.effective_lambda(float(z["lam_argument"]), float(z["alpha"]))
    states = list(
        saga.saga_epochs(
            z["X"],
            z["Y"],
            z["order"],
            lam=lam,
            alpha=float(z["alpha"]),
            batch_size=int(z["batch_size"]),
            learning_rate=float(z["lr"]),
        )
    )
    return {"lam_effective": lam, "W": np.stack([s[0] for s in states]), "b": np.stack([s[1] for s in states])}


def sparse_fit_digits(z: Data) -> Results:
    alpha, lam = 0.99, saga.effective_lambda(0.05, 0.99)
    one = problem(z["train_X"], z["train_Y"], lam, alpha)
    exact = elastic_net.exact(one)
    time = proximal_flow.flow_time(int(z["epochs_run"]), len(z["train_X"]), int(z["batch_size"]), 5e-4)
    ours = proximal_flow.time_matched(one, time)
    intercept = z["train_Y"].mean(axis=0) - exact @ z["train_X"].mean(axis=0)
    reference = saga.saga(z["train_X"], z["train_Y"], batch_size=int(z["batch_size"]), epochs=int(z["epochs_run"]))
    assert elastic_net.Problem.duality_gap(one, exact).max() < 1e-12

    def flow(wanted: np.ndarray) -> None:
        # the number of steps T / h is not whole in general: one of its neighbours
        tries = [proximal_flow.proximal_gradient(one, 0.002, int(k)) for k in (time // 0.002, time // 0.002 + 1)]
        assert any(np.allclose(W, wanted, rtol=1e-8, atol=1e-9) for W in tries)

    def saga_weights(wanted: np.ndarray) -> None:
        close(5e-3)(ours, wanted)
        close(5e-3)(reference.W, wanted)

    def objective(wanted: np.ndarray) -> None:
        assert (one.objective(exact) <= wanted + 1e-12).all()

    def ranking(wanted: np.ndarray) -> None:
        order = np.argsort(-exact, axis=1, kind="stable")[:, : wanted.shape[1]]
        positive = np.take_along_axis(exact, order, axis=1) > 0
        assert positive.any()
        assert (order[positive] == wanted[positive]).all()

    return {
        "W_saga": saga_weights,
        "b_saga": lambda wanted: close(5e-3)(reference.b, wanted),
        "obj_saga": objective,
        "W_exact": exact,
        "b_exact": intercept,
        "obj_exact": one.objective(exact),
        "W_time_matched": flow,
        "b_time_matched": intercept,
        "top10_exact": ranking,
    }


def lambda_path(z: Data) -> Results:
    X, Y, alpha = z["X"], z["Y"], float(z["alpha"])
    one = problem(X, Y, 1.0, alpha)
    lams = elastic_net.lambda_grid(elastic_net.lambda_max(one.C, alpha), float(z["epsilon"]), int(z["k"]))
    W = elastic_net.path(one, lams)
    b = Y.mean(axis=0) - W @ X.mean(axis=0)
    held_out = [saga.gaussian_loss(X[:40], Y[:40], W[k], b[k], lams[k], alpha) for k in range(len(lams))]
    return {
        "lams": lams,
        "W_saga": W,
        "b_saga": b,
        "W_exact": W,
        "b_exact": b,
        "val_loss": np.array(held_out),
        "train_loss": np.array([one.at(lam).objective(W[k]).sum() for k, lam in enumerate(lams)]),
        "best_index": int(np.argmin(held_out)),
    }


def digits_refits() -> tuple[Data, Any, Any]:
    z = load("sparse_fit_digits")
    train = second_moments(z["concepts"], z["activations"], np.sort(z["train_ids"]))
    return z, train, second_moments(z["concepts"], z["activations"], np.sort(z["val_ids"]))


def refit(z: Data) -> Results:
    _, train, val = digits_refits()
    out: Results = {}
    for k in range(int(z["n_cases"])):
        ids = z[f"c{k}_concept_ids"]
        first = z[f"c{k}_init_w"][0], float(z[f"c{k}_init_b"][0])
        adam = Adam(train, val, start=lambda unit, length, first=first: first).fit(0, ids)
        closed = LeastSquares(train, val).fit(0, ids)
        for name, fit, shape in (("", adam, z[f"c{k}_w"].shape), ("ols_", closed, z[f"c{k}_ols_w"].shape)):
            out[f"c{k}_{name}w"] = fit.weights.reshape(shape)
            out[f"c{k}_{name}b"] = np.full(z[f"c{k}_{name}b"].shape, fit.bias)
            out[f"c{k}_{name}corr"] = fit.correlation
    return out


def greedy(z: Data) -> Results:
    _, train, val = digits_refits()
    out: Results = {}
    for k in range(int(z["n_cases"])):

        def search(method: Any, k: int = k) -> Search:
            return greedy_search(
                method,
                [int(z[f"c{k}_neuron"])],
                z[f"c{k}_order"][None, :],
                max_length=int(z[f"c{k}_max_length"]),
                tolerance=float(z[f"c{k}_tolerance"]),
                trace=True,
            )[0]

        adam, closed = search(Adam(train, val)), search(LeastSquares(train, val))
        for name, found in (("", adam), ("ols_", closed)):
            fit = found.steps[-1] if found.steps else None
            out[f"c{k}_{name}selected"] = fit.concepts if fit else np.empty(0, dtype=np.int64)
            out[f"c{k}_{name}weights"] = fit.weights if fit else np.empty(0)
            out[f"c{k}_{name}bias"] = fit.bias if fit else nothing
            out[f"c{k}_{name}corr"] = fit.correlation if fit else nothing
        out[f"c{k}_trace_step"] = np.array([step for step, _, _ in adam.trace], dtype=np.int64)
        out[f"c{k}_trace_concept"] = np.array([concept for _, concept, _ in adam.trace], dtype=np.int64)
        out[f"c{k}_trace_corr"] = np.array([r for _, _, r in adam.trace])

        def seeds(wanted: np.ndarray, fit: Any = closed.steps[-1] if closed.steps else None) -> None:
            if fit is None:
                nothing(wanted)
            else:  # random starts differ by more than 0.02 among themselves; we are no further from them than that
                assert wanted.min() - 0.02 <= fit.correlation <= wanted.max() + 0.02

        out[f"c{k}_seed_corr"] = seeds
    return out


def nothing(wanted: np.ndarray) -> None:
    """A unit without explanation: the original has no value, or 0."""
    assert np.isin(np.nan_to_num(wanted, nan=0.0), 0.0).all()


def agreement(ours: Any, theirs: Any) -> float:
    pairs = [(set(a.concepts), set(b.concepts)) for a, b in zip(ours.rows, theirs.rows, strict=True)]
    return sum(len(a & b) for a, b in pairs) / sum(max(len(a), len(b)) for a, b in pairs)


def end_to_end(z: Data) -> Results:
    names = z["concept_names"].tolist()
    shared = {"train": np.sort(z["train_ids"]), "val": np.sort(z["val_ids"]), "concept_names": names}

    @cache
    def run(search: str, refit: str) -> LinearExplanation:
        model = LinearExplanation(search=search, refit=refit, statistics="all")
        return model.fit(z["concepts"], z["activations"], **shared)

    def text(search: str) -> Callable[[np.ndarray], None]:
        def check(wanted: np.ndarray) -> None:
            theirs = parse_table(str(wanted))
            layer = theirs.rows[0].layer
            ours = run(search, "least-squares").table(layer)
            written = format_table(ours)
            assert written.splitlines()[0] == str(wanted).splitlines()[0]
            assert [(row.layer, row.unit) for row in ours.rows] == [(row.layer, row.unit) for row in theirs.rows]
            assert ours.slots == theirs.slots
            assert parse_table(written).rows == ours.rows
            zero = parse_table(str(z["csv_gs_zero" if search == "greedy" else "csv_nogs_zero"]))
            assert agreement(ours, theirs) >= min(0.8, agreement(zero, theirs) - 0.1)
            if theirs.rows != zero.rows:
                return
            # with the published refit the weights of equal sets are equal too
            for mine, other in zip(run(search, "adam").table(layer).rows, theirs.rows, strict=True):
                if set(mine.concepts) == set(other.concepts):
                    assert mine.concepts == other.concepts
                    np.testing.assert_allclose(mine.weights, other.weights, rtol=1e-6, atol=1e-8)
                    np.testing.assert_allclose(mine.bias, other.bias, rtol=1e-6, atol=1e-8)

        return check

    def correlations(wanted: np.ndarray) -> None:
        close(0.01)(run("greedy", "least-squares").val_correlation_, wanted)
        exact = LinearExplanation(solver="exact", statistics="all").fit(z["concepts"], z["activations"], **shared)
        assert abs(exact.val_correlation_.mean() - wanted.mean()) <= 0.02

    mask = concepts.active_concepts(column_statistics(z["concepts"]))
    assert (run("greedy", "least-squares").concept_mask_ == mask).all()
    out: Results = {"active_mask": mask, "val_corr_gs_zero": correlations}
    for name in z:
        if name.startswith("csv_"):
            out[name] = text("top" if name.startswith("csv_nogs") else "greedy")
    return out


def splits(z: Data) -> Results:
    out: Results = {}
    for k in range(int(z["n_cases"])):
        split = random_split(int(z[f"c{k}_n"]), int(z[f"c{k}_seed"]))
        out |= {f"c{k}_train": split.train, f"c{k}_val": split.val, f"c{k}_test": split.test}
    return out


def simulation_inputs() -> tuple[Data, concepts.LazyCosines, list[str]]:
    z = load("simulate_correlation")
    source = concepts.LazyCosines(z["image_features"], z["text_features"], a=float(z["a"]), b=float(z["b"]))
    return z, source, z["text_names"].tolist()


def simulate_correlation(z: Data) -> Results:
    _, source, names = simulation_inputs()
    out: Results = {}
    for kind in ("linear", "single"):
        table = parse_table(str(z[f"csv_{kind}"]))
        out[f"pred_{kind}"] = simulate(table, source, names)[0]
        scores = correlation_scores(table, source, names, z["activations"], rows=z["test_ids"], n_resamples=0)
        out[f"corr_{kind}"] = scores.scores
    return out


def simulate_ablation(z: Data) -> Results:
    inputs, source, names = simulation_inputs()
    units = int(z["n_units"])
    head = LinearHead(z["activations"], z["fc_weight"], z["fc_bias"], z["labels"], temperature=float(z["temperature"]))
    out: Results = {}
    for kind in ("linear", "single"):
        predicted, _ = simulate(parse_table(str(inputs[f"csv_{kind}"])).select(range(units)), source, names)
        for variant in ("optim", "norm"):
            scores = ablation_scores(
                predicted, z["activations"], head, val=z["val_ids"], test=z["test_ids"], variant=variant
            )
            out[f"score_{kind}_{variant}"] = scores.scores
            if variant == "optim":
                out |= {f"score_{kind}_c": scores.scale, f"score_{kind}_d": scores.shift}
    return out


def pooling(z: Data) -> Results:
    out: Results = {}
    for name in expected("pooling"):
        match = re.fullmatch(r"(avg|max|first|none)_(t\d)_(all|(\d+)_(\d+))", name)
        assert match is not None, name
        units = None if match[3] == "all" else list(range(int(match[4]), int(match[5])))
        out[name] = pool_outputs(z[match[2]], match[1], units)
    return out


def label_concepts(z: Data, sets: Path) -> Results:
    out: Results = {}
    for key in z:
        if not key.endswith("_targets"):
            continue
        prefix = key.removesuffix("_targets")
        base = prefix.split("_")[0]
        with (sets / f"{base}_labels_clean.txt").open(encoding="utf-8", newline="") as file:
            names = concepts.text_lines(file.read())
        table = sets / f"{base}_superclass_to_ids.json"
        superclasses = json.loads(table.read_text(encoding="utf-8")) if table.exists() else None
        classes = int(z[key].max()) + 1
        matrix, labels = concepts.label_concepts(z[key], names, superclasses, classes=classes)
        dense = matrix.toarray()
        assert np.isin(dense, (0, 1)).all()
        out[f"{prefix}_names"] = np.array(labels)
        out[f"{prefix}_onehot_packed"] = np.packbits(dense.astype(np.uint8), axis=1)
        out[f"{prefix}_shape"] = np.array(dense.shape)
    return out


def activation_importance(z: Data) -> Results:
    effect = inspection.impact(z["orig_acc"], z["new_acc"], z["orig_loss"], z["new_loss"])
    return {"impact": effect, "share": inspection.importance_share(effect, z["activations"], z["cutoffs"].tolist())}


def area_chart(z: Data) -> Results:
    names = z["names"].tolist()
    columns = [names.index(name) for name in z["explanation"].tolist()]
    chart = inspection.area_chart(z["onehot"][:, columns], z["activations"], bands=z["share"].shape[1])
    return {
        "band_edges": chart.edges,
        "share": chart.share,
        "other": chart.other,
        "x_plot": chart.x,
        "share_plot": chart.padded(chart.share),
    }


def sigmoid_tuning(z: Data) -> Results:
    a_grid, b_grid = concepts.calibration_grid()
    a, b, loss = concepts.calibrate_sigmoid(z["cos"], z["labels"])
    best = concepts.fit_sigmoid(z["cos"], z["labels"])
    assert best[2] <= loss + 1e-12
    return {"a_grid": a_grid, "b_grid": b_grid, "best_a": a, "best_b": b, "best_loss": loss}


def superclasses_toy(z: Data) -> Results:
    parents = {int(key): value for key, value in json.loads(str(z["leaf_parents_json"])).items()}
    table = concepts.superclass_table(parents, json.loads(str(z["graph_json"])))

    def check(wanted: np.ndarray) -> None:
        theirs = json.loads(str(wanted))
        assert table == theirs
        assert list(table) == list(theirs)

    return {"superclass_json": check}


def strings(z: Data) -> Results:
    table = parse_table(str(z["csv_linear"]))
    return {
        "clean_labels": np.array([clean_netdissect_label(label) for label in z["raw_labels"].tolist()]),
        "printed": np.array([format_explanation(row) for row in table.rows]),
    }


def temperature_loss(z: Data) -> Results:
    logits = z["X"] @ z["weight"].T + z["bias"]
    warm, plain = (inspection.classify(logits, z["y"], temperature=t) for t in (float(z["T"]), 1.0))
    return {"pred": warm.predicted, "correct": warm.correct, "loss": warm.loss, "loss_T1": plain.loss}


CASES: dict[str, Callable[..., Results]] = {
    "prox_and_loss": prox_and_loss,
    "standardise": standardised,
    "saga_iterates": saga_iterates,
    "sparse_fit_digits": sparse_fit_digits,
    "lambda_path": lambda_path,
    "refit": refit,
    "greedy": greedy,
    "end_to_end": end_to_end,
    "splits": splits,
    "simulate_correlation": simulate_correlation,
    "simulate_ablation": simulate_ablation,
    "pooling": pooling,
    "label_concepts": label_concepts,
    "activation_importance": activation_importance,
    "area_chart": area_chart,
    "sigmoid_tuning": sigmoid_tuning,
    "superclasses_toy": superclasses_toy,
    "strings": strings,
    "temperature_loss": temperature_loss,
}

_computed: dict[str, Results] = {}


def compare(actual: Any, wanted: np.ndarray, how: str) -> None:
    if callable(actual):
        actual(wanted)
        return
    actual = np.asarray(actual)
    assert actual.shape == wanted.shape
    match = re.fullmatch(r"allclose rtol=(\S+) atol=(\S+)", how)
    if match:
        np.testing.assert_allclose(actual, wanted, rtol=float(match[1]), atol=float(match[2]), equal_nan=True)
    elif how == "exact":
        np.testing.assert_array_equal(actual, wanted)
    else:
        pytest.fail(f"the manifest says `{how}`, which nothing here understands")


PARAMETERS = [
    pytest.param(case, array, id=f"{case}-{array}", marks=[pytest.mark.shared] if case in NEEDS_CONCEPT_SETS else [])
    for case in manifest()
    for array in expected(case)
]


@pytest.mark.parametrize(("case", "array"), PARAMETERS)
def test_golden(case: str, array: str, request: pytest.FixtureRequest) -> None:
    assert case in CASES, f"no function computes the case {case}"
    if case not in _computed:
        extra = []
        if case in NEEDS_CONCEPT_SETS:
            extra = [request.getfixturevalue("shared") / "reference" / "linear_explanations" / "concept_sets"]
        _computed[case] = CASES[case](load(case), *extra)
    assert array in _computed[case], f"{case} has no value for {array}"
    compare(_computed[case][array], load(case)[array], manifest()[case]["arrays"][array]["compare"])


def test_the_manifest_lists_cases() -> None:
    assert len(PARAMETERS) > 100
    assert all(expected(case) for case in manifest())
