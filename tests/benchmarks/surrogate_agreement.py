"""Agreement with the teacher over ten seeds: `SurrogateTrainer`, and the published recipe in plain PyTorch.

``RDX_SHARED=FOLDER python tests/benchmarks/surrogate_agreement.py [SEEDS]`` prints the agreement of every seed on
scenes that no recipe has seen, and the paired difference with its standard error. The plain recipe shares nothing with
the trainer but the data: PyTorch's own initial weights and shuffling, noise on reduced fractions, exponentials of the
published loss as they are written (safe at its temperature of 0.1), AdamW as published.
"""

from __future__ import annotations

import os
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from unit.surrogate import lvis_trial

from rdxcli.methods.surrogate.attribution import Affine
from rdxcli.methods.surrogate.evaluation import predict
from rdxcli.methods.surrogate.noise import perturb
from rdxcli.methods.surrogate.training import SurrogateTrainer

EPOCHS, BATCH, RATE, TEMPERATURE, GAMMA, MASS = 30, 256, 0.05, 0.1, 0.9, 0.8


def published(encodings, images, texts, offsets, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (D, C) and bias (D) after the last epoch."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    rows, columns = encodings.row_of_entry, encodings.indices
    shares = [Fraction(int(k), int(encodings.num_captions[i])) for k, i in zip(encodings.count, rows, strict=True)]
    k, m = np.array([share.numerator for share in shares]), np.array([share.denominator for share in shares])
    model = torch.nn.Linear(len(encodings.concepts), images.shape[1])
    rate = RATE * TEMPERATURE * BATCH / 256
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-6, amsgrad=True)
    n = len(images)
    memory = {way: torch.zeros(2, n) for way in ("i2t", "t2i")}
    images, texts = torch.tensor(images), torch.tensor(texts)
    for _ in range(EPOCHS):
        order = torch.randperm(n)
        for start in range(0, n - BATCH + 1, BATCH):
            batch = order[start : start + BATCH]
            noisy = np.zeros((n, len(encodings.concepts)), np.float16)
            noisy[rows, columns] = perturb(k, m, 0.5 + MASS * (rng.random(len(k)) - 0.5))
            z = model(torch.tensor(noisy[batch.numpy()].astype(np.float32)))
            said = texts[torch.tensor(offsets)[batch] + torch.randint(0, int(offsets[1]), (BATCH,))]
            keys = functional.normalize(said, dim=1)
            S = functional.normalize(z, dim=1) @ keys.T / TEMPERATURE
            T = functional.normalize(images[batch], dim=1) @ keys.T / TEMPERATURE
            loss = 0.5 * (_moving(S, T, memory["i2t"], batch) + _moving(S.T, T.T, memory["t2i"], batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.weight.detach().numpy(), model.bias.detach().numpy()


def _moving(S: torch.Tensor, T: torch.Tensor, memory: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The published loss: partition functions as running means, the gradient through its last factor alone."""
    t, s = T.exp(), S.exp()
    for which, value in enumerate((t.mean(1), s.mean(1).detach())):
        gamma = GAMMA if memory[which, index].sum() != 0 else 1.0
        memory[which, index] = (1 - gamma) * memory[which, index] + gamma * value
    u, v = memory[0, index][:, None], memory[1, index][:, None]
    return (t / u * (s.detach() / v) * (s.mean(1, keepdim=True) / s)).mean()


def main(seeds: int) -> None:
    trial = lvis_trial.build(Path(os.environ["RDX_SHARED"]))
    everything = trial.encodings("words")
    order = np.random.default_rng(0).permutation(len(trial.images))
    train, held = np.sort(order[len(order) // 5 :]), np.sort(order[: len(order) // 5])
    each = int(trial.offsets[1])
    images, ids = trial.images[train], [list(trial.captions)[i] for i in train]
    texts = trial.texts.reshape(-1, each, trial.texts.shape[1])[train].reshape(-1, trial.texts.shape[1])
    offsets = np.arange(0, len(texts) + 1, each)
    encodings, unseen = everything.align(ids), everything.take(held)
    truth = predict(trial.images[held], trial.classes)
    dense = unseen.dense()

    def agreement(weight: np.ndarray, bias: np.ndarray) -> float:
        return float((predict(dense @ weight.T + bias, trial.classes) == truth).mean())

    found: dict[str, list[float]] = {"trainer": [], "trainer, published switches": [], "published recipe": []}
    switches = {"legacy_reduced": True, "first_visit": "batch"}
    for seed in range(seeds):
        for name, more in (("trainer", {}), ("trainer, published switches", switches)):
            trainer = SurrogateTrainer(
                batch_size=BATCH,
                epochs=EPOCHS,
                learning_rate=RATE,
                validation=0.0,
                patience=None,
                random_state=seed,
                **more,
            ).fit(encodings, images, texts, text_offsets=offsets)
            z = Affine.of(trainer.surrogate_).embed(unseen)
            found[name].append(float((predict(z, trial.classes) == truth).mean()))
        found["published recipe"].append(agreement(*published(encodings, images, texts, offsets, seed)))
        print(seed, {name: round(values[-1], 4) for name, values in found.items()}, flush=True)
    base = np.array(found["published recipe"])
    print(f"{len(held)} unseen scenes, {len(train)} of training, {len(encodings.concepts)} concepts, {seeds} seeds")
    for name, values in found.items():
        gap = np.array(values) - base
        error = gap.std(ddof=1) / np.sqrt(seeds) if seeds > 1 else float("nan")
        spread = np.std(values, ddof=1)
        print(f"{name}: {np.mean(values):.4f} (sd {spread:.4f}), difference {gap.mean():+.4f} +- {error:.4f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
