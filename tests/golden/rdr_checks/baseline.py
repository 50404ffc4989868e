"""Representative Interpretation and the drawn figures: ``ri_baseline.npz`` and ``visualize.npz``."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import torch
from golden.rdr_checks import arrays, cases, unpacked
from golden.rdr_checks.networks import head, outputs

from rdxcli.methods.regions.representative import Boundaries, Cover, find_boundaries, greedy_cover, sides
from rdxcli.methods.regions.uses import draw_members

RI = "ri_baseline.npz"
AT_BOUNDARY = 0.01


@cache
def _greedy(case: str) -> Cover:
    params = cases(RI)[case]
    match_same, match_else = (arrays(RI)[f"{case}/match_{group}"] for group in ("same", "else"))
    return greedy_cover(match_same, match_else, delta=params["delta"], n_steps=params["n_step"], compat=True)


def check_greedy(match: re.Match[str]) -> None:
    expected, cover = arrays(RI)[f"{match['case']}/{match['field']}"], _greedy(match["case"])
    actual = {
        "selected": lambda: cover.selected(len(expected)),
        "survive_same": lambda: cover.same,
        "survive_else": lambda: cover.other,
    }[match["field"]]()
    np.testing.assert_array_equal(actual, expected)


def _pipeline(name: str) -> np.ndarray:
    return arrays(RI)[f"pipeline/{name}"]


def _predictions() -> np.ndarray:
    return arrays("digits_data.npz")[f"{cases(RI)['pipeline']['model']}/pred"]


@cache
def _features() -> np.ndarray:
    case = cases(RI)["pipeline"]
    return outputs(case["model"])[case["feature_layer"] + 1]


@cache
def _bits() -> np.ndarray:
    Wb = _pipeline("Wb")
    return sides(_features(), Wb[:-1], Wb[-1])


@cache
def _cover() -> tuple[Cover, np.ndarray]:
    """The choice among the stored boundaries and whom it covers."""
    bits, target, y = _bits(), int(_pipeline("target")), _predictions()
    match = bits == bits[target]
    same = y == y[target]
    cover = greedy_cover(match[same], match[~same], compat=True)
    return cover, match[:, cover.order].all(axis=1)


@cache
def _searched() -> Boundaries:
    """Our own search from the stored samples of other classes."""
    case = cases(RI)["pipeline"]
    rest = head(case["model"], case["feature_layer"])
    return find_boundaries(rest, _features(), int(_pipeline("target")), _pipeline("neg"), weight=case["bs_weight"])


def check_pipeline(match: re.Match[str]) -> None:
    field = match["field"]
    expected = _pipeline(field)
    cover, covered = _cover()
    if field == "configs":
        np.testing.assert_array_equal(_bits(), unpacked(expected, _pipeline("Wb").shape[1]).bits())
    elif field == "covered":
        np.testing.assert_array_equal(covered, expected)
        assert covered.sum() == cases(RI)["pipeline"]["n_covered"]
    elif field == "neg_label_selected":
        assert len(cover.order) == cases(RI)["pipeline"]["n_selected"]
        case = cases(RI)["pipeline"]
        points = torch.from_numpy(_pipeline("boundary_points")).reshape(-1, *_features().shape[1:])
        with torch.no_grad():
            second = head(case["model"], case["feature_layer"])(points).topk(2, dim=1).indices[:, 1].numpy()
        np.testing.assert_array_equal(second[cover.selected(len(points))], expected)
    else:
        # The points depend on rounding in a search: each plane vanishes at its own point instead.
        Wb, found = _pipeline("Wb"), _searched()
        np.testing.assert_array_equal(found.rows, _pipeline("neg"))
        for points, W, b in ((_pipeline("boundary_points"), Wb[:-1], Wb[-1]), (found.points, found.W, found.b)):
            assert np.abs(np.einsum("bd,db->b", points, W) + b).max() < AT_BOUNDARY


def check_draw(match: re.Match[str]) -> None:
    expected = arrays("visualize.npz")[match["name"]]
    length, seed = arrays("visualize.npz")[f"{match['name']}_len_seed"].tolist()
    np.testing.assert_array_equal(draw_members(np.arange(length), len(expected), seed), expected)


INPUTS = [r"ri_baseline\.npz:(\w+/match_(same|else)|pipeline/(neg|target))", r"visualize\.npz:draw\d+_len_seed"]
CHECKS = {
    r"ri_baseline\.npz:(?P<case>greedy\d+)/(?P<field>selected|survive_same|survive_else)": check_greedy,
    r"ri_baseline\.npz:pipeline/(?P<field>configs|covered|neg_label_selected|Wb|boundary_points)": check_pipeline,
    r"visualize\.npz:(?P<name>draw\d+)": check_draw,
}
