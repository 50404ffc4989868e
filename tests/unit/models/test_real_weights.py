"""Published weights on real images give the published accuracies."""

from __future__ import annotations

import csv
import gzip

import numpy as np
import pytest
import torch
from PIL import Image

from rdxcli.models import load

pytestmark = pytest.mark.shared
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def predictions(model, images):
    found = []
    for start in range(0, len(images), 16):
        x = torch.stack([model.transform(image) for image in images[start : start + 16]])
        with torch.inference_mode():
            found += model.module(x).argmax(1).tolist()
    return np.array(found)


def imagenet(shared, step):
    folder = shared / "data" / "imagenet_sample"
    rows = list(csv.DictReader((folder / "index.csv").open(encoding="utf-8")))[::step]
    return rows, [Image.open(folder / row["file"]) for row in rows]


def test_mobilenet_in_torchvision(shared):
    rows, images = imagenet(shared, 8)
    model = load(f"file:{shared}/data/weights/mobilenet_v2_imagenet1k.safetensors", "cpu")
    found = predictions(model, images)
    assert (found == [int(row["expected_top1"]) for row in rows]).all()
    assert model.provenance["file_sha256"].startswith("b26372d5")


def test_mobilenet_in_timm_with_same_padding(shared):
    rows, images = imagenet(shared, 8)
    path = f"{shared}/data/weights/timm_mobilenetv2_100_imagenet1k.safetensors"
    model = load(f"file:{path}?arch=timm:mobilenetv2_100&pad_type=same&mean=0.5&std=0.5", "cpu")
    right = predictions(model, images) == [int(row["class_index"]) for row in rows]
    assert right.mean() > 0.75  # 86.0 % on all 300; symmetric padding has 77.7 %


def test_birds_model_takes_its_classes_from_the_file(shared):
    model = load(f"file:{shared}/data/weights/mobilenet_v2_inat_birds965.safetensors", "cpu")
    with model.tap(["last"]) as tap:
        assert tap(torch.zeros(1, 3, 224, 224))["output"].shape == (1, 965)


@pytest.mark.parametrize(
    ("name", "least"),
    [("cifar10_resnet20.th?arch=cifar_resnet20", 0.76), ("cifar10_resnet56.safetensors?arch=cifar_resnet56", 0.78)],
)
def test_cifar_resnets(shared, name, least):
    files = [path for label in CIFAR for path in sorted((shared / "data" / "cifar10_test" / label).glob("*.jpg"))[:20]]
    labels = np.repeat(np.arange(10), 20)
    model = load(f"file:{shared}/data/weights/{name}", "cpu")
    assert (predictions(model, [Image.open(path) for path in files]) == labels).mean() > least
    assert model.input_size == (3, 32, 32)


@pytest.mark.parametrize(("name", "least"), [("provable", 0.97), ("adv", 0.95)])
def test_mnist_small_cnns(shared, name, least):
    folder = shared / "data" / "mnist"
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(16 + 500 * 784)[16:], np.uint8).reshape(500, 28, 28)
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(8 + 500)[8:], np.uint8)
    model = load(f"file:{shared}/data/weights/mnist_smallcnn_{name}.pth?arch=small_cnn", "cpu")
    assert (predictions(model, [Image.fromarray(image) for image in images]) == labels).mean() > least
