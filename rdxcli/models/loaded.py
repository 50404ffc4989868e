"""A model that is ready to be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from PIL import Image

from rdxcli.lazy import torch
from rdxcli.models.layers import LayerInfo, blocks, matching_layers, penultimate_layer, resolve_layer, trace
from rdxcli.models.taps import OUTPUT, LayerTap, Tokens
from rdxcli.numerics.seeding import torch_generator
from rdxcli.progress import log

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rdxcli.models.preprocessing import Preprocessing, ProcessorTransform
    from rdxcli.models.registry import ModelSpec


class LoadedModel:
    """A network in evaluation mode without gradients, with its preprocessing and provenance.

    Parameters
    ----------
    module : nn.Module
        Its call takes (b, c, h, w) float images.
    transform : Preprocessing or ProcessorTransform
        From a Pillow image to a tensor (c, h, w), float32. Can be pickled for data loader workers.
    tokens : Tokens
        How to read its tensors.
    provenance : mapping
        What is known of the weights: ``origin``, ``file``, ``file_sha256``, training facts ...
    weights_sha256 : str
        SHA-256 of the weights as loaded (see `rdxcli.models.checkpoints.state_sha256`).
    untrained : bool
        Whether the weights are random, because the user asked for that.
    classifier : nn.Module, optional
        The layer that gives the logits, for finding what it reads.
    default_layer : str, optional
        Path or alias; None finds the penultimate representation when it is first needed.
    """

    def __init__(
        self,
        spec: ModelSpec,
        module: nn.Module,
        transform: Preprocessing | ProcessorTransform,
        tokens: Tokens,
        provenance: Mapping[str, Any],
        weights_sha256: str,
        untrained: bool = False,
        classifier: nn.Module | None = None,
        default_layer: str | None = None,
    ) -> None:
        self.spec = spec
        self.name = spec.name
        self.module = module
        self.transform = transform
        self.tokens = replace(tokens, model=spec.name)
        self.provenance = dict(provenance)
        self.weights_sha256 = weights_sha256
        self.untrained = untrained
        self._classifier = classifier
        self._default_layer = default_layer
        self._layers: list[LayerInfo] | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are; the CPU for a network without any."""
        parameter = next(self.module.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights, to which `tap` casts its inputs."""
        parameter = next(self.module.parameters(), None)
        return torch.float32 if parameter is None else parameter.dtype

    @cached_property
    def input_size(self) -> tuple[int, int, int]:
        """Channels, height and width of one input."""
        size = getattr(self.transform, "input_size", None)
        if size is not None:
            return (self.transform.channels, *size)  # type: ignore[union-attr]
        shape = self.transform(Image.new("RGB", (256, 256))).shape
        assert isinstance(shape, torch.Size)
        return int(shape[0]), int(shape[1]), int(shape[2])

    def _example(self) -> Tensor:
        """One noise image: layers of different content must not look alike."""
        noise = torch.randn(1, *self.input_size, generator=torch_generator(0, "models", "example"))
        return noise.to(self.device, self.dtype)

    @cached_property
    def default_layer(self) -> str:
        """Module path of the penultimate representation."""
        if self._default_layer in (None, "penultimate"):
            found = penultimate_layer(self.module, self._example(), self.tokens, self._classifier)
            if found == OUTPUT:
                log.info("%s: no layer in front of a classifier was found, so its own output is read", self.name)
            return found
        return resolve_layer(self.module, str(self._default_layer), "", self.name)

    @cached_property
    def has_head(self) -> bool:
        """Whether the output is that of a classifier, in front of which there is a representation."""
        return penultimate_layer(self.module, self._example(), self.tokens, self._classifier) != OUTPUT

    def layers(self) -> list[LayerInfo]:
        """Every layer that can be read, in the order of the forward pass. Costs one pass, then cached."""
        if self._layers is None:
            self._layers = trace(self.module, self._example(), self.tokens)
        return list(self._layers)

    def layer(self, name: str | None = None) -> str:
        """Module path of a layer's name; the default layer for None.

        Raises `UnknownNameError` or `UsageError` if there is no such layer.
        """
        if name is None:
            return self.default_layer
        penultimate = self.default_layer if name.strip() == "penultimate" else ""
        return resolve_layer(self.module, name, penultimate, self.name)

    def layers_like(self, name: str | None = None) -> list[str]:
        """Module paths of a layer's name, or of all layers that a pattern with ``*`` or ``?`` fits.

        Raises `UnknownNameError` or `UsageError` if there is no such layer.
        """
        if name is None or not {"*", "?"} & set(name):
            return [self.layer(name)]
        return matching_layers(self.module, self.layers(), name, self.name)

    def blocks(self) -> list[str]:
        """Paths of the repeated blocks: ``block:0`` is the first."""
        return blocks(self.module)

    def tap(
        self, layers: Sequence[str] | None = None, pool: str | Mapping[str, str] = "auto", early_stop: bool = True
    ) -> LayerTap:
        """Context manager that reads layers; see `LayerTap`.

        Parameters
        ----------
        layers : sequence of str, optional
            Names; the default layer when None. Results are keyed by module path.
        pool : str or mapping
            One of `rdxcli.models.taps.POOLS`, or one per given layer name.
        """
        names = list(layers) if layers else [self.default_layer]
        paths = [self.layer(name) for name in names]
        pools = pool if isinstance(pool, str) else dict(zip(paths, (pool[name] for name in names), strict=True))
        return LayerTap(self.module, paths, pools, self.tokens, early_stop)

    def description(self) -> dict[str, Any]:
        """What a manifest records of a model: name, source, preprocessing, weights, precision. Plain values only."""
        return {
            "name": self.name,
            "source": self.spec.source,
            "options": dict(self.spec.options),
            "weights_sha256": self.weights_sha256,
            "untrained": self.untrained,
            "preprocessing": self.transform.describe(),
            "input_size": list(self.input_size),
            "dtype": str(self.dtype).removeprefix("torch."),
            "provenance": self.provenance,
        }
