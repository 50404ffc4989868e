"""Rules on samples they were not found in."""

from __future__ import annotations

import numpy as np
import pytest

from rdxcli.methods.regions.applied import apply_rule
from rdxcli.methods.regions.configurations import Configurations
from rdxcli.methods.regions.rdr import RDR
from rdxcli.methods.regions.region import region_scores
from rdxcli.methods.regions.selection import Rule
from rdxcli.methods.regions.targets import Labels

RNG = np.random.default_rng(3)
GROUP = np.repeat(np.arange(4), 30)
Z = RNG.normal(size=(4, 48))[GROUP] + 0.5 * RNG.normal(size=(120, 48))
NEW = RNG.normal(size=(40, 48))


def rule(*pairs: tuple[int, bool]) -> Rule:
    neurons, states = zip(*pairs, strict=True) if pairs else ((), ())
    return Rule(np.array(neurons, dtype=np.int64), np.array(states, dtype=bool), np.zeros(len(pairs)))


def test_the_samples_it_was_found_in_give_the_region_again() -> None:
    fitted = RDR(random_state=0).fit(Z, targets=[3, 70], labels=GROUP)
    labels = Labels.from_arrays(120, GROUP)
    for region in fitted.regions_:
        words = fitted.configurations_.words[region.target]
        found = apply_rule(region.rule, words, fitted.configurations_, labels)
        assert found.status == "bounded"
        assert sorted(found.members.tolist()) == sorted(region.members.tolist())
        assert found.members[0] == region.target  # distance 0
        assert found.distances.tolist() == sorted(region.member_distances.tolist())
        known = region_scores(region, 120, labels)
        assert found.scores == {name: known[name] for name in found.scores}
        assert found.counts == region.true_counts


def test_members_in_plain_numpy() -> None:
    configurations = Configurations.from_activations(NEW)
    bits = NEW > 0
    target = Configurations.from_activations(Z[:1])
    for tolerance in (0, 1):
        found = apply_rule(
            rule((5, True), (40, False), (7, True)),
            target.words[0],
            configurations,
            Labels.from_arrays(40),
            mismatches=tolerance,
        )
        wrong = (~bits[:, 5]).astype(int) + bits[:, 40] + ~bits[:, 7]
        expected = np.flatnonzero(wrong <= tolerance)
        far = (bits != (Z[0] > 0)).sum(axis=1)
        assert found.members.tolist() == sorted(expected, key=lambda row: (far[row], row))
        assert found.distances.tolist() == far[found.members].tolist()
        assert found.scores == {"size": len(expected), "coverage": len(expected) / 40}
        assert found.counts == {}


def test_never_silently_everybody_or_nobody() -> None:
    configurations = Configurations.from_activations(np.abs(NEW) + 1.0)
    target, labels = configurations.words[0], Labels.from_arrays(40, np.arange(40) % 2)
    everybody = apply_rule(rule((0, True)), target, configurations, labels)
    assert (everybody.status, len(everybody.members)) == ("unbounded", 0)
    assert everybody.scores["coverage"] == 1.0
    assert everybody.scores["purity"] is None
    nobody = apply_rule(rule((0, False)), target, configurations, labels)
    assert (nobody.status, nobody.scores["coverage"]) == ("empty", 0.0)
    assert apply_rule(rule(), target, configurations, labels).status == "unbounded"
    stored_unbounded = apply_rule(rule((0, False)), target, configurations, labels, bounded=False)
    assert (stored_unbounded.status, len(stored_unbounded.members)) == ("unbounded", 0)


def test_a_neuron_that_does_not_exist_is_refused() -> None:
    configurations = Configurations.from_activations(NEW)
    with pytest.raises(ValueError, match="Got neuron 48, expected one below 48"):
        apply_rule(rule((48, True)), configurations.words[0], configurations, Labels.from_arrays(40))
