"""Where a model runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from rdxcli.errors import UsageError
from rdxcli.lazy import torch

P = ParamSpec("P")
R = TypeVar("R")

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("float32", "float16", "bfloat16")


def pick_device(device: str = "auto") -> torch.device:
    """The torch device of a name.

    `device`: ``auto`` (CUDA, else Apple MPS, else CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``. Raises `UsageError` if
    the name is unknown, or the device is asked for and not there: work never moves to the CPU silently.
    """
    kind, _, index = device.partition(":")
    if kind not in DEVICES or (index and not index.isdecimal()):
        raise UsageError(
            f"unknown device: `{device}`",
            hint="expected " + ", ".join(f"`{name}`" for name in DEVICES) + " or `cuda:0`",
        )
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if kind == "cuda":
        if not cuda:
            raise UsageError(
                "`cuda` was asked for, but torch sees no CUDA device",
                hint="`--device auto` uses what there is; `rdx doctor` shows versions and devices",
            )
        if index and int(index) >= torch.cuda.device_count():
            raise UsageError(f"`{device}` was asked for, but torch sees {torch.cuda.device_count()} CUDA devices")
    if kind == "mps" and not mps:
        raise UsageError("`mps` was asked for, but torch sees no Apple GPU", hint="`--device auto` uses what there is")
    if kind == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    return torch.device(device)


def pick_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """``float32`` for None; otherwise one of `DTYPES`. Raises `UsageError` if the name is unknown."""
    name = "float32" if dtype is None else str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise UsageError(f"unknown dtype: `{dtype}`", hint="expected " + ", ".join(f"`{name}`" for name in DTYPES))
    return getattr(torch, name)


def without_gradients(function: Callable[P, R]) -> Callable[P, R]:
    """A function that runs in torch's inference mode; torch is loaded by the first call."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.inference_mode():
            return function(*args, **kwargs)

    return call
