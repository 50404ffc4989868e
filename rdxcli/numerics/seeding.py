"""Random streams that depend on a seed and on names, never on the order in which they are asked for."""

from __future__ import annotations

import hashlib

import numpy as np

from rdxcli.lazy import torch


def _entropy(seed: int, names: tuple[str | int, ...]) -> int:
    text = "\x1f".join([str(int(seed)), *(f"{type(name).__name__}:{name}" for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """NumPy generator of the stream ``(seed, *names)``.

    Parameters
    ----------
    seed : int
        The user's seed.
    *names : str or int
        What the stream is for, for example ``("rdx", "bootstrap", 3)``. Different names give independent streams,
        so that results do not depend on which other methods or units are run, or in which order.
    """
    return np.random.default_rng(_entropy(seed, names))


def integer_seed(seed: int, *names: str | int) -> int:
    """A seed in [0, 2**31) of the stream ``(seed, *names)``, for libraries that take integers."""
    return _entropy(seed, names) % (2**31)


def torch_generator(seed: int, *names: str | int, device: str = "cpu") -> torch.Generator:
    """Torch generator of the stream ``(seed, *names)``."""
    return torch.Generator(device=device).manual_seed(_entropy(seed, names) % (2**63))
