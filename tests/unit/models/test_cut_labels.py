"""Masks are cut as images are."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from rdxcli.models.preprocessing import Preprocessing, cut_labels


@pytest.mark.parametrize(
    "how",
    [
        Preprocessing((32, 32), "shortest", (40, 40)),
        Preprocessing((32, 32), "squash", (32, 32)),
        Preprocessing((24, 40), "longest", (24, 40)),
    ],
)
@pytest.mark.parametrize("shape", [(60, 90), (75, 50)])
def test_labels_lie_where_the_model_sees_their_pixels(how: Preprocessing, shape: tuple[int, int]) -> None:
    labels = np.zeros(shape, np.int64)
    labels[: shape[0] // 2] = 1
    labels[:, : shape[1] // 3] = 2
    pixels = (40 + 80 * labels).astype(np.uint8)
    seen = how(Image.fromarray(pixels).convert("RGB"))[0].numpy() * how.std[0] + how.mean[0]
    cut = cut_labels(how, labels)
    assert cut.shape == how.input_size
    wanted = np.where(cut >= 0, (40 + 80 * cut) / 255, 0.0)
    # borders are smooth in the image and sharp in the mask
    assert (np.abs(seen - wanted) < 0.02).mean() > 0.85
    binary = cut_labels(how, np.stack([labels == k for k in range(3)]))
    np.testing.assert_array_equal(binary, np.stack([cut == k for k in range(3)]))
