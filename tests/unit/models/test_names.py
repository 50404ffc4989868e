"""Names: grammar, registry, suggestions, and that none of it needs torch."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdxcli.errors import UnknownNameError, UsageError
from rdxcli.models import grammar, registry
from rdxcli.models.registry import ModelSpec, Registry, list_models, resolve


@pytest.fixture
def fresh_registry():
    """Registrations of a test are forgotten after it."""
    registry._registry.cache_clear()
    yield
    registry._registry.cache_clear()


def test_listing_and_resolving_import_nothing_heavy():
    code = (
        "import sys; from rdxcli.models import list_models, resolve\n"
        "assert 'dinov2' in list_models(); resolve('timm:resnet18?a=1')\n"
        "heavy = {'torch', 'timm', 'transformers', 'open_clip', 'sklearn', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_registered_name_resolves_with_layer_dataset_and_licence():
    for name in list_models():
        spec = resolve(name)
        assert (spec.name, spec.seed) == (name, 0)
        assert spec.kind != "unknown"
        assert spec.default_layer
        assert spec.default_dataset
        assert spec.licence
        assert spec.description
        assert spec.to_dict()["kind"] == spec.kind


def test_names_of_the_papers():
    papers = {
        "resnet50_imagenet", "resnet18_places365", "vgg16_bn_cifar100", "vit_b_16_imagenet", "vit_l_32_imagenet",
        "dino", "dinov2", "clip", "clip_inat", "siglip", "clip_vit_b_32", "resnet20_cifar10",
        "digits-cnn", "digits-cnn-m35", "digits-cnn-m49", "digits-cnn-hflip", "digits-cnn-hflip-nl",
        "digits-cnn-vflip", "digits-cnn-vflip-nl", "digits-cnn-early",
    }  # fmt: skip
    assert papers <= set(list_models())
    assert resolve("dino").source == "timm:vit_base_patch16_224.dino"
    assert resolve("dinov2").default_layer == "block:-1"
    assert resolve("digits-cnn-hflip-nl").default_dataset == "digits-hflip"


@pytest.mark.parametrize(
    ("text", "scheme", "target", "options"),
    [
        ("digits-cnn", None, "digits-cnn", {}),
        ("dino?mean=0.5&std=0.5", None, "dino", {"mean": "0.5", "std": "0.5"}),
        ("torchvision:resnet50@IMAGENET1K_V1", "torchvision", "resnet50@IMAGENET1K_V1", {}),
        ("timm:hf-hub:timm/vit.x", "timm", "hf-hub:timm/vit.x", {}),
        ("open_clip:ViT-B/32/openai", "open_clip", "ViT-B/32/openai", {}),
        ("hf:/models/vit", "hf", "/models/vit", {}),
        ("file:a b.pth?arch=timm:x?pad=same&m=1", "file", "a b.pth", {"arch": "timm:x", "pad": "same", "m": "1"}),
        (r"file:C:\w\x.pth?arch=small_cnn", "file", r"C:\w\x.pth", {"arch": "small_cnn"}),
        ("./nets/mine.py:make?width=3", "factory", "./nets/mine.py:make", {"width": "3"}),
        ("python:pkg.mod:make", "python", "pkg.mod:make", {}),
        ("what?.pth", None, "what?.pth", {}),
    ],
)  # fmt: skip
def test_grammar(text, scheme, target, options):
    parsed = grammar.parse(text)
    assert (parsed.scheme, parsed.target, dict(parsed.options)) == (scheme, target, options)
    assert grammar.parse(grammar.join(parsed)) == parsed


@given(st.text())
def test_any_text_is_parsed_or_refused_with_a_usage_error(text):
    try:
        parsed = grammar.parse(text)
    except UsageError:
        return
    assert parsed.target


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("true", True),
        ("None", None),
        ("1,2.5", (1, 2.5)),
        ("same", "same"),
        ("nan", "nan"),
        ("", ""),
    ],
)
def test_literals(value, wanted):
    assert grammar.literal(value) == wanted


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "expected a name"),
        ("timm:", "names no model"),
        ("digits-cnn?mode", "expected `key=value`"),
        ("digits-cnn?mean=1&mean=2", "given twice"),
        ("digits-cnn@one", "got the seed `one`"),
        ("digits-cnn@-1", "got the seed `-1`"),
        ("dino@1", "published weights"),
        ("file:x.pth", "does not say which network"),
        ("open_clip:ViT-B-32", "names no weights"),
    ],
)
def test_unusable_names(name, message):
    with pytest.raises(UsageError, match=message):
        resolve(name)


def test_unknown_names_suggest_what_helps():
    with pytest.raises(UnknownNameError) as caught:
        resolve("digts-cnn-m35")
    assert "`digits-cnn-m35`" in caught.value.hint
    with pytest.raises(UnknownNameError) as caught:
        resolve("weights.pth")
    assert "file:weights.pth?arch=" in caught.value.hint
    with pytest.raises(UnknownNameError) as caught:
        resolve("qqqq")
    assert "rdx list models" in caught.value.hint
    assert "timm:qqqq" in caught.value.hint


def test_seeds_name_the_same_recipe():
    assert resolve("digits-cnn@0").name == "digits-cnn"
    spec = resolve("digits-cnn-m35@07")
    assert (spec.name, spec.seed, spec.source) == ("digits-cnn-m35@7", 7, "digits:m35")


def test_registry_refuses_duplicates_and_illegal_entries():
    fresh = Registry()
    fresh.register(ModelSpec("mine", "timm:resnet18"))
    with pytest.raises(ValueError, match="twice"):
        fresh.register(ModelSpec("mine", "timm:resnet34"))
    for name in ("timm:x", "a@1", "a?b=1"):
        with pytest.raises(ValueError, match="short name"):
            fresh.register(ModelSpec(name, "timm:resnet18"))
    with pytest.raises(ValueError, match="explicit name"):
        fresh.register(ModelSpec("other", "resnet18"))


def test_entry_points_add_models_and_broken_ones_are_left_out(fresh_registry, monkeypatch, caplog):
    points = [
        EntryPoint("good", f"{__name__}:make_specs", "rdx.models"),
        EntryPoint("bad", "no.such.module:specs", "rdx.models"),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "rdx.models" else [])
    monkeypatch.setattr(
        EntryPoint, "load", lambda self: make_specs if self.name == "good" else __import__("no.such.module")
    )
    assert list_models()[-1] == "theirs"
    assert resolve("theirs").source == "timm:resnet18"
    assert "`bad`" in caplog.text


def load_entry_point(point):
    return make_specs if point.name == "good" else __import__("no.such.module")


def make_specs():
    return [ModelSpec("theirs", "timm:resnet18")]


def test_register_adds_to_this_process(fresh_registry):
    registry.register(ModelSpec("mine", "python:package.module:make"))
    assert resolve("mine").kind == "python"


def test_the_page_names_every_model_option_and_pooling():
    from pathlib import Path

    from rdxcli.models.architectures import ARCHITECTURES
    from rdxcli.models.preprocessing import OPTIONS
    from rdxcli.models.taps import POOLS

    text = (Path(__file__).resolve().parents[3] / "docs" / "models.md").read_text(encoding="utf-8")
    named = [f"`{name}`" for name in list_models()] + [f"`{name}=`" for name in OPTIONS] + [f"`{how}`" for how in POOLS]
    named += [f"`{arch}`" for arch in ARCHITECTURES if not arch.startswith("cifar_resnet")]
    assert [name for name in named if name not in text] == []
