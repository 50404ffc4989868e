"""The surrogate: sparse and dense forward, published layout, damaged weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rdxcli.methods.surrogate.model import Rows, Surrogate


@pytest.mark.parametrize("options", [{}, {"use_key_encoder": True, "text_dim": 5}, {"mlp_dim": 3}])
def test_forward_is_the_dense_formula(options: dict[str, int]) -> None:
    model = Surrogate(7, 4, dtype=torch.float64, random_state=3, **options)
    x = np.random.default_rng(0).random((6, 7)) * (np.random.default_rng(1).random((6, 7)) < 0.4)
    x[2] = 0
    state = {name: value.numpy() for name, value in model.published_state().items()}
    z = x @ state["query_encoder.weight"].T + state["query_encoder.bias"]
    if "mlp_dim" in options:
        hidden = 1 / (1 + np.exp(-(x @ state["mlp_encoder.0.weight"].T + state["mlp_encoder.0.bias"])))
        z = z + hidden @ state["mlp_encoder.2.weight"].T + state["mlp_encoder.2.bias"]
    with torch.no_grad():
        np.testing.assert_allclose(model(Rows.from_dense(x, dtype=torch.float64)), z, rtol=1e-12, atol=1e-14)
    text = np.random.default_rng(2).normal(size=(3, options.get("text_dim", 4)))
    keys = model.keys(torch.tensor(text)).detach().numpy()
    if "text_dim" in options:
        text = text @ state["key_encoder.weight"].T + state["key_encoder.bias"]
    np.testing.assert_allclose(keys, text, rtol=1e-12)
    again = Surrogate.from_published_state(state)
    for name, value in again.published_state().items():
        np.testing.assert_array_equal(value, state[name])
    assert again.weight.shape == (4, 7)


def test_initial_weights_depend_on_the_seed_only() -> None:
    torch.manual_seed(0)
    first = Surrogate(50, 4, random_state=1)
    torch.manual_seed(9)
    again, other = Surrogate(50, 4, random_state=1), Surrogate(50, 4, random_state=2)
    assert torch.equal(first.table, again.table)
    assert not torch.equal(first.table, other.table)
    assert float(first.table.detach().abs().max()) <= 50**-0.5
    # A further option draws from its own stream.
    assert torch.equal(Surrogate(50, 4, random_state=1, mlp_dim=2).table, first.table)


def test_damaged_weights_are_refused() -> None:
    good = {name: value.numpy() for name, value in Surrogate(3, 2, mlp_dim=2).published_state().items()}
    weight = good["query_encoder.weight"]
    wrong = [
        {},
        {**good, "extra": weight},
        {key: value for key, value in good.items() if key != "query_encoder.bias"},
        {**good, "query_encoder.bias": np.zeros(5)},
        {**good, "query_encoder.weight": np.full_like(weight, np.nan)},
        {**good, "query_encoder.weight": weight[0]},
    ]
    for state in wrong:
        with pytest.raises(ValueError, match="Got"):
            Surrogate.from_published_state(state)
    for options in ({"num_concepts": 0, "dim": 2}, {"num_concepts": 2, "dim": 2, "mlp_dim": 0}):
        with pytest.raises(ValueError, match="expected at least 1"):
            Surrogate(**options)
    with pytest.raises(ValueError, match="equal ones"):
        Surrogate(2, 3, text_dim=4)
