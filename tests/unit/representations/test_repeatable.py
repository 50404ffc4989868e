"""The first images are run twice: a network that is random is not taken for one that is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdxcli.datasets.selection import SelectionOptions
from rdxcli.errors import InputError
from rdxcli.representations.extract import extract
from rdxcli.representations.extraction import pace_of
from rdxcli.representations.options import ExtractOptions

NET = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__(); self.feat = nn.Flatten(); self.fc = nn.Linear(6, 2)
    def forward(self, x):
        x = torch.cat([x.mean((2, 3)), x.std((2, 3))], 1)
        return self.fc(self.feat(%s))
def make():
    torch.manual_seed(0); return Net()
"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "d").mkdir()
    for i in range(5):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "d" / f"{i}.png")
    (tmp_path / "d" / "0.png").write_bytes(b"broken")
    return tmp_path / "d"


@pytest.mark.parametrize(
    ("what", "random"),
    [
        ("x", False),
        ("nn.functional.dropout(x, 0.1, training=self.training)", False),
        ("nn.functional.dropout(x, 0.5)", True),
        ("x + 0.05 * torch.randn_like(x)", True),
        ("x[:, torch.randperm(6)]", True),
    ],
)
def test_a_random_network_is_an_error_unless_it_is_allowed(
    tmp_path: Path, images: Path, what: str, random: bool
) -> None:
    (tmp_path / "net.py").write_text(NET % what)

    def run(allow: bool) -> None:
        (done,) = extract(
            ExtractOptions(
                f"{tmp_path / 'net.py'}:make?preprocess=unit&input_size=32&resize=32",
                layers=("feat",),
                selection=SelectionOptions(f"images:{images}"),
                outputs=tmp_path / "out",
                allow_random=allow,
            )
        )
        assert done.shape == (4, 6)

    if random:
        with pytest.raises(InputError, match="is random: run twice, the first 4 images") as caught:
            run(False)
        assert "--allow-random" in (caught.value.hint or "")
    run(random)
    run(False)  # what is there is reused


def test_what_a_pass_takes_is_not_what_its_images_take() -> None:
    # a small network on a busy machine: 8 images take 83 ms and 32 of them 88 ms; the demo's 1,797 take about a second
    small = pace_of(5e-5, {8: 0.083, 32: 0.088})
    assert 0.4 < small.seconds(1797, 2, 512) < 1.5
    # where the model counts, its images do
    assert pace_of(1e-3, {8: 0.8}).seconds(100, 2, 32) == pytest.approx(10)
    assert pace_of(1e-3, {8: 0.8, 32: 3.2}).seconds(100, 2, 32) == pytest.approx(10)
    # a stall of the first pass is no reason to expect nothing
    assert pace_of(1e-3, {8: 0.5, 32: 0.32}).seconds(100, 2, 32) == pytest.approx(1)
    assert pace_of(0.1, {8: 0.08}).seconds(100, 2, 32) == pytest.approx(5)  # decoding is slower, on two threads
