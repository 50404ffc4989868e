"""Real loaders of torchvision, timm, open_clip and transformers on tiny models in their own formats."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
import torch
from processes import Forked

from rdxcli.errors import InputError, MissingDataError, RdxError, UnknownNameError, UsageError
from rdxcli.models import load
from rdxcli.models.checkpoints import state_sha256
from rdxcli.models.taps import OUTPUT


def read(model, picture, layers, pool="auto"):
    with model.tap(layers, pool) as tap:
        return tap(torch.stack([model.transform(picture)] * 2))


# ---------------------------------------------------------------------------------------------------------- timm


def test_timm_folder(timm_folder, picture):
    import timm

    model = load(f"timm:local-dir:{timm_folder}", "cpu")
    wanted = timm.create_model(f"local-dir:{timm_folder}", pretrained=True).eval()
    assert model.weights_sha256 == state_sha256(wanted)
    x = model.transform(picture)[None]
    data = timm.data.create_transform(**timm.data.resolve_model_data_config(wanted))
    torch.testing.assert_close(x[0], data(picture))
    values = read(model, picture, ["norm", "block:-1"])
    torch.testing.assert_close(values["norm"][:1], wanted.forward_features(x)[:, 0])
    blocks = wanted.forward_intermediates(x, indices=1, intermediates_only=True, return_prefix_tokens=True)
    torch.testing.assert_close(values["blocks.1"][:1], blocks[-1][1][:, 0])
    maps = read(model, picture, ["block:-1"], "none")["blocks.1"]
    torch.testing.assert_close(maps[:1], blocks[-1][0])


def test_timm_folder_without_weights_is_no_random_network(timm_folder, tmp_path):
    shutil.copytree(timm_folder, tmp_path / "bare")
    for file in [*(tmp_path / "bare").glob("*.bin"), *(tmp_path / "bare").glob("*.safetensors")]:
        file.unlink()
    with pytest.raises(RdxError):
        load(f"timm:local-dir:{tmp_path}/bare", "cpu")
    model = load(f"timm:local-dir:{tmp_path}/bare", "cpu", untrained=True)
    assert model.untrained
    assert model.description()["untrained"] is True


# ----------------------------------------------------------------------------------------------------- open_clip


def test_open_clip_folder(open_clip_folder, picture):
    import open_clip

    model = load(f"open_clip:local-dir:{open_clip_folder}", "cpu")
    whole, transform = open_clip.create_model_from_pretrained(f"local-dir:{open_clip_folder}")
    x = transform(picture)[None]
    torch.testing.assert_close(model.transform(picture), x[0])
    values = read(model, picture, None)
    assert list(values) == [OUTPUT]
    torch.testing.assert_close(values[OUTPUT][:1], whole.encode_image(x), rtol=1e-4, atol=1e-5)
    assert read(model, picture, ["block:-1"], "none")["transformer.resblocks.1"].shape == (2, 32, 4, 4)


def test_open_clip_checkpoint_for_a_built_in_architecture(monkeypatch, open_clip_folder, tmp_path):
    import open_clip

    # a tiny architecture under a name of its own, as a user's config folder gives it
    config = json.loads((open_clip_folder / "open_clip_config.json").read_text())["model_cfg"]
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "ViT-rdx-tiny.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    weights = open_clip_folder / "open_clip_model.safetensors"
    model = load(f"open_clip:ViT-rdx/tiny/{weights}".replace("rdx/tiny", "rdx-tiny"), "cpu")
    assert model.weights_sha256 == load(f"open_clip:local-dir:{open_clip_folder}", "cpu").weights_sha256


def test_open_clip_weights_that_do_not_fit_or_lack(open_clip_folder, tmp_path):
    shutil.copytree(open_clip_folder, tmp_path / "bare")
    (tmp_path / "bare" / "open_clip_model.safetensors").unlink()
    with pytest.raises(RdxError):
        load(f"open_clip:local-dir:{tmp_path}/bare", "cpu")
    assert load(f"open_clip:local-dir:{tmp_path}/bare", "cpu", untrained=True).untrained
    document = json.loads((open_clip_folder / "open_clip_config.json").read_text())
    document["model_cfg"]["vision_cfg"]["layers"] = 3
    shutil.copytree(open_clip_folder, tmp_path / "deeper")
    (tmp_path / "deeper" / "open_clip_config.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="do not fit"):
        load(f"open_clip:local-dir:{tmp_path}/deeper", "cpu")


def test_quick_gelu_follows_the_weights(monkeypatch):
    from rdxcli.models import libraries
    from rdxcli.models.registry import resolve

    spec = resolve("open_clip:ViT-B-32/openai")
    assert libraries._quick_gelu(spec, "ViT-B-32", "openai") is True
    assert libraries._quick_gelu(spec, "ViT-B-32", "laion2b_s34b_b79k") is False
    import open_clip

    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: {"quick_gelu": False})
    with pytest.raises(UsageError, match="trained without it"):
        libraries._quick_gelu(spec, "ViT-B-32-quickgelu", "mine")


# -------------------------------------------------------------------------------------------------- transformers


def test_transformers_vit_with_and_without_pooler(hub, picture):
    import transformers

    model = load(f"hf:{hub}/vit", "cpu")
    wanted = transformers.ViTModel.from_pretrained(hub / "vit").eval()
    x = transformers.AutoImageProcessor.from_pretrained(hub / "vit")(picture, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(model.transform(picture), x[0])
    assert model.default_layer == "layernorm"
    torch.testing.assert_close(read(model, picture, None)["layernorm"][:1], wanted(x).last_hidden_state[:, 0])
    # the classifier's checkpoint has no pooler: it is left out, not filled with random numbers
    bare = load(f"hf:{hub}/vit-classifier", "cpu")
    assert not any("pooler" in name for name, _ in bare.module.named_parameters())
    described = model.description()["preprocessing"]
    assert described["image_mean"] == [0.5, 0.5, 0.5]
    json.dumps(model.description())


def test_transformers_image_towers_give_the_joint_embedding(hub, picture):
    import transformers

    for name, layer in (("clip", "vision_model.encoder.layers.1"), ("siglip", "encoder.layers.1")):
        model = load(f"hf:{hub}/{name}", "cpu")
        whole = transformers.AutoModel.from_pretrained(hub / name).eval()
        x = model.transform(picture)[None]
        wanted = whole.get_image_features(pixel_values=x)
        wanted = wanted if isinstance(wanted, torch.Tensor) else wanted.pooler_output
        values = read(model, picture, ["penultimate", "block:-1"])
        torch.testing.assert_close(values[OUTPUT][:1], wanted, rtol=1e-4, atol=1e-5)
        assert values[layer].shape == (2, 32)
        assert not any("text" in path for path, _ in model.module.named_modules())


def test_transformers_registers_and_windows(hub, picture):
    model = load(f"hf:{hub}/dinov2", "cpu")
    assert (model.tokens.prefix, model.tokens.has_class) == (5, True)
    assert read(model, picture, ["block:-1"], "none")["encoder.layer.1"].shape == (2, 32, 4, 4)
    swin = load(f"hf:{hub}/swin", "cpu")
    values = read(swin, picture, ["encoder.layers.1", "encoder.layers.0.blocks.0"], "none")
    assert {path: tuple(value.shape[1:]) for path, value in values.items()} == {
        "encoder.layers.1": (32, 4, 4),
        "encoder.layers.0.blocks.0": (16, 8, 8),
    }


def test_transformers_early_stop_gives_the_same(hub, picture):
    model = load(f"hf:{hub}/dinov2", "cpu")
    x = torch.stack([model.transform(picture)] * 2)
    with model.tap(["block:0"]) as tap:
        first, second = tap(x)["encoder.layer.0"], tap(x)["encoder.layer.0"]
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_transformers_checkpoint_that_lacks_weights(hub, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(hub / "dinov2", tmp_path / "cut")
    state = load_file(tmp_path / "cut" / "model.safetensors")
    state.pop("layernorm.weight")
    save_file(state, tmp_path / "cut" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 weight.*layernorm\.weight"):
        load(f"hf:{tmp_path}/cut", "cpu")


def test_transformers_without_image_processor(hub, tmp_path):
    shutil.copytree(hub / "dinov2", tmp_path / "bare")
    for file in (tmp_path / "bare").glob("*processor*.json"):
        file.unlink()
    with pytest.raises(MissingDataError, match="without an image processor") as caught:
        load(f"hf:{tmp_path}/bare", "cpu")
    assert "preprocess=imagenet" in caught.value.hint
    model = load(f"hf:{tmp_path}/bare?preprocess=half", "cpu")
    assert (model.transform.mean, model.input_size) == ((0.5,) * 3, (3, 32, 32))


def test_transformers_overrides(hub, picture):
    plain, moved = (load(f"hf:{hub}/vit{query}", "cpu") for query in ("", "?mean=0.25&std=0.5"))
    torch.testing.assert_close(moved.transform(picture), plain.transform(picture) + 0.5)
    with pytest.raises(UsageError, match="crop_pct"):
        load(f"hf:{hub}/vit?crop_pct=1", "cpu")


# ---------------------------------------------------------------------------------------------- torchvision, misses


def test_torchvision_weights_from_its_own_cache(tmp_path):
    from torchvision.models import ShuffleNet_V2_X0_5_Weights, shufflenet_v2_x0_5

    weights = ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1
    with pytest.raises(MissingDataError, match="not on this machine") as caught:
        load("torchvision:shufflenet_v2_x0_5", "cpu")
    assert "--untrained" in caught.value.hint
    net = shufflenet_v2_x0_5().eval()
    cached = tmp_path / "torch" / "hub" / "checkpoints" / weights.url.rpartition("/")[2]
    cached.parent.mkdir(parents=True)
    torch.save(net.state_dict(), cached)
    model = load("torchvision:shufflenet_v2_x0_5@IMAGENET1K_V1", "cpu")
    assert model.weights_sha256 == state_sha256(net)
    assert model.provenance["weights"] == str(weights)
    cached.write_bytes(b"damaged")
    with pytest.raises(RdxError):
        load("torchvision:shufflenet_v2_x0_5", "cpu")


@pytest.mark.parametrize(
    "name",
    ["timm:resnet10t", "timm:hf-hub:timm/no-such", "hf:rdx-test/no-such", "open_clip:ViT-B-32/laion2b_s34b_b79k"],
)
def test_weights_that_are_not_here_are_an_error(name):
    with pytest.raises(MissingDataError, match="not on this machine") as caught:
        load(name, "cpu")
    assert "network" in caught.value.hint


def test_hint_for_a_short_name_is_a_command():
    for name in ("resnet18_places365", "resnet50_imagenet"):
        with pytest.raises(MissingDataError) as caught:
            load(name, "cpu")
        assert f"`rdx download {name}`" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("timm:resnet99", UnknownNameError, "resnet"),
        ("timm:resnet18.nope", UnknownNameError, "a1_in1k"),
        ("timm:timm/resnet18", UsageError, "hf-hub:timm/resnet18"),
        ("torchvision:resnet19", UnknownNameError, "resnet18"),
        ("torchvision:resnet18@V9", UnknownNameError, "IMAGENET1K_V1"),
        ("torchvision:fasterrcnn_resnet50_fpn", UnknownNameError, None),
        ("open_clip:ViT-B-33/openai", UnknownNameError, "ViT-B-32"),
        ("open_clip:ViT-B-32/opena", UnknownNameError, "openai"),
        ("timm:resnet10t?num_classes=10", UsageError, "num_classes"),
        ("torchvision:shufflenet_v2_x0_5?num_classes=10", UsageError, "num_classes"),
        ("timm:local-dir:nowhere", MissingDataError, "path"),
        ("open_clip:local-dir:nowhere", MissingDataError, "path"),
        ("hf:./nowhere", MissingDataError, "path"),
    ],
)
def test_mistakes_in_library_names(name, kind, said):
    with pytest.raises(kind) as caught:
        load(name, "cpu")
    if said is not None:
        assert said in caught.value.hint


def test_unknown_constructor_options():
    for name in ("timm:resnet10t?depht=3", "torchvision:shufflenet_v2_x0_5?depht=3"):
        with pytest.raises(UsageError, match="depht=3"):
            load(name, "cpu", untrained=True)
    with pytest.raises(UsageError, match="`pretrained` is set by rdx"):
        load("timm:resnet10t?pretrained=1", "cpu", untrained=True)


def test_random_weights_are_the_same_every_time_and_draw_nothing_from_the_global_stream():
    state = torch.random.get_rng_state()
    one = load("timm:resnet10t", "cpu", untrained=True)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.rand(3)
    assert load("timm:resnet10t", "cpu", untrained=True).weights_sha256 == one.weights_sha256


def test_libraries_leave_logging_alone(open_clip_folder):
    code = (
        "import logging; from rdxcli.models import load\n"
        f"load('open_clip:local-dir:{open_clip_folder}', 'cpu'); assert not logging.getLogger().handlers"
    )
    process = Forked(code=code)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert out == ""
    assert logging.getLogger("rdxcli").propagate


def test_without_a_network_the_hub_is_not_asked(monkeypatch):
    from rdxcli.models import opened

    def unresolved(*_args):
        raise OSError("no such name")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(opened.socket, "getaddrinfo", unresolved)
    opened._unresolved.cache_clear()
    with pytest.raises(MissingDataError, match="the hub cannot be reached"):
        load("hf:rdx-test/no-such", "cpu")
    opened._unresolved.cache_clear()
    monkeypatch.setenv("https_proxy", "http://proxy.invalid:3128")
    assert not opened.hub_is_offline()  # the proxy knows names that this machine does not
    opened._unresolved.cache_clear()
