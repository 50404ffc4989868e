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


def save_chat(kind: str, folder: Path) -> Path:
    """A captioner that reads images and text together, of one of `CHAT`; those that chat have a template."""
    import transformers as t

    torch.manual_seed(5)
    model, processor = CHAT[kind](t)
    with torch.no_grad():
        _louder(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _asked(t: Any, *images: str, **names: str) -> Any:
    """A tokeniser of whole words that knows what captioners are asked, and tokens for images."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    specials = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    extra = [*images, *names.values()]
    asked = ["USER:", "ASSISTANT:", "Describe", "this", "image", "in", "one", "sentence.", "caption", "en"]
    words = [*specials.values(), *extra, *asked, *THINGS]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    more = {"extra_special_tokens": names} if names else {}
    return t.PreTrainedTokenizerFast(tokenizer_object=made, additional_special_tokens=extra, **specials, **more)


def _template(image: str) -> str:
    return (
        "{% for m in messages %}USER: {% for c in m['content'] %}{% if c['type'] == 'image' %}"
        f"{image} {{% else %}}{{{{ c['text'] }}}} {{% endif %}}{{% endfor %}}{{% endfor %}}ASSISTANT:"
    )


TEXT = {"hidden_size": 32, "intermediate_size": 32, "num_key_value_heads": 2, "pad_token_id": 1, "bos_token_id": 2,
        "eos_token_id": 3, **SMALL}  # fmt: skip
SQUARE = {"height": 32, "width": 32}


def _llava(t: Any) -> tuple[Any, Any]:
    words = _asked(t, "<image>")
    config = t.LlavaConfig(vision_config=t.CLIPVisionConfig(**{**VISION, "num_hidden_layers": 2}),
                           text_config=t.LlamaConfig(vocab_size=len(words), **TEXT), image_token_index=4)  # fmt: skip
    images = t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE)
    return t.LlavaForConditionalGeneration(config), t.LlavaProcessor(
        images, words, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=_template("<image>"))  # fmt: skip


def _paligemma(t: Any) -> tuple[Any, Any]:
    images, words = t.SiglipImageProcessor(size=SQUARE), _asked(t, image_token="<image>")
    images.image_seq_length = 16
    processor = t.PaliGemmaProcessor(images, words)
    text = {"model_type": "gemma", "vocab_size": len(words), "head_dim": 16, **TEXT}
    vision = {"model_type": "siglip_vision_model", **VISION}
    config = t.PaliGemmaConfig(vision_config=vision, text_config=text, image_token_index=4, projection_dim=32)
    return t.PaliGemmaForConditionalGeneration(config), processor


def _gemma3(t: Any) -> tuple[Any, Any]:
    words = _asked(t, boi_token="<start_of_image>", image_token="<image_soft_token>", eoi_token="<end_of_image>")
    processor = t.Gemma3Processor(t.Gemma3ImageProcessor(size=SQUARE), words,
                                  chat_template=_template("<start_of_image>"), image_seq_length=4)  # fmt: skip
    text = {"model_type": "gemma3_text", "vocab_size": len(words), "head_dim": 16, "sliding_window": 64, **TEXT}
    vision = {"model_type": "siglip_vision_model", "vision_use_head": False, **VISION}
    config = t.Gemma3Config(vision_config=vision, text_config=text, mm_tokens_per_image=4, image_token_index=5,
                            boi_token_index=4, eoi_token_index=6)  # fmt: skip
    return t.Gemma3ForConditionalGeneration(config), processor


def _qwen3(t: Any) -> tuple[Any, Any]:
    words = _asked(t, "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    size = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
    images = t.Qwen2VLImageProcessor(min_pixels=1024, max_pixels=1024, **size)
    chat = _template("<|vision_start|> <|image_pad|> <|vision_end|>")
    processor = t.Qwen3VLProcessor(images, words, t.Qwen3VLVideoProcessor(**size), chat_template=chat)
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    text = {"vocab_size": len(words), "head_dim": 16, "rope_scaling": rope, **TEXT}
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "patch_size": 8,
              "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 32, "num_position_embeddings": 16,
              "deepstack_visual_indexes": [0]}  # fmt: skip
    config = t.Qwen3VLConfig(vision_config=vision, text_config=text, image_token_id=4, video_token_id=5,
                             vision_start_token_id=6, vision_end_token_id=7)  # fmt: skip
    return t.Qwen3VLForConditionalGeneration(config), processor


def _internvl(t: Any) -> tuple[Any, Any]:
    words = _asked(t, start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>",
                   video_token="<video>")  # fmt: skip
    images = t.GotOcr2ImageProcessor(size=SQUARE, max_patches=1, crop_to_patches=True)
    processor = t.InternVLProcessor(images, words, t.InternVLVideoProcessor(size=SQUARE), image_seq_length=4,
                                    chat_template=_template("<IMG_CONTEXT>"))  # fmt: skip
    vision = {**VISION, "image_size": [32, 32], "patch_size": [8, 8]}
    text = {"model_type": "qwen2", "vocab_size": len(words), **TEXT}
    config = t.InternVLConfig(vision_config=vision, text_config=text, image_token_id=6, image_seq_length=4)
    return t.InternVLForConditionalGeneration(config), processor


def _smolvlm(t: Any) -> tuple[Any, Any]:
    words = _asked(t, "<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>")
    size = {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 32}}
    images, videos = t.SmolVLMImageProcessor(do_image_splitting=False, **size), t.SmolVLMVideoProcessor(**size)
    processor = t.SmolVLMProcessor(images, words, videos, image_seq_len=4, chat_template=_template("<image>"))
    text = {"model_type": "llama", "vocab_size": len(words), **TEXT}
    vision = {"model_type": "smolvlm_vision", **VISION}
    config = t.SmolVLMConfig(vision_config=vision, text_config=text, image_token_id=5, scale_factor=2)
    return t.SmolVLMForConditionalGeneration(config), processor


def _florence2(t: Any) -> tuple[Any, Any]:
    words = _asked(t, image_token="<image>")
    images = t.CLIPImageProcessor(size={"height": 64, "width": 64}, do_center_crop=False)
    images.image_seq_length = 65
    vision = {"depths": [1, 1], "embed_dim": [16, 32], "num_heads": [2, 2], "num_groups": [2, 2], "patch_size": [7, 3],
              "patch_stride": [4, 2], "patch_padding": [3, 1], "patch_prenorm": [False, True], "window_size": 4,
              "projection_dim": 32, "max_temporal_embeddings": 4, "max_position_embeddings": 20,
              "drop_path_rate": 0.0}  # fmt: skip
    sides = {f"{side}_{name}": value for side in ("encoder", "decoder")
             for name, value in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))}  # fmt: skip
    text = {"model_type": "bart", "vocab_size": len(words), "d_model": 32, "max_position_embeddings": 128,
            "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 3,
            "forced_eos_token_id": 3, "forced_bos_token_id": 2, **sides}  # fmt: skip
    config = t.Florence2Config(text_config=text, vision_config=vision, image_token_id=4)
    return t.Florence2ForConditionalGeneration(config), t.Florence2Processor(images, words)


CHAT = {
    "llava": _llava, "paligemma": _paligemma, "gemma3": _gemma3, "qwen3_vl": _qwen3, "internvl": _internvl,
    "smolvlm": _smolvlm, "florence2": _florence2,
}  # fmt: skip
"""Families of captioners, each as its hub has it."""


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
