"""Correcting a small network that learned a mark: the toy experiment of EDDP, appendix I, on drawn shapes.

Discs, squares and triangles; half of the training triangles carry a cross in the upper left corner, so that the
network takes the cross for a triangle. EDDP looks for directions of its last convolution without being told about
shapes or crosses; the direction whose detections overlap most with the crosses of the *training* images is the
unwanted one. Corrected is ``relu(x - strength m s)``, with the concept's own mean strength. Accuracy is measured on
other images, all of them marked, along the signal direction s, along the filter w, and along random vectors.

One 7 x 7 cross lies in the field of view of one of the 2 x 2 positions, 1 position in 24 of the training images. Its
contrast varies: a signal direction is read off the variation of a concept where it is present (SPEC section 5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from rdxcli.methods.directions.alignment import PooledLinearHead
from rdxcli.methods.directions.eddp import EDDP
from rdxcli.methods.directions.labelling import overlaps
from rdxcli.methods.directions.steering import ConceptCorrection, corrected, own_strength
from rdxcli.numerics.threads import single_thread

SIZE = 45
CLASSES = ("disc", "square", "triangle")


def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images (n, 1, 45, 45) and their classes (n,)."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    images = np.zeros((n, 1, SIZE, SIZE), np.float32)
    y = np.arange(n) % 3
    for i in range(n):
        r = rng.uniform(7, 11)
        dy, dx = (grid - centre for grid, centre in zip((rows, columns), rng.uniform(19, 30, 2), strict=True))
        inside = (
            dy**2 + dx**2 < r * r,
            np.maximum(abs(dy), abs(dx)) < 0.85 * r,
            (dy > -r) & (dy < 0.8 * r) & (abs(dx) < 0.6 * (dy + r)),
        )[y[i]]
        images[i, 0] = rng.uniform(0.6, 1.0) * inside
    return images + 0.2 * rng.standard_normal(images.shape).astype(np.float32), y


def marked(rng: np.random.Generator, images: np.ndarray) -> np.ndarray:
    """The same images with a cross in the upper left corner."""
    cross = np.maximum(np.eye(7), np.eye(7)[::-1]).astype(np.float32)
    out = images.copy()
    out[:, 0, 1:8, 1:8] += rng.uniform(1.5, 5.0, (len(images), 1, 1)).astype(np.float32) * cross
    return out


def network(width: int = 16, dropout: float = 0.3) -> nn.Sequential:
    """Four convolutions with ReLU and dropout (a 2 x 2 map), average pooling, linear."""
    layers: list[nn.Module] = []
    channels = 1
    for stride in (2, 2, 2, 1):
        layers += [nn.Conv2d(channels, width, 3, stride), nn.ReLU(), nn.Dropout(dropout)]
        channels = width
    return nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3))


@dataclass
class Poisoned:
    """A trained network, the features of its training images, and test images."""

    model: nn.Sequential
    features: np.ndarray
    crosses: np.ndarray
    clean: np.ndarray
    marked: np.ndarray
    y: np.ndarray

    @property
    def last(self) -> nn.Module:
        """The last ReLU, whose output the directions belong to."""
        return self.model[-4]

    @property
    def head(self) -> PooledLinearHead:
        linear = self.model[-1]
        return PooledLinearHead(linear.weight.detach().T, linear.bias.detach())

    def accuracy(self, images: np.ndarray) -> float:
        with torch.no_grad():
            return float((self.model(torch.from_numpy(images)).argmax(1).numpy() == self.y).mean())


def poisoned(seed: int, n: int = 900, n_test: int = 300, epochs: int = 30) -> Poisoned:
    """Draw, train, and run the training images to the last convolution."""
    rng = np.random.default_rng(seed)
    images, y = draw(rng, n)
    chosen = (y == 2) & (rng.random(n) < 0.5)
    images[chosen] = marked(rng, images[chosen])
    test, y_test = draw(rng, n_test)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = network()
        optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
        X, target = torch.from_numpy(images), torch.from_numpy(y)
        for _ in range(epochs):
            for batch in torch.randperm(n).split(70):
                optimiser.zero_grad()
                cross_entropy(model(X[batch]), target[batch]).backward()
                optimiser.step()
    model.eval()
    with torch.no_grad():
        features = model[:-3](X).numpy()
    crosses = np.zeros((n, *features.shape[2:]), int)
    crosses[chosen, 0, 0] = 1
    return Poisoned(model, features, crosses, test, marked(rng, test), y_test)


@dataclass
class Correction:
    """Accuracies on marked test images, and on clean ones where said."""

    original: float
    clean: float
    along_s: float
    along_w: float
    random: np.ndarray
    clean_along_s: float
    iou: float


def correct(case: Poisoned, directions: EDDP, n_random: int = 20, times: float = 1.0) -> Correction:
    """Take out the concept that overlaps most with the crosses; ``times`` its own strength."""
    iou = overlaps(directions.responses(case.features), case.crosses, 2).iou[:, 1]
    index = int(iou.argmax())
    strength = times * float(own_strength(directions, case.features)[index])

    def after(along: np.ndarray | None, images: np.ndarray) -> float:
        with corrected(case.last, ConceptCorrection(directions, index, strength, along)):
            return case.accuracy(images)

    vectors = np.random.default_rng(0).standard_normal((n_random, directions.n_features_in_))
    return Correction(
        case.accuracy(case.marked),
        case.accuracy(case.clean),
        after(None, case.marked),
        after(directions.decoding_[index], case.marked),
        np.array([after(vector, case.marked) for vector in vectors]),
        after(None, case.clean),
        float(iou[index]),
    )


def find(case: Poisoned, seed: int = 0) -> EDDP:
    """Six directions, as in the paper, with every other setting at its default."""
    return EDDP(6, random_state=seed).fit(case.features, case.head)


def table(seeds: range) -> list[Correction]:
    """The whole experiment for some seeds, each a draw, a training and a search of its own."""
    found = []
    with single_thread():
        for seed in seeds:
            case = poisoned(seed)
            found.append(correct(case, find(case, seed)))
    return found


def main() -> None:
    """Print the results of ten seeds."""
    found = table(range(10))
    names = ("original", "clean", "along_s", "along_w", "clean_along_s", "iou")
    print("seed  " + "".join(f"{name:>15}" for name in (*names, "random mean", "random max")))
    rows = [[*(getattr(one, name) for name in names), one.random.mean(), one.random.max()] for one in found]
    for label, row in [*enumerate(rows), ("mean", np.mean(rows, axis=0))]:
        print(f"{label!s:6}" + "".join(f"{value:15.3f}" for value in row))


if __name__ == "__main__":
    main()
