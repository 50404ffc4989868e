"""What work is expected to take, before it begins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rdxcli.datasets.appearance import seconds_of_one
from rdxcli.datasets.registry import open_dataset
from rdxcli.methods import costs
from rdxcli.methods.registry import names
from rdxcli.services.compare.fitting import make_estimators
from rdxcli.services.compare.options import CompareOptions

DOCS = Path(__file__).resolve().parents[2] / "docs" / "costs.md"


def board(n: int, d: int, **more: float) -> costs.Cost:
    return costs.comparison(make_estimators(CompareOptions("a", "b", method="all")), n, d, **more)


def test_every_method_of_compare_has_a_price() -> None:
    cost = board(2000, 128)
    assert set(cost.parts) == {*names("compare"), "start", "test", "stability", "scores"}
    assert cost.seconds == sum(cost.parts.values())
    assert 0 < cost.parts["kmeans"] < cost.parts["rdx"] < cost.parts["usae"]


SIZES = {
    **{"n": 2000.0, "d": 64.0, "k": 8.0, "c": 50.0, "u": 64.0, "t": 3.0, "e": 100.0, "s": 20.0, "b": 100.0},
    **{"h": 256.0, "m": 500.0, "w": 9000.0, "p": 4000.0, "i": 200.0, "r": 2.0, "weights": 1e6},
}
GROW = {"explanations": "nu", "directions": "nd", "regions": "nu", "attributions": "n", "encodings": "w"}
UNKNOWN = {"representative", "craft", "all"}
"""What goes through a network of unknown depth, or is the sum of others."""


def test_every_method_of_explain_has_a_price_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "speed", lambda: 1.0)
    for name in set(names("explain")) - UNKNOWN:
        (kind,) = (kind for kind in GROW if f"{kind}: {name}" in costs.RATES)
        small = costs.expected(kind, name, SIZES)
        assert small is not None
        assert small.parts["start"] >= 0.5
        for size in GROW[kind]:
            sizes = {**SIZES, size: 1000 * SIZES[size], **({"b": 1000 * SIZES["b"]} if size == "n" else {})}
            more = costs.expected(kind, name, sizes)
            assert more is not None
            assert more.parts[name] > 1.2 * small.parts[name], f"{name} by {size}"


def test_every_rate_is_of_known_sizes() -> None:
    for name in costs.RATES:
        assert (costs.seconds_of(name, **SIZES) or 0.0) > 0, name


def test_a_look_at_a_picture_is_timed() -> None:
    dataset = open_dataset("digits")
    took = seconds_of_one(dataset)
    assert took is not None
    assert 0 < took < 0.05
    assert board(2000, 128, pictures=2000, looking=took).parts["properties"] < 5 + 2000 * took


def test_it_grows_with_the_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "speed", lambda: 1.0)
    small, large = board(2000, 128), board(4000, 128)
    assert large.parts["cnmf"] / small.parts["cnmf"] == pytest.approx(4, rel=0.1)
    assert large.parts["usae"] / small.parts["usae"] == pytest.approx(2, rel=0.01)
    assert board(300_000, 128).parts["rdx"] / board(150_000, 128).parts["rdx"] == pytest.approx(2, rel=0.1)
    monkeypatch.setattr(costs, "speed", lambda: 2.0)
    assert board(2000, 128).parts["sae"] == pytest.approx(small.parts["sae"] / 2, abs=0.01)


def test_the_estimate_of_the_issue() -> None:
    """MobileNetV2 against another one, 2,000 images: hours of USAE, minutes of all the rest together."""
    cost = board(2000, 2560)
    assert cost.parts["usae"] > 3600
    assert (cost.seconds or 0) - cost.parts["usae"] < 3600
    assert "usae" in cost.in_words()
    assert all(value <= 60 for name, value in board(2000, 2560, limit=60).parts.items() if name in names("compare"))


def test_what_is_not_known_is_not_said() -> None:
    assert costs.seconds_of("a method of another package", n=3) is None
    assert costs.expected("explanations", "le-label", {"n": 100}) is None
    known = costs.expected("explanations", "another", {"n": 100, "u": 3, "c": 4})
    assert known is not None
    assert known.seconds is None
    assert "memory" in str(known)
    steps = costs.expected("directions", "eddp", {"n": 100, "d": 3, "k": 4})  # through a network of unknown depth
    assert steps is not None
    assert steps.seconds is None


def test_properties_and_patches_are_paid_too() -> None:
    plain, more = board(2000, 128), board(2000, 128, pictures=2000, patches=60)
    assert set(more.parts) - set(plain.parts) == {"properties", "patches"}
    assert more.parts["patches"] > more.parts["properties"] / 2 > 0


def test_the_model_stands_in_the_docs() -> None:
    text = DOCS.read_text("utf-8")
    missing = [line for line in costs.table() if line not in text]
    assert not missing, "\n".join(["docs/costs.md lacks these lines:", *missing])


def test_speed_is_that_of_a_core() -> None:
    assert 0.25 <= costs.speed() <= 4.0
    assert np.isfinite(costs.seconds_of("kmeans", n=10, d=10) or np.nan)
