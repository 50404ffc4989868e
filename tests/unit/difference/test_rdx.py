"""RDX as a whole: planted differences, invariances, small and degenerate input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score

from rdxcli.methods.difference.grouping import join_twins
from rdxcli.methods.difference.rdx import RDX


def planted(n: int = 240, d: int = 8, seed: int = 0, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Six groups; model a merges 2 and 3, model b merges 0 and 1."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 6, n)
    where = rng.normal(size=(6, d)) * 4
    a = where[np.where(group == 3, 2, group)] + noise * rng.normal(size=(n, d))
    b = where[np.where(group == 1, 0, group)] + noise * rng.normal(size=(n, d))
    return a, b, group


A, B, GROUP = planted()
FOUND = RDX(1).fit(A, B)


def same(one: RDX, two: RDX, swap: bool = False) -> bool:
    """Equal labels, affinities and images in both directions."""
    for direction in ("01", "10"):
        x, y = one.directions_[direction], two.directions_[direction[::-1] if swap else direction]
        if not (
            np.array_equal(x.labels, y.labels)
            and np.allclose(x.affinities, y.affinities, rtol=1e-4)
            and all(np.array_equal(p, q) for p, q in zip(x.samples, y.samples, strict=True))
        ):
            return False
    return True


def merge(two: tuple[int, int], n: int = 240, d: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A model that keeps six groups apart and one that merges two of them, with the same scatter."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 6, n)
    where, scatter = rng.normal(size=(6, d)) * 4, 0.5 * rng.normal(size=(n, d))
    return where[np.where(group == two[1], two[0], group)] + scatter, where[group] + scatter, group


@pytest.mark.parametrize("options", [{}, {"dtype": "float64"}, {"device": "torch"}, {"symmetrize": "ranks"}])
@pytest.mark.parametrize("direction", ["01", "10"])
def test_a_planted_merge_is_the_concept_of_its_direction(direction, options):
    for seed in range(3):
        merged, apart, group = merge((2, 3), seed=seed)
        pair = (merged, apart) if direction == "01" else (apart, merged)
        result = RDX(3, random_state=seed, **options).fit(*pair).directions_[direction]
        assert result.closer_in == {"01": "a", "10": "b"}[direction]
        assert len(result.concepts) == 3
        for concept in result.concepts:
            members = result.labels == concept.label
            assert concept.size == members.sum()
            assert np.isin(group[members], (2, 3)).mean() > 0.95
            assert set(group[concept.samples].tolist()) == {2, 3}
            assert len(concept.samples) == min(9, concept.size)
            assert concept.affinity > 5 > result.affinities[0]


@pytest.mark.parametrize("clustering", ["pagerank", "eigenvector"])
def test_centrality_groups(clustering):
    merged, apart, group = merge((2, 3))
    result = RDX(2, clustering=clustering, cluster_size=6).fit(merged, apart).directions_["01"]
    assert [concept.size for concept in result.concepts] == [6, 6]
    assert result.eigenvalues.size == 0
    for concept in result.concepts:
        assert set(group[concept.samples].tolist()) <= {2, 3}


@pytest.mark.parametrize("similarity", ["max_normalized", "local_scaling"])
@pytest.mark.parametrize("difference", ["locally_biased", "standard"])
def test_other_similarities_run_and_number_concepts_by_affinity(similarity, difference):
    rdx = RDX(3, similarity=similarity, difference=difference, normalize=difference == "standard").fit(A, B)
    for result in rdx.directions_.values():
        assert (np.diff(result.affinities) >= 0).all()
        assert result.sizes.sum() == len(A)
        assert [concept.label for concept in result.concepts] == [3, 2, 1]
        assert result.labels.max() == 3


def test_concept_affinity_is_the_mean_over_ordered_pairs():
    graph = FOUND._graphs["01"]
    for direction in ("01", "10"):
        matrix = np.exp(-5 * graph.difference(slice(None), direction).astype(float))
        result = FOUND.directions_[direction]
        for label, affinity in enumerate(result.affinities):
            members = np.flatnonzero(result.labels == label)
            assert affinity == pytest.approx(matrix[np.ix_(members, members)].mean(), rel=1e-4)


def test_runs_repeat_exactly_and_seeds_agree_on_clear_structure():
    assert same(FOUND, RDX(1).fit(A, B))
    other = RDX(1, random_state=7).fit(A, B)
    for direction in ("01", "10"):
        assert adjusted_rand_score(FOUND.directions_[direction].labels, other.directions_[direction].labels) == 1.0


def test_swapping_the_models_swaps_the_directions():
    """Only up to the random start, since each direction has its own stream: compared on clear structure."""
    swapped = RDX(1).fit(B, A)
    for direction in ("01", "10"):
        x, y = FOUND.directions_[direction], swapped.directions_[direction[::-1]]
        assert np.array_equal(x.labels, y.labels)
        assert [set(p.tolist()) for p in x.samples] == [set(q.tolist()) for q in y.samples]


def test_rotation_scale_and_offset_of_either_model_change_nothing():
    rng = np.random.default_rng(1)
    rotation = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    assert same(FOUND, RDX(1).fit(100 * A @ rotation + 3, 1e-3 * B - 1))


def test_permuting_the_images_permutes_the_result():
    order = np.random.default_rng(2).permutation(len(A))
    moved = RDX(1).fit(A[order], B[order])
    for direction in ("01", "10"):
        x, y = FOUND.directions_[direction], moved.directions_[direction]
        assert np.array_equal(x.labels[order], y.labels)
        assert [set(p.tolist()) for p in x.samples] == [set(order[q].tolist()) for q in y.samples]


@pytest.mark.parametrize("rows", [1, 17, 10_000])
def test_block_size_changes_nothing(rows, monkeypatch):
    monkeypatch.setattr("rdxcli.numerics.neighbours.BLOCK_ELEMENTS", rows * len(A))
    assert same(FOUND, RDX(1).fit(A, B))


@pytest.mark.parametrize("dtype", ["float16", "float32", "int16"])
def test_other_number_types(dtype):
    scaled = [np.round(R * 100).astype(dtype) for R in (A, B)]
    assert same(RDX(1).fit(*scaled), RDX(1).fit(*[R.astype(float) for R in scaled]))


def test_identical_models_have_no_concepts():
    rdx = RDX(3).fit(A, 2 * A + 1)
    for result in rdx.directions_.values():
        assert result.concepts == []
        assert result.labels.tolist() == [0] * len(A)
        assert result.affinities.tolist() == [1.0]
        assert len(result.samples) == 1
    assert any("no difference to explain" in note for note in rdx.notes_)


def test_without_a_null_cluster_every_row_belongs_to_a_concept():
    rdx = RDX(4, null_cluster=False).fit(A, B)
    for result in rdx.directions_.values():
        assert sorted(set(result.labels.tolist())) == [1, 2, 3, 4]
        assert np.isnan(result.affinities[0])
        assert result.samples[0].size == 0
        assert (np.diff(result.affinities[1:]) >= 0).all()


def test_weak_clusters_can_be_dropped():
    strong = RDX(3).fit(A, B).directions_["01"]
    limit = float(strong.affinities[1:3].mean())
    for null_cluster, k in ((True, 3), (False, 4)):
        rdx = RDX(k, null_cluster=null_cluster, affinity_threshold=limit).fit(A, B)
        result = rdx.directions_["01"]
        assert [concept.size for concept in result.concepts] == strong.sizes[:1:-1].tolist()
        assert result.affinities[0] < limit
        assert result.sizes[0] == (result.labels == 0).sum() == strong.sizes[:2].sum()
    everything = RDX(3, affinity_threshold=1e9).fit(A, B)
    assert all(result.concepts == [] for result in everything.directions_.values())
    assert any("left out" in note for note in everything.notes_)


def test_guidance_by_labels_of_each_model():
    """Labels that model b splits and model a does not make exactly those pairs closer in a."""
    rng = np.random.default_rng(0)
    same_place = rng.normal(size=(60, 4))
    split = np.arange(60) % 2
    guided = RDX(1, gamma=1.0).fit(same_place, same_place, labels0=np.zeros(60), labels1=split)
    closer = guided.difference_rows(np.arange(60), "01") < -0.5
    different = split[:, None] != split
    assert closer[different].mean() > 0.8
    assert not closer[~different].any()
    unguided = RDX(1).fit(same_place, same_place)
    assert unguided.directions_["01"].concepts == []


def test_aligned_mode_builds_one_graph_per_direction():
    rng = np.random.default_rng(3)
    mapped_a, mapped_b = A @ rng.normal(size=(8, 8)), B @ rng.normal(size=(8, 8))
    aligned = RDX(2).fit(A, B, mapped0=mapped_a, mapped1=mapped_b)
    for direction, pair in (("01", (A, mapped_b)), ("10", (mapped_a, B))):
        plain = RDX(2).fit(*pair)
        assert np.array_equal(aligned.directions_[direction].labels, plain.directions_[direction].labels)
        assert [p.tolist() for p in aligned.directions_[direction].samples] == [
            p.tolist() for p in plain.directions_[direction].samples
        ]


def test_aligned_mode_with_guidance_uses_the_labels_of_what_it_compares():
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, (4, len(A)))
    aligned = RDX(1).fit(
        A, B, labels0=labels[0], labels1=labels[1], mapped0=A, mapped1=B,
        mapped_labels0=labels[2], mapped_labels1=labels[3],
    )  # fmt: skip
    rows = np.arange(10)
    for direction, pair in (("01", (0, 3)), ("10", (2, 1))):
        expected = RDX(1).fit(A, B, labels0=labels[pair[0]], labels1=labels[pair[1]])
        np.testing.assert_array_equal(
            aligned.difference_rows(rows, direction), expected.difference_rows(rows, direction)
        )
    default = RDX(1).fit(A, B, labels0=labels[0], labels1=labels[1], mapped0=A, mapped1=B)
    expected = RDX(1).fit(A, B, labels0=labels[0], labels1=labels[1])
    assert np.array_equal(default.directions_["01"].labels, expected.directions_["01"].labels)


def test_many_images_say_that_ranks_are_rescaled():
    rdx = RDX(1, reference_n=100).fit(A, B)
    assert any("units of 2.4" in note for note in rdx.notes_)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(2, 10), d=st.integers(1, 3), k=st.integers(1, 9), seed=st.integers(0, 99), duplicates=st.booleans()
)
def test_tiny_sets_give_a_partition_or_a_clear_error(n, d, k, seed, duplicates):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n, d))
    if duplicates and n > 2:
        a[1], b[-1] = a[0], b[0]
    if k + 1 > n:
        with pytest.raises(ValueError, match="expected at most as many clusters as images"):
            RDX(k).fit(a, b)
        return
    rdx = RDX(k).fit(a, b)
    for result in rdx.directions_.values():
        assert result.sizes.sum() == n
        assert np.bincount(result.labels, minlength=len(result.sizes)).tolist() == result.sizes.tolist()
        assert np.isfinite(result.affinities).all()
        for label, chosen in enumerate(result.samples):
            assert len(chosen) == min(9, result.sizes[label])
            assert (result.labels[chosen] == label).all()


@pytest.mark.parametrize("similarity", ["neighborhood", "max_normalized", "local_scaling"])
def test_many_duplicates(similarity):
    rng = np.random.default_rng(5)
    rows = rng.integers(0, 12, 80)
    a, b = rng.normal(size=(2, 12, 3))
    rdx = RDX(2, similarity=similarity).fit(a[rows], b[rows])
    for result in rdx.directions_.values():
        assert np.isfinite(result.affinities).all()
        assert result.sizes.sum() == 80


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_clusters": 240}, "Got n_clusters=240 and the null cluster with n=240 images"),
        ({"n_clusters": 241, "null_cluster": False}, "Got n_clusters=241 with n=240"),
        ({"n_clusters": 241, "clustering": "pagerank"}, "at most as many groups as images"),
        ({"n_clusters": 1, "null_cluster": False}, "expected at least two clusters"),
        ({"n_clusters": 0}, "Got n_clusters=0, expected a positive integer"),
        ({"n_clusters": 2.0}, "Got n_clusters=2.0"),
        ({"num_samples": 0}, "Got num_samples=0"),
        ({"cluster_size": True}, "Got cluster_size=True"),
        ({"clustering": "dbscan"}, "Got clustering='dbscan'"),
        ({"selection": "best"}, "Got selection='best'"),
        ({"device": "tpu"}, "Got device 'tpu'"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        RDX(**options).fit(A, B)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ((A[:1], B[:1]), "Got 1 row"),
        ((A, B[:9]), "expected the same samples in both"),
        ((np.full_like(A, 3.0), B), "constant representation"),
        ((np.where(np.arange(240)[:, None] == 5, np.nan, A), B), "first: row 5"),
    ],
)
def test_unusable_pairs(pair, message):
    with pytest.raises(ValueError, match=message):
        RDX(1).fit(*pair)


def test_half_an_alignment_is_refused():
    with pytest.raises(ValueError, match="Got one mapped representation"):
        RDX(1).fit(A, B, mapped0=A)
    with pytest.raises(ValueError, match="Got mapped1 of shape"):
        RDX(1).fit(A, B, mapped0=A, mapped1=B[:5])


def test_it_is_a_scikit_learn_estimator():
    rdx = RDX(4, gamma=0.05, clustering="pagerank")
    assert clone(rdx).get_params() == rdx.get_params()
    assert RDX().get_params()["n_clusters"] == 3


@pytest.mark.parametrize("symmetrize", ["affinity", "ranks"])
def test_two_large_matrices_at_most(symmetrize):
    """Peak of all arrays: two n x n float32 matrices and blocks of rows (with ranks: two int16 and one float32)."""
    import tracemalloc

    n = 4000
    a, b, _ = planted(n)
    tracemalloc.start()
    try:
        RDX(2, symmetrize=symmetrize).fit(a, b)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.9 * (4 * n * n)


@pytest.mark.parametrize("approximate", ["never", "always"])
def test_parts_of_one_group_are_one_concept_and_two_groups_stay_two(approximate):
    """Three concepts are asked for where one group, or two groups, are merged in the first model."""
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(6), 40)
    where = 6 * rng.normal(size=(6, 8))
    b = where[group] + rng.normal(size=(240, 8))
    for merged, expected in (({1: 0}, 1), ({1: 0, 3: 2}, 2)):
        a = where[[merged.get(one, one) for one in group]] + rng.normal(size=(240, 8))
        options = {"approximate": approximate, "landmarks": 160, "random_state": 1}
        plain = RDX(5, **options).fit(a, b)
        joined = RDX(5, twins=0.15, **options).fit(a, b)
        found = joined.directions_["01"]
        assert len(found.concepts) < len(plain.directions_["01"].concepts)
        strongest = sorted(found.concepts, key=lambda one: -(one.affinity - 1) * one.size)[:expected]
        held = {tuple(sorted(set(group[found.labels == one.label].tolist()))) for one in strongest}
        assert held == {(0, 1), (2, 3)} if expected == 2 else held == {(0, 1)}
        assert any("parts of one group" in note for note in joined.notes_)
        assert sum(one.parts for one in found.concepts) == len(plain.directions_["01"].concepts)
        assert max(one.parts for one in strongest) > 1
        assert all(one.parts == 1 for one in plain.directions_["01"].concepts)
        sizes = np.bincount(found.labels, minlength=len(found.sizes))
        assert (sizes == found.sizes).all()
        assert np.all(np.diff(found.affinities[1:]) >= 0)


def test_a_weak_cluster_does_not_dilute_a_clear_one():
    """Joined are parts that are as close as the stronger one is; what lies near a clear group, but is weak, is not."""
    sizes = np.array([100, 40, 40])
    excess = np.array([[0.0, 0, 0], [0, 20.0, 8.0], [0, 8.0, 18.0]])
    assert join_twins(1 + excess, sizes, 0.15).tolist() == [0, 1, 1]
    excess[1, 2] = excess[2, 1] = 1.2
    excess[1, 1] = 0.4  # the geometric mean of 0.4 and 18 is 2.7
    assert join_twins(1 + excess, sizes, 0.15).tolist() == [0, 1, 2]


def test_twins_is_a_share():
    with pytest.raises(ValueError, match="twins"):
        RDX(2, twins=1.5).fit(np.eye(20), np.eye(20)[::-1])
