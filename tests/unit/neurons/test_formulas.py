"""Logical formulas: found where planted, truth as logic says, text that reads back, chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from rdxcli.methods.neurons.formulas import OPERATORS, Formula, LogicalExplanation, formula_parts, parse_formula
from rdxcli.methods.neurons.preparation import random_split
from rdxcli.methods.neurons.scores import pearson
from rdxcli.methods.neurons.simulation import correlation_scores, find_concepts
from rdxcli.methods.neurons.tables import format_table, parse_table

N = 600
SPLIT = random_split(N, 1)
PARTS = {"train": SPLIT.train, "val": SPLIT.val}
NAMES = [*"abcde", *(f"word {i}" for i in range(15))]


def planted(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    P = (rng.random((N, 20)) < 0.35).astype(float)
    a, b, c = (P[:, k] > 0 for k in range(3))
    truth = np.stack([a & b, a | b, a & ~b, (a | b) & ~c, a], axis=1).astype(float)
    A = np.c_[2 * truth + 0.4 * rng.normal(size=truth.shape) + 1, np.exp(rng.normal(size=(N, 6)))]
    return P, A


def test_planted_formulas_are_found_and_noise_does_not_beat_chance() -> None:
    P, A = planted()
    model = LogicalExplanation().fit(P, A, **PARTS, concept_names=NAMES)
    found = [row.concepts[0] if row.concepts else "" for row in model.explanations_]
    assert set(formula_parts(found[0])) == {"a", "b"}
    assert " AND " in found[0]
    assert found[1] in ("a OR b", "b OR a")
    assert found[2] == "a AND NOT b"
    assert found[3] in ("(a OR b) AND NOT c", "(b OR a) AND NOT c", "(a AND NOT c) OR b", "(b AND NOT c) OR a")
    assert found[4] == "a"
    for row in model.explanations_[:5]:
        assert row.weights[0] == pytest.approx(2.0, abs=0.5)
    assert (model.auc_[:5] > 0.9).all()
    scores, interval = model.score_rows(P, A, SPLIT.test)
    assert (scores[:5] > 0.8).all()
    assert (interval.low[:5] < scores[:5]).all()
    better = model.chance(P, A, SPLIT.test).better
    assert better[:5].all()
    assert better[5:].mean() <= 0.2


def test_layers_of_noise_pass_rarely() -> None:
    passed = []
    for seed in range(5):
        P, A = planted(seed)
        model = LogicalExplanation(n_shuffled=30, pool=20).fit(P, A[:, 5:], **PARTS)
        passed.append(model.chance(P, A[:, 5:], SPLIT.test).better.mean())
    assert np.mean(passed) <= 0.05


def test_a_table_of_formulas_is_simulated_from_its_parts() -> None:
    P, A = planted()
    model = LogicalExplanation().fit(P, A, **PARTS, concept_names=NAMES)
    table = parse_table(format_table(model.table("layer")))
    assert set(find_concepts(table, NAMES).columns) <= set(NAMES)
    found = correlation_scores(table, P, NAMES, A, rows=SPLIT.test)
    ours, _ = model.score_rows(P, A, SPLIT.test)
    np.testing.assert_allclose(found.scores[:5], ours[:5], atol=1e-9)
    assert "x AND y" in find_concepts(parse_table("unit,description\n0,x AND y\n"), NAMES).missing
    whole = parse_table("unit,description\n0,salt AND pepper\n")  # a name that only looks like a formula
    assert find_concepts(whole, ["salt AND pepper"]).columns == {"salt AND pepper": 0}


names = st.text("abc xyz-'", min_size=1, max_size=8).map(str.strip).filter(bool)


@settings(max_examples=50, deadline=None)
@given(
    parts=st.lists(names, min_size=1, max_size=4, unique=True),
    operators=st.lists(st.sampled_from(OPERATORS), min_size=3, max_size=3),
    seed=st.integers(0, 99),
)
def test_text_reads_back_and_truth_is_logic(parts: list[str], operators: list[str], seed: int) -> None:
    formula = Formula(tuple(parts), tuple(operators[: len(parts) - 1]))
    assert parse_formula(formula.text(), set(parts)) == formula
    values = np.random.default_rng(seed).random((len(parts), 30))
    of = dict(zip(parts, values, strict=True))
    present = values[0] >= 0.5
    for operator, row in zip(formula.operators, values[1:], strict=True):
        other = row >= 0.5
        present = {"AND": present & other, "OR": present | other, "AND NOT": present & ~other}[operator]
    np.testing.assert_array_equal(formula.truth(of) >= 0.5, present)


def test_conventions_and_bad_input() -> None:
    P, A = planted()
    model = clone(LogicalExplanation(max_length=1))
    one = model.fit(P, A[:, :1], **PARTS)
    assert len(one.formulas_[0].concepts) == 1
    A[:, 1] = 3.0
    flat = LogicalExplanation(n_shuffled=0).fit(P, A[:, :2], **PARTS)
    assert flat.explanations_[1].status == "constant"
    assert np.isnan(pearson(np.ones((5, 1)), np.ones((5, 1)))).all()
    with pytest.raises(ValueError, match="n_shuffled=0"):
        flat.chance(P, A[:, :2], SPLIT.test)
    for bad in (
        lambda: LogicalExplanation().fit(P * 3, A, **PARTS),
        lambda: LogicalExplanation().fit(P[:-1], A, **PARTS),
        lambda: LogicalExplanation().fit(P, A, **PARTS, concept_names=["a"]),
        lambda: LogicalExplanation(min_top=2.0).fit(P, A, **PARTS),
    ):
        with pytest.raises(ValueError, match="Got"):
            bad()
