"""The part of a model behind the layer that is explained, for methods that ask what a change does to the prediction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from rdxcli.errors import UsageError
from rdxcli.models import load
from rdxcli.models.rest import RestOfNetwork
from rdxcli.models.taps import OUTPUT
from rdxcli.records import Representation
from rdxcli.representations.extract import extract
from rdxcli.representations.layer import representation
from rdxcli.representations.options import ExtractOptions, LayerOptions
from rdxcli.representations.resolve import find_activations


def read_with_output(options: LayerOptions, pool: str, check: Callable[[int], object]) -> None:
    """Extract the layer and the network's output in one pass; ``check`` refuses a number of outputs before it.

    Raises `RdxError` (anything that is not there, or a file of names for another number of outputs).
    """
    if options.model is None or options.layer == OUTPUT or find_activations(options.model, options.outputs):
        return
    extract(
        ExtractOptions(
            model=options.model,
            layers=(options.layer, OUTPUT),
            pool=pool,
            selection=options.selection,
            outputs=options.outputs,
            device=options.device,
            engine="local",
        ),
        before=lambda shapes: None if len(shapes[-1]) != 1 else check(shapes[-1][0]),
        missing_only=True,
    )


def rest_of(options: LayerOptions, source: Representation) -> Any:
    """The rest of the model behind the layer, from arrays or tensors to logits, checked on some samples.

    Raises `UsageError` (there is no model) or `InputError` (the layer does not determine the prediction).
    """
    if options.model is None or source.layer is None:
        raise UsageError("this needs the model behind the layer", "give --model and --layer")
    rest = RestOfNetwork(load(options.model, device=options.device), source.layer)
    logits = representation(replace(options, layer="output", pool=str(source.source.get("pool") or "auto")))
    rows = np.linspace(0, source.n - 1, min(8, source.n)).astype(int)
    rest.check(np.asarray(source.values[rows], dtype=np.float32), np.asarray(logits.values[rows], dtype=np.float32))

    def head(batch: Any) -> Any:
        if isinstance(batch, torch.Tensor):
            return rest(batch).to(batch.device)  # callers hold features on the CPU, the network may be elsewhere
        with torch.no_grad():
            return rest(torch.as_tensor(batch, dtype=torch.float32)).float().cpu().numpy()

    return head
