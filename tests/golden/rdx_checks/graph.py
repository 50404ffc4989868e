"""Distances, difference graphs, clustering, choice of images, scores: the RDX method itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from golden.rdx_checks import Case, Compute, compare, padded
from sklearn.metrics import adjusted_rand_score

from rdxcli.methods.difference.centrality import eigenvector_centrality, pagerank
from rdxcli.methods.difference.graph import DIRECTIONS, DifferenceGraph
from rdxcli.methods.difference.grids import choose_images
from rdxcli.methods.difference.rdx import RDX
from rdxcli.methods.difference.scores import EvaluationDistances, score_grids
from rdxcli.methods.difference.subsample import choose_per_class
from rdxcli.numerics.spectral import spectral_embedding

SIMILARITY = {
    "neighborhood": "neighborhood",
    "max_normalized_distance": "max_normalized",
    "zp_local_scaling": "local_scaling",
}
CLUSTERING = {"spectral": "spectral", "pagerank": "pagerank", "eig_centrality": "eigenvector"}


def _graph(R0: np.ndarray, R1: np.ndarray, params: Mapping[str, Any], **options: Any) -> DifferenceGraph:
    similarity = SIMILARITY[params.get("sim_function", "neighborhood")]
    return DifferenceGraph(
        R0,
        R1,
        similarity=similarity,
        difference=params.get("diff_function", "locally_biased"),
        gamma=params.get("gamma"),
        gamma_scale=params.get("gamma_scale", 80),
        beta=params.get("beta", 5),
        normalize=params.get("normalize_diff_mat_by_abs_max", False),
        sigma=params.get("sigma", 7),
        transposed_scaling=similarity == "local_scaling",  # these golden graphs hold the original's slip
        dtype="float64",
        **options,
    )


ALL = slice(None)


def _zero_diagonal(ours: np.ndarray) -> Callable[[np.ndarray, str], None]:
    """As the manifest says, but for the distance of a point to itself: ours is zero, the stored one is rounding error.

    The original takes the root of |x|^2 + |x|^2 - 2 x.x, which leaves up to about 1e-8 |x| there.
    """

    def check(expected: np.ndarray, how: str) -> None:
        off = ~np.eye(len(expected), dtype=bool)
        compare(ours[off], expected[off], how)
        assert (np.diag(ours) == 0).all()
        assert np.abs(np.diag(expected)).max() <= 1e-7 * expected.max()

    return check


def distances_generic(case: Case) -> dict[str, Any]:
    R0, R1 = case.inputs["R0"], case.inputs["R1"]
    sigma = case.params["sigma"]
    rank = _graph(R0, R1, {})
    scaled = {
        name: DifferenceGraph(R0, R1, similarity=name, sigma=sigma, dtype="float64")
        for name in ("max_normalized", "local_scaling")
    }
    slip = DifferenceGraph(R0, R1, similarity="local_scaling", sigma=sigma, dtype="float64", transposed_scaling=True)
    out: dict[str, Any] = {"zp1_as_coded": slip.distances(1, ALL)}
    for m in (0, 1):
        out[f"euclid{m}"] = _zero_diagonal(rank.points[m].distances(ALL))
        out[f"nb_rank{m}"] = rank.distances(m, ALL)
        out[f"mn{m}"] = _zero_diagonal(scaled["max_normalized"].distances(m, ALL))
        out["zp0" if m == 0 else "zp1_correct"] = scaled["local_scaling"].distances(m, ALL)
        out[f"eval_silb{m}"] = EvaluationDistances(R0, R1, "silb").rows(m, ALL)
        out[f"eval_mned{m}"] = _zero_diagonal(EvaluationDistances(R0, R1, "mned").rows(m, ALL))
    neighbour = case.params["scaling_neighbor"]
    slip_eval = EvaluationDistances(R0, R1, "zplsed", sigma=neighbour, compat=True)
    out["eval_zp0"] = slip_eval.rows(0, ALL)
    out["eval_zp1_as_coded"] = slip_eval.rows(1, ALL)
    # Similarities of the original's evaluation, which are functions of its distances.
    out["eval_silb_sim0"] = 1.0 - out["eval_silb0"] / out["eval_silb0"].max()
    out["eval_zp_sim0"] = np.exp(-out["eval_zp0"])
    return out


def distances_ties(case: Case) -> dict[str, Any]:
    R0 = case.inputs["R0"]
    out: dict[str, Any] = {}
    for dtype in ("float64", "float32"):
        found = DifferenceGraph(R0, R0, dtype=dtype).distances(0, ALL)
        assert (np.sort(found, axis=1) == np.arange(len(R0))).all()
        assert (np.diag(found) == 0).all()
        out[dtype] = found

    def at_least(expected: np.ndarray, how: str) -> None:
        assert how == "lo <= rank <= hi"
        assert all((found >= expected).all() for found in out.values())

    def at_most(expected: np.ndarray, how: str) -> None:
        assert how == "lo <= rank <= hi"
        assert all((found <= expected).all() for found in out.values())

    return {"tie_lo": at_least, "tie_hi": at_most}


def distances_offset(case: Case) -> dict[str, Any]:
    R0 = case.inputs["R0"]

    def check(expected: np.ndarray, how: str) -> None:
        assert how == "exact"
        for dtype in ("float64", "float32"):
            np.testing.assert_array_equal(DifferenceGraph(R0, R0, dtype=dtype).distances(0, ALL), expected)

    return {"nb_rank_float64": check}


def _matrices(graph: DifferenceGraph) -> dict[str, Any]:
    affinity = graph.affinity()
    out: dict[str, Any] = {f"am_{direction}": affinity.rows(direction, ALL) for direction in DIRECTIONS}
    return out | {f"diff_{direction}": graph.difference(ALL, direction) for direction in DIRECTIONS}


def graph_case(case: Case) -> dict[str, Any]:
    graph = _graph(case.inputs["R0"], case.inputs["R1"], case.params)
    if "gamma_effective" in case.params:
        assert graph.gamma == case.params["gamma_effective"]
    return _matrices(graph)


def guidance_case(case: Case) -> dict[str, Any]:
    given = case.inputs
    kind = case.params["guidance"]
    aligned = "preds_rows_for_10" in case.params
    labels: dict[str, tuple[Any, Any]] = {direction: (None, None) for direction in DIRECTIONS}
    if kind == "ground_truth":
        labels = {direction: (given["labels"], given["labels"]) for direction in DIRECTIONS}
    elif kind == "classifier":
        for direction in DIRECTIONS:
            rows = case.params[f"preds_rows_for_{direction}"] if aligned else (0, 1)
            labels[direction] = (given["preds"][rows[0]], given["preds"][rows[1]])
    else:
        assert kind is None
    if not aligned:
        graph = _graph(given["R0"], given["R1"], case.params, labels0=labels["01"][0], labels1=labels["01"][1])
        return _matrices(graph) | {f"r{m}_dm": graph.distances(m, ALL) for m in (0, 1)}
    pairs = {"10": (given["R0_mapped"], given["R1"]), "01": (given["R0"], given["R1_mapped"])}
    out: dict[str, Any] = {}
    graphs = {}
    for direction, (first, second) in pairs.items():
        graphs[direction] = _graph(
            first, second, case.params, labels0=labels[direction][0], labels1=labels[direction][1]
        )
        matrices = _matrices(graphs[direction])
        out |= {name: matrices[name] for name in (f"am_{direction}", f"diff_{direction}")}
    # The unmapped side of each graph is the one reported.
    return out | {"r0_dm": graphs["01"].distances(0, ALL), "r1_dm": graphs["10"].distances(1, ALL)}


def _matched(ours: np.ndarray, labels: np.ndarray, theirs: np.ndarray) -> Callable[[np.ndarray, str], None]:
    """Affinities per cluster are compared between the clusters that share most members, and must ascend."""

    def check(expected: np.ndarray, how: str) -> None:
        count = len(expected)
        assert len(ours) == count
        assert (np.diff(ours) >= 0).all()
        partner = [np.bincount(theirs[labels == label], minlength=count).argmax() for label in range(count)]
        assert len(set(partner)) == count
        compare(ours, expected[partner], how)

    return check


def spectral_case(case: Case) -> dict[str, Any]:
    params = case.params
    rdx = RDX(
        params["n_clusters"],
        gamma=params["gamma"],
        beta=params["beta"],
        null_cluster=params["add_null_cluster"],
        clustering=CLUSTERING[params["clustering_method"]],
        dtype="float64",
        random_state=params["seed"],
    )
    R0, R1 = case.inputs["R0"], case.inputs["R1"]
    rdx.fit(R0, R1)
    affinity = _graph(R0, R1, params).affinity()
    out: dict[str, Any] = {}
    for direction in DIRECTIONS:
        result = rdx.directions_[direction]
        theirs = case.array(f"labels_{direction}")
        out[f"labels_{direction}"] = result.labels
        # Mean affinities are compared on the stored partition: ours may differ where the comparison of labels allows.
        within = affinity.within(direction, theirs)
        means = np.bincount(theirs, weights=within) / np.bincount(theirs)
        out[f"mean_affinity_{direction}"] = _matched(means, theirs, theirs)
        if adjusted_rand_score(theirs, result.labels) == 1.0:
            np.testing.assert_allclose(np.sort(means), result.affinities, rtol=1e-9)
        wanted = len(case.array(f"laplacian_eigenvalues_{direction}"))
        embedding = spectral_embedding(affinity.symmetric(direction), wanted, np.random.default_rng(0))
        out[f"laplacian_eigenvalues_{direction}"] = embedding.eigenvalues
    return out


def centrality_case(case: Case) -> dict[str, Any]:
    params = case.params
    R0, R1 = case.inputs["R0"], case.inputs["R1"]
    affinity = _graph(R0, R1, params).affinity()
    out: dict[str, Any] = {}
    for direction in DIRECTIONS:
        weights = affinity.symmetric(direction, lower=True)
        out[f"pagerank_{direction}"] = pagerank(weights, params["pagerank_alpha"], params["pagerank_tol"])
        out[f"eigenvector_{direction}"] = eigenvector_centrality(weights, np.random.default_rng(0))
    for name in ("pagerank", "eig_centrality"):
        rdx = RDX(
            params["n_clusters"],
            clustering=CLUSTERING[name],
            cluster_size=params["cluster_size"],
            gamma=params["gamma"],
            beta=params["beta"],
            dtype="float64",
        ).fit(R0, R1)
        for direction in DIRECTIONS:
            out[f"{name}_labels_{direction}"] = rdx.directions_[direction].labels
    return out


def selection_case(case: Case) -> dict[str, Any]:
    given = case.inputs
    shared = case.sibling("inputs").params
    graph = _graph(given["R0"], given["R1"], shared)
    affinity = graph.affinity()
    out: dict[str, Any] = {}
    for direction, own in zip(DIRECTIONS, graph.points, strict=True):
        labels = given[f"labels_{direction}"]
        size = case.params["num_samples"]
        chosen = choose_images(case.name, affinity, direction, labels, own, size, np.random.default_rng(0))
        out[f"selected_{direction}"] = padded(chosen, size)
    return out


def metrics_case(case: Case) -> dict[str, Any]:
    given = case.inputs
    start = {"with_null": 1, "no_null": 0}[case.name.rsplit("_", 1)[0]]
    scores = score_grids(
        given["R0"],
        given["R1"],
        given["grids_01"][start:],
        given["grids_10"][start:],
        case.params["distance"],
        compat=case.params["bug_compatible"],
    )
    out: dict[str, Any] = {"mBSR": scores.mean_bsr, "mTSD": scores.mean_difference}
    for number, one in enumerate((scores.first, scores.second)):
        out |= {
            f"binary_{number}": one.bsr,
            f"equal_{number}": one.ties,
            f"difference_{number}": one.difference,
            f"total_{number}": one.pairs,
        }
    return out | {"mean_distance_0": scores.mean_distance_0, "mean_distance_1": scores.mean_distance_1}


def subsample_case(case: Case) -> dict[str, Any]:
    params = case.params
    order, rows = choose_per_class(
        case.inputs["labels"], params["num_images"], classes=params["target_classes"], seed=params["seed"]
    )
    return {"class_order": order, "chosen_index": rows}


def digits_ranks(case: Case) -> dict[str, Any]:
    graph = _graph(case.inputs["R0"], case.inputs["R1"], {"gamma": 0.1, "beta": 5})
    rows = np.array(case.params["rows"])
    out: dict[str, Any] = {f"rank{m}_rows": graph.distances(m, rows) for m in (0, 1)}
    out["am_10_rows"] = np.exp(-graph.beta * graph.difference(rows))
    return out


def digits_rdx(case: Case) -> dict[str, Any]:
    params, given = case.params, case.inputs
    merged = case.sibling("inputs").params["merged_digits"]
    rdx = RDX(
        params["n_clusters"],
        similarity=SIMILARITY[params["sim_function"]],
        difference=params["diff_function"],
        clustering=params["clustering"],
        gamma=params["gamma"],
        beta=params["beta"],
        null_cluster=params["add_null_cluster"],
        num_samples=params["num_samples"],
        selection=params["strategy"],
    ).fit(given["R0"], given["R1"])
    grids = {direction: rdx.directions_[direction].samples[1:] for direction in DIRECTIONS}
    scores = score_grids(given["R0"], given["R1"], grids["01"], grids["10"])
    out: dict[str, Any] = {}
    for direction, score in zip(DIRECTIONS, (scores.first, scores.second), strict=True):
        result = rdx.directions_[direction]
        theirs = case.array(f"labels_{direction}")
        shown = given["labels"][np.concatenate(grids[direction])]
        hit, bsr = float(np.isin(shown, merged).mean()), score.bsr
        same = adjusted_rand_score(theirs, result.labels) == 1.0

        def behaves(expected: np.ndarray, how: str, *, hit=hit, bsr=bsr, same=same, mine=result.samples) -> None:
            assert how.startswith("behavioural: over non-null grids hit >= 0.95 and BSR(silb) >= 0.88")
            assert hit >= 0.95
            assert bsr >= 0.88
            if same:
                assert [set(row.tolist()) for row in mine] == [set(row.tolist()) - {-1} for row in expected]

        out[f"labels_{direction}"] = result.labels
        out[f"mean_affinity_{direction}"] = _matched(result.affinities, result.labels, theirs)
        out[f"selected_{direction}"] = behaves
    return out


CHECKS: dict[str, Compute] = {
    "distances.npz:generic*": distances_generic,
    "distances.npz:ties*": distances_ties,
    "distances.npz:float32_offset*": distances_offset,
    "graph.npz": graph_case,
    "guidance.npz": guidance_case,
    "clustering.npz": spectral_case,
    "clustering.npz:centrality*": centrality_case,
    "selection.npz": selection_case,
    "metrics.npz": metrics_case,
    "metrics.npz:image_group_*": subsample_case,
    "digits.npz:ranks": digits_ranks,
    "digits.npz:rdx_*": digits_rdx,
}
