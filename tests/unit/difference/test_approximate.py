"""Approximate RDX: coordinates that the landmarks' own formula gives, planted groups, and honest notes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from rdxcli.methods.difference import approximate
from rdxcli.methods.difference.graph import DifferenceGraph
from rdxcli.methods.difference.grouping import group
from rdxcli.methods.difference.landmarks import Extension, difference_among
from rdxcli.methods.difference.rdx import RDX
from rdxcli.methods.difference.record import reliability
from rdxcli.methods.difference.sides import Sides
from rdxcli.records import relied_on

N = 900


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Six groups; model 0 merges groups 0 and 1, model 1 merges 4 and 5."""
    rng = np.random.default_rng(0)
    kinds = np.arange(N) % 6
    centres = 8 * np.eye(6, 12)
    first, second = centres.copy(), centres.copy()
    first[1], second[5] = first[0], second[4]
    return first[kinds] + rng.normal(size=(N, 12)), second[kinds] + rng.normal(size=(N, 12)), kinds


def _fit(pair: tuple[np.ndarray, ...], **options: object) -> RDX:
    return RDX(n_clusters=1, **{"approximate": "always", "landmarks": 300, **options}).fit(*pair[:2])


def test_planted_groups_are_found_in_both_directions(pair: tuple[np.ndarray, ...]) -> None:
    found, exact = _fit(pair), RDX(n_clusters=1).fit(*pair[:2])
    for direction, wanted in (("01", (0, 1)), ("10", (4, 5))):
        inside = np.isin(pair[2], wanted)
        result = found.directions_[direction]
        assert adjusted_rand_score(inside, result.labels) > 0.95
        assert adjusted_rand_score(exact.directions_[direction].labels, result.labels) > 0.95
        [concept] = result.concepts
        assert set(pair[2][concept.samples]) == set(wanted)
        assert concept.size == result.sizes[1] == (result.labels == 1).sum()
        assert concept.affinity == pytest.approx(exact.directions_[direction].affinities[1], rel=0.15)
        assert found.agreement_[direction].rand > 0.95
        assert found.agreement_[direction].angle < 20
        assert found.agreement_[direction].shown == 1
    assert any("300 of 900 images are landmarks" in note for note in found.notes_)
    assert any("adjusted Rand" in note for note in found.notes_)


def test_exact_fits_say_nothing_of_approximation(pair: tuple[np.ndarray, ...]) -> None:
    for options in ({"approximate": "auto"}, {"approximate": "never"}, {"approximate": "always", "landmarks": N}):
        found = _fit(pair, **options)
        assert not found.agreement_
        assert not any("approximate" in note for note in found.notes_)


def test_auto_begins_above_the_limit(pair: tuple[np.ndarray, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("rdxcli.methods.difference.rdx", "rdxcli.methods.difference.approximate"):
        monkeypatch.setattr(f"{module}.EXACT_UP_TO", N - 1)
    assert _fit(pair, approximate="auto").agreement_
    assert not _fit(pair, approximate="never").agreement_


SETTINGS = [
    {},
    {"similarity": "max_normalized"},
    {"similarity": "local_scaling"},
    {"similarity": "local_scaling", "transposed_scaling": True},
    {"symmetrize": "ranks"},
    {"difference": "standard", "normalize": True},
    {"dtype": "float64"},
]


@pytest.mark.parametrize(
    ("settings", "labelled"),
    [(one, False) for one in SETTINGS] + [(one, True) for one in SETTINGS if "similarity" not in one],
    ids=str,
)
def test_rows_of_the_graph_are_those_of_a_graph_with_one_image_more(
    pair: tuple[np.ndarray, ...], settings: dict, labelled: bool
) -> None:
    """A graph of the landmarks and one other image has the row and the column that the extension computes."""
    rng = np.random.default_rng(1)
    landmarks = np.sort(rng.permutation(N)[:80])
    codes = (pair[2] // 2, pair[2] // 3) if labelled else (None, None)
    sides = Sides(pair[0], pair[1], *codes)
    part = sides.take(landmarks)
    options = {**settings, "images": 80, "labels0": part.first_labels, "labels1": part.second_labels}
    graph = DifferenceGraph(part.first, part.second, **options)
    graph.affinity()
    others = np.setdiff1d(np.arange(N), landmarks)[:7]
    forward, backward = Extension(graph, sides, landmarks).block(others)
    for i, other in enumerate(others):
        whole = sides.take(np.append(landmarks, other))
        options |= {"labels0": whole.first_labels, "labels1": whole.second_labels, "images": 81}
        larger = DifferenceGraph(whole.first, whole.second, **options)
        expected = larger.affinity().matrix
        if settings.get("similarity") or settings.get("normalize") or labelled:
            # lengths and the farthest rank are those of the landmarks alone: nearly the same
            np.testing.assert_allclose(forward[i], expected[-1, :-1], rtol=0.25)
            assert np.corrcoef(backward[i], expected[:-1, -1])[0, 1] > 0.99
        else:
            np.testing.assert_allclose(forward[i], expected[-1, :-1], rtol=2e-5)
            np.testing.assert_allclose(backward[i], expected[:-1, -1], rtol=2e-5)


def test_the_extension_gives_back_the_landmarks(pair: tuple[np.ndarray, ...]) -> None:
    """A twin of a landmark lands where the landmark is."""
    first, second = (np.vstack([one[:200], one[:200]]) for one in pair[:2])
    settings = RDX(n_clusters=2)
    graph = DifferenceGraph(first[:200], second[:200])
    found, _ = group(graph.affinity(), "01", settings, lambda _: None)
    embedded = {"01": (found.coordinates, found.eigenvalues)}
    twins = Extension(graph, Sides(first, second), np.arange(200)).coordinates(np.arange(200, 400), embedded)["01"]
    for column in range(1, 3):
        assert np.corrcoef(twins[:, column], found.coordinates[:, column])[0, 1] > 0.99


@pytest.mark.parametrize("settings", SETTINGS[:1] + SETTINGS[4:], ids=str)
def test_counted_ranks_are_ranks(pair: tuple[np.ndarray, ...], settings: dict) -> None:
    rows, columns = np.array([3, 50, 400]), np.array([3, 7, 400, 800, 20])
    whole = DifferenceGraph(pair[0], pair[1], **settings)
    expected = whole.difference(rows, "10")[:, columns]
    found = difference_among(whole, Sides(*pair[:2]), rows, columns)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_rows_for_drawing(pair: tuple[np.ndarray, ...]) -> None:
    exact, found = RDX(n_clusters=1).fit(*pair[:2]), _fit(pair)
    rows = np.array([0, 5, 77])
    for direction in ("01", "10"):
        whole = exact.difference_rows(rows, direction)
        apart = np.abs(found.difference_rows(rows, direction) - whole)
        assert (apart > 2e-6).mean() < 0.002  # squared distances that agree to 6e-8 may change places
        assert apart.max() < 0.02
        np.testing.assert_allclose(exact.difference_rows(rows, direction, rows), whole[:, rows])


def test_the_same_seed_gives_the_same_result(pair: tuple[np.ndarray, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    from rdxcli.numerics import neighbours

    first = _fit(pair)
    monkeypatch.setattr(neighbours, "BLOCK_ELEMENTS", 5000)
    second, other = _fit(pair), _fit(pair, random_state=1)
    for direction in ("01", "10"):
        np.testing.assert_array_equal(first.directions_[direction].labels, second.directions_[direction].labels)
        for mine, theirs in zip(*(r.directions_[direction].samples for r in (first, second)), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert not np.array_equal(first._landmarks, other._landmarks)


def test_guidance_and_maps(pair: tuple[np.ndarray, ...]) -> None:
    labels = np.array(list("aabbcd"))[pair[2]]
    guided = RDX(n_clusters=1, approximate="always", landmarks=300).fit(*pair[:2], labels0=labels, labels1=labels)
    assert set(guided.agreement_) == {"01", "10"}
    mapped = RDX(n_clusters=1, approximate="always", landmarks=300).fit(*pair[:2], mapped0=pair[1], mapped1=pair[0])
    assert any("no difference" in note for note in mapped.notes_)
    assert mapped.difference_rows(np.array([1, 2]), "01").shape == (2, N)


@pytest.mark.parametrize("clustering", ["pagerank", "eigenvector"])
def test_central_groups_are_among_the_landmarks(pair: tuple[np.ndarray, ...], clustering: str) -> None:
    found = RDX(n_clusters=2, clustering=clustering, approximate="always", landmarks=300).fit(*pair[:2])
    for result in found.directions_.values():
        assert set(np.flatnonzero(result.labels)) <= set(found._landmarks)
        assert len(result.concepts) == 2
    assert any("only the 300 landmarks" in note for note in found.notes_)
    assert found.agreement_["01"].angle is None


def test_other_ways_to_choose_images(pair: tuple[np.ndarray, ...]) -> None:
    found = _fit(pair, selection="max_affinity")
    for result in found.directions_.values():
        assert set(result.concepts[0].samples) <= set(found._landmarks)


def test_a_model_against_itself(pair: tuple[np.ndarray, ...]) -> None:
    found = RDX(n_clusters=2, approximate="always", landmarks=200).fit(pair[0], pair[0])
    assert all((result.labels == 0).all() for result in found.directions_.values())
    assert any("no difference to explain" in note for note in found.notes_)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"approximate": "yes"}, "approximate='yes'"),
        ({"landmarks": 0}, "landmarks=0"),
        ({"landmarks": 10}, "landmarks=10"),
        ({"landmarks": 2.5}, "landmarks=2.5"),
    ],
)
def test_bad_options(pair: tuple[np.ndarray, ...], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _fit(pair, **options)


def test_the_limit_is_what_the_documentation_says() -> None:
    assert approximate.EXACT_UP_TO == 20_000


def test_low_agreement_is_said_first() -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(400, 20))
    rdx = RDX(4, approximate="always", landmarks=60).fit(X, X + rng.normal(size=X.shape))
    weak = [direction for direction, one in rdx.agreement_.items() if one.rand < 0.7]
    assert weak
    for direction in weak:
        assert any(
            note.startswith(f"direction {direction}: not reliable at this size") for note in rdx.notes_[: len(weak)]
        )
    assert "use landmarks=120" in rdx.notes_[0]


def test_a_concept_that_the_exact_method_finds_too_is_relied_on_beside_others_that_it_denies() -> None:
    """Of two merged classes and noise that is divided anyhow."""
    rng = np.random.default_rng(3)
    label = rng.integers(0, 8, 1500)
    apart = 4.0 * rng.normal(size=(8, 20))
    merged = np.where((label == 1)[:, None], apart[0], apart[label])
    X, Y = (centres + 2.0 * rng.normal(size=centres.shape) for centres in (apart[label], merged))
    rdx = RDX(3, approximate="always", landmarks=300, random_state=1).fit(X, Y)
    trust = reliability(rdx)
    side = next(side for side, one in trust.items() if not one["reliable"] and relied_on(trust, side, 1))
    direction = {"a": "01", "b": "10"}[side]
    sure = [index for index in trust[side]["concepts"] if relied_on(trust, side, int(index))]
    assert sure == ["1"]
    found = max(rdx.directions_[direction].concepts, key=lambda one: (one.affinity - 1.0) * one.size)
    members = rdx.directions_[direction].labels == found.label
    assert np.isin(label[members], (0, 1)).mean() > 0.9
    assert trust[side]["concepts"]["1"]["overlap"] >= 0.75 > 3 * trust[side]["concepts"]["1"]["by_chance"]
    assert f"{side}1 is found by it too (overlap " in trust[side]["reason"]
    assert f"{side}2 is found" not in trust[side]["reason"]


def test_overlaps_are_those_of_members() -> None:
    theirs, ours = np.array([0, 1, 1, 1, 2, 2]), np.array([0, 2, 2, 0, 1, 0])
    counts = np.zeros((3, 3))
    np.add.at(counts, (theirs, ours), 1)
    (second, by_chance), (first, _) = approximate.found_again(counts)
    assert (second, first) == (1 / 2, 2 / 3)
    assert by_chance == pytest.approx((2 / 6) / (3 - 2 / 6))
    assert approximate.found_again(np.ones((1, 3))) == ((0.0, 0.0), (0.0, 0.0))
