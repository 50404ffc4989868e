"""Tiny captioners and teachers in the hub's own format, with random weights, for the real loaders to load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

THINGS = ["dog", "cat", "tree", "car", "house", "bird", "boat", "horse", "red", "big", "near", "on"]
"""Words that the captioners can say and the teachers know."""

VISION = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 32, "patch_size": 8}  # fmt: skip
SMALL = {"num_hidden_layers": 1, "num_attention_heads": 2}


def tokeniser(specials: dict[str, str]) -> Any:
    """Whole words."""
    import transformers as t
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = [*specials.values(), "a", "photo", "of", *THINGS]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=specials["unk_token"]))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if "cls_token" in specials:
        ends = [(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
        made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return t.PreTrainedTokenizerFast(tokenizer_object=made, **specials)


def save_blip2(folder: Path) -> Path:
    """As published checkpoints were before the image token: neither tokeniser nor embeddings know it."""
    import transformers as t

    text = {"model_type": "opt", "vocab_size": 19, "hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 16,
            "max_position_embeddings": 64, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2,
            **SMALL}  # fmt: skip
    queries = {"vocab_size": 10, "hidden_size": 16, "intermediate_size": 16, "encoder_hidden_size": 32, **SMALL}
    config = t.Blip2Config(vision_config=VISION, qformer_config=queries, text_config=text, num_query_tokens=4)
    torch.manual_seed(0)
    model = t.Blip2ForConditionalGeneration(config)
    with torch.no_grad():  # so that captions depend on the image
        model.query_tokens.normal_()
        _louder(model)
    model.save_pretrained(folder)
    words = tokeniser({"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "</s>", "eos_token": "</s>"})
    words.save_pretrained(folder)
    t.BlipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "Blip2Processor"}))
    return folder


def save_blip(folder: Path) -> Path:
    import transformers as t

    specials = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]",
                "bos_token": "[DEC]"}  # fmt: skip
    text = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 16, "encoder_hidden_size": 32, "bos_token_id": 4,
            "sep_token_id": 3, "pad_token_id": 1, "eos_token_id": 3, "max_position_embeddings": 64,
            **SMALL}  # fmt: skip
    torch.manual_seed(1)
    model = t.BlipForConditionalGeneration(t.BlipConfig(vision_config=VISION, text_config=text))
    with torch.no_grad():
        _louder(model)
    model.save_pretrained(folder)
    words = tokeniser(specials)
    t.BlipProcessor(t.BlipImageProcessor(size={"height": 32, "width": 32}), words).save_pretrained(folder)
    return folder


def save_llava(folder: Path) -> Path:
    """A captioner that chats: its processor has a template, and its prompt holds the image's tokens."""
    import transformers as t
    from tokenizers import Tokenizer, models, pre_tokenizers

    specials = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    asked = ["USER:", "ASSISTANT:", "Describe", "this", "image", "in", "one", "sentence."]
    words = [*specials.values(), "<image>", *asked, *THINGS]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = t.PreTrainedTokenizerFast(tokenizer_object=made, additional_special_tokens=["<image>"], **specials)
    vision = t.CLIPVisionConfig(**{**VISION, "num_hidden_layers": 2})
    text = t.LlamaConfig(vocab_size=len(words), hidden_size=32, intermediate_size=32, num_key_value_heads=2,
                         pad_token_id=1, bos_token_id=2, eos_token_id=3, **SMALL)  # fmt: skip
    config = t.LlavaConfig(vision_config=vision, text_config=text, image_token_index=4)
    torch.manual_seed(5)
    model = t.LlavaForConditionalGeneration(config)
    with torch.no_grad():
        _louder(model)
    model.save_pretrained(folder)
    square = {"height": 32, "width": 32}
    template = (
        "{% for m in messages %}USER: {% for c in m['content'] %}{% if c['type'] == 'image' %}<image> "
        "{% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}ASSISTANT:"
    )
    images = t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=square)
    t.LlavaProcessor(images, fast, patch_size=8, vision_feature_select_strategy="default",
                     num_additional_image_tokens=1, chat_template=template).save_pretrained(folder)  # fmt: skip
    return folder


def save_clip(folder: Path) -> Path:
    """A CLIP that knows the captioners' words."""
    import transformers as t

    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    text = {**size, "vocab_size": 18, "max_position_embeddings": 16, "bos_token_id": 2, "eos_token_id": 2,
            "pad_token_id": 1}  # fmt: skip
    torch.manual_seed(4)
    config = t.CLIPConfig(
        text_config=text, vision_config={**size, "image_size": 32, "patch_size": 8}, projection_dim=24
    )
    model = t.CLIPModel(config)
    with torch.no_grad():
        _louder(model)
    model.save_pretrained(folder)
    square = {"height": 32, "width": 32}
    t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=square).save_pretrained(folder)
    tokeniser({"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "</s>"}).save_pretrained(folder)
    return folder


def save_siglip(folder: Path) -> Path:
    import transformers as t

    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    text = {**size, "vocab_size": 20, "max_position_embeddings": 8, "projection_size": 32}
    torch.manual_seed(3)
    config = t.SiglipConfig(text_config=text, vision_config={**size, "image_size": 32, "patch_size": 8})
    t.SiglipModel(config).save_pretrained(folder)
    t.SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    tokeniser({"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "</s>"}).save_pretrained(folder)
    return folder


def _louder(model: torch.nn.Module) -> None:
    """Weights so large that outputs differ from input to input."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.mul_(4)


def save_git(folder: Path) -> Path:
    """Microsoft's GIT as published: a BERT tokeniser that says segments, which the model does not read."""
    import transformers as t

    specials = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    text = {"vocab_size": 19, "hidden_size": 16, "intermediate_size": 16, "pad_token_id": 1, "bos_token_id": 2,
            "eos_token_id": 3, "max_position_embeddings": 64, **SMALL}  # fmt: skip
    torch.manual_seed(6)
    model = t.GitForCausalLM(t.GitConfig(vision_config=VISION, **text))
    with torch.no_grad():
        _louder(model)
    model.save_pretrained(folder)
    words = tokeniser(specials)
    words.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    square = {"height": 32, "width": 32}
    t.GitProcessor(t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=square), words).save_pretrained(folder)
    return folder
