"""Checkpoint files: wrappers, prefixes, strictness, safety, fingerprints."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rdxcli.errors import InputError, MissingDataError, UnknownNameError, UsageError
from rdxcli.models import load
from rdxcli.models.architectures import ARCHITECTURES, CifarResNet, CifarVGG16, FlatVGG19, PooledCNN, SmallCNN
from rdxcli.models.checkpoints import file_sha256, load_strictly, read_state, state_sha256


@pytest.fixture
def net():
    torch.manual_seed(5)
    return SmallCNN(3, 32, 6).eval()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: [s],
        lambda s: {"state_dict": s, "best_prec1": 0.9, "epoch": 3},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {"model": {f"_orig_mod.module.{k}": v for k, v in s.items()}, "args": {"lr": 0.1}},
        lambda s: {"model_state_dict": {f"model.{k}": v for k, v in s.items()}},
    ],
)
def test_wrappers_and_prefixes_come_off(net, wrap, tmp_path):
    path = tmp_path / "c.pth"
    torch.save(wrap(net.state_dict()), path)
    model = load(f"file:{path}?arch=small_cnn", "cpu")
    assert model.weights_sha256 == state_sha256(net)
    assert model.input_size == (3, 32, 32)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model.module(x), net(x))
    assert not any(parameter.requires_grad for parameter in model.module.parameters())
    assert not model.module.training


def test_legacy_and_half_precision_files(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "old.th", _use_new_zipfile_serialization=False)
    save_file({key: value.half() for key, value in net.state_dict().items()}, tmp_path / "half.safetensors")
    assert load(f"file:{tmp_path}/old.th?arch=small_cnn", "cpu").weights_sha256 == state_sha256(net)
    half = load(f"file:{tmp_path}/half.safetensors?arch=small_cnn", "cpu")
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.module[0].weight, net[0].weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("arch", "made", "classes"),
    [
        ("cifar_resnet20", CifarResNet(20, 4), 4),
        ("cifar_resnet32", CifarResNet(32, 10), 10),
        ("cifar_vgg16_bn", CifarVGG16(12), 12),
        ("flat_vgg19", FlatVGG19(9), 9),
        ("small_cnn", SmallCNN(1, 28, 3), 3),
        ("mnist_cnn", PooledCNN((8, 8), 20), 20),
    ],
)
def test_own_architectures_take_their_size_from_the_file(arch, made, classes, tmp_path):
    path = tmp_path / "c.safetensors"
    save_file(made.state_dict(), path)
    model = load(f"file:{path}?arch={arch}", "cpu")
    assert model.default_layer == ARCHITECTURES[arch].default_layer
    with model.tap([None or model.default_layer, "last"]) as tap:
        assert tap(torch.randn(1, *model.input_size))["output"].shape == (1, classes)


@pytest.mark.parametrize("arch", ["timm:resnet10t", "torchvision:shufflenet_v2_x0_5"])
def test_library_architectures_take_their_classes_from_the_head(arch, tmp_path):
    source = load(f"{arch}?num_classes=11", "cpu", untrained=True)
    path = tmp_path / "c.safetensors"
    save_file(source.module.state_dict(), path)
    model = load(f"file:{path}?arch={arch}&mean=0.5&std=0.5", "cpu")
    assert model.weights_sha256 == source.weights_sha256
    assert model.transform.mean == (0.5, 0.5, 0.5)
    assert model.description()["provenance"]["file_sha256"] == file_sha256(path)


def test_a_backbone_without_head(tmp_path):
    source = load("timm:resnet10t?num_classes=0", "cpu", untrained=True)
    save_file(source.module.state_dict(), tmp_path / "c.safetensors")
    model = load(f"file:{tmp_path}/c.safetensors?arch=timm:resnet10t", "cpu")
    assert model.weights_sha256 == source.weights_sha256
    assert model.default_layer == "global_pool"


def test_metadata_names_architecture_and_preprocessing(tmp_path):
    source = load("torchvision:shufflenet_v2_x0_5?num_classes=4", "cpu", untrained=True)
    metadata = {
        "architecture": "torchvision.models.shufflenet_v2_x0_5",
        "mean": "0.1,0.2,0.3",
        "crop": "64",
        "note": "x",
    }
    save_file(source.module.state_dict(), tmp_path / "c.safetensors", metadata=metadata)
    model = load(f"file:{tmp_path}/c.safetensors?std=0.9", "cpu")
    assert (model.transform.mean, model.transform.std, model.input_size) == ((0.1, 0.2, 0.3), (0.9,) * 3, (3, 64, 64))
    assert model.provenance["metadata"] == metadata
    save_file(source.module.state_dict(), tmp_path / "bare.safetensors")
    with pytest.raises(UsageError, match="does not say which network"):
        load(f"file:{tmp_path}/bare.safetensors", "cpu")


def test_published_checkpoint_with_other_names_is_matched_by_order(tmp_path, caplog):
    source = PooledCNN((8, 8), 10).eval()
    theirs = {"conv1": "model.block.0", "conv2": "model.block.1", "fc": "model.head"}
    renamed = {theirs[k.split(".")[0]] + k[k.index(".") :]: value for k, value in source.state_dict().items()}
    torch.save({"state_dict": renamed, "epoch": 4, "hyper_parameters": {"lr": 1e-3}}, tmp_path / "last.ckpt")
    with caplog.at_level("INFO", "rdxcli"):
        model = load(f"file:{tmp_path}/last.ckpt?arch=mnist_cnn", "cpu")
    assert model.weights_sha256 == state_sha256(source)
    assert "matched by order" in caplog.text
    assert model.transform.scale == 1.0


def test_mismatches_are_listed_and_never_silent(net, tmp_path):
    state = net.state_dict()
    state["7.wieght"] = state.pop("7.weight")
    torch.save(state, tmp_path / "c.pth")
    with pytest.raises(InputError, match=r"7\.weight"):
        load(f"file:{tmp_path}/c.pth?arch=small_cnn", "cpu")
    wrong = {**net.state_dict(), "0.bias": torch.zeros(3), "extra": torch.zeros(1)}
    with pytest.raises(
        InputError, match=r"1 unexpected \(extra\).*1 of another shape \(0\.bias is \(3,\), expected \(16,\)"
    ):
        load_strictly(SmallCNN(3, 32, 6), wrong, "c.pth")
    torch.save(CifarResNet(20).state_dict(), tmp_path / "r.pth")
    with pytest.raises(InputError, match="180 missing"):
        load(f"file:{tmp_path}/r.pth?arch=cifar_resnet56", "cpu")
    with pytest.raises(InputError, match="does not fit the network"):
        load(f"file:{tmp_path}/r.pth?arch=timm:resnet10t", "cpu")
    with pytest.raises(InputError, match="no tensor"):
        load(f"file:{tmp_path}/r.pth?arch=small_cnn", "cpu")
    with pytest.raises(UnknownNameError, match="unknown architecture"):
        load(f"file:{tmp_path}/r.pth?arch=cifar_resnet21", "cpu")


def test_counters_of_batch_norms_may_be_absent(tmp_path):
    source = CifarResNet(20).eval()
    old = {key: value for key, value in source.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    model = load(f"file:{tmp_path}/old.pth?arch=cifar_resnet20", "cpu")
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(model.module(x), source(x))


class Evil:
    def __reduce__(self):
        return os.mkdir, ("escaped",)


def test_no_code_of_a_checkpoint_runs(net, tmp_path):
    torch.save({"state_dict": net.state_dict(), "extra": Evil()}, tmp_path / "evil.pth")
    torch.save([Evil()], tmp_path / "evil.pt", _use_new_zipfile_serialization=False)
    for name in ("evil.pth", "evil.pt"):
        with pytest.raises(InputError, match="holds Python objects"):
            load(f"file:{tmp_path}/{name}?arch=small_cnn", "cpu")
    assert not (tmp_path / "escaped").exists()


def test_missing_damaged_and_empty_files(net, tmp_path):
    with pytest.raises(MissingDataError, match="no such checkpoint"):
        load(f"file:{tmp_path}/none.pth?arch=small_cnn", "cpu")
    torch.save(net.state_dict(), tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:2000])
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    for name in ("cut.pth", "cut.safetensors", "text.pth"):
        with pytest.raises(InputError, match="no readable"):
            load(f"file:{tmp_path}/{name}?arch=small_cnn", "cpu")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(InputError, match="no tensors"):
        read_state(tmp_path / "empty.pth")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(InputError, match="expected a state dict"):
        read_state(tmp_path / "tensor.pth")


def test_weights_with_nan_are_refused(net, tmp_path):
    state = net.state_dict()
    state["5.weight"][0, 0] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(InputError, match="hold NaN"):
        load(f"file:{tmp_path}/nan.pth?arch=small_cnn", "cpu")


def test_fingerprint_of_weights_is_of_the_numbers_alone():
    torch.manual_seed(0)
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    other.load_state_dict(one.state_dict())
    assert state_sha256(one) == state_sha256(other)
    with torch.no_grad():
        other.bias[0] += 1e-6
    assert state_sha256(one) != state_sha256(other)
    assert state_sha256(one) != state_sha256(one.double())


def test_fingerprint_of_a_file_follows_its_content(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"one")
    first = file_sha256(path)
    assert first == file_sha256(path)
    path.write_bytes(b"two!")
    assert file_sha256(path) != first
    memory = tmp_path / "cache" / "models" / "checksums.json"
    assert memory.is_file()
    memory.write_text("damaged")
    assert file_sha256(path) != first
