"""Sparse autoencoders: activations as sums of few of many learned directions.

``x ~ b_dec + sum_i a_i d_i`` with ``a = sparse(W_enc (x - b_dec) + b_enc)``. Symbols, with shapes: ``x`` (P, D)
positions, in units of their root mean square after centring; ``W`` (I, D) encoder; ``d_i`` (I, D) decoder rows, unit
length unless said; ``a`` (P, I) activations; k the mean number of active latents.

=============  =====================================================================================================
kind           how few latents are chosen
=============  =====================================================================================================
``topk``       the k largest of each position (Makhzani and Frey; Gao et al., arXiv 2406.04093)
``batchtopk``  the k P largest of a batch, so that positions may differ (Bussmann et al., arXiv 2412.06410)
``matryoshka`` batchtopk, with a reconstruction from each of five nested prefixes (Bussmann et al., arXiv 2503.17547)
``jumprelu``   those above a learned threshold of their own (Rajamanoharan et al., arXiv 2407.14435); the weight of the
               penalty is moved until k latents are active
``archetypal`` batchtopk, decoder rows near convex combinations of cluster centres of the data, which makes them
               alike from run to run (RA-SAE, Fel et al., arXiv 2502.12892)
=============  =====================================================================================================

Latents that have not been active for a while get a reconstruction of what is left over (the auxiliary loss of Gao et
al.), which brings dead ones back. After learning every latent is a direction like any other: it fires above one
threshold for all (its own with jumprelu), chosen so that k latents are active on average.

Cost of a step: O(P I D). Memory: the batch, (P, I) activations, and four times the parameters for Adam.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor
from torch.nn.functional import normalize, relu

from rdxcli.methods.directions.base import Directions
from rdxcli.numerics.seeding import integer_seed, torch_generator
from rdxcli.parameters import Count, NonNegative, Positive
from rdxcli.progress import track

from .batches import Array, Batches

Kind = Literal["topk", "batchtopk", "matryoshka", "jumprelu", "archetypal"]
State = dict[str, Array]

PREFIXES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Shares of the latents that must reconstruct on their own (matryoshka)."""

BANDWIDTH = 0.1
"""Width of the kernel through which thresholds get a gradient (jumprelu)."""

CURVE = 20
"""Points of the loss curve."""


class SparseAutoencoder(Directions):
    """A dictionary of latents.

    Parameters
    ----------
    n_directions : int
        Latents, I.
    kind : str
        How few are chosen: "topk", "batchtopk", "matryoshka", "jumprelu" or "archetypal".
    k : int
        Active latents per position, on average.
    steps : int
        Batches that are learned from.
    batch : int
        Positions in a batch.
    rate : float
        Learning rate of Adam; it falls to 0 over the last fifth.
    auxiliary : float
        Weight of the loss that brings dead latents back, 1 / 32 as published.
    dead_after : int
        Steps without being active after which a latent counts as dead.
    n_archetypes : int, optional
        Cluster centres that archetypal decoders combine; default 2 I, at most a quarter of the positions.
    relaxation : float
        How far an archetypal decoder row may lie off the hull of the centres, in units of the data's spread.
    random_state : int
        Seed.
    device : str
        Torch device.

    Attributes
    ----------
    decoder_ : ndarray, shape (I, D)
        Decoder rows in feature units per unit of activation of `encoder_`.
    encoder_ : ndarray, shape (I, D)
    encoder_bias_ : ndarray, shape (I,)
        Activation is ``encoder_ . (x - mean_) + encoder_bias_`` where a latent fires, else 0.
    curve_ : list of dict
        ``step``, ``loss`` (share of variance left over), ``l0``, ``dead`` during learning.
    seconds_ : float
        Seconds of process time that the steps of this call took.
    quality_ : dict
        ``explained_variance``, ``l0``, ``dead`` (share of latents that never fire), on evenly spaced samples.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((500, 8))
    >>> SparseAutoencoder(16, k=2, steps=20).fit(x).encoding_.shape
    (16, 8)
    """

    def __init__(
        self,
        n_directions: Count = 256,
        *,
        kind: Kind = "batchtopk",
        k: Count = 8,
        steps: Count = 3000,
        batch: Count = 1024,
        rate: Positive = 1e-3,
        auxiliary: NonNegative = 1 / 32,
        dead_after: Count = 200,
        n_archetypes: Count | None = None,
        relaxation: NonNegative = 1.0,
        random_state: int = 0,
        device: str = "cpu",
    ) -> None:
        self.n_directions = n_directions
        self.kind = kind
        self.k = k
        self.steps = steps
        self.batch = batch
        self.rate = rate
        self.auxiliary = auxiliary
        self.dead_after = dead_after
        self.n_archetypes = n_archetypes
        self.relaxation = relaxation
        self.random_state = random_state
        self.device = device

    def fit(
        self,
        features: Array | Tensor,
        head: Any = None,
        *,
        state: Mapping[str, Array] | None = None,
        keep: Callable[[State], None] | None = None,
        every: int = 500,
    ) -> Self:
        """Learn the dictionary.

        Parameters
        ----------
        features : ndarray, shape (N, D, H, W) or (N, D)
            May be memory-mapped; batches are read from it.
        head : callable, optional
            Not used.
        state : mapping, optional
            As `keep` was given it: learning goes on from there, with the result of an uninterrupted run.
        keep : callable, optional
            Called every ``every`` steps with everything that is needed to go on.
        every : int

        Raises
        ------
        ValueError
            Features or parameters that cannot be used.
        """
        self._check_choices()
        self.notes_ = []
        data = Batches(
            features.detach().cpu().numpy() if isinstance(features, Tensor) else features, self.batch, self.random_state
        )
        learner = _Learner(self, data)
        if state is not None:
            learner.restore(state)
        started = time.process_time()
        with track("dictionary", self.steps, "steps") as advance:
            advance(learner.step)
            while learner.step < self.steps:
                learner.advance()
                advance(1)
                if keep is not None and learner.step % every == 0 and learner.step < self.steps:
                    keep(learner.state())
        self.seconds_ = time.process_time() - started
        self.curve_ = learner.curve
        self._finish(learner, data)
        return self

    def _check_choices(self) -> None:
        kinds = ("topk", "batchtopk", "matryoshka", "jumprelu", "archetypal")
        if self.kind not in kinds:
            raise ValueError(f"Got kind={self.kind!r}, expected one of {kinds}")
        if not 1 <= self.k < self.n_directions:
            raise ValueError(f"Got k={self.k} of {self.n_directions} latents, expected at least 1 and fewer than all")
        for name in ("steps", "batch", "dead_after"):
            if getattr(self, name) < 1:
                raise ValueError(f"Got {name}={getattr(self, name)}, expected at least 1")
        if not self.rate > 0 or not self.auxiliary >= 0 or not self.relaxation >= 0:
            raise ValueError(
                f"Got rate={self.rate}, auxiliary={self.auxiliary}, relaxation={self.relaxation}, expected a positive "
                "rate and nothing below 0"
            )

    def _finish(self, learner: _Learner, data: Batches) -> None:
        """Every latent as a direction, and how good they are together."""
        with torch.no_grad():
            W, D, b = learner.W.cpu().double(), learner.decoder().cpu().double(), learner.b.cpu().double()
            unit = learner.unit
            x = (data.sample() - learner.mean.cpu()) / unit
            pre = x @ W.T.float() + b.float()
            threshold = learner.thresholds(pre).cpu().double()
        self._adopt(
            W.numpy() / unit, D.numpy() * unit, b.numpy(), threshold.numpy(), learner.mean.cpu().double().numpy(), pre
        )
        active = torch.where(pre > threshold.float(), pre, 0.0)
        self.quality_ = quality(x, active, D.float())

    def _adopt(self, W: Array, D: Array, b: Array, threshold: Array, mean: Array, pre: Tensor | None = None) -> None:
        self.encoder_, self.decoder_, self.encoder_bias_ = W, D, b
        length, size = np.linalg.norm(W, axis=1), np.linalg.norm(D, axis=1)
        margin = np.ones(len(W)) if pre is None else np.maximum(0.25 * pre.std(0).double().numpy(), 1e-6 * length)
        # activation along the unit decoder row: |d| (w . (x - mean) + b), so that a step of one unit adds one unit
        self._store(D, W, threshold - b + W @ mean, margin, mean, gain=1 / np.maximum(length * size, 1e-300))

    def activations(self, features: Array) -> Array:
        """Activations along the unit decoder rows (n, I), 0 where a latent does not fire, of features (n, D)."""
        x = np.asarray(features, np.float64) - self.mean_
        found = x @ self.encoder_.T + self.encoder_bias_
        fires = x @ self.decoding_.T + (self.decoding_ @ self.mean_ - self.bias_) > 0
        return np.where(fires & (found > 0), found * np.linalg.norm(self.decoder_, axis=1), 0.0)

    def about(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        return [{} for _ in self.bias_], {"dictionary": {**self.quality_, "curve": getattr(self, "curve_", [])}}

    @classmethod
    def published(
        cls, arrays: Mapping[str, Array], features: Array | None = None, k: int | None = None
    ) -> SparseAutoencoder:
        """A dictionary that others learned.

        Parameters
        ----------
        arrays : mapping
            ``W_enc`` (D, I) or (I, D), ``W_dec`` (I, D), ``b_enc`` (I,), ``b_dec`` (D,), and ``threshold`` (I,) or a
            number for jumprelu and batchtopk. Inputs are centred by ``b_dec``.
        features : ndarray, shape (N, D, H, W) or (N, D), optional
            Needed with ``k``.
        k : int, optional
            Active latents on average, for topk dictionaries: gives the threshold. Without either latents fire above 0.

        Raises
        ------
        ValueError
            Arrays that are missing or do not fit together.
        """
        missing = {"W_enc", "W_dec", "b_enc", "b_dec"} - set(arrays)
        if missing:
            raise ValueError(f"Got arrays {sorted(arrays)}, expected W_enc, W_dec, b_enc and b_dec as well")
        W_dec = np.asarray(arrays["W_dec"], np.float64)
        W_enc, b_enc, b_dec = (np.asarray(arrays[name], np.float64) for name in ("W_enc", "b_enc", "b_dec"))
        if W_dec.ndim == 2 and W_enc.shape == W_dec.shape[::-1]:
            W_enc = W_enc.T
        if (
            W_dec.ndim != 2
            or W_enc.shape != W_dec.shape
            or (b_enc.shape, b_dec.shape) != tuple((size,) for size in W_dec.shape)
        ):
            raise ValueError(
                f"Got W_enc {arrays['W_enc'].shape}, W_dec {W_dec.shape}, b_enc {b_enc.shape}, b_dec {b_dec.shape}, "
                "expected (D, I), (I, D), (I,) and (D,)"
            )
        self = cls(len(W_dec), k=k or 1)
        pre = None
        if features is not None:
            x = Batches(np.asarray(features), 1024, 0).sample() - torch.from_numpy(b_dec).float()
            pre = x @ torch.from_numpy(W_enc.T).float() + torch.from_numpy(b_enc).float()
        if "threshold" in arrays:
            threshold = np.broadcast_to(np.asarray(arrays["threshold"], np.float64), b_enc.shape).copy()
        elif k is not None and pre is not None:
            threshold = np.full(len(b_enc), float(_common_threshold(pre, k)))
        else:
            threshold = np.zeros(len(b_enc))
        self.notes_ = []
        self._adopt(W_enc, W_dec, b_enc, threshold, b_dec, pre)
        if pre is not None:
            active = torch.where(pre > torch.from_numpy(threshold).float(), pre, 0.0)
            self.quality_ = quality(x, active, torch.from_numpy(W_dec).float())
        return self


def quality(x: Tensor, active: Tensor, decoder: Tensor) -> dict[str, float]:
    """Explained variance, mean number of active latents, share that never is; x (P, D) centred, active (P, I)."""
    left = float((x - active @ decoder).square().sum())
    total = float((x - x.mean(0)).square().sum()) or 1.0
    return {
        "explained_variance": 1 - left / total,
        "l0": float((active > 0).float().sum(1).mean()),
        "dead": float((~(active > 0).any(0)).float().mean()),
    }


def _common_threshold(pre: Tensor, k: int) -> Tensor:
    """The threshold above which ``k`` latents are active on average, at least 0."""
    flat = pre.flatten()
    rank = min(flat.numel(), max(1, round(k * len(pre))))
    return flat.kthvalue(flat.numel() - rank + 1).values.clamp_min(0) * (1 - 1e-6)


@dataclass
class _Hull:
    """Points that archetypal decoder rows combine."""

    points: Tensor


class _Jump(torch.autograd.Function):
    """``pre`` where it is above the threshold, else 0, and how many are; thresholds get the gradient of a kernel."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        active = pre > threshold
        ctx.save_for_backward(pre, threshold)
        return pre * active, active.to(pre)

    @staticmethod
    def backward(ctx: Any, along: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        pre, threshold = ctx.saved_tensors
        near = ((pre - threshold).abs() < BANDWIDTH / 2).to(pre) / BANDWIDTH
        to_threshold = -(along * threshold + counted) * near
        return along * (pre > threshold), to_threshold.sum(0)


class _Learner:
    """Parameters, optimiser and everything else that learning is made of."""

    def __init__(self, spec: SparseAutoencoder, data: Batches) -> None:
        self.spec, self.data = spec, data
        device, count, D = spec.device, spec.n_directions, data.channels
        sample = data.sample()
        if len(sample) < 2:
            raise ValueError(f"Got {len(sample)} positions, expected at least 2")
        self.mean = sample.mean(0).to(device)
        self.unit = float((sample - sample.mean(0)).square().mean().sqrt())
        if not self.unit > 0:
            raise ValueError("Got constant features, expected features that vary")
        source = torch_generator(spec.random_state, "sae")
        centred = (sample.to(device) - self.mean) / self.unit
        # decoders start at samples, which leaves fewer dead latents than random directions
        chosen = torch.randint(len(centred), (count,), generator=source)
        start = normalize(centred[chosen.to(device)] + 0.1 * torch.randn(count, D, generator=source).to(device), dim=1)
        self.hull: _Hull | None = None
        self.parameters: dict[str, Tensor] = {"W": start.clone(), "b": torch.zeros(count, device=device)}
        if spec.kind == "archetypal":
            self.hull = _Hull(self._centres(centred))
            nearest = torch.cdist(centred[chosen.to(device)], self.hull.points).argmin(1)
            logits = torch.zeros(count, len(self.hull.points), device=device)
            logits[torch.arange(count), nearest] = 2.0 + float(np.log(len(self.hull.points)))
            self.parameters |= {"mix": logits, "off": torch.zeros(count, D, device=device)}
        else:
            self.parameters["D"] = start.clone()
        if spec.kind == "jumprelu":
            first = _common_threshold(centred @ start.T, spec.k).clamp_min(1e-2)
            self.parameters["log_threshold"] = torch.full((count,), float(first.log()), device=device)
        for value in self.parameters.values():
            value.requires_grad_()
        self.optimiser = torch.optim.Adam(self.parameters.values(), lr=spec.rate)
        self.step = 0
        self.weight = 1e-3  # of the penalty of jumprelu
        self.idle = torch.zeros(count, device=device)
        self.curve: list[dict[str, float]] = []

    @property
    def W(self) -> Tensor:
        return self.parameters["W"]

    @property
    def b(self) -> Tensor:
        return self.parameters["b"]

    def _centres(self, centred: Tensor) -> Tensor:
        count = self.spec.n_archetypes or 2 * self.spec.n_directions
        count = max(2, min(count, len(centred) // 4))
        found = MiniBatchKMeans(
            count, random_state=integer_seed(self.spec.random_state, "archetypes"), n_init=1, batch_size=4096
        ).fit(centred.cpu().numpy())
        return torch.from_numpy(found.cluster_centers_).to(centred)

    def decoder(self) -> Tensor:
        """Decoder rows (I, D)."""
        if self.hull is None:
            return normalize(self.parameters["D"], dim=1)
        off = self.parameters["off"]
        limit = self.spec.relaxation * off.shape[1] ** 0.5
        off = off * (limit / off.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1.0)
        return normalize(torch.softmax(self.parameters["mix"], dim=1) @ self.hull.points + off, dim=1)

    def thresholds(self, pre: Tensor) -> Tensor:
        """Above which each latent fires after learning (I,)."""
        if self.spec.kind == "jumprelu":
            return self.parameters["log_threshold"].exp()
        return _common_threshold(pre, self.spec.k).expand(pre.shape[1])

    def _chosen(self, pre: Tensor) -> tuple[Tensor, Tensor | None]:
        """Sparse activations (P, I), and for jumprelu how many are active."""
        kind, k = self.spec.kind, self.spec.k
        if kind == "jumprelu":
            active, count = _Jump.apply(pre, self.parameters["log_threshold"].exp())  # type: ignore[no-untyped-call]
            return active, count.sum(1).mean()
        positive = relu(pre)
        if kind == "topk":
            top = positive.topk(k, dim=1)
            return torch.zeros_like(positive).scatter(1, top.indices, top.values), None
        flat = positive.flatten()
        top = flat.topk(min(k * len(positive), flat.numel()), sorted=False)
        return torch.zeros_like(flat).scatter(0, top.indices, top.values).view_as(positive), None

    def advance(self) -> None:
        """One step."""
        spec = self.spec
        rest = spec.steps - self.step
        for group in self.optimiser.param_groups:
            group["lr"] = spec.rate * min(1.0, (self.step + 1) / 50, rest / max(1.0, 0.2 * spec.steps))
        x = (self.data.batch(self.step).to(spec.device) - self.mean) / self.unit
        D = self.decoder()
        pre = x @ self.W.T + self.b
        active, count = self._chosen(pre)
        total = x.square().sum().clamp_min(1e-12)
        loss = self._left_over(x, active, D, total)
        objective = loss
        if count is not None:
            objective = objective + self.weight * count
            # more latents than wanted: a heavier penalty
            self.weight *= float(np.exp(np.clip(0.02 * (float(count.detach()) / spec.k - 1), -0.02, 0.02)))
        fired = active.detach().amax(0) > 0  # one pass
        self.idle = torch.where(fired, torch.zeros_like(self.idle), self.idle + 1)
        dead = self.idle > spec.dead_after
        if spec.auxiliary and bool(dead.any()):
            objective = objective + spec.auxiliary * self._revival(x, (x - active @ D).detach(), pre, D, dead)
        self.optimiser.zero_grad(set_to_none=True)
        objective.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimiser.step()
        if "log_threshold" in self.parameters:
            self.parameters["log_threshold"].data.clamp_(-8.0, 4.0)
        self.step += 1
        if self.step % max(1, spec.steps // CURVE) == 0 or self.step == 1:
            self.curve.append(
                {
                    "step": self.step,
                    "loss": float(loss.detach()),
                    "l0": float((active.detach() > 0).float().sum(1).mean()),
                    "dead": float(dead.float().mean()),
                }
            )

    def _left_over(self, x: Tensor, active: Tensor, D: Tensor, total: Tensor) -> Tensor:
        """Share of the sum of squares that is not reconstructed; for matryoshka the mean over nested prefixes."""
        if self.spec.kind != "matryoshka":
            return (x - active @ D).square().sum() / total
        ends = sorted({max(1, round(share * len(D))) for share in PREFIXES})
        parts, start = [], 0
        made = torch.zeros_like(x)
        for end in ends:
            made = made + active[:, start:end] @ D[start:end]
            parts.append((x - made).square().sum() / total)
            start = end
        return torch.stack(parts).mean()

    def _revival(self, x: Tensor, left: Tensor, pre: Tensor, D: Tensor, dead: Tensor) -> Tensor:
        """What dead latents leave of the residual ``left`` when they alone reconstruct it."""
        places = torch.nonzero(dead).flatten()
        own = relu(pre[:, places])
        top = own.topk(min(len(places), max(1, x.shape[1] // 2)), dim=1)
        made = torch.zeros_like(own).scatter(1, top.indices, top.values) @ D[places]
        return (left - made).square().sum() / left.square().sum().clamp_min(1e-12)

    def state(self) -> State:
        """Everything that is needed to go on."""
        found: State = {name: value.detach().cpu().numpy().copy() for name, value in self.parameters.items()}
        for name, value in self.parameters.items():
            for key, moment in self.optimiser.state[value].items():
                found[f"adam {key} {name}"] = moment.cpu().numpy().copy()
        found["idle"] = self.idle.cpu().numpy().copy()
        found["counters"] = np.array([self.step, self.weight], np.float64)
        found["curve"] = np.array([list(point.values()) for point in self.curve], np.float64).reshape(-1, 4)
        if self.hull is not None:
            found["points"] = self.hull.points.cpu().numpy()
        return found

    def restore(self, state: Mapping[str, Array]) -> None:
        """Go on from a state.

        Raises
        ------
        ValueError
            It belongs to another dictionary.
        """
        for name, value in self.parameters.items():
            if name not in state or state[name].shape != tuple(value.shape):
                raise ValueError(f"Got a state without {name} of shape {tuple(value.shape)}, expected that of this fit")
            value.data.copy_(torch.from_numpy(np.array(state[name])))
            moments = {
                key.split(" ")[1]: state[key] for key in state if key.startswith("adam ") and key.endswith(f" {name}")
            }
            self.optimiser.state[value] = {
                key: torch.from_numpy(np.array(moment)).to(value.device if key != "step" else "cpu")
                for key, moment in moments.items()
            }
        if self.hull is not None:
            self.hull = _Hull(torch.from_numpy(np.array(state["points"])).to(self.mean))
        self.idle = torch.from_numpy(np.array(state["idle"])).to(self.idle)
        self.step, self.weight = int(state["counters"][0]), float(state["counters"][1])
        names = ("step", "loss", "l0", "dead")
        self.curve = [dict(zip(names, map(float, point), strict=True)) for point in state["curve"]]
