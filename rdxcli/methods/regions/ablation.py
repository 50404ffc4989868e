"""Does the prediction need the neurons of a region?

Symbols: a (n, ...) activations of the layer; h the head, from activations to logits (n, c); N the neurons of a rule.
The neurons N are set to another value in the target and in members of the region; what the head then says is compared
with what it said, and with what it says when as many neurons drawn at random are set instead.

Ours, not in the paper: the published code has no such test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import log_softmax

from rdxcli.methods.regions.configurations import Configurations
from rdxcli.methods.regions.region import Region
from rdxcli.numerics.seeding import generator
from rdxcli.progress import human_count

Head = Callable[[np.ndarray], Any] | torch.nn.Module | Sequence[ArrayLike]
VALUES = ("mean", "zero", "flip")


@dataclass(frozen=True)
class AblationEffect:
    """What setting the neurons of one region did.

    Attributes
    ----------
    value : str
        What they were set to.
    neurons : int
        How many.
    samples : int
        Members that were tested, the target among them.
    before, after : int
        Predicted class of the target.
    target_drop : float
        Fall of the probability of ``before`` in the target.
    changed : float
        Share of the tested members whose prediction changed.
    drop : float
        Mean fall of the probability of each member's own prediction.
    logit_drop : float
        Mean fall of its logit.
    random_changed, random_drop, random_drop_sd : float
        The same for random neurons: mean over the draws, and the standard deviation of the drop over the draws.
    p_value : float
        (1 + draws with at least this drop) / (1 + draws).
    """

    value: str
    neurons: int
    samples: int
    before: int
    after: int
    target_drop: float
    changed: float
    drop: float
    logit_drop: float
    random_changed: float
    random_drop: float
    random_drop_sd: float
    p_value: float

    def document(self) -> dict[str, Any]:
        """For ``scores["ablation"]`` of a region."""
        return asdict(self)


def ablate(
    region: Region,
    configurations: Configurations,
    activations: ArrayLike,
    head: Head,
    *,
    value: str = "mean",
    draws: int = 20,
    max_members: int = 64,
    batch_size: int = 256,
    random_state: int = 0,
) -> AblationEffect:
    """Effect of a region's neurons on the prediction of its members.

    Raises `ValueError` (a region without members, activations that do not fit, a head that does not return (b, c) with
    c of at least 2 or returns NaN, unknown value).

    Parameters
    ----------
    configurations : Configurations
        Those the region was found in; they say which entries of the activations a neuron stands for.
    activations : (n, d) or (n, c, h, w) array-like
        Output of the layer, before any pooling of ours.
    head : callable, torch module or (weight (c, d), bias (c,))
        The rest of the model. A callable gets a float32 array of the layer's own shape and returns logits (b, c); a
        module gets a tensor on its own device, in evaluation mode, without gradients.
    value : {"mean", "zero", "flip"}
        ``mean``: the neuron's mean over all samples. ``zero``: 0, which leaves an off neuron before a ReLU without
        effect. ``flip``: its mean over the samples in the state opposite to the rule's (for random neurons: opposite to
        the target's).
    draws : int, default 20
        Random sets of neurons to compare with.
    max_members : int, default 64
        The nearest members are tested.
    random_state : int
        The draws depend on it and on the target only.
    """
    if value not in VALUES:
        raise ValueError(f"Got value={value!r}, expected one of {', '.join(map(repr, VALUES))}")
    for name, number in (("draws", draws), ("max_members", max_members), ("batch_size", batch_size)):
        if number < 1:
            raise ValueError(f"Got {name}={number}, expected at least 1")
    if not region.bounded:
        raise ValueError(f"Got the {region.status} region of target {region.target}, expected one with members")
    values = np.asanyarray(activations)
    places = _places(values, configurations)
    logits_of = as_head(head)
    rows = region.members[:max_members]
    samples = np.asarray(values[rows], dtype=np.float32).reshape(len(rows), -1)
    shape = values.shape[1:]

    def logits(batch: np.ndarray) -> np.ndarray:
        parts = [
            _logits(logits_of(batch[i : i + batch_size].reshape(-1, *shape)), len(batch[i : i + batch_size]))
            for i in range(0, len(batch), batch_size)
        ]
        return np.concatenate(parts)

    before = logits(samples)
    predicted = before.argmax(axis=1)
    own = np.arange(len(rows)), predicted

    def effect(neurons: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        changed = samples.copy()
        for neuron, fill in zip(neurons, _fills(values, configurations, neurons, states, value), strict=True):
            changed[:, places(int(neuron))] = fill
        after = logits(changed)
        fall = np.exp(log_softmax(before, axis=1)[own]) - np.exp(log_softmax(after, axis=1)[own])
        return after, fall, before[own] - after[own]

    after, fall, logit_fall = effect(region.neurons, region.states)
    others = np.setdiff1d(np.arange(configurations.m), region.neurons)
    size = min(len(region.neurons), len(others))
    random_drops, random_changes = np.zeros(draws), np.zeros(draws)
    rng = generator(random_state, "rdr", "ablation", region.target)
    for i in range(draws if size else 0):
        drawn = rng.choice(others, size=size, replace=False)
        states = configurations.take([region.target]).states(drawn)[0]
        other, other_fall, _ = effect(drawn, states)
        random_drops[i] = other_fall.mean()
        random_changes[i] = (other.argmax(axis=1) != predicted).mean()
    return AblationEffect(
        value=value,
        neurons=len(region.neurons),
        samples=len(rows),
        before=int(predicted[0]),
        after=int(after[0].argmax()),
        target_drop=float(fall[0]),
        changed=float((after.argmax(axis=1) != predicted).mean()),
        drop=float(fall.mean()),
        logit_drop=float(logit_fall.mean()),
        random_changed=float(random_changes.mean()),
        random_drop=float(random_drops.mean()),
        random_drop_sd=float(random_drops.std()),
        p_value=float((1 + (random_drops >= fall.mean()).sum()) / (1 + draws)),
    )


def as_head(head: Head) -> Callable[[np.ndarray], Any]:
    """A function from float32 arrays of activations to logits, from any of the accepted forms."""
    if isinstance(head, torch.nn.Module):
        module = head.eval()
        parameter = next(module.parameters(), None)
        device = parameter.device if parameter is not None else torch.device("cpu")

        def run(batch: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return module(torch.from_numpy(np.ascontiguousarray(batch)).to(device)).float().cpu().numpy()

        return run
    if callable(head):
        return head
    if len(head) != 2:
        raise ValueError(
            f"Got a head of {human_count(len(head), 'part')}, expected a callable, a module or (weight, bias)"
        )
    weight, bias = np.asarray(head[0], dtype=np.float64), np.asarray(head[1], dtype=np.float64)
    if weight.ndim != 2 or bias.shape != (len(weight),):
        raise ValueError(f"Got weight {weight.shape} and bias {bias.shape}, expected (c, d) and (c,)")

    def linear(batch: np.ndarray) -> np.ndarray:
        flat = batch.reshape(len(batch), -1)
        if flat.shape[1] != weight.shape[1]:
            raise ValueError(f"Got a weight {weight.shape} for activations of width {flat.shape[1]}")
        return flat @ weight.T + bias

    return linear


def _logits(out: Any, rows: int) -> np.ndarray:
    if isinstance(out, torch.Tensor):
        out = out.detach().float().cpu().numpy()
    logits = np.asarray(out, dtype=np.float64)
    if logits.ndim != 2 or len(logits) != rows or logits.shape[1] < 2:
        raise ValueError(f"Got logits of shape {logits.shape} from the head, expected ({rows}, classes)")
    if not np.isfinite(logits).all():
        raise ValueError("Got NaN or infinite logits from the head, expected finite numbers")
    return logits


def _places(values: np.ndarray, configurations: Configurations) -> Callable[[int], Any]:
    """Entries of a flattened sample that belong to a neuron: one, or a whole channel when channels were pooled."""
    width = int(np.prod(values.shape[1:]))
    if len(values) != configurations.n:
        raise ValueError(f"Got activations of {human_count(len(values), 'sample')}, expected {configurations.n}")
    if width == configurations.m:
        return lambda neuron: neuron
    if configurations.pool == "none" or values.shape[1] != configurations.m:
        raise ValueError(f"Got samples of shape {values.shape[1:]}, expected {configurations.shape}")
    size = width // configurations.m
    return lambda neuron: slice(neuron * size, (neuron + 1) * size)


def _fills(
    values: np.ndarray, configurations: Configurations, neurons: np.ndarray, states: np.ndarray, value: str
) -> list[float]:
    if value == "zero":
        return [0.0] * len(neurons)
    flat = values.reshape(len(values), configurations.m, -1)
    on = configurations.states(neurons)
    fills = []
    for j, neuron in enumerate(neurons):
        column = np.asarray(flat[:, neuron], dtype=np.float64).mean(axis=1)
        opposite = column[on[:, j] != states[j]]
        fills.append(float(opposite.mean() if value == "flip" and len(opposite) else column.mean()))
    return fills
