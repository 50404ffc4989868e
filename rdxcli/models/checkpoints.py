"""Weights in files: safe reading, names stripped of wrappers, strict loading, fingerprints."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from rdxcli.errors import InputError, MissingDataError, near_matches
from rdxcli.lazy import torch
from rdxcli.places import cache_root
from rdxcli.progress import log

if TYPE_CHECKING:
    from torch import Tensor, nn

# where training programs put the weights inside a checkpoint, and what they put before each name
_WRAPPERS = ("state_dict", "model_state_dict", "model", "model_ema", "state_dict_ema", "net", "weights")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.")


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a checkpoint by name.

    Raises `MissingDataError` (there is no such file) or `InputError` (it holds no state dict, or anything but tensors
    and plain values).

    Parameters
    ----------
    path : Path
        ``.safetensors``, or anything ``torch.save`` wrote; read with ``weights_only=True``, so no code in it runs.

    Returns
    -------
    state : dict of str to Tensor
        On the CPU. Wrapping dictionaries (``state_dict``, ``model`` ...), a list of one and common name prefixes
        (``module.``, ``model.`` ...) are removed.
    metadata : dict of str to str
        Of a safetensors file; otherwise empty.
    """
    if not path.is_file():
        hint = "check the path" if path.parent.is_dir() else f"the folder {path.parent} does not exist"
        raise MissingDataError(f"no such checkpoint: {path}", hint)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        content = _torch_load(path)
    except Exception as error:
        text = " ".join(str(error).split())
        if re.search(r"unsupported (global|class)", text, re.IGNORECASE):
            raise InputError(
                f"{path} holds Python objects besides tensors; rdx does not run code from checkpoints",
                hint="where you trust the file, save its state dict alone (`torch.save(model.state_dict(), ...)`)",
            ) from None
        raise InputError(
            f"{path} is no readable checkpoint ({type(error).__name__})", "is the file complete?"
        ) from None
    return strip_prefixes(unwrap(content, path)), {}


def _torch_load(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about pickle protocols; what cannot be read raises
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except UnicodeDecodeError:  # saved by Python 2
            return torch.load(path, map_location="cpu", weights_only=True, encoding="latin1")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a mapping
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is no readable safetensors file: {error}") from None
    return strip_prefixes(state), metadata


def unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict inside what a training program saved."""
    for _ in range(4):
        if isinstance(content, list | tuple) and len(content) == 1:
            content = content[0]
            continue
        if isinstance(content, Mapping) and not any(isinstance(value, torch.Tensor) for value in content.values()):
            inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping | list)), None)
            if inner is not None:
                content = inner
                continue
        break
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, expected a state dict")
    state = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if not state:
        raise InputError(
            f"{path} holds no tensors, expected a state dict",
            hint=f"its keys: {', '.join(map(str, list(content)[:8]))}",
        )
    return state


def strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove prefixes that every name shares (``module.`` of data parallel training, ``model.`` of Lightning ...)."""
    state = dict(state)
    while prefix := next((p for p in _PREFIXES if state and all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], what: str, by_order: bool = False) -> None:
    """Load a state dict; nothing may be missing, left over or of another shape.

    Raises `InputError` with the missing, unexpected and misshapen names. `what`: the file, for error messages;
    `by_order`: whether tensors may be matched by position when no name is known and all shapes agree.
    """
    own = module.state_dict()
    # counters of batch norms are absent from old checkpoints and play no part in evaluation
    counters = {key: own[key] for key in own if key.endswith("num_batches_tracked") and key not in state}
    state = {**state, **counters} if len(counters) < len(own) else dict(state)
    if by_order and not set(own) & (set(state) - set(counters)):
        state = _renamed_by_order(own, {k: v for k, v in state.items() if k not in counters}, what)
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if missing or unexpected or shapes:
        parts = []
        if missing:
            parts.append(f"{len(missing)} missing ({_some(missing)})")
        if unexpected:
            parts.append(f"{len(unexpected)} unexpected ({_some(unexpected)})")
        if shapes:
            parts.append(f"{len(shapes)} of another shape ({_some(shapes, 2)})")
        near = near_matches(missing[0], unexpected, 1) if missing and unexpected else []
        hint = "the checkpoint belongs to another network: check `arch=` and its options"
        if near:
            hint += f" (nearest to `{missing[0]}` in the file: `{near[0]}`)"
        raise InputError(f"{what} does not fit the network: {'; '.join(parts)}", hint)
    module.load_state_dict(state, strict=True)


def _renamed_by_order(own: Mapping[str, Tensor], state: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    wanted = {key: value for key, value in own.items() if not key.endswith("num_batches_tracked")}
    given = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    if [v.shape for v in wanted.values()] != [v.shape for v in given.values()]:
        return dict(state)
    log.info("%s names its tensors otherwise; matched by order and shape", what)
    counters = {key: value for key, value in own.items() if key not in wanted}
    return {**dict(zip(wanted, given.values(), strict=True)), **counters}


def _some(names: list[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def state_sha256(module: nn.Module) -> str:
    """SHA-256 of the weights a network holds.

    Over all parameters and buffers sorted by name: name, dtype, shape, then the bytes (C order, this machine's byte
    order). The same numbers give the same digest whatever file they came from.
    """
    digest = hashlib.sha256()
    state = module.state_dict()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{str(tensor.dtype).removeprefix('torch.')}\0{tuple(tensor.shape)}\0".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, remembered by path, size and modification time in rdx's cache folder."""
    path = path.resolve()
    stat = path.stat()
    memory = cache_root() / "models" / "checksums.json"
    key = [str(path), stat.st_size, stat.st_mtime_ns]
    entries = _remembered(memory)
    if entries.get(str(path), [None])[:-1] == key:
        return str(entries[str(path)][-1])
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    entries[str(path)] = [*key, digest]
    partial = memory.with_suffix(f".{os.getpid()}.partial")
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(entries), encoding="utf-8")
        os.replace(partial, memory)
    except OSError:  # a convenience only: without a writable cache the file is read again next time
        with suppress(OSError):
            partial.unlink()
    return digest


def _remembered(memory: Path) -> dict[str, list[Any]]:
    try:
        entries = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}
