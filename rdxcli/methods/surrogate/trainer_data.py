"""What a training run reads: the teacher's embeddings, batches of encodings, and which images are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rdxcli.numerics.seeding import generator, torch_generator
from rdxcli.progress import human_count

from . import noise
from .encoding import Encodings, entries_of
from .model import Rows

_BLOCK = 65536


def check_embeddings(values: Any, name: str, rows: int | None = None) -> None:
    """Refuse embeddings that are not a finite matrix without zero rows.

    Raises `ValueError`.

    Parameters
    ----------
    values : array (n, d)
        May be memory-mapped; read once in blocks.
    name : str
        For the message.
    rows : int, optional
        Expected n.
    """
    shape = np.shape(values)
    if len(shape) != 2 or (rows is not None and shape[0] != rows):
        raise ValueError(f"Got {name} of shape {shape}, expected ({'n' if rows is None else rows}, d)")
    for start in range(0, shape[0], _BLOCK):
        block = np.asarray(values[start : start + _BLOCK], dtype=np.float32)
        square = np.einsum("nd,nd->n", block, block)
        if not np.all(np.isfinite(block)):
            raise ValueError(f"Got NaN or infinite values in {name}, expected finite numbers")
        if np.any(square == 0):
            row = start + int(np.flatnonzero(square == 0)[0])
            raise ValueError(f"Got a row of zeros in {name} (row {row}), expected a direction in every row")


def digest(*arrays: Any) -> str:
    """sha256 over shapes, types and contents, read in blocks."""
    state = hashlib.sha256()
    for values in arrays:
        values = values if isinstance(values, np.ndarray) else np.asarray(values)
        state.update(f"{values.dtype}{values.shape}".encode())
        for start in range(0, len(values), _BLOCK):
            state.update(np.ascontiguousarray(values[start : start + _BLOCK]).tobytes())
    return state.hexdigest()


@dataclass(frozen=True)
class Parts:
    """Rows for training, for the choice of the best epoch, and for the figures that are reported.

    Parameters
    ----------
    train, validation, test : ndarray of int64
        Ascending.
    held_out : bool
        False when all three are the same images, as published.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    held_out: bool


def split_rows(n: int, share: float, seed: int, test: float | None = None) -> Parts:
    """Hold out two shares of the images; a validation share of 0 validates on the training images.

    Raises `ValueError` when fewer than two images would be left for one of them.

    Parameters
    ----------
    share : float
        For the choice of the epoch.
    test : float, optional
        For the reported figures; as large as ``share`` without it. 0 reports the validation images, which chose.
    """
    test = share if test is None else test
    for name, value in (("validation", share), ("test", test)):
        if not 0 <= value < 1:
            raise ValueError(f"Got {name}={value}, expected a share in [0, 1)")
    everything = np.arange(n)
    if share == 0:
        if test > 0:
            raise ValueError(f"Got test={test} and validation=0, expected images that choose the epoch: validation > 0")
        return Parts(everything, everything, everything, False)
    held = max(2, round(share * n))
    last = max(2, round(test * n)) if test else 0
    if n - held - last < 2:
        least = 6 if last else 4
        raise ValueError(
            f"Got {human_count(n, 'image')}, expected at least {least} to hold out {share + test:.0%} of "
            "them, or validation=0"
        )
    order = generator(seed, "surrogate", "split").permutation(n)
    validation = np.sort(order[:held])
    return Parts(
        np.sort(order[held + last :]), validation, np.sort(order[held : held + last]) if last else validation, True
    )


class Teacher:
    """Embeddings of n images and of their captions, as a vision-language model gives them (not normalised).

    Raises `ValueError` for wrong shapes, NaN, zero rows, or an image without a caption.

    Parameters
    ----------
    image_embeddings : array (n, d)
    text_embeddings : array (t, e)
        Rows of an image's captions lie together. May be memory-mapped, like the images.
    text_offsets : array (n + 1,) of int, optional
        Captions of image i are rows ``text_offsets[i]:text_offsets[i + 1]``. Without it one caption per image.
    """

    def __init__(self, image_embeddings: Any, text_embeddings: Any, text_offsets: Any = None) -> None:
        check_embeddings(image_embeddings, "image embeddings")
        n = np.shape(image_embeddings)[0]
        offsets = np.arange(n + 1) if text_offsets is None else np.asarray(text_offsets, dtype=np.int64)
        check_embeddings(text_embeddings, "text embeddings", int(offsets[-1]) if len(offsets) else None)
        if offsets.shape != (n + 1,) or offsets[0] != 0:
            raise ValueError(f"Got text offsets of shape {offsets.shape}, expected ({n + 1},) from 0")
        sizes = np.diff(offsets)
        if np.any(sizes < 1):
            raise ValueError(
                f"Got {human_count(int((sizes < 1).sum()), 'image')} without a caption embedding, expected one or more"
            )
        if np.shape(image_embeddings)[1] != np.shape(text_embeddings)[1]:
            raise ValueError(
                f"Got image embeddings of {np.shape(image_embeddings)[1]} and text embeddings of "
                f"{human_count(np.shape(text_embeddings)[1], 'dimension')}, expected equal ones"
            )
        self.images, self.texts, self.offsets, self.sizes = image_embeddings, text_embeddings, offsets, sizes

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.offsets) - 1

    @property
    def dim(self) -> int:
        """Dimension of the joint space."""
        return int(np.shape(self.images)[1])

    @property
    def digest(self) -> str:
        """Fingerprint of all embeddings."""
        return digest(self.images, self.texts, self.offsets)

    def image_rows(self, rows: np.ndarray) -> np.ndarray:
        """Embeddings of some images."""
        return np.asarray(self.images[rows])

    def text_rows(self, rows: np.ndarray, u: np.ndarray | None = None) -> np.ndarray:
        """One caption each: the first, or the one that ``u`` in [0, 1) picks."""
        chosen = self.offsets[rows]
        if u is not None:
            chosen = chosen + np.minimum((u * self.sizes[rows]).astype(np.int64), self.sizes[rows] - 1)
        return np.asarray(self.texts[chosen])


class CodeBatches:
    """Encodings of batches as tensors, with or without noise.

    Parameters
    ----------
    mass : float
        Confidence mass of the noise; 0 for none.
    legacy_reduced : bool
        Draw from reduced fractions, as published.
    dtype, device
        Of the tensors.
    """

    def __init__(
        self, encodings: Encodings, mass: float, legacy_reduced: bool, seed: int, dtype: torch.dtype, device: Any
    ) -> None:
        if not 0 <= mass < 1:
            raise ValueError(f"Got noise_mass={mass}, expected a number in [0, 1)")
        self.encodings, self.mass, self.seed, self.dtype, self.device = encodings, mass, seed, dtype, device
        self._k: np.ndarray | None = None
        if mass > 0 and encodings.count is not None and encodings.num_captions is not None:
            k, m = encodings.count, encodings.num_captions[encodings.row_of_entry]
            if legacy_reduced:
                k, m = noise.reduced(k, m)
            self._k, self._m = k.astype(np.float32), m.astype(np.float32)

    @property
    def noisy(self) -> bool:
        """Whether training encodings are drawn."""
        return self._k is not None

    def clean(self, rows: np.ndarray) -> Rows:
        """Encodings without noise."""
        entries, indptr = entries_of(self.encodings.indptr, rows)
        return self._rows(entries, indptr, torch.from_numpy(self.encodings.shares[entries]))

    def drawn(self, rows: np.ndarray, *names: int) -> Rows:
        """Encodings with the noise of the stream ``names`` (epoch, step); without noise where there is none."""
        if self._k is None:
            return self.clean(rows)
        entries, indptr = entries_of(self.encodings.indptr, rows)
        stream = torch_generator(self.seed, "surrogate", "noise", *names)
        k, m = torch.from_numpy(self._k[entries]), torch.from_numpy(self._m[entries])
        return self._rows(entries, indptr, noise.draw(k, m, self.mass, stream))

    def _rows(self, entries: np.ndarray, indptr: np.ndarray, values: Tensor) -> Rows:
        indices = self.encodings.indices[entries].astype(np.int64)
        return Rows.of(indptr, indices, values, dtype=self.dtype, device=self.device)


def merged(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Named groups of tensors as one flat mapping ``group/name``."""
    return {f"{group}/{name}": tensor for group, members in parts.items() for name, tensor in members.items()}


def group(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """One group of `merged`."""
    return {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}


def chunks(rows: np.ndarray, size: int) -> Sequence[np.ndarray]:
    """Cut rows into as few nearly equal pieces of at most ``size`` as possible."""
    return np.array_split(rows, max(1, -(-len(rows) // size)))
