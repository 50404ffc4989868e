"""Every recipe, end to end: a miniature archive of exactly its layout, served locally, ends as something that opens."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from download_server import Site, serve
from miniatures import CHECKPOINTS, CONCEPTS, DATASETS, Miniature, weights
from safetensors.numpy import load_file

from rdxcli.datasets import published
from rdxcli.datasets.registry import describe_datasets, open_dataset
from rdxcli.datasets.selection import SelectionOptions
from rdxcli.download import catalogue
from rdxcli.download.store import checkpoint_file, content_folder
from rdxcli.errors import InputError, MissingDataError, UsageError
from rdxcli.listing import downloads as listing
from rdxcli.representations.pairs import without
from rdxcli.representations.resolve import resolve_representation
from rdxcli.services.download import DownloadOptions, check, download, plan

REAL = catalogue.RECIPES


def shrunk(name: str, miniature: Miniature) -> dict[str, Any]:
    """The real recipe with sizes and hashes of the miniature in place of the published ones, all else untouched."""
    path = next(REAL.rglob(f"{name}.yaml"))
    content = yaml.safe_load(path.read_text("utf-8"))
    for entry, item in zip(content.get("items", []), catalogue.load_recipe(path).items, strict=True):
        data = miniature.files[item.name]
        if "size" in entry:
            entry["size"] = len(data)
        for key, function in (("sha256", hashlib.sha256), ("md5", hashlib.md5)):
            if key in entry:
                entry[key] = function(data).hexdigest()
        if "sha256_prefix" in entry:
            entry["sha256_prefix"] = hashlib.sha256(data).hexdigest()[:8]
    return content


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Miniature], Site]:
    """Serve a miniature and make its recipe the one that rdx knows; returns the site."""
    site = Site()
    running = serve(site)
    running.__enter__()

    def start(name: str, miniature: Miniature) -> Site:
        folder = tmp_path / "recipes"
        if not folder.exists():
            shutil.copytree(REAL, folder)
        next(folder.rglob(f"{name}.yaml")).write_text(
            yaml.safe_dump(shrunk(name, miniature), allow_unicode=True), "utf-8"
        )
        monkeypatch.setattr(catalogue, "RECIPES", folder)
        site.files = {f"/{name}/{item}": data for item, data in miniature.files.items()}
        return site

    yield start  # type: ignore[misc]
    running.__exit__(None, None, None)


def fetch(name: str, root: Path, site: Site, **options: Any) -> dict[str, Any]:
    outcome = download(DownloadOptions([name], root=root, mirror=site.url, yes=True, timeout=5.0, **options))
    return outcome.downloads[0]


def test_every_recipe_is_here() -> None:
    hub = {recipe.name for recipe in catalogue.catalogue().values() if recipe.hub}
    assert {*DATASETS, *CHECKPOINTS, *CONCEPTS, *hub} == set(catalogue.catalogue())


def assert_right(name: str, root: Path, miniature: Miniature) -> None:
    dataset = open_dataset(name, root=root)
    labels = dataset.labels or [None] * len(dataset)
    splits = dataset.splits or [None] * len(dataset)
    assert list(zip(dataset.sample_ids, labels, splits, strict=True)) == miniature.rows
    if miniature.class_names is not None:
        assert list(dataset.class_names or []) == miniature.class_names
    for i, sample in enumerate(dataset.sample_ids):
        image = np.asarray(dataset.image(i).convert("RGB"))
        if sample in miniature.shades:
            assert abs(int(image[..., 0].mean()) - miniature.shades[sample]) <= 4
    for i, sample in enumerate(dataset.sample_ids):
        if sample in miniature.captions:
            assert dataset.captions is not None
            assert list(dataset.captions[i]) == miniature.captions[sample]
    split = miniature.rows[0][2]
    assert len(dataset.select(split=split)) == sum(row[2] == split for row in miniature.rows)
    assert dataset.fingerprint()


@pytest.mark.parametrize("name", [name for name, make in DATASETS.items() if make().folder is None])
def test_data_sets(use: Callable[[str, Miniature], Site], tmp_path: Path, name: str) -> None:
    miniature = DATASETS[name]()
    site, root = use(name, miniature), tmp_path / "data"
    with pytest.raises(MissingDataError) as caught:
        open_dataset(name, root=root)
    assert str(caught.value.hint) == f"rdx download {name}"
    entry = fetch(name, root, site)
    assert entry["status"] == "downloaded"
    assert entry["content"]["images"] == len(miniature.rows)
    assert_right(name, root, miniature)
    folder = root / name
    assert all((folder / path).exists() for path in miniature.present)
    assert not any((folder / path).exists() for path in miniature.absent)
    assert not list(folder.rglob("*.pkl"))
    described = {row["name"]: row for row in describe_datasets(root)}
    assert described[name]["ready"]
    # again: nothing is fetched; and all of it is intact
    site.log.clear()
    assert fetch(name, root, site)["status"] == "present"
    assert site.log == []
    assert check([name], root)["checked"][0]["status"] == "intact"


@pytest.mark.parametrize("name", [name for name, make in DATASETS.items() if make().folder is not None])
def test_gated_data_sets(tmp_path: Path, name: str) -> None:
    miniature = DATASETS[name]()
    root, mine = tmp_path / "data", tmp_path / "mine"
    with pytest.raises(MissingDataError, match="cannot be downloaded by a program") as caught:
        download(DownloadOptions([name], root=root))
    assert catalogue.get(name).gate.url in str(caught.value.hint)  # type: ignore[union-attr]
    mine.mkdir()
    with pytest.raises(MissingDataError, match="is not laid out as"):
        download(DownloadOptions([name], root=root, folder=mine))
    assert miniature.folder is not None
    miniature.folder(mine)
    outcome = download(DownloadOptions([name], root=root, folder=mine))
    assert outcome.downloads[0]["status"] == "linked"
    assert_right(name, root, miniature)
    assert check([name], root)["checked"][0]["status"] == "unverified"
    if name == "imagenet":
        index = (root / name / ".rdx" / "index.csv").read_text().splitlines()
        assert len(index) == 1 + len(miniature.rows)
        (mine / "train" / "n01440764" / "new.JPEG").write_bytes(b"")
        assert len(open_dataset(name, root=root)) == len(miniature.rows)  # the index is what counts


def test_kaggle_layout_of_imagenet(tmp_path: Path) -> None:
    miniature = DATASETS["imagenet"]()
    base = tmp_path / "mine" / "ILSVRC" / "Data" / "CLS-LOC"
    assert miniature.folder is not None
    miniature.folder(base)
    flat = base / "val"
    labels = ["ImageId,PredictionString"]
    for path in sorted(flat.rglob("*.JPEG")):
        labels.append(f"{path.stem},{path.parent.name} 1 2 3 4")
        path.rename(flat / path.name)
    for path in list(flat.iterdir()):
        if path.is_dir():
            path.rmdir()
    root = tmp_path / "data"
    with pytest.raises(InputError, match=r"LOC_val_solution\.csv"):
        download(DownloadOptions(["imagenet"], root=root, folder=tmp_path / "mine"))
    assert not (root / "imagenet").exists()
    (tmp_path / "mine" / "LOC_val_solution.csv").write_text("\n".join(labels) + "\n")
    download(DownloadOptions(["imagenet"], root=root, folder=tmp_path / "mine"))
    dataset = open_dataset("imagenet", root=root).select(split="val")
    assert dict(zip(dataset.sample_ids, dataset.labels or [], strict=True)) == {
        "val/ILSVRC2012_val_00000293.JPEG": "crane (n02012849)",
        "val/ILSVRC2012_val_00002138.JPEG": "tench",
    }


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints(
    use: Callable[[str, Miniature], Site], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rdxcli.models.checkpoints import read_state
    from rdxcli.models.files import _find
    from rdxcli.models.registry import resolve

    miniature = CHECKPOINTS[name]()
    site, root = use(name, miniature), tmp_path / "data"
    recipe = catalogue.get(name)
    assert all(checkpoint_file(model, root) is None for model in recipe.models)
    assert fetch(name, root, site)["status"] == "downloaded"
    for model in recipe.models:
        path = checkpoint_file(model, root)
        assert path is not None
        state = load_file(path)
        assert any(key.endswith("conv1.weight") and value.shape == (2, 1, 3, 3) for key, value in state.items())
        # what `--model NAME` finds and reads
        monkeypatch.setenv("RDX_DATA", str(root))
        assert _find(resolve(model), Path()) == path
        assert set(read_state(path)[0]) == set(weights(0))
    folder = content_folder(name, root)
    assert folder is not None
    assert all((folder / path).exists() for path in miniature.present)
    assert not any((folder / path).exists() for path in miniature.absent)


@pytest.mark.parametrize("name", CONCEPTS)
def test_concepts(use: Callable[[str, Miniature], Site], tmp_path: Path, name: str) -> None:
    miniature = CONCEPTS[name]()
    site, root = use(name, miniature), tmp_path / "data"
    fetch(name, root, site)
    folder = content_folder(name, root)
    assert folder is not None
    assert all((folder / path).exists() for path in miniature.present)
    assert not any((folder / path).exists() for path in miniature.absent)
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())


def test_parts_of_places365(use: Callable[[str, Miniature], Site], tmp_path: Path) -> None:
    site, root = use("places365", DATASETS["places365"]()), tmp_path / "data"
    fetch("places365", root, site, parts=["train"])
    dataset = open_dataset("places365", root=root)
    assert list(dataset.sample_ids) == ["a/airfield/00000001.jpg", "a/apartment_building/outdoor/00000001.jpg"]
    assert list(dataset.labels or []) == ["airfield", "apartment_building/outdoor"]
    fetch("places365", root, site)
    assert set(open_dataset("places365", root=root).splits or []) == {"train", "val"}


def test_terms_must_be_accepted(use: Callable[[str, Miniature], Site], tmp_path: Path) -> None:
    site, root = use("places365", DATASETS["places365"]()), tmp_path / "data"
    options = DownloadOptions(["places365"], root=root, mirror=site.url)
    with pytest.raises(UsageError, match="non-commercial") as caught:
        download(options)
    assert "--yes" in str(caught.value.hint)
    asked: list[str] = []
    with pytest.raises(UsageError, match="not accepted"):
        download(options, lambda question: bool(asked.append(question)))
    assert "Accept" in asked[0]
    assert not (root / "places365").exists()
    assert download(options, lambda question: True).downloads[0]["status"] == "downloaded"


def test_official_splits_of_cub_without_the_lists(use: Callable[[str, Miniature], Site], tmp_path: Path) -> None:
    site, root = use("cub", DATASETS["cub"]()), tmp_path / "data"
    folder = Path(fetch("cub", root, site)["folder"])
    concepts = published.concepts("cub", root)
    assert concepts.values.shape == (6, 3)
    assert list(concepts.sample_ids) == list(open_dataset("cub", root=root).sample_ids)  # type: ignore[arg-type]
    mine = tmp_path / "mine"
    (folder / "CUB_200_2011").rename(mine)
    download(DownloadOptions(["cub"], root=tmp_path / "other", folder=mine))
    dataset = open_dataset("cub", root=tmp_path / "other")
    assert list(dataset.splits or []) == ["train"] * 4 + ["test"] * 2
    assert dataset.sample_ids[0].startswith("001.Black_footed_Albatross/")
    with pytest.raises(InputError, match="lacks the attribute lists"):
        published.concepts("cub", tmp_path / "other")


def test_all_classes_of_voc(use: Callable[[str, Miniature], Site], tmp_path: Path) -> None:
    site, root = use("voc", DATASETS["voc"]()), tmp_path / "data"
    fetch("voc", root, site)
    concepts = published.concepts("voc", root)
    shown = {
        str(sample): {concepts.names[i] for i in np.flatnonzero(row)}
        for sample, row in zip(concepts.sample_ids, np.asarray(concepts.values), strict=True)  # type: ignore[arg-type]
    }
    assert shown["000005"] == {"chair", "cat"}
    assert shown["000001"] == {"dog", "person"}
    with pytest.raises(UsageError, match="no published concept labels"):
        published.concepts("coco", root)


def test_several_names_and_one_fails(use: Callable[[str, Miniature], Site], tmp_path: Path) -> None:
    site, root = use("nltk", CONCEPTS["nltk"]()), tmp_path / "data"
    use("food101", DATASETS["food101"]())
    site.files |= {f"/nltk/{item}": data for item, data in CONCEPTS["nltk"]().files.items()}
    del site.files["/food101/food-101.tar.gz"]
    outcome = download(DownloadOptions(["food101", "wordnet", "tagger"], root=root, mirror=site.url, yes=True))
    assert [entry["name"] for entry in outcome.downloads] == ["nltk"]
    assert [name for name, _ in outcome.failures] == ["food101"]
    assert json.loads(json.dumps(outcome.document()))["failures"][0]["name"] == "food101"


def test_plan_touches_nothing(use: Callable[[str, Miniature], Site], tmp_path: Path) -> None:
    site, root = use("coco", DATASETS["coco"]()), tmp_path / "data"
    entries = plan(DownloadOptions(["coco"], root=root, mirror=site.url))
    assert "download 3 files" in entries["coco"]
    assert site.log == []
    assert not root.exists()


def test_listing_and_check_of_everything(use: Callable[[str, Miniature], Site], tmp_path: Path) -> None:
    site, root = use("food101", DATASETS["food101"]()), tmp_path / "data"
    assert not dict((row[0], row[3]) for row in listing(root).rows)["food101"]
    assert check([], root)["checked"] == []
    assert check(["food101"], root)["checked"][0]["status"] == "missing"
    folder = Path(fetch("food101", root, site)["folder"])
    assert dict((row[0], row[3]) for row in listing(root).rows)["food101"]
    image = folder / "food-101" / "images" / "waffles" / "971843.jpg"
    image.write_bytes(image.read_bytes()[:-1] + b"x")
    document = check([], root)
    assert not document["intact"]
    assert document["checked"][0]["problems"] == ["food-101/images/waffles/971843.jpg has changed"]
    assert fetch("food101", root, site)["status"] == "repaired"
    assert check([], root)["intact"]


@pytest.mark.parametrize("name", ["cub", "flowers102", "voc", "sun397"])
def test_layouts_that_lie_say_so(use: Callable[[str, Miniature], Site], tmp_path: Path, name: str) -> None:
    site, root = use(name, DATASETS[name]()), tmp_path / "data"
    folder = Path(fetch(name, root, site)["folder"])
    victim = {
        "cub": "class_attr_data_10/test.json",
        "flowers102": "imagelabels.mat",
        "voc": "VOCdevkit/VOC2007/Annotations/000005.xml",
        "sun397": "SUN397/ClassName.txt",
    }[name]
    (folder / victim).write_bytes(b"not what was expected\n")
    with pytest.raises((InputError, ValueError)):
        open_dataset(name, root=root)


def test_published_scores_are_a_representation_of_their_data_set(
    use: Callable[[str, Miniature], Site], tmp_path: Path
) -> None:
    """``rdx compare cub-pcbm cub-pcbm --drop-a 105 --dataset cub --split train`` of the RDX paper."""
    root, given = tmp_path / "data", SelectionOptions("cub", split="train", root=tmp_path / "data")
    with pytest.raises(MissingDataError) as caught:
        resolve_representation("cub-pcbm", selection=given)
    assert str(caught.value.hint) == "rdx download cub-pcbm"
    birds = DATASETS["cub"]()
    for name, miniature in (("cub", birds), ("rdx-checkpoints", CHECKPOINTS["rdx-checkpoints"]())):
        fetch(name, root, use(name, miniature))
    found = resolve_representation("cub-pcbm", selection=given)
    train = [row for row in birds.rows if row[2] == "train"]
    assert found.name == "cub-pcbm"
    assert list(found.sample_ids) == [row[0] for row in train]
    assert list(found.labels) == [row[1] for row in train]
    assert found.values.shape == (3, 112)
    masked = without(found, "105", "--drop-a")
    assert masked.name == "cub-pcbm-without-105"
    np.testing.assert_array_equal(masked.values, np.delete(found.values, 105, axis=1))
    assert masked.source != found.source
    assert checkpoint_file("mnist-cnn-835-early", root).name == "epoch=1-step=184.safetensors"
    assert checkpoint_file("mnist-cnn-835-early", root) != checkpoint_file("mnist-cnn-835", root)
