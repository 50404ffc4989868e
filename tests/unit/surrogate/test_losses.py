"""Losses: the published formulas with autograd, temperatures at which those overflow, the running averages."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rdxcli.methods.surrogate.losses import (
    LOSSES,
    DistillationLoss,
    MovingAverage,
    combined,
    entropy,
    hard_cross_entropy,
    make_loss,
    scaled_similarity,
    uniform_kl,
)


def batch(b: int = 9, d: int = 5, seed: int = 0, columns: int | None = None) -> list[Tensor]:
    stream = torch.Generator().manual_seed(seed)
    rows = (b, columns or b, b, columns or b)
    return [torch.randn(n, d, generator=stream, dtype=torch.float64) for n in rows]


def kl(S: Tensor, T: Tensor) -> Tensor:
    return functional.kl_div(S.log_softmax(1), T.log_softmax(1), reduction="batchmean", log_target=True)


def similarities(q: Tensor, k: Tensor, qt: Tensor, kt: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    cosine = lambda a, b: functional.normalize(a) @ functional.normalize(b).T / tau  # noqa: E731
    return cosine(q, k), cosine(qt, kt)


@pytest.mark.parametrize("tau", [0.1, 0.02, 0.001])
@pytest.mark.parametrize("symmetric", [False, True])
def test_plain_losses_are_kl(tau: float, symmetric: bool) -> None:
    q, k, qt, kt = batch()
    loss = DistillationLoss(tau, tau, symmetric=symmetric)
    mine = [x.clone().requires_grad_() for x in (q, k)]
    value = loss(*mine, qt, kt)
    value.loss.backward()
    theirs = [x.clone().requires_grad_() for x in (q, k)]
    S, T = similarities(*theirs, qt, kt, tau)
    expected = (kl(S, T) + kl(S.T, T.T)) / 2 if symmetric else kl(S, T)
    expected.backward()
    torch.testing.assert_close(value.loss, expected, rtol=1e-12, atol=1e-13)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(value.metrics["kl"], expected.detach(), rtol=1e-12, atol=1e-13)
    agree = (S.argmax(1) == T.argmax(1)).double().mean()
    assert value.metrics["i2t_accuracy" if symmetric else "accuracy"] == agree


def published(S: Tensor, T: Tensor, u: Tensor, v: Tensor, w: Tensor, gammas: tuple[float, float]) -> Tensor:
    """The moving-average loss as it is written; ``u``, ``v`` are updated in place."""
    t, s = T.exp(), S.exp()
    for state, gamma, new in ((u, gammas[0], t), (v, gammas[1], s)):
        g = 1.0 if float(state.sum()) == 0 else gamma
        state.copy_((1 - g) * state + g * new.mean(1).detach())
    inner = t.detach() / u[:, None] * (s.detach() / v[:, None]) * w[:, None]
    return (inner * s.mean(1, keepdim=True) / s).mean()


def test_moving_average_loss_is_the_published_one() -> None:
    b, n = 6, 6
    weights = torch.rand(n, dtype=torch.float64) + 0.5
    loss = make_loss("moving-kl", n, gamma1=0.9, gamma2=0.6, temp_student=0.2, temp_teacher=0.2, weights=weights)
    u, v = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    for step in range(4):
        q, k, qt, kt = batch(b, seed=step)
        index = torch.randperm(n, generator=torch.Generator().manual_seed(step))
        mine, theirs = q.clone().requires_grad_(), q.clone().requires_grad_()
        value = loss(mine, k, qt, kt, index)
        value.loss.backward()
        uu, vv = u[index], v[index]
        expected = published(*similarities(theirs, k, qt, kt, 0.2), uu, vv, weights[index], (0.9, 0.6))
        u[index], v[index] = uu, vv
        expected.backward()
        torch.testing.assert_close(value.loss, expected, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-10, atol=1e-13)
    assert loss.averages is not None
    torch.testing.assert_close(loss.averages[0].u, u, rtol=1e-12, atol=0)
    torch.testing.assert_close(loss.averages[0].v, v, rtol=1e-12, atol=0)


@pytest.mark.parametrize("tau", [0.02, 0.0115, 0.001])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_overflows(tau: float, dtype: torch.dtype) -> None:
    q, k, qt, kt = (x.to(dtype) for x in batch(32, 8))
    loss = make_loss("symmetric-moving-kl", 32, temp_student=tau, temp_teacher=tau)
    for _ in range(3):
        q = q.detach().requires_grad_()
        value = loss(q, k, qt, kt, torch.arange(32))
        value.loss.backward()
        assert math.isfinite(value.loss.item())
        assert bool(torch.isfinite(q.grad).all())  # type: ignore[arg-type]
        q = q - 0.01 * q.grad  # type: ignore[operator]
    assert value.loss.dtype == dtype


def test_shared_exponentials_change_nothing() -> None:
    q, k, qt, kt = (x.float() for x in batch(40, 6))
    grads = []
    for tau in (0.1, 0.0999999):
        loss = make_loss("symmetric-moving-kl", 40, temp_student=tau, temp_teacher=tau)
        leaf = q.clone().requires_grad_()
        S, T = similarities(leaf, k, qt, kt, 0.1)
        if tau != 0.1:
            loss.temp_student = 1e-3  # forces the shifted form for the same logits
        loss.from_logits(S, T, torch.arange(40)).loss.backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(*grads, rtol=2e-4, atol=1e-7)


def test_first_visits() -> None:
    index, mixed = torch.tensor([0, 1]), torch.tensor([1, 2])
    one, two = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    for rule, third in (("sample", math.e), ("batch", 0.9 * math.e)):
        average = MovingAverage(4, 0.9, 1.0, rule)
        average.update(index, one, one)
        average.update(mixed, two, two)
        assert average.u.tolist() == pytest.approx([1.0, 0.1 + 0.9 * math.e, third, 0.0])
        assert average.v.tolist() == pytest.approx([1.0, math.e, math.e, 0.0])


def test_state_goes_round() -> None:
    first, second = (make_loss("symmetric-moving-kl", 9) for _ in range(2))
    q, k, qt, kt = batch()
    first(q, k, qt, kt, torch.arange(9))
    second.load({key: value.clone() for key, value in first.state().items()})
    assert set(first.state()) == {f"{way}.log_{x}" for way in ("i2t", "t2i") for x in "uv"}
    for key, value in first.state().items():
        torch.testing.assert_close(second.state()[key], value)
    a, b = (loss(k, q, kt, qt, torch.arange(9)).loss for loss in (first, second))
    assert torch.equal(a, b)
    assert make_loss("kl", 9).state() == {}


def test_rows_of_zeros_and_rectangles() -> None:
    q, k, qt, kt = batch(4, 5, columns=7)
    q[1] = 0
    assert scaled_similarity(q, k, 0.1)[1].tolist() == [0.0] * 7
    leaf = q.clone().requires_grad_()
    value = DistillationLoss(symmetric=True)(leaf, k, qt, kt)
    value.loss.backward()
    assert bool(torch.isfinite(leaf.grad).all())  # type: ignore[arg-type]


def test_lower_precision_stays_close() -> None:
    q, k, qt, kt = (x.float() for x in batch(32, 16))
    leaf = q.clone().requires_grad_()
    loss = make_loss("symmetric-moving-kl", 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(leaf, k, qt, kt, torch.arange(32))
    value.loss.backward()
    exact = make_loss("symmetric-moving-kl", 32)(q, k, qt, kt, torch.arange(32))
    assert value.metrics["kl"].dtype == torch.float32
    assert float(value.metrics["kl"]) == pytest.approx(float(exact.metrics["kl"]), rel=0.03)


def test_predecessor_losses() -> None:
    q, k, qt, kt = batch(6, 4)
    S, T = similarities(q, k, qt, kt, 0.3)
    S = S.detach().requires_grad_()
    soft = -(T.softmax(1) * S.log_softmax(1)).sum(1).mean()
    hard = functional.cross_entropy(S, T.argmax(1))
    torch.testing.assert_close(combined(S, T, 0.3).loss, 0.3 * soft + 0.7 * hard, rtol=1e-12, atol=0)
    torch.testing.assert_close(combined(S, T, 1.0, cross_entropy=False).loss, soft - entropy(T).mean())
    torch.testing.assert_close(hard_cross_entropy(S, T).loss, hard)
    flat = torch.zeros(3, 8, dtype=torch.float64)
    assert float(uniform_kl(flat)) == pytest.approx(0.0, abs=1e-12)
    sure = torch.full((3, 8), -1e4, dtype=torch.float64)
    sure[:, 0] = 0
    assert float(uniform_kl(sure)) == pytest.approx(math.log(8))


def test_wrong_use_is_refused() -> None:
    q, k, qt, kt = batch()
    cases = [
        lambda: make_loss("hinge", 4),
        lambda: make_loss("kl", 4, temp_student=0.0),
        lambda: MovingAverage(4, gamma1=0.0),
        lambda: MovingAverage(4, first_visit="never"),
        lambda: DistillationLoss(weights=torch.ones(3)),
        lambda: DistillationLoss(cross_entropy=True),
        lambda: DistillationLoss(averages=(MovingAverage(4), None)),
        lambda: make_loss("moving-kl", 9)(q, k, qt, kt),
        lambda: scaled_similarity(q, k[:, :2], 0.1),
        lambda: scaled_similarity(q, k, -1.0),
        lambda: combined(q, k, 2.0),
        lambda: DistillationLoss().from_logits(q, q.T),
    ]
    for case in cases:
        with pytest.raises(ValueError, match="Got"):
            case()
    leaf = q.clone().requires_grad_()
    value = make_loss("kl", 9)(leaf, k, qt, kt)
    value.loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second backward"):
        value.loss.backward()
    assert len(LOSSES) == 4
