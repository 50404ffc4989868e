"""Published pickles, and tables of encoded images, rewritten once in formats that cannot hold code.

A converter reads one file and writes new ones beside it; the caller removes the original when it succeeds. Tensors go
to safetensors, lists and names to JSON, image arrays to ``.npy``, encoded images to image files. torch and pyarrow are
imported only by the converters that need them.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from rdxcli.artifacts.store import write_json
from rdxcli.errors import InputError
from rdxcli.lazy import pyarrow, safetensors_torch, torch

from .plainpickle import Opaque, Tensor, read_plain
from .zipcheckpoint import read_zip_checkpoint

_STATE_KEYS = ("state_dict", "model_state_dict", "model", "net")


def convert(kind: str, path: Path) -> list[Path]:
    """Rewrite ``path`` with the converter ``kind``; returns the files that were written.

    Raises `InputError` (not what the converter reads, or made of more than plain values and tensors).
    """
    return KINDS[kind](path)


def safe_name(path: Path) -> Path:
    """Where the safetensors file of a checkpoint goes: ``resnet18.pth.tar`` gives ``resnet18.safetensors``."""
    name = path.name
    while (stem := re.sub(r"\.(pth|pt|th|tar|ckpt|bin|pkl|model)$", "", name)) != name:
        name = stem
    return path.with_name(name + ".safetensors")


def checkpoint(path: Path) -> list[Path]:
    """A checkpoint of torch or Lightning: its state dict as safetensors.

    First ``torch.load(weights_only=True)``. When that refuses (callbacks, hyper-parameters and the like among the
    weights), the tensors alone are read with rdx's own reader, which makes no objects. Other plain numbers and words of
    the file (epoch, step, hyper-parameters) are kept in the metadata as JSON.
    """
    state, extra = _with_torch(path)
    if state is None:
        state, extra = _without_torch(path)
    if not state:
        raise InputError(f"{path.name} holds no tensors")

    target = safe_name(path)
    # tensors that share memory are written apart
    tensors = {key: torch.as_tensor(value).detach().cpu().contiguous().clone() for key, value in state.items()}
    draft = target.with_name(target.name + ".tmp")
    safetensors_torch.save_file(
        tensors, draft, {"source": path.name, **({"checkpoint": json.dumps(extra)} if extra else {})}
    )
    os.replace(draft, target)
    return [target]


def _with_torch(path: Path) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; what they mean is decided by the second reader
        text = " ".join(str(error).split())
        if "weights_only" in text or "Unsupported" in text or "WeightsUnpickler" in text:
            return None, {}
        raise InputError(f"{path.name} is no readable checkpoint: {text[:160]}") from None
    if isinstance(content, list | tuple) and len(content) == 1:
        content = content[0]
    return _state_dict(content, path, lambda value: isinstance(value, torch.Tensor))


def _without_torch(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    content, load = read_zip_checkpoint(path)
    state, extra = _state_dict(content, path, lambda value: isinstance(value, Tensor))
    return {key: load(value) for key, value in state.items()}, extra


def _state_dict(content: Any, path: Path, is_tensor: Callable[[Any], bool]) -> tuple[dict[str, Any], dict[str, Any]]:
    if not isinstance(content, Mapping):
        raise InputError(f"{path.name} holds a {type(content).__name__}, expected a state dict")
    inner = next((content[key] for key in _STATE_KEYS if isinstance(content.get(key), Mapping)), content)
    state = {str(key): value for key, value in inner.items() if is_tensor(value)}
    rest = {str(key): value for key, value in content.items() if inner is not content and value is not inner}
    extra = {key: value for key, value in rest.items() if _is_plain(value)}
    return state, extra


def _is_plain(value: Any, depth: int = 0) -> bool:
    if value is None or isinstance(value, bool | int | float | str):
        return not isinstance(value, float) or bool(np.isfinite(value))
    if depth > 3 or isinstance(value, Opaque):
        return False
    if isinstance(value, Mapping):
        return len(value) < 64 and all(isinstance(k, str) and _is_plain(v, depth + 1) for k, v in value.items())
    return isinstance(value, list | tuple) and len(value) < 64 and all(_is_plain(v, depth + 1) for v in value)


def cub_lists(path: Path) -> list[Path]:
    """A list of the concept bottleneck models on CUB (``train.pkl`` ...): JSON of samples, safetensors of attributes.

    The JSON holds ``[{"path", "class_label"}, ...]`` in the order of the file, with paths relative to ``CUB_200_2011``;
    the arrays are ``attribute_label`` (n, a) uint8, ``uncertain_attribute_label`` (n, a) float32 and, where present,
    ``attribute_certainty``.
    """
    rows = read_plain(path.read_bytes(), path.name)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path.name}: expected a list of dictionaries")
    samples, columns = [], {}
    for number, row in enumerate(rows):
        parts = str(row.get("img_path", "")).split("/")
        if "CUB_200_2011" not in parts or not isinstance(row.get("class_label"), int):
            raise InputError(f"{path.name}: row {number} has no path below CUB_200_2011 or no class_label")
        samples.append({"path": "/".join(parts[parts.index("CUB_200_2011") + 1 :]), "class_label": row["class_label"]})
    for key, dtype in (
        ("attribute_label", np.uint8),
        ("uncertain_attribute_label", np.float32),
        ("attribute_certainty", np.uint8),
    ):
        if all(key in row for row in rows):
            values = np.asarray([row[key] for row in rows])
            if values.ndim != 2 or values.dtype.kind not in "biuf":
                raise InputError(f"{path.name}: {key} has shape {values.shape}, expected one number per attribute")
            columns[key] = np.ascontiguousarray(values.astype(dtype))
    json_file = _write_json(path.with_suffix(".json"), samples)
    if not columns:
        return [json_file]
    arrays = path.with_suffix(".safetensors")
    save_file(columns, arrays)
    return [json_file, arrays]


def cifar(path: Path) -> list[Path]:
    """A part of CIFAR (python version): ``.npy`` of the images (n, 32, 32, 3) uint8 and JSON of the rest."""
    content = read_plain(path.read_bytes(), path.name)
    if not isinstance(content, dict):
        raise InputError(f"{path.name}: expected a dictionary")
    content = {_word(key): value for key, value in content.items()}
    data = content.pop("data", None)
    rest = {
        key: [_word(entry) for entry in value] if isinstance(value, list) else _word(value)
        for key, value in content.items()
    }
    written = [_write_json(path.with_name(path.name + ".json"), rest)]
    if data is not None:
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
            raise InputError(f"{path.name}: expected images of shape (n, 3072), uint8")
        images = np.ascontiguousarray(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        target = path.with_name(path.name + ".npy")
        np.save(target, images, allow_pickle=False)
        written.append(target)
    return written


def indices(path: Path) -> list[Path]:
    """A tensor of row numbers (``train_ids.pt``) as a JSON list."""
    content, load = read_zip_checkpoint(path)
    if not isinstance(content, Tensor):
        raise InputError(f"{path.name}: expected one tensor")
    values = load(content)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise InputError(f"{path.name}: got shape {values.shape} and type {values.dtype}, expected row numbers")
    return [_write_json(path.with_suffix(".json"), values.tolist())]


def image_table(path: Path) -> list[Path]:
    """A parquet table with columns ``image`` (``{bytes, path}``) and ``label``: image files and a CSV.

    Writes ``<name>/<row>.<ending>`` and ``<name>.csv`` with columns ``path,label``.
    """
    folder = path.with_suffix("")
    folder.mkdir()
    rows: list[tuple[str, Any]] = []
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            missing = {"image", "label"} - set(table.schema_arrow.names)
            if missing:
                raise InputError(f"{path.name} has no column {' or '.join(sorted(missing))}")
            for batch in table.iter_batches(batch_size=64, columns=["image", "label"]):
                for image, label in zip(batch["image"].to_pylist(), batch["label"].to_pylist(), strict=True):
                    data = (image or {}).get("bytes")
                    if not data:
                        raise InputError(f"{path.name}: row {len(rows)} holds no image")
                    name = f"{len(rows):06d}{_ending(data)}"
                    (folder / name).write_bytes(data)
                    rows.append((f"{folder.name}/{name}", label))
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(f"{path.name} is no readable parquet table: {str(error).splitlines()[0][:160]}") from None
    listing = path.with_suffix(".csv")
    with open(listing, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([("path", "label"), *rows])
    return [listing, *(path.with_name(folder.name) / Path(name).name for name, _ in rows)]


def _ending(data: bytes) -> str:
    if data.startswith(b"\xff\xd8"):
        return ".jpg"
    if data.startswith(b"\x89PNG"):
        return ".png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    raise InputError("an image is neither JPEG, PNG nor WebP")


def _word(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _write_json(target: Path, content: Any) -> Path:
    try:
        write_json(target, content, indent=None)
    except (TypeError, ValueError) as error:
        raise InputError(f"{target.name}: {error}") from None
    return target


KINDS: Mapping[str, Callable[[Path], list[Path]]] = {
    "checkpoint": checkpoint,
    "cub-lists": cub_lists,
    "cifar": cifar,
    "indices": indices,
    "image-table": image_table,
}
"""Converters by the name that recipes use."""
