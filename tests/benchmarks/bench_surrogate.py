"""Speed of the concept surrogate against a straightforward implementation of its formulas, in the same run.

Run with ``python tests/benchmarks/bench_surrogate.py`` (or ``make bench``); one thread, process time, best of a few.
The sizes are those of the method's specification: B = 1024, C = 5000, D = 512, 30 concepts an image.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import torch
from torch.nn import functional

from rdxcli.methods.surrogate import attribution, evaluation, noise
from rdxcli.methods.surrogate.encoding import from_matrix
from rdxcli.methods.surrogate.extraction import Concept, load_extractor
from rdxcli.methods.surrogate.loop import training_step
from rdxcli.methods.surrogate.losses import make_loss
from rdxcli.methods.surrogate.model import Rows, Surrogate
from rdxcli.methods.surrogate.splice import SpLiCE
from rdxcli.methods.surrogate.training import make_optimizer
from rdxcli.methods.surrogate.vocabulary import count_concepts, fit_vocabulary

B, C, D, NNZ, M = 1024, 5000, 512, 30, 10


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Smallest process time of several runs."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return best


def report(what: str, plain: float, ours: float, floor: str) -> None:
    figures = f"plain {plain * 1e3:9.2f} ms   rdx {ours * 1e3:7.2f} ms   {plain / ours:7.1f} x"
    print(f"{what:52} {figures}   (spec: {floor})")


def made_up(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """CSR counts of n images: indptr, indices, k of M captions."""
    rng = np.random.default_rng(seed)
    indices = np.concatenate([np.sort(rng.choice(C, NNZ, replace=False)) for _ in range(n)])
    return np.arange(n + 1) * NNZ, indices, rng.integers(1, M + 1, n * NNZ)


def bench_noise() -> None:
    _, _, k = made_up(B)
    shares = [Fraction(int(x), M) for x in k]

    def plain() -> list[float]:
        normal = statistics.NormalDist()
        out = []
        for share in shares:
            s, m = share.numerator, share.denominator
            z = normal.inv_cdf(0.5 + 0.5 * 0.8 * random.random())
            z = z if random.random() < 0.5 else -z
            value = (2 * s + z * z + z * (4 * s * (1 - s / m) + z * z) ** 0.5) / (2 * (m + z * z))
            out.append(torch.tensor(value))
        return out

    k_, m_ = torch.tensor(k, dtype=torch.float32), torch.full((len(k),), float(M))
    stream = torch.Generator().manual_seed(0)
    ours = seconds(lambda: noise.draw(k_, m_, 0.8, stream), 20)
    report(f"noise draw, {B} x {NNZ}", seconds(plain, 3), ours, "173 -> 0.54 ms")


def plain_loss(q: torch.Tensor, k: torch.Tensor, qt: torch.Tensor, state: list[torch.Tensor]) -> torch.Tensor:
    """The moving-average loss as it is written, both directions, gradients by autograd."""
    total = torch.zeros(())
    for side, (a, b, at) in enumerate(((q, k, qt), (k, q, k))):
        keys = k if side == 0 else qt
        T = functional.normalize(at) @ functional.normalize(keys).T / 0.1
        S = functional.normalize(a) @ functional.normalize(b).T / 0.1
        t, s = T.exp(), S.exp()
        with torch.no_grad():
            state[2 * side] = 0.1 * state[2 * side] + 0.9 * t.mean(1)
            state[2 * side + 1] = 0.1 * state[2 * side + 1] + 0.9 * s.mean(1)
        u, v = state[2 * side][:, None], state[2 * side + 1][:, None]
        total = total + (t.detach() / u * (s.detach() / v) * s.mean(1, keepdim=True) / s).mean()
        with torch.no_grad():
            functional.kl_div(S.log_softmax(1), T.softmax(1), reduction="batchmean")
            (S.argmax(1) == T.argmax(1)).float().mean()
    return total / 2


def bench_step() -> None:
    torch.manual_seed(0)
    images, texts = torch.randn(B, D), torch.randn(B, D)
    indptr, indices, k = made_up(B)
    rows = Rows.of(indptr, indices, k / M)
    dense = torch.zeros(B, C)
    dense[torch.arange(B).repeat_interleave(NNZ), rows.indices] = rows.values
    linear = torch.nn.Linear(C, D)
    table = linear.weight.detach().T.contiguous().requires_grad_()
    slope = torch.randn(B, D)

    def plain_layer() -> None:
        linear.zero_grad()
        linear(dense).backward(slope)

    def bag() -> None:
        table.grad = None
        functional.embedding_bag(
            rows.indices, table, rows.indptr, mode="sum", per_sample_weights=rows.values, include_last_offset=True
        ).backward(slope)

    report(f"linear layer, forward and backward, C={C}", seconds(plain_layer, 5), seconds(bag, 10), "62 -> 9 ms")

    z = torch.randn(B, D, requires_grad=True)
    loss = make_loss("symmetric-moving-kl", B)
    index = torch.arange(B)
    state = [torch.zeros(B) for _ in range(4)]

    def ours() -> None:
        z.grad = None
        loss(z, texts, images, texts, index).loss.backward()

    def plain() -> None:
        z.grad = None
        plain_loss(z, texts, images, state).backward()

    report(f"symmetric loss, forward and backward, B={B}", seconds(plain, 5), seconds(ours, 10), "99 -> 35 ms")

    model = Surrogate(C, D)
    optimizer = make_optimizer("AdamW", model.parameters(), lr=1e-3, weight_decay=1e-6, amsgrad=True)
    other = torch.optim.AdamW(linear.parameters(), lr=1e-3, weight_decay=1e-6, amsgrad=True)

    def plain_step() -> None:
        other.zero_grad()
        plain_loss(linear(dense), texts, images, state).backward()
        other.step()

    whole = seconds(lambda: training_step(model, loss, optimizer, rows, images, texts, index), 10)
    report(f"whole training step, B={B}, C={C}, D={D}", seconds(plain_step, 5), whole, "172 -> 55 ms")


def bench_attribution() -> None:
    rng = np.random.default_rng(1)
    affine = attribution.Affine(rng.normal(size=(C, D)).astype(np.float32), rng.normal(size=D).astype(np.float32))
    W, b = torch.tensor(affine.table.T.copy()), torch.tensor(affine.bias)
    for n, texts in ((256, None), (32, rng.normal(size=(100, D)).astype(np.float32))):
        _, indices, k = made_up(n)
        matrix = np.zeros((n, C), dtype=np.float32)
        matrix[np.repeat(np.arange(n), NNZ), indices] = k / M
        encodings = from_matrix(matrix, [str(i) for i in range(n)], [Concept(str(j), "n") for j in range(C)])
        dense = torch.tensor(matrix)

        def images(dense: torch.Tensor = dense) -> None:
            for c in dense:
                z = W @ c + b
                r = functional.normalize(z, dim=0)
                parts = W * c
                ((parts.T @ r) / (z.norm() - b @ r)).sum()

        def classes(dense: torch.Tensor = dense, texts: np.ndarray | None = texts) -> None:
            unit = functional.normalize(torch.tensor(texts))
            for c in dense[:4]:
                z = W @ c + b
                for t in unit:
                    ((W * c).T @ t) * ((functional.normalize(z, dim=0) @ t) / ((z - b) @ t))

        if texts is None:
            ours = seconds(lambda e=encodings: attribution.image_scores(affine, e), 5)
            report(f"image scores, {n} images, C={C}", seconds(images, 1), ours, "2300 (890) -> 24 ms")
        else:
            ours = seconds(lambda e=encodings, t=texts: attribution.class_scores(affine, e, t), 5)
            plain = seconds(classes, 1) * n / 4
            report(f"class scores, {n} images x {len(texts)} texts, C={C}", plain, ours, "20700 -> 7.7 ms")


def bench_ranks() -> None:
    rng = np.random.default_rng(2)
    for n in (1000, 3000):
        S = rng.normal(size=(n, n))

        def plain(S: np.ndarray = S) -> list[int]:
            order = np.argsort(S, axis=1)[:, ::-1]
            return [int(np.where(row == i)[0][0]) for i, row in enumerate(order)]

        ours = seconds(lambda S=S: evaluation.ranks(S), 3)
        report(f"retrieval ranks, {n} x {n}", seconds(plain, 2), ours, "12 -> 0.6, 99 -> 7 ms")


def bench_splice() -> None:
    from sklearn.linear_model import Lasso

    rng = np.random.default_rng(3)
    words, n = 15_000, 128
    low = rng.normal(size=(40, D))
    Q = rng.normal(size=(words, D)) + rng.normal(size=(words, 40)) @ low
    images = rng.normal(size=(n, D)) + rng.normal(size=(n, 40)) @ low
    model = SpLiCE(0.25).fit(Q, rng.normal(size=D) * 0.02)
    ours = seconds(lambda: model.transform(images), 2) / n
    v = model.centre(images[:4])
    lasso = Lasso(alpha=0.25 / (2 * D), positive=True, fit_intercept=False, tol=1e-6, max_iter=10_000)
    plain = seconds(lambda: [lasso.fit(model.dictionary_.T, row) for row in v], 1) / len(v)
    report(f"SpLiCE, {words} words, per image", plain, ours, "87 -> 21 ms")
    print(f"{'':52} largest violation of the optimality conditions: {model.violation_:.1e}")


def bench_text(lines: Sequence[str] | None = None) -> None:
    words = ("a young man riding a brown horse near two white dogs", "people sit on wooden benches at night")
    captions = lines or [f"{words[i % 2]} number {i}" for i in range(4000)]
    extractor = load_extractor("packaged")
    extractor.concepts(captions[0])
    start = time.process_time()
    counts = count_concepts({str(i): [text] for i, text in enumerate(captions)}, extractor)
    vocabulary = fit_vocabulary(counts, max_threshold=1.0)
    taken = time.process_time() - start
    rate = len(captions) / taken
    print(f"{len(captions)} captions -> {len(vocabulary)} concepts in {taken:.2f} s: {rate:.0f} captions/s")


def main() -> None:
    """Print all figures."""
    torch.set_num_threads(1)
    for bench in (bench_noise, bench_step, bench_attribution, bench_ranks, bench_splice, bench_text):
        bench()


if __name__ == "__main__":
    main()
