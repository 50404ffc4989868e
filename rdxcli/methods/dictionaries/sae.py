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

Cost of a step: one product O(P I D) and O(P k D); with few latents, or jumprelu, five such products. Memory: the batch,
(P, I) activations, and four times the parameters for Adam.
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
from rdxcli.progress import human_count, out_of_time, track

from .batches import Array, Batches
from .judging import Judgement, common_threshold, judge
from .published import one_form

Kind = Literal["topk", "batchtopk", "matryoshka", "jumprelu", "archetypal"]
State = dict[str, Array]

PREFIXES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Shares of the latents that must reconstruct on their own (matryoshka)."""

BANDWIDTH = 0.1
"""Width of the kernel through which thresholds get a gradient (jumprelu)."""

CLEARLY = 0.8
"""Share of what is left over by which the second reading of a published dictionary must be better."""

FEW = 20_000
"""Elements of a decoder for each active latent from which gradients go to active latents one by one."""

BETAS = (0.9, 0.999)
MOMENTS = ("adam exp_avg", "adam exp_avg_sq")

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

        Raises `ValueError` (features or parameters that cannot be used).

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
                if out_of_time():
                    break
        self.seconds_ = time.process_time() - started
        self.curve_ = learner.curve
        if learner.step < self.steps:
            self.notes_.append(
                f"learning ended after {learner.step} of {human_count(self.steps, 'step')}: the time was over"
            )
        self._finish(learner, data)
        return self

    def _check_choices(self) -> None:
        kinds = ("topk", "batchtopk", "matryoshka", "jumprelu", "archetypal")
        if self.kind not in kinds:
            raise ValueError(f"Got kind={self.kind!r}, expected one of {kinds}")
        if not 1 <= self.k < self.n_directions:
            raise ValueError(
                f"Got k={self.k} of {human_count(self.n_directions, 'latent')}, expected at least 1 and fewer than all"
            )
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
            W, D, b = (one.detach().cpu() for one in (learner.W, learner.decoder(), learner.b))
            x = (data.sample(_judged(self.n_directions, self.k)) - learner.mean.cpu()) / learner.unit
            found = judge(x, W, b, D, self.k, learner.own_thresholds())
        W, D, b, unit = W.double(), D.double(), b.double(), learner.unit
        self._adopt(
            W.numpy() / unit, D.numpy() * unit, b.numpy(), found.threshold, learner.mean.cpu().double().numpy(), found
        )
        self.quality_ = found.quality
        if not 0.75 * self.k <= self.quality_["l0"] <= 1.33 * self.k:
            self.notes_.append(
                f"{self.quality_['l0']:.1f} latents are active on average, {self.k} were asked for"
                + (": more steps bring it nearer" if self.kind == "jumprelu" else "")
            )
        if self.quality_["dead"] > 0.2:
            self.notes_.append(
                f"{self.quality_['dead']:.0%} of the latents never fire: fewer latents (--n-directions), or more steps"
            )

    def _adopt(
        self, W: Array, D: Array, b: Array, threshold: Array, mean: Array, found: Judgement | None = None
    ) -> None:
        self.encoder_, self.decoder_, self.encoder_bias_ = W, D, b
        length, size = np.linalg.norm(W, axis=1), np.linalg.norm(D, axis=1)
        margin = np.ones(len(W)) if found is None else np.maximum(0.25 * found.spread, 1e-6 * length)
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
        cls,
        arrays: Mapping[str, Array],
        features: Array | None = None,
        k: int | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> SparseAutoencoder:
        """A dictionary that others learned.

        Raises `ValueError` (arrays that are missing or do not fit together).

        Parameters
        ----------
        arrays : mapping
            By the names that SAELens, sparsify, dictionary_learning, overcomplete or OpenAI give them, see
            `rdxcli.methods.dictionaries.published`.
        features : ndarray, shape (N, D, H, W) or (N, D), optional
            Needed with ``k``. Where nothing says whether inputs are centred by ``b_dec``, what explains more of them.
        k : int, optional
            Active latents on average: gives the threshold. Default are the thresholds of the file, or its own k;
            without either latents fire above 0.
        config : mapping, optional
            What lay beside the arrays (``cfg.json``).
        """
        found = one_form(arrays, config)
        self = cls(len(found.W_dec), k=k or found.k or 1)
        self.notes_ = []
        if k is not None and features is None:
            raise ValueError(f"Got k={k} without features, expected features to find the threshold from")
        centred, judged = found.centred is not False, None
        threshold = np.zeros(len(found.b_enc)) if found.threshold is None else found.threshold
        if features is not None:
            data = Batches(features, 1024, 0)
            if data.channels != len(found.b_dec):
                raise ValueError(
                    f"Got features of {human_count(data.channels, 'channel')}, expected "
                    f"{len(found.b_dec)}, on which it was learned"
                )
            sample = data.sample(_judged(len(found.W_dec), self.k))
            judged = found.judge(sample, centred, k)
            if found.centred is None:
                other = found.judge(sample, False, k)
                left, less = (1 - one.quality["explained_variance"] for one in (judged, other))
                if less < CLEARLY * left:
                    centred, judged = False, other
                    self.notes_.append(
                        "nothing says whether inputs are centred by b_dec (apply_b_dec_to_input in cfg.json): they are "
                        "not, which explains more of these activations"
                    )
            threshold = judged.threshold
        self._adopt(found.W_enc, found.W_dec, found.pre(centred), threshold, found.b_dec, judged)
        if judged is not None:
            self.quality_ = judged.quality
            if self.quality_["explained_variance"] < 0:
                self.notes_.append(
                    "this dictionary explains less of these activations than their mean does: it belongs to another "
                    "layer or model, or to activations on another scale (`scale` in the file multiplies inputs)"
                )
        return self


def _judged(count: int, k: int) -> int:
    """Positions that a dictionary is judged on: each latent fires a few times, and many latents do not take hours."""
    return min(65_536, max(2**28 // count, 16 * count // k))


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
        sample = data.sample(min(65_536, max(2**24 // D, 2 * count)))
        if len(sample) < 2:
            raise ValueError(f"Got {human_count(len(sample), 'position')}, expected at least 2")
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
            starts = centred[chosen.to(device)].split(1024)
            nearest = torch.cat([torch.cdist(part, self.hull.points).argmin(1) for part in starts])
            logits = torch.zeros(count, len(self.hull.points), device=device)
            logits[torch.arange(count), nearest] = 2.0 + float(np.log(len(self.hull.points)))
            self.parameters |= {"mix": logits, "off": torch.zeros(count, D, device=device)}
        else:
            self.parameters["D"] = start.clone()
        if spec.kind == "jumprelu":
            first = common_threshold(
                centred[: max(1024, 2**24 // count)] @ start.T, spec.k * min(len(centred), max(1024, 2**24 // count))
            ).clamp_min(1e-2)
            self.parameters["log_threshold"] = torch.full((count,), float(first.log()), device=device)
        for value in self.parameters.values():
            value.requires_grad_()
        self.moments = {name: (torch.zeros_like(v), torch.zeros_like(v)) for name, v in self.parameters.items()}
        self.step = 0
        self.weight = 1e-3  # of the penalty of jumprelu
        self.idle = torch.zeros(count, device=device)
        self.bar = 0.0  # half of the last activation that was chosen (batch-wise kinds)
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

    def own_thresholds(self) -> Tensor | None:
        """Above which each latent fires (I,), where that was learned."""
        return self.parameters["log_threshold"].detach().exp().cpu() if self.spec.kind == "jumprelu" else None

    def _largest(self, pre: Tensor) -> tuple[Tensor, Tensor]:
        """Positions and latents that are active, of pre-activations (P, I)."""
        k = self.spec.k
        if self.spec.kind == "topk":
            top = pre.topk(k, dim=1)
            rows, places = torch.nonzero(top.values > 0, as_tuple=True)
            return rows, top.indices[rows, places]
        flat = pre.flatten()
        count = min(k * len(pre), flat.numel())
        # the largest of all are the largest of those above any bar that enough are above
        above = torch.nonzero(flat > self.bar).flatten()
        if len(above) < count:
            above = torch.nonzero(flat > 0).flatten()
        if len(above) > count:
            top = flat[above].topk(count, sorted=False)
            above = above[top.indices].sort().values
            self.bar = float(top.values.min()) / 2
        return torch.div(above, pre.shape[1], rounding_mode="floor"), above % pre.shape[1]

    def _made(self, x: Tensor, D: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Reconstructions from each nested prefix (one but for matryoshka), which fired, and active ones a position."""
        spec = self.spec
        if spec.kind == "jumprelu":
            active, count = _Jump.apply(x @ self.W.T + self.b, self.parameters["log_threshold"].exp())  # type: ignore[no-untyped-call]
            return [active @ D], active.detach().amax(0) > 0, count.sum(1).mean()
        # with many latents only the few that are active are worth a gradient: one product of size (P, I, D), not five
        few = D.numel() > FEW * spec.k
        with torch.set_grad_enabled(not few):
            pre = torch.addmm(self.b, x, self.W.T)
        rows, places = self._largest(pre.detach())
        fired = torch.zeros(len(D), dtype=torch.bool, device=x.device)
        fired[places] = True
        ends = [len(D)]
        if spec.kind == "matryoshka":
            ends = sorted({max(1, round(share * len(D))) for share in PREFIXES})
        if few:
            value = (x[rows] * self.W.index_select(0, places)).sum(1) + self.b[places]
        else:
            flat, at = pre.flatten(), rows * len(D) + places
            active = torch.zeros_like(flat).scatter(0, at, flat.gather(0, at)).view_as(pre)
        found, made, start = [], torch.zeros_like(x), 0
        for end in ends:
            if few:
                own = slice(None) if len(ends) == 1 else (places >= start) & (places < end)
                made = made.index_add(0, rows[own], value[own, None] * D.index_select(0, places[own]))
            else:
                made = made + active[:, start:end] @ D[start:end]
            found.append(made)
            start = end
        return found, fired, torch.tensor(len(rows) / len(x))

    def advance(self) -> None:
        """One step."""
        spec = self.spec
        rest = spec.steps - self.step
        rate = spec.rate * min(1.0, (self.step + 1) / 50, rest / max(1.0, 0.2 * spec.steps))
        x = self.data.batch(self.step).to(spec.device)
        x = x.sub_(self.mean).div_(self.unit)  # a batch is made anew
        D = self.decoder()
        made, fired, count = self._made(x, D)
        total = x.square().sum().clamp_min(1e-12)
        loss = torch.stack([(x - one).square().sum() for one in made]).mean() / total
        objective = loss
        if spec.kind == "jumprelu":
            objective = objective + self.weight * count
            # more latents than wanted: a heavier penalty
            self.weight *= float(np.exp(np.clip(0.02 * (float(count.detach()) / spec.k - 1), -0.02, 0.02)))
        self.idle = torch.where(fired, 0.0, self.idle + 1)
        dead = self.idle > spec.dead_after
        if spec.auxiliary and bool(dead.any()):
            objective = objective + spec.auxiliary * self._revival(x, (x - made[-1]).detach(), D, dead)
        names = list(self.parameters)
        slopes = torch.autograd.grad(objective, [self.parameters[name] for name in names])
        self._descend(dict(zip(names, slopes, strict=True)), rate)
        self.step += 1
        if self.step % max(1, spec.steps // CURVE) == 0 or self.step == 1:
            self.curve.append(
                {
                    "step": self.step,
                    "loss": float(loss.detach()),
                    "l0": float(count.detach()),
                    "dead": float(dead.float().mean()),
                }
            )

    def _descend(self, slopes: Mapping[str, Tensor], rate: float) -> None:
        """A step of Adam with gradients of norm 1 at most (that of torch takes seconds to load its compiler)."""
        norm = float(torch.stack([slope.square().sum() for slope in slopes.values()]).sum().sqrt())
        cut = min(1.0, 1.0 / (norm + 1e-6))
        after = self.step + 1
        scale = (1 - BETAS[1] ** after) ** 0.5
        with torch.no_grad():
            for name, slope in slopes.items():
                first, second = self.moments[name]
                first.lerp_(slope, 1 - BETAS[0]) if cut == 1 else first.mul_(BETAS[0]).add_(
                    slope, alpha=(1 - BETAS[0]) * cut
                )
                second.mul_(BETAS[1]).addcmul_(slope, slope, value=(1 - BETAS[1]) * cut * cut)
                size = second.sqrt().div_(scale).add_(1e-8)
                self.parameters[name].addcdiv_(first, size, value=-rate / (1 - BETAS[0] ** after))
            if "log_threshold" in self.parameters:
                self.parameters["log_threshold"].clamp_(-8.0, 4.0)

    def _revival(self, x: Tensor, left: Tensor, D: Tensor, dead: Tensor) -> Tensor:
        """What dead latents leave of the residual ``left`` when they alone reconstruct it."""
        places = torch.nonzero(dead).flatten()
        own = relu(torch.addmm(self.b[places], x, self.W[places].T))
        top = own.topk(min(len(places), max(1, x.shape[1] // 2)), dim=1)
        made = torch.zeros_like(own).scatter(1, top.indices, top.values) @ D[places]
        return (left - made).square().sum() / left.square().sum().clamp_min(1e-12)

    def state(self) -> State:
        """Everything that is needed to go on."""
        found: State = {name: value.detach().cpu().numpy().copy() for name, value in self.parameters.items()}
        for name, both in self.moments.items():
            for key, moment in zip(MOMENTS, both, strict=True):
                found[f"{key} {name}"] = moment.cpu().numpy().copy()
        found["idle"] = self.idle.cpu().numpy().copy()
        found["counters"] = np.array([self.step, self.weight], np.float64)
        found["curve"] = np.array([list(point.values()) for point in self.curve], np.float64).reshape(-1, 4)
        if self.hull is not None:
            found["points"] = self.hull.points.cpu().numpy()
        return found

    def restore(self, state: Mapping[str, Array]) -> None:
        """Go on from a state. Raises `ValueError` (it belongs to another dictionary)."""
        for name, value in self.parameters.items():
            if name not in state or state[name].shape != tuple(value.shape):
                raise ValueError(f"Got a state without {name} of shape {tuple(value.shape)}, expected that of this fit")
            value.data.copy_(torch.from_numpy(np.array(state[name])))
            for key, moment in zip(MOMENTS, self.moments[name], strict=True):
                moment.copy_(torch.from_numpy(np.array(state[f"{key} {name}"])))
        if self.hull is not None:
            self.hull = _Hull(torch.from_numpy(np.array(state["points"])).to(self.mean))
        self.idle = torch.from_numpy(np.array(state["idle"])).to(self.idle)
        self.step, self.weight = int(state["counters"][0]), float(state["counters"][1])
        names = ("step", "loss", "l0", "dead")
        self.curve = [dict(zip(names, map(float, point), strict=True)) for point in state["curve"]]
