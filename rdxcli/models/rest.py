"""The rest of a network behind a layer: from the layer's output to the logits.

Where nothing bypasses the layer (it is a cut of the network), only what follows it runs: see
`rdxcli.models.front.rest_after`. Elsewhere the whole network runs on a stand-in image while a hook puts the given
activations in the place of the layer's output, which may still be right; `check` verifies it on real images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from rdxcli.errors import InputError
from rdxcli.models.front import PROBES, rest_after
from rdxcli.models.taps import OUTPUT, first_tensor, layers_command

if TYPE_CHECKING:
    from rdxcli.models.loaded import LoadedModel


class RestOfNetwork(nn.Module):
    """Maps activations of a layer to the network's output; gradients flow to the activations.

    Raises `InputError` (the layer is the network's own output).

    Parameters
    ----------
    layer : str
        Module path of a layer that runs once in a forward pass.
    """

    def __init__(self, model: LoadedModel, layer: str) -> None:
        super().__init__()
        if layer == OUTPUT:
            raise InputError("nothing follows the network's own output", "choose an earlier layer")
        self.network = model.module
        self.layer = layer
        self.layers_command = layers_command(model.name)
        self.place = dict(model.module.named_modules())[layer]
        self.input_size = model.input_size
        self._device, self._dtype = model.device, model.dtype
        probe = torch.rand(PROBES, *self.input_size, generator=torch.Generator().manual_seed(0))
        self._rest = rest_after(self.network, self.place, probe.to(self._device, self._dtype))

    def forward(self, activations: Tensor) -> Tensor:
        """Logits (b, classes) of activations (b, ...), which have the layer's own shape."""
        # a copy: networks write into what they are given
        given = activations.to(self._device, self._dtype, copy=True)
        if self._rest is not None:
            shape = self._rest.shape
            if given.shape[1:].numel() != torch.Size(shape).numel():
                raise self._unfit(shape, given)
            return self._rest(given.reshape(len(given), *shape)).flatten(1)
        return self._whole(given)

    def _unfit(self, own: tuple[int, ...] | None, given: Tensor) -> InputError:
        return InputError(f"layer {self.layer} gives {own}, got activations of shape {tuple(given.shape[1:])}")

    def _whole(self, given: Tensor) -> Tensor:
        def replace(module: nn.Module, inputs: Any, output: Any) -> Any:
            own = first_tensor(output)
            if own is None or own.shape[1:].numel() != given.shape[1:].numel():
                raise self._unfit(None if own is None else tuple(own.shape[1:]), given)
            new = given.reshape(own.shape)
            return new if isinstance(output, Tensor) else with_first(output, own, new)

        handle = self.place.register_forward_hook(replace)
        try:
            # the stand-in takes part in the graph only in front of the layer, where its values are thrown away
            stand_in = torch.zeros(len(given), *self.input_size, device=self._device, dtype=self._dtype)
            output = first_tensor(self.network(stand_in))
        finally:
            handle.remove()
        if output is None:
            raise InputError("the network returns no tensor")
        return output.flatten(1)

    def check(self, activations: np.ndarray, logits: np.ndarray, tolerance: float = 1e-3) -> None:
        """Compare with the network's own logits for the same images.

        Raises `InputError` (they differ: something bypasses the layer, or the activations were pooled).
        """
        given = torch.as_tensor(np.ascontiguousarray(activations))
        scale = float(np.abs(logits).max()) or 1.0

        def same() -> bool:
            with torch.no_grad():
                mine = self(given).float().cpu().numpy()
            return mine.shape == logits.shape and bool(np.abs(mine - logits).max() <= tolerance * scale)

        if self._rest is not None and not same():
            self._rest = None  # the trial images did not show what real ones do
        if self._rest is None and not same():
            raise InputError(
                f"the output of {self.layer} does not determine the prediction: something bypasses the layer, or its "
                "activations were pooled",
                f"choose a layer between two blocks (`{self.layers_command}`), with --pool none",
            )


def with_first(output: Any, old: Tensor, new: Tensor) -> Any:
    """``output`` with the tensor ``old`` replaced."""
    if output is old:
        return new
    if isinstance(output, tuple):
        return tuple(with_first(part, old, new) for part in output)
    if isinstance(output, list):
        return [with_first(part, old, new) for part in output]
    if isinstance(output, dict):
        for key, value in output.items():
            output[key] = with_first(value, old, new)
    return output
