"""Tensors of a PyTorch checkpoint, read without torch and without making any other object of it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.errors import InputError
from rdxcli.progress import human_count

from .plainpickle import Storage, Symbol, Tensor, read_plain

MOST_BYTES = 1 << 30
"""Largest table of contents that is read."""


def read_zip_checkpoint(path: Path) -> tuple[Any, Callable[[Tensor], np.ndarray]]:
    """Content of a file that ``torch.save`` wrote (the zip format of PyTorch 1.6 and later), tensors as descriptions.

    Raises `InputError` (not of this format, or damaged).

    Returns
    -------
    content : object
        Plain containers; `Tensor` for tensors, `Opaque` for anything else.
    load : callable
        Numbers of a `Tensor`; bfloat16 comes as float32.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path.name} is no checkpoint in the zip format: {error}") from None
    with archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise InputError(f"{path.name} is no checkpoint in the zip format: it has {len(pickles)} data.pkl")
        root = pickles[0].rpartition("/")[0]
        if archive.getinfo(pickles[0]).file_size > MOST_BYTES:
            raise InputError(f"{path.name}: its table of contents is too large")
        content = read_plain(archive.read(pickles[0]), path.name, lenient=True, persistent=_storage)

    def load(tensor: Tensor) -> np.ndarray:
        with zipfile.ZipFile(path) as opened:
            raw = opened.read(f"{root}/data/{tensor.storage.key}")
        return _view(tensor, raw, path.name)

    return content, load


_STORAGES: Mapping[str, str] = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}


def _storage(reference: Any) -> Storage:
    label, kind, key, _, count = reference
    if label != "storage" or not isinstance(kind, Symbol) or kind.name not in _STORAGES:
        raise ValueError(f"a storage of an unknown type {getattr(kind, 'name', kind)}")
    if not str(key).isalnum():
        raise ValueError(f"a storage with the name {key!r}")
    return Storage(str(key), _STORAGES[kind.name], int(count))


def _view(tensor: Tensor, raw: bytes, what: str) -> np.ndarray:
    if tensor.storage.dtype == "bfloat16":
        flat = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
    else:
        flat = np.frombuffer(raw, tensor.storage.dtype)
    shape, strides = tensor.shape, tensor.strides
    if len(shape) != len(strides) or min((*shape, *strides, tensor.offset), default=0) < 0:
        raise InputError(f"{what} is damaged: a tensor of shape {shape} and strides {strides}")
    if 0 in shape:
        return np.empty(shape, flat.dtype)
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if last >= len(flat):
        raise InputError(f"{what} is damaged: a tensor reaches beyond its {human_count(len(flat), 'number')}")
    width = flat.dtype.itemsize
    view = np.lib.stride_tricks.as_strided(
        flat[tensor.offset :], shape, [stride * width for stride in strides], writeable=False
    )
    return np.array(view, order="C").reshape(shape)


__all__ = ["read_zip_checkpoint"]
