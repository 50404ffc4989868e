"""The values that a pickle may hold: arrays of numbers, descriptions of tensors, and the builders of both.

`BUILDERS` is the whole list of names that `rdxcli.download.plainpickle` acts on; all others are refused or kept as a
marker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class PendingArray:
    """An array before its state is known."""

    value: np.ndarray | None = None


@dataclass(frozen=True)
class Storage:
    """A block of numbers in another file of a checkpoint."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class Tensor:
    """A view of a `Storage`: offset, shape and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def settled(value: Any) -> Any:
    """The array of a `PendingArray`; anything else as it is."""
    return value.value if isinstance(value, PendingArray) else value


def _dtype(text: Any, *_: Any) -> np.dtype:
    name = text.decode("ascii") if isinstance(text, bytes) else str(text)
    dtype = np.dtype(name)
    if dtype.kind not in "biufSU" or dtype.fields is not None:
        raise ValueError(f"an array of {name}")
    return dtype


def array_of(shape: Any, dtype: np.dtype, fortran: bool, raw: Any) -> np.ndarray:
    """An array of numbers or text from its bytes; `ValueError` for anything else."""
    if not isinstance(dtype, np.dtype):
        raise ValueError("an array of no number type")
    if isinstance(raw, str):
        raw = raw.encode("utf-8")
    if not isinstance(raw, bytes):
        raise ValueError("an array of objects")
    flat = np.frombuffer(raw, dtype) if raw else np.empty(0, dtype)
    return flat.reshape(tuple(shape), order="F" if fortran else "C").copy()


def _scalar(dtype: Any, raw: Any) -> Any:
    return array_of((), dtype, False, raw).item()


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    return array_of(shape, dtype, order == "F", raw)


def _empty_bytes() -> bytes:
    return b""


def _encoded(text: Any, encoding: Any = "utf-8") -> bytes:
    if encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise ValueError(f"the encoding {encoding!r}")
    return str(text).encode(str(encoding))


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    return Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _ordered(items: Any = ()) -> dict[Any, Any]:
    return dict(items)


BUILDERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _ordered,
    ("_codecs", "encode"): _encoded,
    ("numpy", "dtype"): _dtype,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): lambda *_: PendingArray() for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    **{(module, "bytes"): _empty_bytes for module in ("builtins", "__builtin__")},
    **{(module, "set"): set for module in ("builtins", "__builtin__")},
    **{(module, "frozenset"): frozenset for module in ("builtins", "__builtin__")},
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}
