"""Neighbours, neurons, regions: ``selection_synth.npz`` and ``digits_rdr.npz``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import numpy as np
from golden.rdr_checks import arrays, cases, unpacked

from rdxcli.methods.regions.catalogue import jaccard
from rdxcli.methods.regions.configurations import Configurations
from rdxcli.methods.regions.rdr import RDR
from rdxcli.methods.regions.selection import Rule, rank_neurons, unanimous
from rdxcli.numerics import hamming

SYNTH, DIGITS = "selection_synth.npz", "digits_rdr.npz"
NONE = -999


@dataclass(frozen=True)
class Selection:
    """Our neurons, states, scores and samples for given neighbours."""

    configurations: Configurations
    neighbours: np.ndarray
    t: int | None
    ranked: Rule  # all unanimous neurons

    @classmethod
    def make(cls, configurations: Configurations, order: np.ndarray, k: int, t: int) -> Selection:
        neighbours = order[:k]  # negative k: slice semantics of the original
        limit = None if t == NONE else t
        return cls(configurations, neighbours, limit, rank_neurons(configurations, neighbours))

    @property
    def rule(self) -> Rule:
        part = slice(None, self.t)  # negative t: likewise
        rule = Rule(self.ranked.neurons[part], self.ranked.states[part], self.ranked.scores[part])
        if self.t is None or self.t >= 0:
            short = rank_neurons(self.configurations, self.neighbours, self.t)
            np.testing.assert_array_equal(short.neurons, rule.neurons)
            np.testing.assert_array_equal(short.scores, rule.scores)
            assert short.tied == self.tied
        return rule

    @property
    def tied(self) -> bool:
        """Equal scores on both sides of the cut."""
        scores, cut = self.ranked.scores, len(self.ranked.scores[: self.t])
        return 0 < cut < len(scores) and scores[cut - 1] == scores[cut]

    @property
    def samples(self) -> np.ndarray:
        return self.rule.matches(self.configurations)

    def check_raw(self, neurons: np.ndarray, states: np.ndarray, samples: np.ndarray) -> None:
        """Another order of ties: the same scores, nothing better left out, exact membership."""
        rank = {int(neuron): i for i, neuron in enumerate(self.ranked.neurons)}
        assert set(neurons.tolist()) <= set(rank), "a neuron is not unanimous"
        places = np.array([rank[int(neuron)] for neuron in neurons], dtype=np.int64)
        scores = self.ranked.scores[places]
        np.testing.assert_array_equal(np.sort(scores)[::-1], self.rule.scores)
        if len(scores):
            better = self.ranked.neurons[self.ranked.scores > scores.min()]
            assert set(better.tolist()) <= set(neurons.tolist())
        np.testing.assert_array_equal(states.astype(bool), self.ranked.states[places])
        found = hamming.rule_matches(self.configurations.words, neurons, states.astype(bool))
        np.testing.assert_array_equal(found, samples)


# selection_synth


@cache
def _synth(case: str, order: str = "neighbors") -> Selection:
    given = {key.split("/")[1]: value for key, value in arrays(SYNTH).items() if key.startswith(f"{case}/")}
    configurations = unpacked(given["configs"], int(given["shape"][1]))
    assert configurations.n == given["shape"][0]
    return Selection.make(configurations, given.get(order, given["neighbors"]), int(given["k"]), int(given["t"]))


def check_synth(match: re.Match[str]) -> None:
    case, field = match["case"], match["field"]
    expected = arrays(SYNTH)[f"{case}/{field}"]
    ours = _synth(case)
    if field == "dist":
        target = int(arrays(SYNTH)[f"{case}/neighbors"][0])
        np.testing.assert_array_equal(ours.configurations.distances(target), expected)
        order = hamming.smallest(expected, len(expected))
        np.testing.assert_array_equal(order, arrays(SYNTH)[f"{case}/neighbors"])
        return
    actual = {
        "neurons": lambda: ours.rule.neurons,
        "states": lambda: ours.rule.states,
        "score": lambda: ours.rule.scores,
        "samples": lambda: ours.samples,
        "unanimous": lambda: unanimous(ours.configurations, ours.neighbours)[0],
        "pop_mean": lambda: ours.configurations.counts / ours.configurations.n,
    }[field]()
    np.testing.assert_array_equal(actual, expected)


def check_synth_raw(match: re.Match[str]) -> None:
    """The three raw arrays belong together; each is checked with the others."""
    given, case = arrays(SYNTH), match["case"]
    fields = (given[f"{case}/raw_{name}"] for name in ("neurons", "states", "samples"))
    _synth(case, "raw_neighbors").check_raw(*fields)


# digits_rdr


@cache
def _configurations(net: str, layer: str) -> Configurations:
    key = f"{net}/{layer}"
    width = cases("digits_activations.npz")[key]["neurons"]
    return unpacked(arrays("digits_activations.npz")[f"{key}/configs"], width)


@cache
def _runs(net: str, layer: str, order: str) -> list[Selection]:
    """One selection per row (target, k, t, unanimous) of ``runs``."""
    given, key = arrays(DIGITS), f"{net}/{layer}"
    position = {int(target): i for i, target in enumerate(given[f"{net}/targets"])}
    configurations = _configurations(net, layer)
    return [
        Selection.make(configurations, given[f"{key}/{order}"][position[int(target)]], int(k), int(t))
        for target, k, t, _ in given[f"{key}/runs"]
    ]


def check_digits(match: re.Match[str]) -> None:
    net, layer, field = match["net"], match["layer"], match["field"]
    given, key = arrays(DIGITS), f"{net}/{layer}"
    expected = given[f"{key}/{field}"]
    configurations, targets = _configurations(net, layer), given[f"{net}/targets"]
    if field == "dist":
        actual = np.stack([configurations.distances(int(target)) for target in targets])
        np.testing.assert_array_equal(actual, expected)
        return
    if field == "order64":
        width = expected.shape[1]
        for strategy in ("xor", "product"):
            index, _ = hamming.nearest(configurations.words, configurations.m, targets, width, strategy=strategy)
            np.testing.assert_array_equal(index, expected)
        return
    if field == "raw_order64":
        rows = given[f"{key}/dist"]
        np.testing.assert_array_equal(
            np.take_along_axis(rows, expected.astype(np.int64), axis=1),
            np.take_along_axis(rows, given[f"{key}/order64"].astype(np.int64), axis=1),
        )
        return
    runs = _runs(net, layer, "order64")
    if field == "runs":
        assert [len(run.ranked) for run in runs] == expected[:, 3].tolist()
        return
    if field == "tie_at_cut":
        assert [run.tied for run in runs] == expected.astype(bool).tolist()
        return
    name = field.removesuffix("_off")
    parts = {
        "neurons": lambda run: run.rule.neurons,
        "states": lambda run: run.rule.states,
        "score": lambda run: run.rule.scores,
        "samples": lambda run: run.samples,
    }[name]
    values = [parts(run) for run in runs]
    if field.endswith("_off"):
        values = [np.concatenate([[0], np.cumsum([len(value) for value in values])])]
    np.testing.assert_array_equal(np.concatenate(values), expected)


def check_digits_raw(match: re.Match[str]) -> None:
    """All raw arrays of a layer together, whichever of them is asked for."""
    given, key = arrays(DIGITS), f"{match['net']}/{match['layer']}"

    def part(name: str, offsets: str, j: int) -> np.ndarray:
        off = given[f"{key}/raw_{offsets}_off"]
        return given[f"{key}/raw_{name}"][off[j] : off[j + 1]]

    for name in ("neurons", "samples"):
        off = given[f"{key}/raw_{name}_off"]
        assert off[0] == 0
        assert off[-1] == len(given[f"{key}/raw_{name}"])
    for j, run in enumerate(_runs(match["net"], match["layer"], "raw_order64")):
        run.check_raw(part("neurons", "neurons", j), part("states", "neurons", j), part("samples", "samples", j))


@cache
def _fitted(net: str, layer: str) -> RDR:
    """The estimator with the first (k, t) of the grid, on the targets of the vectors."""
    given = arrays(DIGITS)
    _, k, t, _ = given[f"{net}/{layer}/runs"][0].tolist()
    data = arrays("digits_data.npz")
    return RDR(k, None if t == NONE else t).fit(
        _configurations(net, layer),
        targets=given[f"{net}/targets"],
        labels=data["digit"],
        predictions=data[f"{net}/pred"],
    )


def _layers(net: str) -> list[str]:
    found = {key.split("/")[1] for key in arrays(DIGITS) if key.startswith(f"{net}/L")}
    return sorted(found, key=lambda layer: int(layer[1:]))


def _counts(fit: RDR, kind: str, width: int) -> np.ndarray:
    rows = [getattr(region, f"{kind}_counts") for region in fit.regions_]
    return np.array([[row.get(str(name), 0) for name in range(width)] for row in rows])


def check_layers(match: re.Match[str]) -> None:
    expected = arrays(DIGITS)[f"layers/{match['field']}"]
    fits = [_fitted("conv", layer) for layer in _layers("conv")]
    assert expected.shape[1] == len(fits)
    if match["field"] == "jaccard":
        actual = [
            [[jaccard(a.regions_[i].members, b.regions_[i].members) for b in fits] for a in fits]
            for i in range(len(expected))
        ]
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)
    elif match["field"] == "region_size":
        sizes = [[len(region.members) for region in fit.regions_] for fit in fits]
        np.testing.assert_array_equal(np.array(sizes).T, expected)
    else:
        kind = "true" if match["field"] == "digit_counts" else "predicted"
        counts = [_counts(fit, kind, expected.shape[2]) for fit in fits]
        np.testing.assert_array_equal(np.stack(counts, axis=1), expected)


def check_subclass(match: re.Match[str]) -> None:
    expected = arrays(DIGITS)[f"subclass/{match['net']}_{match['layer']}_digit_counts"]
    np.testing.assert_array_equal(_counts(_fitted(match["net"], match["layer"]), "true", expected.shape[1]), expected)


def check_target_digits(match: re.Match[str]) -> None:
    labels = _fitted("mlp", _layers("mlp")[0]).labels_
    digits = [int(labels.names[labels.true[target]]) for target in arrays(DIGITS)["mlp/targets"]]
    np.testing.assert_array_equal(digits, arrays(DIGITS)["subclass/targets_digit"])


_SYNTH = r"selection_synth\.npz:(?P<case>[^/]+)/"
_NET = r"digits_rdr\.npz:(?P<net>(?!layers/|subclass/)\w+)/(?P<layer>L-?\d+)/"
INPUTS = [
    _SYNTH + r"(configs|shape|neighbors|raw_neighbors|k|t|cluster)",
    r"digits_rdr\.npz:(?!subclass/)\w+/targets",
]
CHECKS = {
    _SYNTH + r"(?P<field>neurons|states|score|samples|unanimous|pop_mean|dist)": check_synth,
    _SYNTH + r"raw_(neurons|states|samples)": check_synth_raw,
    _NET + r"(?P<field>dist|order64|raw_order64|runs|tie_at_cut|(neurons|samples)(_off)?|states|score)": check_digits,
    _NET + r"raw_(neurons(_off)?|states|samples(_off)?)": check_digits_raw,
    r"digits_rdr\.npz:layers/(?P<field>jaccard|region_size|digit_counts|pred_counts)": check_layers,
    r"digits_rdr\.npz:subclass/(?P<net>\w+?)_(?P<layer>L-?\d+)_digit_counts": check_subclass,
    r"digits_rdr\.npz:subclass/targets_digit": check_target_digits,
}
