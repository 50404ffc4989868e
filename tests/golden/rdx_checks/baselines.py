"""Alignment, kernel alignment, baselines, probe."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import torch
from golden.rdx_checks import Case, Compute, compare
from sklearn.cluster import KMeans as LibraryKMeans

from rdxcli.methods.difference.alignment import fit_map
from rdxcli.methods.difference.baselines import autoencoders, classic, nlmcd, usae
from rdxcli.methods.difference.probe import classification_probe
from rdxcli.methods.difference.scores import linear_cka
from rdxcli.methods.difference.similarity import rbf_cka

Check = Callable[[np.ndarray, str], None]
SHOWN = 9


def alignment_map(case: Case) -> dict[str, Any]:
    given, params = case.inputs, case.params
    assert params["optimizer"] == "Adam"
    assert len(given["train_indices_sorted"]) == int(params["train_fraction"] * len(given["R_from"]))
    found = fit_map(
        given["R_from"],
        given["R_to"],
        given["W_init"],
        given["b_init"],
        given["train_indices_sorted"],
        steps=params["num_steps"],
        lr=params["lr"],
    )
    return {
        "train_loss": found.train_loss,
        "test_loss": found.test_loss,
        "W_final": found.weight,
        "mapped": found.apply(given["R_from"]),
    }


def cka_values(case: Case) -> dict[str, Any]:
    source = case.sibling("map_0_to_1").inputs
    pair = source["R_from"], source["R_to"]
    linear = {kind: linear_cka(*pair, debiased=kind == "debiased") for kind in ("biased", "debiased")}
    # The width of the third kernel is not stated: sigma2 is 2 in the name only.
    return {
        **{f"linear_{kind}": value for kind, value in linear.items()},
        **{f"numpy_linear_{kind}": value for kind, value in linear.items()},
        "rbf_median_biased": rbf_cka(*pair, debiased=False),
        "rbf_median_debiased": rbf_cka(*pair),
        "rbf_sigma2_biased": rbf_cka(*pair, sigma2=4.0, debiased=False),
        "numpy_rbf_median_biased": rbf_cka(*pair, debiased=False, middle="mean"),
    }


def _rows_in_any_order(ours: Any) -> Check:
    """Every expected row is one of ours, and none is used twice."""

    def check(expected: np.ndarray, how: str) -> None:
        assert np.shape(ours) == expected.shape
        free = [np.asarray(row) for row in ours]
        for row in expected:
            gaps = [np.abs(candidate - row).max() for candidate in free]
            compare(free.pop(int(np.argmin(gaps))), row, how)

    return check


def _grids(ours: Any) -> Check:
    """The same list of images per concept, concepts in any order."""

    def check(expected: np.ndarray, how: str) -> None:
        assert how.startswith("exact")
        assert sorted(map(tuple, np.asarray(ours).tolist())) == sorted(map(tuple, expected.tolist()))

    return check


def _shown(codes: np.ndarray) -> np.ndarray:
    return np.stack([np.argsort(-codes[:, c], kind="stable")[:SHOWN] for c in range(codes.shape[1])])


def _where_positive(codes: np.ndarray) -> Check:
    """Images of each latent, as far as its code is positive (the rest is padding)."""

    def check(expected: np.ndarray, how: str) -> None:
        assert how.startswith("exact where U > 0")
        for column, mine, theirs in zip(codes.T, _shown(codes), expected, strict=True):
            count = min(int((column > 0).sum()), SHOWN)
            assert mine[:count].tolist() == theirs[:count].tolist()

    return check


def kmeans_case(case: Case) -> dict[str, Any]:
    k, seed = case.params["n_clusters"], case.sibling("inputs").params["seed"]
    out: dict[str, Any] = {}
    for m in (0, 1):
        R = case.inputs[f"R{m}"]
        labels, centers = classic.kmeans(R, k, seed)
        out |= {
            f"labels_{m}": labels,
            f"centers_{m}": _rows_in_any_order(centers),
            f"selected_{m}": _grids(classic.nearest_to(R, centers, SHOWN)),
        }
    return out


def pca_case(case: Case) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for m in (0, 1):
        R = case.inputs[f"R{m}"]
        U, V = classic.pca(R, case.params["n_components"], case.sibling("inputs").params["seed"])
        signs = np.sign((case.array(f"V_{m}") * V).sum(axis=1))
        out |= {
            f"U_{m}": U * signs,
            f"V_{m}": V * signs[:, None],
            f"recon_err_{m}": np.linalg.norm(R - (U @ V + R.mean(axis=0))),
            f"selected_{m}": _shown(U * signs),
        }
    return out


def nmf_case(case: Case) -> dict[str, Any]:
    shared = case.sibling("inputs").params
    out: dict[str, Any] = {}
    for m in (0, 1):
        R = case.inputs[f"R{m}"]
        U, V = classic.nmf(R, shared["k"], shared["seed"], case.params["max_iter"], case.params["tol"])
        out |= {
            f"U_{m}": U,
            f"V_{m}": V,
            f"recon_err_{m}": np.linalg.norm(R - U @ V),
            f"selected_{m}": _grids(_shown(U)),
        }
    return out


def cnmf_case(case: Case) -> dict[str, Any]:
    k = case.sibling("inputs").params["k"]
    out: dict[str, Any] = {}
    for m in (0, 1):
        X = case.inputs[f"R{m}"] - 1
        U, V, G, errors = classic.convex_nmf(X, case.inputs[f"init_assign_{m}"], k, case.params["niter"])
        out |= {
            f"U_{m}": U,
            f"V_{m}": V,
            f"G_{m}": G,
            f"frobenius_per_iteration_{m}": errors,
            f"selected_{m}": _shown(U),
        }
    return out


def snmf_case(case: Case) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for m in (0, 1):
        U, V = classic.semi_nmf(case.inputs[f"R{m}"] - 1, case.inputs[f"H_init_{m}"].T, case.params["niter"])
        out |= {f"U_{m}": U, f"V_{m}": V, f"selected_{m}": _shown(U)}
    return out


def sae_case(case: Case) -> dict[str, Any]:
    params, given = case.params, case.inputs
    assert params["normalize_w_dec"]
    assert params["remove_parallel_grads"]
    names = ("W_enc", "b_enc", "W_dec", "b_dec")
    out: dict[str, Any] = {}
    for m in (0, 1):
        X, used = autoencoders.standardised(given[f"R{m}"])
        assert used.all()
        trained = autoencoders.train_sae(
            X,
            {name: torch.tensor(given[f"init_{name}_{m}"]) for name in names},
            epochs=params["n_epochs"],
            batch_size=params["sae_batch_size"],
            lr=params["lr"],
            warmup=params["n_lr_warmup"],
            sparsity=params["sparsity_coeff"],
            generator=torch.Generator().manual_seed(0),
        )
        codes = autoencoders.sae_codes(torch.tensor(given[f"R{m}"]), trained.weights).numpy()
        out |= {f"final_{name}_{m}": trained.weights[name].numpy() for name in names}
        out |= {f"mse_history_{m}": trained.history, f"U_{m}": codes, f"selected_{m}": _where_positive(codes)}
    return out


def topk_case(case: Case) -> dict[str, Any]:
    params, given = case.params, case.inputs
    out: dict[str, Any] = {}
    for m in (0, 1):
        assert given[f"init_dictionary.multiplier_{m}"] == 0
        X = torch.tensor(given[f"R{m}"])
        start = {
            "weight": given[f"init_encoder.final_block.0.weight_{m}"],
            "bias": given[f"init_encoder.final_block.0.bias_{m}"],
            "dictionary": given[f"init_dictionary._weights_{m}"],
        }
        trained = autoencoders.train_topk(
            X,
            {name: torch.tensor(value) for name, value in start.items()},
            k=params["top_k"],
            epochs=params["n_epochs"],
            batch_size=params["batch_size"],
            lr=params["lr"],
            clip=params["clip_grad"],
        )
        codes = autoencoders.topk_codes(X, trained.weights, params["top_k"]).numpy()
        top = autoencoders.largest_mean(codes, len(case.array(f"top_latents_{m}")))
        out |= {
            f"top_latents_{m}": top,
            f"loss_history_{m}": trained.history,
            f"U_{m}": codes[:, top],
            f"selected_{m}": _where_positive(codes[:, top]),
        }
    return out


def usae_case(case: Case) -> dict[str, Any]:
    params, given = case.params, case.inputs
    data = [torch.tensor(given[f"R{m}"]) for m in (0, 1)]
    names = {
        "weight": "encoder_final_block_0_weight",
        "bias": "encoder_final_block_0_bias",
        "scale": "encoder_final_block_1_weight",
        "shift": "encoder_final_block_1_bias",
        "running_mean": "encoder_final_block_1_running_mean",
        "running_var": "encoder_final_block_1_running_var",
        "dictionary": "dictionary__weights",
    }
    start = [{name: torch.tensor(given[f"init_repr_{m}_{key}"]) for name, key in names.items()} for m in (0, 1)]
    k, batch = params["sae_params"]["top_k"], params["sae_batch_size"]
    weights, history = usae.train_usae(
        data,
        start,
        given["encoder_sequence"],
        k=k,
        schedule=usae.Schedule.of(len(data[0]), batch, params["n_epochs"], params["lr"], params["final_lr"], True),
        batch_size=batch,
        weight_decay=params["weight_decay"],
        clip=params["clip_grad"],
        auxiliary=0.1,
        generator=torch.Generator().manual_seed(0),
    )
    codes = [usae.analysis_codes(X, w, k, params["analysis_batch"]).numpy() for X, w in zip(data, weights, strict=True)]
    rows = [usae.unit(w["dictionary"]).numpy() for w in weights]
    count = params["num_concepts_for_user"]
    whole = len(data[0]) - len(data[0]) % params["analysis_batch"]
    choice = usae.choose_latents([one[:whole] for one in codes], rows, count, params["threshold"])
    full = [usae.usae_codes(X, w, k, training=True).numpy() for X, w in zip(data, weights, strict=True)]
    stored = {name: case.array(name) for name in ("energies", "energy_order", "entropy_sorted_by_energy")}

    def same_up_to_ties(values: np.ndarray) -> Callable[[np.ndarray], Check]:
        """Two lists of places or latents hold the same values of what they were sorted by."""

        def outer(ours: np.ndarray) -> Check:
            def check(expected: np.ndarray, how: str) -> None:
                assert "ties" in how
                np.testing.assert_allclose(values[ours], values[expected], rtol=1e-4, atol=1e-8)

            return check

        return outer

    by_place = same_up_to_ties(stored["entropy_sorted_by_energy"])
    by_latent = np.empty_like(stored["entropy_sorted_by_energy"])
    by_latent[stored["energy_order"]] = stored["entropy_sorted_by_energy"]
    # Entropies and probabilities are compared given the stored order.
    p = (choice.fires / (choice.fires.sum(axis=0) + usae.TINY)).T[stored["energy_order"]]
    out: dict[str, Any] = {
        "loss_history": history,
        "energies": choice.energies,
        "energy_order": same_up_to_ties(stored["energies"])(choice.order),
        "prob_sorted_by_energy": p,
        "entropy_sorted_by_energy": -(p * np.log2(p + usae.TINY)).sum(axis=1),
    }
    for m in (0, 1):
        picked = case.array(f"top_as_coded_{m}")
        out |= {
            f"codes_{m}": codes[m],
            f"fires_{m}": choice.fires[m],
            f"top_as_coded_{m}": by_place(choice.places[m]),
            f"top_intended_{m}": same_up_to_ties(by_latent)(choice.latents[m]),
            f"U_as_coded_{m}": full[m][:, picked],
            f"selected_as_coded_{m}": _where_positive(full[m][:, picked]),
        }
    return out


def nlmcd_case(case: Case) -> dict[str, Any]:
    params = case.params
    out: dict[str, Any] = {}
    found, orders = [], []
    for m in (0, 1):
        E = case.inputs[f"E{m}"]
        clusters = nlmcd.soft_clusters(E, params["min_cluster_size"], params["min_samples"])
        stored = case.array(f"soft_{m}")
        assert clusters.count == stored.shape[1]
        # Columns of ours that belong to the stored ones, by their values.
        gaps = np.abs(clusters.soft[:, :, None] - stored[:, None, :]).max(axis=0)
        order = gaps.argmin(axis=0)
        assert sorted(order) == list(range(clusters.count))
        found.append(clusters)
        orders.append(order)
        out |= {
            f"hdbscan_labels_{m}": clusters.labels,
            f"soft_{m}": clusters.soft[:, order],
            f"hard_{m}": clusters.hard,
            f"centroids_{m}": clusters.centroids(E)[order],
        }
    stride = params["subsample_stride"]
    difference = nlmcd.cluster_difference(*(c.soft[::stride][:, o] for c, o in zip(found, orders, strict=True)))
    out["difference"] = difference
    out["match"] = nlmcd.best_match(difference)
    for m in (0, 1):
        smallest = difference.min(axis=1 - m)
        out[f"min_difference_{m}"] = smallest
        for name, most_shared in (("as_coded", True), ("as_documented", False)):
            picked = nlmcd.pick(smallest, params["n_concepts"], most_shared=most_shared)
            out[f"picked_{name}_{m}"] = _same_values(smallest, picked)
    return out


def _same_values(values: np.ndarray, picked: np.ndarray) -> Check:
    def check(expected: np.ndarray, how: str) -> None:
        assert how == "exact up to cluster order and ties"
        np.testing.assert_allclose(np.sort(values[picked]), np.sort(values[expected]), rtol=1e-9)

    return check


def _overlap(ours: np.ndarray, turned: bool = False) -> Check:
    """At least so many images per concept agree, concepts (and signs) matched as well as possible."""

    def check(expected: np.ndarray, how: str) -> None:
        least = int(number_of_images(how))
        choices = [[row, *([other] if turned else [])] for row, other in zip(ours[0], ours[1], strict=True)]
        shared = np.array(
            [
                [max(len(set(mine.tolist()) & set(row.tolist())) for mine in either) for row in expected]
                for either in choices
            ]
        )
        best = max(
            min(shared[place[c], c] for c in range(len(expected))) for place in permutations(range(len(expected)))
        )
        assert best >= least

    return check


def number_of_images(how: str) -> int:
    """``>= 8 of 9 ...`` says 8."""
    assert how.startswith(">= ")
    return int(how.split()[1])


def digits_decomposition(case: Case) -> dict[str, Any]:
    given = case.inputs
    out: dict[str, Any] = {}
    k = len(case.array("selected_0"))
    for m in (0, 1):
        R = given[f"R{m}"].astype(np.float64)
        if case.name == "pca":
            U, _ = classic.pca(R, k, 0)
        else:
            U, _ = classic.nmf(R, k, 0)
        out[f"selected_{m}"] = _overlap(np.stack([_shown(U), _shown(-U)]), turned=case.name == "pca")
    return out


def digits_cnmf(case: Case) -> dict[str, Any]:
    """The stored k-means start is not part of the files, so that the manifest calls these grids informative.

    What can be checked: from some k-means start the stored grids come back, or convex NMF lowers its objective and its
    grids hold the digits that the stored ones hold. The stored grids follow from ten iterations.
    """
    given = case.inputs
    out: dict[str, Any] = {}
    for m in (0, 1):
        R = given[f"R{m}"].astype(np.float64)
        k = len(case.array(f"selected_{m}"))
        grids, errors = [], []
        for seed in range(4):
            assignment = LibraryKMeans(k, random_state=seed, n_init=1, init="random", max_iter=10).fit_predict(R)
            U, _, _, error = classic.convex_nmf(R, assignment, k, 10)
            grids.append(_shown(U))
            errors.append(error)

        def check(expected: np.ndarray, how: str, grids=grids, errors=errors) -> None:
            assert "same k-means assignment, else informative" in how
            assert all((np.diff(error) <= 1e-9 * error[0]).all() for error in errors)
            classes = given["labels"]
            theirs = set(classes[expected.ravel()].tolist())
            assert max(len(theirs & set(classes[grid.ravel()].tolist())) for grid in grids) >= len(theirs) / 2

        out[f"selected_{m}"] = check
    return out


def probe_case(case: Case) -> dict[str, Any]:
    given = case.inputs
    R0, R1 = given["R0"], given["R1"]
    found = classification_probe(R0, R1, given["labels"], folds=case.params["folds"], published_split=True)

    def predictions(expected: np.ndarray, how: str) -> None:
        assert how == ">= 0.995 equal"
        assert (found.classes[found.predictions] == expected).mean(axis=1).min() >= 0.995

    wide = R0.astype(np.float64), R1.astype(np.float64)
    return {
        "predictions": predictions,
        "accuracy": found.accuracy,
        "agreement": found.agreement,
        "cka_linear_debiased": linear_cka(*wide),
        "cka_linear_biased": linear_cka(*wide, debiased=False),
    }


CHECKS: dict[str, Compute] = {
    "alignment_cka.npz:map_*": alignment_map,
    "alignment_cka.npz:cka": cka_values,
    "baselines_classic.npz:kmeans": kmeans_case,
    "baselines_classic.npz:pca": pca_case,
    "baselines_classic.npz:nmf": nmf_case,
    "baselines_classic.npz:cnmf": cnmf_case,
    "baselines_classic.npz:snmf": snmf_case,
    "baselines_sae.npz:sae": sae_case,
    "baselines_sae.npz:topk_sae": topk_case,
    "baselines_sae.npz:usae": usae_case,
    "baselines_nlmcd.npz": nlmcd_case,
    "digits.npz:nmf": digits_decomposition,
    "digits.npz:pca": digits_decomposition,
    "digits.npz:cnmf": digits_cnmf,
    "digits.npz:probe_cka": probe_case,
}
