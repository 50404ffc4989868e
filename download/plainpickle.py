"""Pickles of plain values, read by the standard library's unpickler with nothing to call.

The danger of a pickle lies in the names that it imports and calls. `find_class` answers every name from a fixed table
of builders written here, which make dictionaries, bytes, NumPy arrays of numbers and, for checkpoints, descriptions of
tensors. Nothing is imported, and nothing of the file is called.
"""

from __future__ import annotations

import io
import pickle  # noqa: TID251  the one reader; it can make nothing but plain values
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rdxcli.errors import InputError


class _Fixed:
    def __setstate__(self, state: Any) -> None:
        raise ValueError(f"the state of a {type(self).__name__}")


@dataclass(frozen=True)
class Symbol(_Fixed):
    """A name that a pickle wanted imported. It is never looked up."""

    module: str
    name: str


class Opaque:
    """What an unknown name stands for in lenient reading: a marker that takes everything and does nothing."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        pass

    def __new__(cls, *args: Any, **keywords: Any) -> Opaque:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __call__(self, *args: Any, **keywords: Any) -> Opaque:
        return Opaque()

    append = extend = add = update = __setstate__


@dataclass(frozen=True)
class Storage(_Fixed):
    """A block of numbers in another file of a checkpoint."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class Tensor(_Fixed):
    """A view of a `Storage`: offset, shape and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_plain(data: bytes, what: str, lenient: bool = False, persistent: Callable[[Any], Any] | None = None) -> Any:
    """The value of a pickle of plain containers.

    Raises `InputError` (damaged, or made of anything but plain values).

    Parameters
    ----------
    data : bytes
        Any protocol. Eight-bit strings of Python 2 become str where they are UTF-8, else bytes.
    what : str
        For messages.
    lenient : bool
        Keep a marker (`Opaque`) for objects that are not plain instead of refusing the file.
    persistent : callable, optional
        Resolves references to data outside the pickle.
    """
    try:
        _check_memo(data)
        return _settled(_Reader(data, what, lenient, persistent).load(), {})
    except InputError:
        raise
    except RecursionError:
        raise InputError(f"{what} is no readable pickle: it is nested too deeply") from None
    except Exception as error:  # a damaged pickle raises whatever the values it makes raise
        raise InputError(f"{what} is no readable pickle: {str(error)[:120] or type(error).__name__}") from None


def _check_memo(data: bytes) -> None:
    """A number of a few bytes could make the unpickler reserve a table of gigabytes."""
    for opcode, number, place in pickletools.genops(data):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(number or 0) > int(place or 0) + 256:
            raise ValueError("it remembers more values than it has")


class _Reader(pickle.Unpickler):
    def __init__(self, data: bytes, what: str, lenient: bool, persistent: Callable[[Any], Any] | None) -> None:
        # strings of Python 2 that are no UTF-8 come with surrogates in the place of their bytes; see `_settled`
        super().__init__(io.BytesIO(data), encoding="utf-8", errors="surrogateescape")
        self.what, self.lenient, self.persistent = what, lenient, persistent
        self.unknown: dict[tuple[str, str], type[Opaque]] = {}

    def find_class(self, module: str, name: str) -> Any:
        builder = _BUILDERS.get((module, name))
        if builder is not None:
            return _Builder(builder, self)
        if (module, name) == ("numpy", "ndarray") or (self.persistent and module == "torch" and "Storage" in name):
            return Symbol(module, name)
        if not self.lenient:
            raise self.refuse(f"{module}.{name}")
        # a class of its own for every name, so that nothing a file does to it is seen by another
        return self.unknown.setdefault((module, name), type("Opaque", (Opaque,), {}))

    def persistent_load(self, reference: Any) -> Any:
        if self.persistent is None:
            raise self.refuse("a reference to data outside the file")
        return self.persistent(reference)

    def refuse(self, why: str) -> InputError:
        return InputError(
            f"{self.what} holds more than plain values ({why}); rdx reads such files without running code in them"
        )


class _Builder:
    """A function that a pickle may call and not otherwise touch."""

    __slots__ = ("_function", "_reader")

    def __init__(self, function: Callable[..., Any], reader: _Reader) -> None:
        self._function, self._reader = function, reader

    def __call__(self, *args: Any) -> Any:
        made = self._function(*args)
        if isinstance(made, _Ordered):
            made.reader = self._reader
        return made

    def __setstate__(self, state: Any) -> None:
        raise self._reader.refuse("the state of a function")


class _Ordered(dict):  # type: ignore[type-arg]
    """An ordered dictionary; of its attributes (``_metadata`` of a state dict) nothing is kept."""

    reader: _Reader | None = None

    def __setstate__(self, state: Any) -> None:
        if self.reader is not None and not self.reader.lenient:
            raise self.reader.refuse("the state of a dict")


class _Pending:
    """An array, or the type of one, before its state is known."""

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def __setstate__(self, state: Any) -> None:
        if isinstance(self.value, np.dtype):
            self.value = self.value.newbyteorder(">" if state[1] == ">" else "<" if state[1] == "<" else "=")
        else:
            _, shape, dtype, fortran, raw = state
            self.value = _array(shape, dtype, bool(fortran), raw)


def _settled(value: Any, seen: dict[int, Any]) -> Any:
    """``value`` with its arrays in place and its strings as they were; containers stay the same objects."""
    if isinstance(value, _Pending):
        return value.value
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-8", "surrogateescape")
        return value
    if isinstance(value, tuple):
        return tuple(_settled(entry, seen) for entry in value)
    if not isinstance(value, list | dict) or id(value) in seen:
        return value
    seen[id(value)] = value
    if isinstance(value, list):
        value[:] = [_settled(entry, seen) for entry in value]
    else:
        entries = [(_settled(key, seen), _settled(entry, seen)) for key, entry in value.items()]
        value.clear()
        value.update(entries)
    return value


def _dtype(text: Any, *_: Any) -> _Pending:
    name = text.decode("ascii") if isinstance(text, bytes) else str(text)
    dtype = np.dtype(name)
    if dtype.kind not in "biufSU" or dtype.fields is not None:
        raise ValueError(f"an array of {name}")
    return _Pending(dtype)


def _array(shape: Any, dtype: Any, fortran: bool, raw: Any) -> np.ndarray:
    """An array of numbers or text from its bytes; `ValueError` for anything else."""
    if not isinstance(dtype, _Pending) or not isinstance(dtype.value, np.dtype):
        raise ValueError("an array of no number type")
    if isinstance(raw, str):
        raw = raw.encode("utf-8", "surrogateescape")
    if not isinstance(raw, bytes | bytearray):
        raise ValueError("an array of objects")
    flat = np.frombuffer(raw, dtype.value) if raw else np.empty(0, dtype.value)
    return flat.reshape(tuple(shape), order="F" if fortran else "C").copy()


def _encoded(text: Any, encoding: Any = "utf-8") -> bytes:
    if encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise ValueError(f"the encoding {encoding!r}")
    return str(text).encode(str(encoding))


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    return Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


_BUILDERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): lambda items=(): _Ordered(items),
    ("_codecs", "encode"): _encoded,
    ("numpy", "dtype"): _dtype,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): lambda *_: _Pending() for core in ("core", "_core")},
    **{
        (f"numpy.{core}.multiarray", "scalar"): lambda dtype, raw: _array((), dtype, False, raw).item()
        for core in ("core", "_core")
    },
    **{
        (f"numpy.{core}.numeric", "_frombuffer"): lambda raw, dtype, shape, order: _array(
            shape, dtype, order == "F", raw
        )
        for core in ("core", "_core")
    },
    **{(module, "bytes"): lambda: b"" for module in ("builtins", "__builtin__")},
    **{(module, "set"): lambda items=(): set(items) for module in ("builtins", "__builtin__")},
    **{(module, "frozenset"): lambda items=(): frozenset(items) for module in ("builtins", "__builtin__")},
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
}


__all__ = ["Opaque", "Storage", "Symbol", "Tensor", "read_plain"]
