"""The model as a judge of its units: its loss and its logits when one unit of a layer has other values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rdxcli.artifacts import fingerprint_array
from rdxcli.datasets.arrayfiles import read_array
from rdxcli.engines.activations import default_batch_size
from rdxcli.errors import InputError, UsageError
from rdxcli.methods.neurons.ablation import LinearHead, Losses
from rdxcli.models import load
from rdxcli.models.judges import TOWERS, same_layer, with_own_head, with_texts
from rdxcli.models.replacing import HookedLosses, linear_head, preprocessed
from rdxcli.models.taps import first_tensor
from rdxcli.progress import human_count, log, track
from rdxcli.records import Representation
from rdxcli.representations.options import LayerOptions

if TYPE_CHECKING:
    from torch import Tensor

    from rdxcli.models.loaded import LoadedModel

ClassIndices = Callable[[int, Sequence[str] | None], np.ndarray]
MOST_BYTES = 4 * 2**30  # images that are kept in memory


@dataclass(frozen=True)
class Judge:
    """The model as ablation sees it.

    Attributes
    ----------
    logits : callable
        ``logits(unit, values, rows)``: logits over the temperature when the unit has these values.
    labels : (n,) int64
    how : str
        In words: through the linear classifier, or through a hook.
    source : dict
        Fingerprints.
    cheap : bool
        Whether a replaced unit costs no pass of a network.
    """

    losses: Losses
    logits: Callable[[int, np.ndarray, np.ndarray], np.ndarray]
    labels: np.ndarray
    how: str
    source: dict[str, Any]
    cheap: bool = False


def open_judge(
    options: LayerOptions,
    source: Representation,
    rows: np.ndarray,
    temperature: float,
    zero_shot: str | None = None,
    *,
    head: str | None = None,
    class_indices: ClassIndices,
) -> Judge:
    """The model's loss on ``rows``.

    ``class_indices(outputs, names)`` gives the class of every sample among so many outputs, and refuses labels that
    are none of them.

    The classifier's weights come from ``head``, the file of ``--file head=FILE`` (``weight``, ``bias`` in .npz or
    .safetensors); else the model is loaded. Where its classifier is linear and reads just these activations, that is
    used; any other layer is changed by a forward hook. Models that are read without a classifier (of the transformers
    library, CLIP models) get their repository's, or with ``zero_shot`` the texts of the class names. Raises `RdxError`
    or `ValueError` (no labels, no model, labels that are no outputs of the network, too many images).
    """
    if source.labels is None:
        raise UsageError("ablation needs labels: it compares losses", "use a data set that has them, or --labels FILE")
    if head is not None:
        weight, bias = _head_file(head)
        labels = class_indices(len(weight), None)
        return _linear(source, weight, bias, labels, temperature, "a linear classifier from a file")
    name = options.model or source.source.get("model")
    if name is None:
        raise UsageError(
            "ablation needs the model: it measures what its loss does",
            "give --model NAME, or --file head=FILE with `weight` and `bias` of a linear classifier",
        )

    return _from_model(
        options, source, load(str(name), device=options.device), rows, temperature, zero_shot, class_indices
    )


def _from_model(
    options: LayerOptions,
    source: Representation,
    model: LoadedModel,
    rows: np.ndarray,
    temperature: float,
    zero_shot: str | None,
    class_indices: ClassIndices,
) -> Judge:
    dataset = options.selection.open(source.dataset)
    places = np.arange(source.n)
    if source.sample_ids is not None:
        places = dataset.locate(source.ids())
    if (places[rows] < 0).any() or places.max() >= len(dataset):
        raise InputError(f"some samples of {source.name} have no image in {dataset.name}")
    layer = model.layer(source.layer)
    first = preprocessed(model, [dataset.image(int(places[rows[0]]))])
    model, layer, names = _classifier(model, layer, first, dataset.class_names, zero_shot)
    with torch.inference_mode():
        output = first_tensor(model.module(first.to(model.device, model.dtype)))
    if output is None or output.ndim != 2:
        raise InputError(f"`{model.name}` gives no logits, so it has no loss", "ablation needs a classifier")
    labels = class_indices(output.shape[1], names)
    own = linear_head(model, layer, first)
    if own is not None and own[0].shape[1] == source.d:
        judge = _linear(source, *own, labels, temperature, "the linear classifier behind the layer")
        return replace(judge, source={**judge.source, "weights": model.weights_sha256})
    needed = 4 * int(np.prod(first.shape)) * len(rows)
    if needed > MOST_BYTES:
        raise UsageError(
            f"{human_count(len(rows), 'image', 'take')} {needed / 2**30:.1f} GiB of memory",
            "take fewer with --sample N or --limit N",
        )
    pictures = torch.empty((len(rows), *first.shape[1:]))
    with track("read images", len(rows), "images") as advance:
        for i, row in enumerate(rows):
            pictures[i] = model.transform(dataset.image(int(places[row])))
            advance(1)
    pool = str(source.source.get("pool", "auto"))
    pool = "avg" if pool == "none" else pool
    batch = default_batch_size(model.input_size, model.device.type)
    losses = HookedLosses(
        model,
        layer,
        pool,
        pictures,
        rows,
        labels,
        source.values,
        temperature=temperature,
        batch_size=batch,
        front_bytes=MOST_BYTES,
    )
    what = "the network" if losses.front is None else f"what follows {layer}"
    log.info(
        "replacing units of %s by a hook: each step is a pass of %s over %s",
        layer,
        what,
        human_count(len(rows), "image"),
    )

    def logits(unit: int, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        parts = []
        with torch.no_grad():
            for start in range(0, len(wanted), losses.batch_size):
                part = slice(start, start + losses.batch_size)
                parts.append(losses.logits(unit, torch.as_tensor(values[part]), wanted[part]).double().cpu().numpy())
        return np.concatenate(parts) / temperature

    return Judge(losses, logits, labels, "a forward hook in the network", {"weights": model.weights_sha256})


def _classifier(
    model: LoadedModel, layer: str, image: Tensor, class_names: Sequence[str] | None, zero_shot: str | None
) -> tuple[LoadedModel, str, Sequence[str] | None]:
    """The model with its classifier where it is read without, the layer's path in that, and what the outputs are."""
    if zero_shot is not None:
        if class_names is None:
            raise UsageError("which classes? the data set has no class names", "zero_shot needs labels")
        judge = with_texts(model, class_names, zero_shot)
        return judge, same_layer(model, layer, judge, image), class_names
    if model.spec.kind not in TOWERS:
        if not model.has_head:
            raise InputError(f"`{model.name}` gives no logits, so it has no loss", "ablation needs a classifier")
        return model, layer, class_names
    judge, own = with_own_head(model)
    known = class_names is not None and set(class_names) <= set(own)
    return judge, same_layer(model, layer, judge, image), own if known else class_names


def _linear(
    source: Representation, weight: np.ndarray, bias: np.ndarray, labels: np.ndarray, temperature: float, how: str
) -> Judge:
    head = LinearHead(np.array(source.values, dtype=np.float64), weight, bias, labels, temperature=temperature)
    base, columns = head.logits.cpu().numpy(), head.weight.cpu().numpy()

    def logits(unit: int, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return base[rows] + (values - source.values[rows, unit])[:, None] * columns[:, unit][None, :]

    prints = {"head": fingerprint_array(weight), "bias": fingerprint_array(bias)}
    return Judge(head, logits, labels, how, prints, cheap=True)


def _head_file(path: str) -> tuple[np.ndarray, np.ndarray]:
    weight = np.asarray(read_array(f"{path}:weight").values, dtype=np.float64)
    return weight, np.asarray(read_array(f"{path}:bias").values, dtype=np.float64).reshape(-1)
