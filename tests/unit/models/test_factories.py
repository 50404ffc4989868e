"""Networks from the user's own code, and devices."""

from __future__ import annotations

import pytest
import torch

from rdxcli.errors import InputError, MissingDataError, UnknownNameError, UsageError
from rdxcli.models import ModelSpec, load
from rdxcli.models.devices import pick_device, pick_dtype

SOURCE = """
import torch
from torch import nn
import helper_beside

def make(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2))

def with_transform():
    return nn.Flatten(), lambda image: torch.full((1, 2, 2), float(image.size[0]))

def wrong():
    return "no network"

def broken():
    raise KeyError("inside")
"""


@pytest.fixture
def code(tmp_path):
    (tmp_path / "nets.py").write_text(SOURCE)
    (tmp_path / "helper_beside.py").write_text("")
    return tmp_path / "nets.py"


def test_factory_of_a_file(code, picture):
    model = load(f"{code}:make?width=6&mean=0.5&input_size=40", "cpu")
    assert model.transform.mean == (0.5, 0.5, 0.5)
    assert model.input_size == (3, 40, 40)
    assert model.default_layer == "2"
    with model.tap() as tap:
        assert tap(model.transform(picture)[None])["2"].shape == (1, 6)
    provenance = model.description()["provenance"]
    assert (provenance["origin"], provenance["function"]) == ("user code", "make")
    assert len(provenance["file_sha256"]) == 64


def test_factory_with_its_own_transform(code, picture):
    model = load(f"{code}:with_transform", "cpu")
    torch.testing.assert_close(model.transform(picture), torch.full((1, 2, 2), 170.0))
    assert model.input_size == (1, 2, 2)
    assert model.description()["preprocessing"]["kind"] == "user"


def test_factory_of_a_package():
    model = load("python:rdxcli.models.architectures:SmallCNN?in_channels=1&mode=L&input_size=28", "cpu")
    assert model.default_layer == "6"
    assert load(ModelSpec("mine", "python:rdxcli.models.architectures:CifarResNet"), "cpu").blocks()[0] == "layer1.0"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nets.py:absent", "has no function `absent`"),
        ("nets.py:wrong", "returns str, expected a torch.nn.Module"),
        ("nets.py:broken", "KeyError"),
        ("nets.py:make?height=3", "height"),
        ("none.py:make", "no such file"),
        ("python:no.such.module:make", "cannot be imported"),
    ],
)
def test_mistakes_in_factories(code, name, message):
    with pytest.raises((InputError, UsageError), match=message):
        load(name, "cpu")


def test_untrained_checkpoint_models_need_no_file():
    with pytest.raises(MissingDataError, match="not on this machine"):
        load("resnet20_cifar10", "cpu")
    model = load("resnet20_cifar10", "cpu", untrained=True)
    assert model.default_layer == "layer3"
    assert model.provenance["weights"].startswith("random")


def test_downloaded_checkpoint_is_found_and_its_name_checked(tmp_path, monkeypatch):
    from rdxcli.models.architectures import CifarResNet

    folder = tmp_path / "elsewhere" / "cifar-checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setenv("RDX_DATA", str(tmp_path / "elsewhere"))
    torch.save(CifarResNet(20).state_dict(), folder / "resnet20-12fca82f.th")
    with pytest.raises(InputError, match="does not begin with 12fca82f"):
        load("resnet20_cifar10", "cpu")
    from safetensors.torch import save_file

    (folder / "resnet20-12fca82f.th").unlink()
    save_file(CifarResNet(20).state_dict(), folder / "resnet20-12fca82f.safetensors")  # as `rdx download` converts it
    assert load("resnet20_cifar10", "cpu").blocks()[-1] == "layer3.2"


def test_devices():
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("gpu", "cuda:x", ""):
        with pytest.raises(UsageError, match="unknown device"):
            pick_device(name)


def test_a_device_that_is_not_there_is_never_replaced(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("cuda", "cuda:0", "mps"):
        with pytest.raises(UsageError, match="was asked for"):
            load("digits-cnn", name)
    assert pick_device("auto").type == "cpu"


def test_precision(code):
    assert load(f"{code}:make", "cpu", dtype="bfloat16").dtype == torch.bfloat16
    one, other = load(f"{code}:make", "cpu", dtype="float16"), load(f"{code}:make", "cpu")
    assert one.description()["dtype"] == "float16"
    assert len(one.weights_sha256) == len(other.weights_sha256) == 64
    with pytest.raises(UsageError, match="unknown dtype"):
        pick_dtype("float8")
    with pytest.raises(UnknownNameError):
        load("digits-cn", "cpu")
