"""Models with the classifier that their representation comes without: what a unit does to the loss needs logits.

The transformers library is read at its backbone and two-tower models at their image tower, whose outputs are embeddings
and no logits. Here the same weights come back with the repository's own classifier, or with the texts of class names as
one (zero-shot: cosine times the model's own scale).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rdxcli.errors import InputError, UsageError
from rdxcli.lazy import transformers
from rdxcli.models.huggingface import library_place, missing_keys, quiet, refuse_missing
from rdxcli.models.loaded import LoadedModel
from rdxcli.models.opened import fetching
from rdxcli.models.taps import OUTPUT, first_tensor
from rdxcli.models.vision_language import load_vision_language

TOWERS = ("hf", "open_clip")
"""Kinds of models that are read without a classifier."""

SCALE = 100.0  # where a model has none of its own


class ByTexts(nn.Module):
    """Logits of images: scale times the cosine with each class's text.

    Parameters
    ----------
    tower : nn.Module
        From images to embeddings (b, d).
    texts : (k, d) Tensor
    """

    def __init__(self, tower: nn.Module, texts: Tensor, scale: float, shift: float) -> None:
        super().__init__()
        self.tower, self.scale, self.shift = tower, scale, shift
        self.texts = nn.Parameter(nn.functional.normalize(texts, dim=1), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        """(b, k) logits."""
        embedded = first_tensor(self.tower(images))
        assert embedded is not None
        return self.scale * nn.functional.normalize(embedded, dim=1) @ self.texts.T + self.shift


def with_texts(model: LoadedModel, class_names: Sequence[str], template: str) -> LoadedModel:
    """The model as a zero-shot classifier of these classes.

    Raises `RdxError` (the model has no text tower, or a template without ``{}``). `model`: image tower of a
    vision-language model; `template`: sentence around each name, ``a photo of a {}``.
    """
    both = load_vision_language(model.spec, device=str(model.device))
    texts = torch.as_tensor(both.encode_text([name.replace("_", " ") for name in class_names], template))
    whole = both.images.module
    scale, shift = (_scalar(whole, name) for name in ("logit_scale", "logit_bias"))
    module = ByTexts(whole, texts.to(model.device, model.dtype), SCALE if scale is None else float(scale.exp()),
                     0.0 if shift is None else float(shift))  # fmt: skip
    return _in_place_of(model, module)


def with_own_head(model: LoadedModel) -> tuple[LoadedModel, list[str]]:
    """A backbone of the transformers library with the classifier of its repository, and the names of the classes.

    Raises `UsageError` (the repository holds no image classifier).
    """
    no_logits = UsageError(
        f"`{model.name}` gives no logits, so it has no loss",
        "ablation needs a classifier; a vision-language model becomes one with --param zero_shot='a photo of a {}'",
    )
    if model.spec.kind != "hf":
        raise no_logits
    target, common = library_place(model.spec)
    with quiet(), fetching(model.spec):
        config = transformers.AutoConfig.from_pretrained(target, **common)
        if not any("ForImageClassification" in name for name in getattr(config, "architectures", None) or ()):
            raise no_logits
        kind: Any = transformers.AutoModelForImageClassification
        module, info = kind.from_pretrained(target, dtype=torch.float32, output_loading_info=True, **common)
        refuse_missing(model.spec, module, missing_keys(info))
    module.eval().requires_grad_(False)
    named = [str(config.id2label[k]) for k in range(len(config.id2label))]
    return _in_place_of(model, module.to(model.device, model.dtype)), named


def same_layer(model: LoadedModel, layer: str, judge: LoadedModel, image: Tensor) -> str:
    """Where ``layer`` of ``model`` is in ``judge``, which has the same weights and more around them.

    Raises `InputError` (nowhere: no layer of that name gives the same activations).
    """
    if layer == OUTPUT:
        raise UsageError("ablation needs a layer with something behind it", "choose an earlier layer with --layer")
    with model.tap([layer], "none", early_stop=False) as tap:
        wanted = tap(image)[layer]
    for name in dict(judge.module.named_modules()):
        if name == layer or name.endswith(f".{layer}"):
            try:
                with judge.tap([name], "none", early_stop=False) as tap:
                    found = tap(image)[name]
            except InputError:  # it belongs to the text tower and does not run
                continue
            if found.shape == wanted.shape and torch.allclose(found, wanted, rtol=1e-3, atol=1e-5):
                return name
    raise InputError(f"the classifier of `{model.name}` does not read its layer `{layer}`")


def _in_place_of(model: LoadedModel, module: nn.Module) -> LoadedModel:
    return LoadedModel(
        model.spec,
        module.eval().requires_grad_(False),
        model.transform,
        model.tokens,
        model.provenance,
        model.weights_sha256,
        model.untrained,
        None,
        "last",
    )


def _scalar(module: nn.Module, ending: str) -> Tensor | None:
    found = [value for name, value in module.named_parameters() if name.rpartition(".")[2] == ending]
    return found[0].detach().reshape(()) if len(found) == 1 and found[0].numel() == 1 else None
