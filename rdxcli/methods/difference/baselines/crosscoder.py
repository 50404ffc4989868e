"""Crosscoder: one sparse autoencoder of both models at once, whose latents are shared or belong to one model.

Symbols: ``x_m`` (n, d_m) representation of model m, centred and of root mean square 1; ``a`` (n, C) one code for both;
``D_m`` (C, d_m) decoder rows of each model; lean ``|D_b| / (|D_a| + |D_b|)`` of a latent, 0: only in a, 1: only in b.

A crosscoder (Lindsey et al. 2024) is an autoencoder of both representations side by side; it is learned by
`SparseAutoencoder` with the batch-wise choice of active latents, which does not shrink a latent of one model into the
other as an L1 penalty does (Minder et al. 2025, BatchTopK crosscoders).
"""

from __future__ import annotations

import numpy as np

from rdxcli.methods.dictionaries.sae import SparseAutoencoder
from rdxcli.methods.difference.baselines.base import Baseline
from rdxcli.methods.difference.graph import DIRECTIONS
from rdxcli.parameters import Count, Positive
from rdxcli.progress import human_count

EXCLUSIVE = 0.8
"""Lean from which a latent counts as b's own; a's own is below 1 minus that."""


class Crosscoder(Baseline):
    """Concepts that one model has and the other has less, by the norms of a shared dictionary's decoders.

    Parameters
    ----------
    n_clusters : int, default 3
        Concepts per model.
    num_samples : int, default 9
    latents : int, optional
        Shared latents; default 4 for each dimension of the wider model, 512 at most.
    k : int, default 8
        Active latents per image, on average.
    steps : int, default 2000
    batch_size : int, default 500
    lr : float, default 5e-3
    random_state : int, default 0

    Attributes
    ----------
    lean_ : ndarray, shape (C,)
        See above; NaN for a latent that never fires.
    counts_ : dict of str to int
        Latents that are ``shared``, ``a`` and ``b`` only, and ``dead``.
    explained_ : (float, float)
        Share of the variance of each model that the dictionary explains.
    """

    def __init__(
        self,
        n_clusters: Count = 3,
        *,
        num_samples: Count = 9,
        latents: Count | None = None,
        k: Count = 8,
        steps: Count = 2000,
        batch_size: Count = 500,
        lr: Positive = 5e-3,
        random_state: int = 0,
    ):
        self.n_clusters = n_clusters
        self.num_samples = num_samples
        self.latents = latents
        self.k = k
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.random_state = random_state

    def _fit(self, R0: np.ndarray, R1: np.ndarray) -> None:
        sides = [_standard(R) for R in (R0, R1)]
        x = np.concatenate(sides, axis=1).astype(np.float32)
        count = self.latents or min(512, 4 * max(side.shape[1] for side in sides))
        if count < 2 * self.n_clusters:
            raise ValueError(
                f"Got {human_count(count, 'latent')}, expected at least {2 * self.n_clusters}, two per concept"
            )
        found = SparseAutoencoder(
            count,
            k=min(self.k, count - 1),
            steps=self.steps,
            batch=self.batch_size,
            rate=self.lr,
            random_state=self.random_state,
        ).fit(x)
        self.notes_ += [note for note in found.notes_ if "the time was over" in note]
        fires = found.detect(x)
        codes = np.where(fires, (x - found.mean_) @ found.encoder_.T + found.encoder_bias_, 0.0)
        split = sides[0].shape[1]
        norms = [np.linalg.norm(part, axis=1) for part in (found.decoder_[:, :split], found.decoder_[:, split:])]
        alive = fires.any(axis=0)
        self.lean_ = np.where(alive, norms[1] / np.maximum(norms[0] + norms[1], 1e-12), np.nan)
        self.counts_ = {
            "shared": int((alive & (self.lean_ >= 1 - EXCLUSIVE) & (self.lean_ <= EXCLUSIVE)).sum()),
            "a": int((self.lean_ < 1 - EXCLUSIVE).sum()),
            "b": int((self.lean_ > EXCLUSIVE).sum()),
            "dead": int((~alive).sum()),
        }
        rebuilt = codes @ found.decoder_ + found.mean_
        self.explained_ = tuple(
            float(1 - ((x[:, part] - rebuilt[:, part]) ** 2).sum() / max(float((x[:, part] ** 2).sum()), 1e-12))
            for part in (slice(None, split), slice(split, None))
        )
        self.notes_.append(
            f"{human_count(count, 'latent')}: {self.counts_['shared']} shared, {self.counts_['a']} only in a, "
            f"{self.counts_['b']} only in b (four fifths of the decoder), {self.counts_['dead']} never active; "
            f"explained variance {self.explained_[0]:.0%} and {self.explained_[1]:.0%}"
        )
        enough = fires.sum(axis=0) >= min(self.num_samples, len(x))
        for side, direction in enumerate(DIRECTIONS):
            own = np.where(enough, self.lean_ if side else 1 - self.lean_, -1.0)
            chosen = np.argsort(-own, kind="stable")[: self.n_clusters]
            chosen = chosen[own[chosen] > 0.5]
            if not len(chosen):
                raise ValueError(f"no latent leans to model {'ab'[side]}: all are shared alike or lean to the other")
            if own[chosen[0]] < EXCLUSIVE:
                self.notes_.append(
                    f"no latent is only in {'ab'[side]}: the one that leans most has {own[chosen[0]]:.0%} of its "
                    "decoder there (50 % is shared alike; with two trainings of one network 60 to 66 % was seen)"
                )
            labels, samples = self._from_coefficients(codes[:, chosen])
            self._store(direction, labels, samples)


def _standard(R: np.ndarray) -> np.ndarray:
    """Centred and of root mean square 1; constant representations were refused."""
    centred = R - R.mean(axis=0)
    return centred / float(np.sqrt((centred**2).mean()))
