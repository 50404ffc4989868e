"""A package of somebody else adds methods, a model and a data set; they work from `rdx list` to the report."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import printed, rdx_here

from rdxcli.methods import registry
from rdxcli.models import registry as model_names

CODE = '''
import numpy as np
from PIL import Image
from torch import nn

from rdxcli.datasets.base import Dataset
from rdxcli.datasets.images import ImageSource
from rdxcli.methods.difference.baselines.base import Baseline
from rdxcli.methods.directions.baselines import NaturalBasis
from rdxcli.methods.neurons.clip_dissect import ClipDissect
from rdxcli.methods.registry import Method
from rdxcli.methods.regions.rdr import RDR
from rdxcli.models import ModelSpec


class Stripes(Baseline):
    """Rows in the order of their first column, cut into pieces.

    Parameters
    ----------
    n_clusters : int
        Pieces.
    """

    def __init__(self, n_clusters: int = 2, *, num_samples: int = 4, random_state: int = 0):
        self.n_clusters, self.num_samples, self.random_state = n_clusters, num_samples, random_state

    def _concepts(self, R, model):
        order = np.argsort(R[:, 0], kind="stable")
        labels = np.empty(len(R), dtype=np.int64)
        pieces = np.array_split(order, self.n_clusters)
        for number, rows in enumerate(pieces, start=1):
            labels[rows] = number
        return labels, [rows[: self.num_samples] for rows in pieces]


class Axes(NaturalBasis):
    pass


class Loudest(ClipDissect):
    pass


class Near(RDR):
    pass


class Colours(ImageSource):
    def __len__(self):
        return 24

    def image(self, row):
        return Image.new("RGB", (8, 8), (10 * row, 100, 255 - 10 * row))

    def fingerprint(self, rows):
        return {"by": "number", "sha256": "".join(map(str, rows))}


def net(width=6):
    import torch
    torch.manual_seed(width)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2))


def colours(root):
    return Dataset(
        "demo-colours", "demo-colours", SOURCE, [f"c{i:02d}" for i in range(24)], labels=["dark", "light"] * 12
    )


COMPARE = Method("stripes", "compare", "rdx_demo:Stripes", "demo: rows in pieces")
DIRECTIONS = Method("axes", "explain", "rdx_demo:Axes", "demo: axes", analysis="directions")
UNITS = Method("loudest", "explain", "rdx_demo:Loudest", "demo: words of units", analysis="units")
REGIONS = Method("near", "explain", "rdx_demo:Near", "demo: regions", {"n_neighbors": 4}, analysis="regions")
MODELS = [
    ModelSpec(f"demo-net-{width}", f"python:rdx_demo:net?width={width}&input_size=8", default_dataset="demo-colours")
    for width in (6, 7)
]
SOURCE = Colours()
'''
ENTRIES = """
[rdx.methods]
stripes = rdx_demo:COMPARE
axes = rdx_demo:DIRECTIONS
loudest = rdx_demo:UNITS
near = rdx_demo:REGIONS

[rdx.models]
nets = rdx_demo:MODELS

[rdx.datasets]
demo-colours = rdx_demo:colours
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that holds the installed package, for this process."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "rdx_demo.py").write_text(CODE)
    info = folder / "rdx_demo-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rdx-demo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    caches = (registry.methods, model_names._registry)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        for cached in caches:
            cached.cache_clear()
        yield folder
    for cached in caches:
        cached.cache_clear()
    sys.modules.pop("rdx_demo", None)


def run(place: Path, *arguments: str) -> str:
    return printed(*arguments, cwd=place)


def test_all_is_listed(place: Path) -> None:
    names = {(entry["command"], entry["name"]) for entry in json.loads(run(place, "list", "methods", "--json"))}
    assert {("compare", "stripes"), ("explain", "axes"), ("explain", "loudest"), ("explain", "near")} <= names
    assert "demo-net-6" in run(place, "list", "models")
    assert "demo-colours" in run(place, "list", "datasets")


def test_a_comparison_with_its_own_method_models_and_images(place: Path) -> None:
    command = (
        "compare",
        "demo-net-6",
        "demo-net-7",
        "--method",
        "stripes",
        "--k",
        "3",
        "--no-test",
        "--bootstraps",
        "0",
    )
    document = json.loads(run(place, *command, "--json"))
    assert (document["method"], document["n"], len(document["concepts"])) == ("stripes", 24, 6)
    assert document["concepts"][0]["sample_ids"][0].startswith("c")
    page = Path(place, run(place, "visualize", document["artifact"]).strip())
    assert "data:image" in page.read_text("utf-8")


@pytest.mark.parametrize(
    "command",
    [
        ("--method", "axes", "--n-directions", "3", "--param", "head=false"),
        ("--method", "near", "--target", "c03"),
    ],
    ids=lambda command: command[1],
)
def test_explanations(command: tuple[str, ...], place: Path) -> None:
    document = json.loads(run(place, "explain", *command, "--model", "demo-net-6", "--layer", "1", "--json"))
    assert document["method"] == command[1]
    if command[1] == "near":
        assert document["parameters"]["n_neighbors"] == 4
    assert Path(place, run(place, "visualize", document["artifact"]).strip()).is_file()


def test_units_by_a_method_of_the_package(place: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(place / "acts.npy", rng.random((40, 5)))
    np.save(place / "c.npy", rng.random((40, 3)))
    (place / "names.txt").write_text("a\nb\nc\n")
    source = ("--activations", "acts.npy", "--concepts", "c.npy", "--concept-names", "names.txt")
    document = json.loads(run(place, "explain", "--method", "loudest", *source, "--json"))
    assert [unit["unit"] for unit in document["units"]] == [0, 1, 2, 3, 4]


def test_its_parameters_are_checked_by_its_declaration(place: Path) -> None:
    done = rdx_here(
        "compare", "demo-net-6", "demo-net-7", "--method", "stripes", "--param", "num_samples=many", cwd=place
    )
    assert done.returncode == 2
    assert "num_samples=many: expected a whole number" in done.stderr
