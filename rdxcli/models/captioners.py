"""Models that say what an image shows: BLIP-2, BLIP and any other image-text-to-text model of transformers.

Captions are sampled. The i-th token of a caption is the inverse of the distribution at a uniform number that belongs
to the image, the caption and i alone, so that neither the batch nor the order of the images changes a caption (beyond
what rounding does at a border between two tokens).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from rdxcli.errors import DependencyError, InputError, UnknownNameError, UsageError
from rdxcli.lazy import torch, transformers
from rdxcli.models.checkpoints import state_sha256
from rdxcli.models.devices import pick_device, pick_dtype, without_gradients
from rdxcli.models.grammar import parse
from rdxcli.models.huggingface import library_place, missing_keys, quiet, refuse_missing
from rdxcli.models.opened import fetching
from rdxcli.models.registry import ModelSpec
from rdxcli.numerics.seeding import generator

if TYPE_CHECKING:
    from torch import Tensor

CAPTIONERS = {
    "blip2-opt-2.7b-coco": "Salesforce/blip2-opt-2.7b-coco",
    "blip2-opt-2.7b": "Salesforce/blip2-opt-2.7b",
    "blip2-flan-t5-xl": "Salesforce/blip2-flan-t5-xl",
    "blip-base": "Salesforce/blip-image-captioning-base",
    "blip-large": "Salesforce/blip-image-captioning-large",
}
"""Short names; every other captioner is written ``hf:REPO_OR_FOLDER``."""
DEFAULT = "blip2-opt-2.7b-coco"
PROMPT = "a photo of"
INSTRUCTION = "Describe this image in one sentence."
PROMPTS = {"florence2": "<CAPTION>", "paligemma": "caption en"}
"""What models that were trained on tasks are asked by default."""
ATTRIBUTES = (
    "List what this image shows, in this form: objects: ...; attributes: ... (an adjective and its object each); "
    "relations: ... (object, verb or preposition, object). Nothing else."
)
TASKS = ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>", "<DENSE_REGION_CAPTION>", "<OD>", "<OCR>")
"""Tasks of Florence-2 that need nothing but the image."""
_PLACES = re.compile(r"(?:<loc_\d+>)+")
_HEADINGS = re.compile(r"\b(?:objects|attributes|relations)\s*:\s*|[()\[\]*#]", re.I)

_SAME_TOKENS = ("blip", "blip-2")  # the prompt's tokens do not depend on the image
_IMAGE = "<image>"
_SEGMENTS = ("token_type_ids", "mm_token_type_ids")  # what tokenisers add whether the model reads it or not
_UNREAD = "labels"  # of processors that prepare training too


@dataclass(frozen=True)
class Sampling:
    """How captions are drawn; the published values by default.

    Parameters
    ----------
    captions : int
        Per image.
    temperature : float
        0 takes the likeliest token each time, which gives one caption.
    top_p : float
        Share of the probability that is drawn from, likeliest tokens first.
    top_k : int
        Most tokens that are drawn from; 0 for all.
    max_tokens : int
        Most tokens of a caption.
    prompt : str, optional
        What the caption continues. None takes ``a photo of`` for BLIP models, an instruction for chat models.
    """

    captions: int = 10
    temperature: float = 1.0
    top_p: float = 0.9
    top_k: int = 50
    max_tokens: int = 100
    prompt: str | None = None
    seed: int = 0

    def check(self) -> None:
        """Refuse impossible values. Raises `UsageError`."""
        for name, value, least in (
            ("captions", self.captions, 1),
            ("max-tokens", self.max_tokens, 1),
            ("top-k", self.top_k, 0),
        ):
            if value < least:
                raise UsageError(f"--{name}: got {value}, expected at least {least}")
        if not (np.isfinite(self.temperature) and self.temperature >= 0):
            raise UsageError(f"--temperature: got {self.temperature}, expected 0 or more")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"--top-p: got {self.top_p}, expected a share above 0 and up to 1")
        if self.temperature == 0 and self.captions > 1:
            raise UsageError("--temperature 0 gives one caption per image", "use --captions-per-image 1")

    def to_dict(self) -> dict[str, Any]:
        """Plain fields."""
        return asdict(self)


def resolve_captioner(name: str) -> ModelSpec:
    """The spec of a captioner; touches neither disk nor network. Raises `UnknownNameError` or `UsageError`."""
    parsed = parse(name)
    if parsed.options:
        raise UsageError(f"`{name}`: captioners take no options in their names")
    if parsed.scheme is None:
        if parsed.target not in CAPTIONERS:
            raise UnknownNameError("captioner", name, [*CAPTIONERS, "hf:REPO_OR_FOLDER"], "rdx help caption")
        return ModelSpec(name=name, source=f"hf:{CAPTIONERS[parsed.target]}")
    if parsed.scheme != "hf":
        raise UsageError(f"`{name}` is no captioner", f"write {', '.join(CAPTIONERS)} or hf:REPO_OR_FOLDER")
    return ModelSpec(name=name, source=name)


class Captioner:
    """A loaded captioner, in evaluation mode."""

    def __init__(
        self, spec: ModelSpec, model: Any, processor: Any, provenance: dict[str, Any], weights_sha256: str
    ) -> None:
        self.spec, self.name, self.model, self.processor = spec, spec.name, model, processor
        self.provenance, self.weights_sha256 = provenance, weights_sha256
        self.kind = str(model.config.model_type)
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        self.same_tokens = self.kind in _SAME_TOKENS
        self._takes = frozenset(inspect.signature(model.forward).parameters)
        self._tokens: dict[str | None, dict[str, Tensor]] = {}

    def prompt(self, given: str | None) -> str:
        """The prompt that is used when ``given`` was asked for.

        Raises `UsageError` (the model does not do what is asked).
        """
        chats = bool(getattr(self.processor, "chat_template", None))
        if given is None:
            return PROMPTS.get(self.kind, INSTRUCTION if chats else PROMPT)
        if given == ATTRIBUTES and self.kind == "florence2":
            return "<DENSE_REGION_CAPTION>"
        if given == ATTRIBUTES and not chats:
            raise UsageError(
                f"--attributes: `{self.name}` continues sentences and takes no instructions",
                "use a model that chats, Florence-2, or a server",
            )
        if self.kind == "florence2" and given not in TASKS:
            raise UsageError(f"--prompt {given}: Florence-2 does tasks", f"write one of {', '.join(TASKS)}")
        return given

    def description(self) -> dict[str, Any]:
        """What a manifest records."""
        return {
            "name": self.name,
            "class": type(self.model).__name__,
            "dtype": str(self.dtype).removeprefix("torch."),
            "provenance": self.provenance,
            "weights_sha256": self.weights_sha256,
        }

    def prepare(self, image: Image.Image) -> Any:
        """What goes into a batch for an image; may run in a thread."""
        image = image.convert("RGB")
        if not self.same_tokens:
            return image
        return self.processor.image_processor(images=image, return_tensors="pt")["pixel_values"][0]

    @without_gradients
    def caption(self, items: Sequence[Any], sample_ids: Sequence[str], how: Sampling) -> list[list[str]]:
        """Captions of prepared images.

        `items`: from `prepare`; `sample_ids`: they name the random streams.

        Returns
        -------
        list of list of str
            Of ``how.captions`` captions each.
        """
        inputs = self._inputs(items, self.prompt(how.prompt))
        arguments: dict[str, Any] = {"max_new_tokens": how.max_tokens, "num_beams": 1}
        if how.temperature == 0:
            arguments["do_sample"] = False
        else:
            uniform = np.stack(
                [
                    generator(how.seed, "caption", sample, k).random(how.max_tokens)
                    for sample in sample_ids
                    for k in range(how.captions)
                ]
            )
            # the choice is made by `_Choose`; the library then draws from a distribution with a single token
            arguments |= {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
            arguments["num_return_sequences"] = how.captions
            arguments["logits_processor"] = transformers.LogitsProcessorList([_Choose(uniform, how)])
        arguments.setdefault("logits_processor", transformers.LogitsProcessorList([_refuse_nan]))
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            tokens = self.model.generate(**inputs, **arguments)
        tokens = tokens[:, _prompt_length(tokens, inputs.get("input_ids"), self.kind) :]
        asked = self.prompt(how.prompt)
        texts = [one_line(text, asked) for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]
        return [texts[i * how.captions : (i + 1) * how.captions] for i in range(len(items))]

    def _inputs(self, items: Sequence[Any], prompt: str) -> dict[str, Tensor]:
        if self.same_tokens:
            values: dict[str, Tensor] = {"pixel_values": torch.stack(list(items))}
            values |= {name: token.expand(len(items), -1) for name, token in self._prompt_tokens(prompt).items()}
        else:
            values = dict(self._processed(items, prompt))
        return {
            name: value.to(self.device, self.dtype if value.is_floating_point() else value.dtype).contiguous()
            for name, value in values.items()
            if isinstance(value, torch.Tensor) and name != _UNREAD and (name not in _SEGMENTS or name in self._takes)
        }

    def _prompt_tokens(self, prompt: str) -> dict[str, Tensor]:
        if prompt not in self._tokens:
            tokens: dict[str, Tensor] = {}
            if prompt or self.kind == "blip-2":
                blank = Image.new("RGB", (32, 32))
                found = self.processor(images=blank, text=prompt, return_tensors="pt")
                tokens = {name: found[name] for name in ("input_ids", "attention_mask")}
            self._tokens[prompt] = tokens
        return self._tokens[prompt]

    def _processed(self, items: Sequence[Any], prompt: str) -> Any:
        """Images and prompt through the model's own processor, with its chat template where it has one."""
        text = prompt
        if getattr(self.processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": prompt}]
            text = self.processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
        tokeniser = getattr(self.processor, "tokenizer", None)
        if tokeniser is not None:
            tokeniser.padding_side = "left"  # captions begin where prompts end
            if tokeniser.pad_token is None:
                tokeniser.pad_token = tokeniser.eos_token
        if self.kind == "paligemma":
            text = _IMAGE + text
        if self.kind == "git":  # a caption goes on behind its prompt, so that no separator stands there
            return self._git(items, text)
        images = [[image] for image in items] if getattr(self.processor, "chat_template", None) else list(items)
        return self.processor(images=images, text=[text] * len(items), padding=True, return_tensors="pt")

    def _git(self, items: Sequence[Any], prompt: str) -> dict[str, Tensor]:
        tokeniser = self.processor.tokenizer
        ids = [tokeniser.cls_token_id, *tokeniser(prompt, add_special_tokens=False)["input_ids"]]
        tokens = torch.tensor([ids]).expand(len(items), -1)
        pixels = self.processor.image_processor(images=list(items), return_tensors="pt")["pixel_values"]
        return {"pixel_values": pixels, "input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def one_line(text: str, prompt: str) -> str:
    """A caption as one line of single spaces, since a line break of Unicode's would end a row of JSON lines.

    Places in the image, and the headings of `ATTRIBUTES`, are no words of it.
    """
    if prompt == ATTRIBUTES:
        text = _HEADINGS.sub(" ", text.replace("\n", "; "))
    elif prompt in TASKS:
        text = _PLACES.sub("; ", text)
    return " ".join(text.split()).strip("; ") if prompt == ATTRIBUTES or prompt in TASKS else " ".join(text.split())


def _refuse_nan(input_ids: Tensor, scores: Tensor) -> Tensor:
    """Logits as they are.

    Raises `InputError` (they are NaN, as those of models whose numbers half precision cannot hold).
    """
    if bool(scores.isnan().any()):
        kind = str(scores.dtype).removeprefix("torch.")
        raise InputError(
            f"the captioner computes NaN in {kind}",
            "use --dtype bfloat16, or --dtype float32" if kind == "float16" else "are its weights whole?",
        )
    return scores


class _Choose:
    """Turns logits into the one token that the uniform numbers of the row choose.

    Temperature, the k likeliest tokens, then the smallest set of likeliest tokens whose share reaches ``top_p``, as in
    transformers; then the inverse of the cumulative distribution.
    """

    def __init__(self, uniform: np.ndarray, how: Sampling) -> None:
        self.uniform, self.how, self.step = torch.from_numpy(uniform), how, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        _refuse_nan(input_ids, scores)
        k = min(self.how.top_k or scores.shape[1], scores.shape[1])
        best, tokens = (scores.float() / self.how.temperature).topk(k, dim=1)
        share = best.cpu().double().softmax(dim=1)
        total = share.cumsum(dim=1)
        kept = total - share < self.how.top_p  # the token that crosses the border stays
        mass = (share * kept).sum(dim=1, keepdim=True)
        drawn = self.uniform[:, self.step, None] * mass
        place = torch.searchsorted(total, drawn, right=True)[:, 0].clamp_max(kept.sum(dim=1) - 1)
        self.step += 1
        chosen = tokens.gather(1, place[:, None].to(tokens.device))
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)


def _prompt_length(tokens: Tensor, given: Tensor | None, kind: str) -> int:
    """How many tokens at the start repeat the prompt: all of it for decoders, none where there is an encoder."""
    if given is None:
        return 0
    asked = given[0, :-1] if kind == "blip" else given[0]  # BLIP drops the separator and replaces the first token
    length = len(asked)
    repeats = tokens.shape[1] >= length and bool((tokens[0, 1:length] == asked[1:]).all())
    return length if repeats and length > 1 else 0


def load_captioner(name: str | ModelSpec, device: str = "auto", dtype: str | None = None) -> Captioner:
    """Load a captioner and its processor.

    Raises `UnknownNameError` or `UsageError` (the name cannot be used, or the repository holds no image-text-to-text
    model), `MissingDataError` (weights are not here and cannot be fetched) or `InputError` (weights or processor do not
    fit).

    Parameters
    ----------
    name : str or ModelSpec
        One of `CAPTIONERS`, or ``hf:REPO_OR_FOLDER``.
    dtype : str, optional
        ``float32``, ``float16``, ``bfloat16``; by default half precision on a GPU, as published.
    """
    spec = name if isinstance(name, ModelSpec) else resolve_captioner(name)
    place = pick_device(device)
    precision = pick_dtype(dtype or ("float16" if place.type == "cuda" else "float32"))
    target, common = library_place(spec)
    with quiet(), fetching(spec), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.AutoConfig.from_pretrained(target, **common)
        known = transformers.models.auto.modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
        if config.model_type not in known:
            raise UsageError(
                f"`{spec.name}` is a {config.model_type}, which does not caption images",
                f"use {', '.join(CAPTIONERS)} or another image-text-to-text model",
            )
        loader: Any = transformers.AutoModelForImageTextToText
        model, info = loader.from_pretrained(target, dtype=precision, output_loading_info=True, **common)
        refuse_missing(spec, model, missing_keys(info))
        try:
            processor = transformers.AutoProcessor.from_pretrained(target, **common)
        except ImportError as error:
            named = re.search(r"`([\w.-]+)`", str(error))
            raise DependencyError(named.group(1) if named else str(error)) from None
    if not hasattr(processor, "image_processor"):
        raise InputError(f"`{spec.name}` comes without an image processor")
    if config.model_type == "blip-2":
        _complete_blip2(model, processor)
    model.eval().requires_grad_(False)
    digest = state_sha256(model)
    model.to(place)
    commit = getattr(config, "_commit_hash", None)
    provenance = {"origin": "transformers", "repository": target} | ({"revision": commit} if commit else {})
    return Captioner(spec, model, processor, provenance, digest)


def _complete_blip2(model: Any, processor: Any) -> None:
    """What checkpoints from before the image token lack: the number of queries, the token, its embedding."""
    if processor.num_query_tokens is None:
        processor.num_query_tokens = model.config.num_query_tokens
    token = processor.tokenizer.convert_tokens_to_ids(_IMAGE)
    if token >= model.get_input_embeddings().num_embeddings:
        # the new rows are overwritten by the image's queries before the language model sees them
        model.resize_token_embeddings(token + 1, pad_to_multiple_of=64, mean_resizing=False)
    if model.config.image_token_index is None:
        model.config.image_token_index = token
