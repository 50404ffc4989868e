"""Subclasses, causes, comparisons, on data where the answer is known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rdxcli.methods.regions.configurations import Configurations
from rdxcli.methods.regions.rdr import RDR
from rdxcli.methods.regions.uses import compare_regions, draw_members, expected_overlap, find_causes, find_subclasses
from rdxcli.records import plain


def hierarchy(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Six fine groups in two classes: (180, 120) activations, class, fine group."""
    rng = np.random.default_rng(seed)
    fine = np.arange(180) % 6
    coarse = fine // 3
    z = rng.normal(size=(2, 120))[coarse] + rng.normal(size=(6, 120))[fine] + 0.4 * rng.normal(size=(180, 120))
    return z, coarse, fine


Z, CLASS, FINE = hierarchy()


@pytest.mark.parametrize("selection", ["ranked", "joint"])
def test_subclasses_are_the_hidden_groups(selection: str) -> None:
    fitted = RDR(selection=selection).fit(Z, targets="class:1", labels=CLASS)
    found = find_subclasses(fitted, "1", finer=FINE, overlap=0.3, min_support=2)
    assert {max(one.finer, key=one.finer.get) for one in found} == {"3", "4", "5"}
    for one in found:
        assert len(one.finer) == 1, "one hidden group per subclass"
        assert one.purity == 1.0
        assert one.share == len(one.rows) / 90
        assert (CLASS[one.rows] == 1).all()
    document = json.loads(json.dumps(plain(found[0].document(fitted.configurations_))))
    assert document["subclass"]["rows"][0] == document["target"]


def test_subclasses_need_labels_and_targets() -> None:
    with pytest.raises(ValueError, match="without labels"):
        find_subclasses(RDR().fit(Z, targets=[0]), "1")
    fitted = RDR().fit(Z, targets="class:1", labels=CLASS)
    with pytest.raises(ValueError, match="Got no target of class '0'"):
        find_subclasses(fitted, "0")
    with pytest.raises(ValueError, match="Got class '7'"):
        find_subclasses(fitted, "7")


def test_causes_name_the_shared_concept() -> None:
    """Four samples of class 0 look like fine group 4 of class 1, and are taken for it."""
    label, prediction = CLASS.copy(), CLASS.copy()
    odd = np.flatnonzero(FINE == 4)[:4]
    label[odd] = 0
    other = np.flatnonzero(FINE == 0)[0]
    prediction[other] = 1  # an error without a concept: its surroundings are of its own class
    fitted = RDR().fit(Z, targets="misclassified", labels=label, predictions=prediction)
    causes = find_causes(fitted)
    assert sorted(cause.region.target for cause in causes) == sorted([*odd, other])
    assert causes[-1].region.target == other
    assert causes[-1].prediction_share == 0.0
    for cause in causes[:-1]:
        rest = cause.region.members[1:]
        assert (cause.label, cause.prediction) == ("0", "1")
        assert cause.prediction_share == (label[rest] == 1).mean() > 0.5
        assert cause.label_share == pytest.approx(1 - cause.prediction_share)
        assert cause.lift == pytest.approx(cause.prediction_share / (label == 1).mean())
        assert (label[cause.evidence] == 1).all()
        assert set(cause.confused.tolist()) == set(rest.tolist()) & set(odd.tolist())
    assert "cause" in json.loads(json.dumps(plain(causes[0].document())))


def test_causes_need_errors() -> None:
    with pytest.raises(ValueError, match="expected both"):
        find_causes(RDR().fit(Z, targets=[0], labels=CLASS))
    with pytest.raises(ValueError, match="Got no misclassified target"):
        find_causes(RDR().fit(Z, targets=[0], labels=CLASS, predictions=CLASS))


def test_a_source_compared_with_itself_and_with_noise() -> None:
    noise = np.random.default_rng(5).normal(size=(180, 80))
    found = compare_regions({"a": Z, "again": Configurations.from_activations(Z), "noise": noise}, targets=range(30))
    summary = {(entry["a"], entry["b"]): entry for entry in found.summary()}
    assert summary["a", "again"]["overlap"] == 1.0
    assert summary["a", "again"]["agreement"] == 1.0
    assert summary["a", "again"]["neighbour_overlap"] == 1.0
    assert summary["a", "again"]["targets"] == 30
    assert abs(summary["a", "noise"]["agreement"]) < 0.1
    np.testing.assert_array_equal(found.overlap, found.overlap.transpose(0, 2, 1))
    assert len(found.only(3, 0, 1)) == 0
    mine, theirs = (set(fit.regions_[3].members.tolist()) for fit in (found.fits[0], found.fits[2]))
    assert set(found.only(3, 0, 2).tolist()) == mine - theirs
    assert found.sizes[3].tolist() == [len(mine), len(mine), len(theirs)]
    json.dumps(plain(found.document()))


def test_each_model_has_its_own_predictions() -> None:
    wrong = np.where(np.arange(180) < 9, 1 - CLASS, CLASS)
    found = compare_regions(
        {"a": Z, "b": Z[:, :60]}, targets="misclassified", labels=CLASS, predictions={"a": wrong, "b": CLASS}
    )
    assert found.targets.tolist() == list(range(9)), "those of the first"
    assert found.fits[1].labels_.predicted.tolist() == CLASS.tolist()


def test_unbounded_regions_are_not_compared() -> None:
    rng = np.random.default_rng(0)
    found = compare_regions({"a": Z, "b": rng.normal(size=(180, 3))}, rdr=RDR(100, 5), targets=[0, 1])
    assert np.isnan(found.overlap[:, 0, 1]).all()
    assert found.summary()[0]["overlap"] is None
    assert found.summary()[0]["targets"] == 0
    assert any(note.startswith("b: ") and "unbounded" in note for note in found.notes)
    assert plain(found.document())["overlap"][0][0][1] is None


def test_comparison_refused() -> None:
    with pytest.raises(ValueError, match="Got 1 source"):
        compare_regions({"a": Z})
    with pytest.raises(ValueError, match="Got 5 samples in b and 180 in a"):
        compare_regions({"a": Z, "b": Z[:5]})


def test_expected_overlap_is_the_mean_of_random_sets() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(3000):
        a = {0, *(1 + rng.choice(59, 19, replace=False)).tolist()}
        b = {0, *(1 + rng.choice(59, 29, replace=False)).tolist()}
        found.append(len(a & b) / len(a | b))
    assert expected_overlap(20, 30, 60) == pytest.approx(np.mean(found), abs=0.01)
    assert expected_overlap(1, 1, 60) == 1.0


def test_drawn_members() -> None:
    members = np.arange(100, 150)
    drawn = draw_members(members, 10, 3)
    assert len(set(drawn.tolist())) == 10
    assert set(drawn.tolist()) <= set(members.tolist())
    assert draw_members(members[:4], 10).tolist() == [100, 101, 102, 103]


def test_the_table_says_what_a_target_was_taken_for() -> None:
    from rdxcli.report.regions import build

    entry = {
        "target_id": "s1", "status": "bounded", "neurons": [1], "labels": {"cat": 3}, "states": [1],
        "scores": {"size": 3, "coverage": 0.1, "purity": 1.0, "selectivity": None}, "sample_ids": [],
    }  # fmt: skip
    cause = {"label": "airplane", "prediction": "bird", "prediction_share": 0.75, "lift": 2.5}
    unbounded = {**cause, "prediction_share": None, "lift": None}
    document = {
        "method": "rdr", "model": {"name": "m", "layer": "l"}, "samples": {"n": 30, "dataset": None}, "notes": [],
        "regions": [{**entry, "cause": cause}, {**entry, "cause": unbounded}], "parameters": {},
    }  # fmt: skip

    def shown(found: dict) -> list[dict]:
        section = build(found).sections[0]
        names = [column.name for column in section.columns]
        return [dict(zip(names, item.values, strict=True)) for item in section.items]

    first, second = shown(document)
    assert (first["label"], first["taken for"], first["lift"]) == ("airplane", "bird (75% of its region)", 2.5)
    assert (second["label"], second["taken for"], second["lift"]) == ("airplane", "bird", None)
    assert "taken for" not in shown({**document, "regions": [entry]})[0]
