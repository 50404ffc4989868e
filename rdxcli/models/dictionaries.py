"""Files of sparse autoencoders: arrays, and what the configuration beside them says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.errors import InputError, MissingDataError

from .checkpoints import read_state

CONFIGURATIONS = ("cfg.json", "config.json")
"""Files that libraries write beside the arrays."""

SETTINGS = ("k", "apply_b_dec_to_input", "normalize_activations", "dict_class")


def read_dictionary(given: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays of a dictionary by name, and the settings beside them that change what they mean.

    Raises `RdxError` (no such file, or one that cannot be read).

    Parameters
    ----------
    given : str
        A ``.safetensors`` file, or what ``torch.save`` wrote (``ae.pt``); no code in it runs.
    """
    path = Path(given).expanduser()
    if not path.is_file():
        raise MissingDataError(
            f"no such file: {path}", "give the file of arrays, like sae_weights.safetensors or ae.pt"
        )
    state, _ = read_state(path)
    arrays = {name: value.float().numpy() for name, value in state.items()}
    for name in CONFIGURATIONS:
        beside = path.with_name(name)
        if not beside.is_file():
            continue
        try:
            return arrays, settings_of(json.loads(beside.read_text("utf-8")))
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {beside}: {error}", "it says how the dictionary was learned") from None
    return arrays, {}


def settings_of(config: Any) -> dict[str, Any]:
    """What a configuration file says that changes what the arrays mean.

    Raises `ValueError` (a configuration that is no mapping, or a ``k`` that is no count).
    """
    if not isinstance(config, Mapping):
        raise ValueError(f"Got a {type(config).__name__}, expected names and values")
    parts = [config, *(config[name] for name in ("activation_fn_kwargs", "trainer") if config.get(name))]
    found = {
        name: part[name]
        for part in parts
        if isinstance(part, Mapping)
        for name in SETTINGS
        if part.get(name) is not None
    }
    if "k" in found and not (isinstance(found["k"], int | float) and found["k"] >= 1):
        raise ValueError(f"Got k={found['k']!r}, expected a number of at least 1")
    return found
