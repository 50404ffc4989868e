"""EDDP repairs a network that learned a drawn mark (SPEC section 9.5, EDDP appendix I).

Networks trained on other processors differ, and with them how much is repaired: what must hold to a half and to a tenth
is held by features whose truth is known, where nothing but the search for directions is learned.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn_shapes import Correction, table

from rdxcli.methods.directions.eddp import EDDP
from rdxcli.methods.directions.steering import ConceptCorrection, own_strength
from rdxcli.methods.directions.synthetic import generate, named

SEEDS = range(2)


@pytest.fixture(scope="module")
def corrections() -> list[Correction]:
    """One result per seed; the first seeds there are, chosen by nobody. Ten of them stand in docs/methods/eddp.md."""
    return table(SEEDS)


@pytest.mark.slow
def test_the_mark_misleads_the_network(corrections: list[Correction]) -> None:
    for found in corrections:
        assert found.clean > 0.8
        assert found.original < found.clean - 0.15


@pytest.mark.slow
def test_accuracy_rises_along_s_less_along_w_and_not_along_random_vectors(corrections: list[Correction]) -> None:
    for found in corrections:
        assert found.along_s > found.along_w
        assert found.along_s > found.random.mean() + 0.05
    gain_s, gain_w, gain_random = (
        float(np.mean([value - found.original for value, found in zip(values, corrections, strict=True)]))
        for values in (
            [found.along_s for found in corrections],
            [found.along_w for found in corrections],
            [found.random.mean() for found in corrections],
        )
    )
    assert gain_s > 0.2
    assert gain_w < 0.75 * gain_s  # about one half; networks trained on other processors differ
    assert gain_random < gain_s / 3


@pytest.mark.slow
def test_clean_images_stay_as_right_as_they_were(corrections: list[Correction]) -> None:
    assert np.mean([found.clean_along_s - found.clean for found in corrections]) > -0.1


def test_what_a_known_mark_adds_is_taken_away_along_s_half_as_much_along_w_and_clean_images_stay() -> None:
    """Each concept in turn is the mark, put into images that lack it; paired: the same images with and without it."""
    case = generate(named("paper_table", images_per_class=60))
    found = EDDP(case.S.shape[1], n_starts=4).fit(case.X[~case.is_test], case.head)
    strengths = own_strength(found, case.X[~case.is_test])
    rng = np.random.default_rng(0)

    def logits(X: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            made = case.head(X)
        return made - made.mean(1, keepdim=True)

    gains, moved = [], []
    for index, concept in enumerate(np.abs(found.encoding_ @ case.S).argmax(1)):
        lacks = (case.owner != concept).all((1, 2))
        clean = torch.from_numpy(case.X[lacks])
        marked = clean.clone()
        added = rng.uniform(2.5, 5.0, len(clean)) - case.values[lacks, concept, 0, 0]
        marked[:, :, 0, 0] += torch.from_numpy(np.float32(added[:, None] * case.S[:, concept]))
        mark = (logits(marked) - logits(clean)).mean(0)

        def shift(images: torch.Tensor, along: np.ndarray | None, index: int = index, clean=clean, mark=mark) -> float:
            """How far corrected images are from the clean ones, in lengths of what the mark does."""
            correction = ConceptCorrection(found, index, float(strengths[index]), along)
            with torch.no_grad():
                left = logits(correction(images)) - logits(clean)
            return float(left.mean(0).norm() / mark.norm())

        vectors = np.random.default_rng(1).standard_normal((20, len(case.mu)))
        lefts = [shift(marked, None), shift(marked, found.decoding_[index])]
        gains.append([*(1 - left for left in lefts), np.mean([1 - shift(marked, vector) for vector in vectors])])
        moved.append(shift(clean, None))
    along_s, along_w, along_random = np.mean(gains, axis=0)
    assert along_s > 0.75
    assert along_w < along_s / 2
    assert along_random < along_s / 3
    assert max(moved) < 0.1
