"""Models that put images and texts into one space: CLIP, SigLIP and their kin, both towers.

Symbols: n images or texts, d width of the joint space. Embeddings are not normalised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rdxcli.errors import InputError, UsageError
from rdxcli.lazy import open_clip, torch, transformers
from rdxcli.models.checkpoints import state_sha256
from rdxcli.models.devices import pick_device, pick_dtype, without_gradients
from rdxcli.models.grammar import parse
from rdxcli.models.huggingface import open_whole
from rdxcli.models.libraries import split_open_clip, whole_open_clip
from rdxcli.models.loaded import LoadedModel
from rdxcli.models.loading import check_finite
from rdxcli.models.opened import fetching
from rdxcli.models.registry import ModelSpec, resolve
from rdxcli.models.taps import OUTPUT, Tokens, embedding
from rdxcli.numerics.seeding import integer_seed

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from rdxcli.models.preprocessing import Preprocessing, ProcessorTransform

KINDS = ("open_clip", "hf")
SAME_WEIGHTS: Mapping[str, str] = {"clip": "clip_vit_l_14_336"}
"""Short names of image towers without a text tower, and the name under which both towers are known."""

TEXT_BATCH = 64

Tokenise = Callable[[list[str]], Mapping[str, "Tensor"]]


class VisionLanguageModel:
    """Both towers of a model, in evaluation mode without gradients.

    Parameters
    ----------
    images : LoadedModel
        Its network gives the image embedding; what reads activations reads embeddings with it.
    tokenise : callable
        From texts to the arguments of ``texts``.
    texts : callable
        From tokens to embeddings (n, d).
    """

    def __init__(self, spec: ModelSpec, images: LoadedModel, tokenise: Tokenise, texts: Callable[..., Tensor]) -> None:
        self.spec, self.name, self.images = spec, spec.name, images
        self._tokenise, self._texts = tokenise, texts

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights of both towers."""
        return self.images.weights_sha256

    @property
    def known_as(self) -> str | None:
        """The open_clip name of published weights, under which constants of this model are listed; None otherwise."""
        return published_name(self.spec)

    def description(self) -> dict[str, Any]:
        """What a manifest records; see `LoadedModel.description`."""
        return self.images.description()

    @without_gradients
    def encode_text(self, texts: Sequence[str], template: str = "{}", batch_size: int = TEXT_BATCH) -> np.ndarray:
        """Embeddings of texts.

        Raises `UsageError` (a template without ``{}``) or `InputError` (the tokeniser gives tokens that the text tower
        does not have).

        Parameters
        ----------
        texts : sequence of str, length n
        template : str
            What is encoded; ``{}`` stands for the text (``a photo of a {}``). The texts themselves by default.

        Returns
        -------
        (n, d) float32
        """
        prompts = fill_template(template, texts)
        parts = [self._encode(prompts[start : start + batch_size]) for start in range(0, len(prompts), batch_size)]
        return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)

    def _encode(self, prompts: list[str]) -> np.ndarray:
        tokens = {name: value.to(self.images.device) for name, value in self._tokenise(prompts).items()}
        try:
            values = self._texts(**tokens)
        except IndexError as error:
            raise InputError(f"the tokeniser of `{self.name}` does not fit its text tower: {error}") from None
        return values.float().cpu().numpy()

    @without_gradients
    def encode_images(self, pictures: Sequence[Image.Image], batch_size: int = 32) -> np.ndarray:
        """Embeddings of Pillow images, (n, d) float32."""
        parts = []
        with self.images.tap([OUTPUT]) as tap:
            for start in range(0, len(pictures), batch_size):
                batch = [self.images.transform(picture) for picture in pictures[start : start + batch_size]]
                parts.append(tap(torch.stack(batch))[OUTPUT].float().cpu().numpy())
        return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def fill_template(template: str, texts: Sequence[str]) -> list[str]:
    """Each text in the place of ``{}``. Raises `UsageError`."""
    if "{}" not in template:
        raise UsageError(f"the prompt template `{template}` has no `{{}}`", "write for example `a photo of a {}`")
    return [template.replace("{}", text) for text in texts]


def resolve_vision_language(name: str) -> ModelSpec:
    """The spec of a vision-language model. Touches neither disk nor network.

    Raises `UnknownNameError` (no such name) or `UsageError` (a model without a text tower).
    """
    parsed = parse(name)
    spec = resolve(SAME_WEIGHTS.get(parsed.target, parsed.target) if parsed.scheme is None else name)
    if parsed.scheme is None and parsed.options:
        spec = replace(spec, options=parsed.options)
    if spec.kind not in KINDS:
        raise UsageError(
            f"`{name}` has no text tower",
            "name a CLIP or SigLIP model: siglip, siglip2, siglip_so400m, clip_vit_b_32, clip_vit_l_14_336, "
            "mobileclip2_s0, pe_core_b_16, "
            "open_clip:ARCH/PRETRAINED or hf:REPO_OR_FOLDER",
        )
    return spec


_PUBLISHED = {
    "open_clip:ViT-L-16-SigLIP-384/webli": "ViT-L-16-SigLIP-384",
    "open_clip:ViT-SO400M-14-SigLIP-384/webli": "ViT-SO400M-14-SigLIP-384",
    "open_clip:ViT-L-14-336/openai": "ViT-L-14-336",
    "open_clip:ViT-L-14-336-quickgelu/openai": "ViT-L-14-336-quickgelu",
    "open_clip:hf-hub:timm/ViT-L-16-SigLIP-384": "ViT-L-16-SigLIP-384",
    "open_clip:hf-hub:timm/ViT-SO400M-14-SigLIP-384": "ViT-SO400M-14-SigLIP-384",
    "hf:google/siglip-large-patch16-384": "ViT-L-16-SigLIP-384",
    "hf:google/siglip-so400m-patch14-384": "ViT-SO400M-14-SigLIP-384",
    "hf:openai/clip-vit-large-patch14-336": "ViT-L-14-336",
}


def published_name(spec: ModelSpec) -> str | None:
    """The open_clip name of the weights that ``spec`` opens, for those whose constants are published."""
    return None if spec.options else _PUBLISHED.get(spec.source)


def load_vision_language(
    name: str | ModelSpec, device: str = "auto", dtype: str | None = None, untrained: bool = False
) -> VisionLanguageModel:
    """Load both towers.

    Raises `UnknownNameError` or `UsageError` (the name cannot be used, or the model has no text tower),
    `MissingDataError` (weights or tokeniser are not on this machine and cannot be fetched) or `InputError` (the weights
    do not fit the network).

    Parameters
    ----------
    name : str or ModelSpec
        Short name (``siglip``, ``clip``, ``clip_vit_b_32`` ...), ``open_clip:ARCH/PRETRAINED``,
        ``open_clip:local-dir:FOLDER`` or ``hf:REPO_OR_FOLDER``.
    device, dtype : str
        As for `rdxcli.models.load`.
    untrained : bool
        Random weights on purpose, the same every time.
    """
    spec = name if isinstance(name, ModelSpec) else resolve_vision_language(name)
    target, precision = pick_device(device), pick_dtype(dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer_seed(spec.seed, "models", "untrained"))
        opener = _open_clip if spec.kind == "open_clip" else _huggingface
        model, image_tower, transform, provenance, tokenise, texts = opener(spec, untrained)
    model.eval().requires_grad_(False)
    check_finite(spec, model)
    digest = state_sha256(model)
    model.to(device=target, dtype=precision)
    images = LoadedModel(spec, image_tower.eval(), transform, Tokens(), provenance, digest, untrained, None, "last")
    return VisionLanguageModel(spec, images, tokenise, texts)


def _image_tower(model: nn.Module, function: str, argument: str | None = None) -> nn.Module:
    """The image half of a model as a network of its own."""
    from rdxcli.models.towers import ImageTower  # defines a network, which loads torch

    return ImageTower(model, function, argument)


_Parts = tuple[
    "nn.Module", "nn.Module", "Preprocessing | ProcessorTransform", dict[str, Any], Tokenise, Callable[..., "Tensor"]
]


def _open_clip(spec: ModelSpec, untrained: bool) -> _Parts:
    arch, _ = split_open_clip(parse(spec.source).target)
    model, preprocessing, provenance = whole_open_clip(spec, untrained)
    if not hasattr(model, "encode_text"):
        raise UsageError(f"`{spec.name}` has no text tower")
    with fetching(spec):
        tokeniser = open_clip.get_tokenizer(arch)

    def tokenise(texts: list[str]) -> dict[str, Tensor]:
        return {"text": tokeniser(texts)}

    return model, _image_tower(model, "encode_image"), preprocessing, provenance, tokenise, model.encode_text


def _huggingface(spec: ModelSpec, untrained: bool) -> _Parts:
    whole, transform, provenance, target, common = open_whole(spec, untrained)
    model: Any = whole
    if not hasattr(model, "get_text_features") or not hasattr(model, "get_image_features"):
        raise UsageError(f"`{spec.name}` ({type(model).__name__}) has no text tower", "name a CLIP or SigLIP model")
    if model.config.model_type == "siglip2":
        raise UsageError(
            f"`{spec.name}` is a NaFlex model, which cuts every image into patches of its own shape",
            "name a SigLIP 2 of fixed size: siglip2, siglip2_so400m, hf:google/siglip2-base-patch16-224",
        )
    with fetching(spec):
        tokeniser = transformers.AutoTokenizer.from_pretrained(target, **common)
    text_config = getattr(model.config, "text_config", model.config)
    length = int(getattr(text_config, "max_position_embeddings", 77))
    # SigLIP was trained on texts padded to the full length, without a mask
    fixed = "siglip" in str(model.config.model_type)

    def tokenise(texts: list[str]) -> dict[str, Tensor]:
        tokens = tokeniser(
            texts, padding="max_length" if fixed else True, truncation=True, max_length=length, return_tensors="pt"
        )
        names = ("input_ids",) if fixed else ("input_ids", "attention_mask")
        return {name: tokens[name] for name in names if name in tokens}

    def texts(**tokens: Tensor) -> Tensor:
        return embedding(model.get_text_features(**tokens))

    tower = _image_tower(model, "get_image_features", "pixel_values")
    return model, tower, transform, provenance, tokenise, texts
