"""One file that holds everything a training run needs to go on: tensors, and a JSON document in the same file.

A safetensors file carries text beside its tensors; keeping both in one file makes replacing it one atomic step. The
file is written under another name, flushed to disk and renamed, so a reader sees the old or the new one, whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FILE = "training.safetensors"


def save(folder: str | Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> Path:
    """Replace the checkpoint of ``folder``.

    Parameters
    ----------
    folder : path
        Made when missing.
    document : mapping
        Plain JSON; numbers come back exactly.
    """
    target = Path(folder) / FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_suffix(".writing")
    values = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(values, str(fresh), metadata={"document": json.dumps(document, allow_nan=False)})
    descriptor = os.open(fresh, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(fresh, target)
    return target


def load(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and document of the checkpoint of ``folder``; None when there is none.

    Raises `ValueError` when the file is there and cannot be read.
    """
    target = Path(folder) / FILE
    if not target.is_file():
        return None
    try:
        with safe_open(str(target), framework="pt") as opened:
            document = json.loads((opened.metadata() or {})["document"])
            return {name: opened.get_tensor(name) for name in opened.keys()}, document  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"Got a checkpoint that cannot be read: {target}: {error}") from error
