"""Recipes: every one parses, is complete, and agrees with the names elsewhere; wrong ones are refused."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rdxcli.datasets import published
from rdxcli.download import catalogue
from rdxcli.download.catalogue import RECIPES, Recipe, load_recipe
from rdxcli.errors import RdxError, UnknownNameError

FILES = sorted(RECIPES.rglob("*.yaml"))
ISSUE = {
    *("mnist", "cub", "inat-subset", "imagenet", "places365", "cifar100", "coco", "flickr30k", "sun397"),
    *("flowers102", "food101", "voc", "mini-imagenet", "rdx-checkpoints", "resnet18_places365", "vgg16_bn_cifar100"),
    *("clip_inat", "linear-explanations", "nltk", "dinov2"),
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_recipe(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.licence.strip()
    assert "\n" not in recipe.licence
    assert recipe.title
    assert recipe.homepage.startswith("http")
    for item in recipe.items:
        assert item.expected.certain or item.sha256 == "unknown"
        if item.bytes is not None:
            assert item.expected.certain, f"{item.name}: a known size and no hash"
        for url in item.urls:
            assert url.startswith("https://") or item.expected.certain or "places2.csail" in url


def test_all_that_was_asked_for() -> None:
    assert set(catalogue.catalogue()) >= ISSUE
    assert len(catalogue.names()) == len(set(catalogue.names()))


def test_data_sets_can_be_opened_by_name() -> None:
    datasets = {recipe.name: recipe for recipe in catalogue.catalogue().values() if recipe.kind == "dataset"}
    assert set(datasets) == {*published.NAMES, "mnist"}
    assert {recipe.reader for recipe in datasets.values()} == {*published._READERS, "mnist"}


def test_checkpoints_are_models() -> None:
    from rdxcli.models.registry import list_models

    models = set(list_models())
    for recipe in catalogue.catalogue().values():
        assert set(recipe.models) <= models
        for name in recipe.models:
            assert catalogue.find(name) is recipe


def test_every_published_model_can_be_fetched() -> None:
    from rdxcli.models.registry import list_models, resolve

    for name in list_models():
        if resolve(name).kind != "digits":
            assert catalogue.find(name) is not None, name


def test_hub_recipes_are_the_sources_of_the_models() -> None:
    from rdxcli.models.registry import list_models, resolve

    repos = {recipe.name: [hub.repo for hub in recipe.hub] for recipe in catalogue.catalogue().values() if recipe.hub}
    for name in set(list_models()) & set(repos):
        source = resolve(name).source
        target = source.partition(":")[2].removeprefix("hf-hub:").partition("@")[0]
        if source.startswith("timm:"):
            assert repos[name] == [target if "/" in target else f"timm/{target}"]
        elif source.startswith("torchvision:"):
            from torchvision.models import get_model_weights

            weights = source.partition("@")[2]
            assert repos[name] == [get_model_weights(target)[weights].url]
        else:
            import open_clip

            arch, _, tag = target.partition("/")
            assert repos[name][0] == open_clip.get_pretrained_cfg(arch, tag)["hf_hub"].rstrip("/")


def test_reading_recipes_needs_no_torch() -> None:
    code = (
        "import sys\nfrom rdxcli.download import catalogue, store, planning, install, hub\n"
        "assert catalogue.catalogue()\nfrom rdxcli.datasets import published\n"
        "print(sorted({'torch', 'pandas', 'scipy', 'pyarrow', 'huggingface_hub', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


GOOD: dict[str, Any] = {
    "name": "x",
    "title": "X",
    "kind": "checkpoint",
    "papers": ["rdx"],
    "homepage": "https://example.org",
    "licence": "MIT",
    "items": [{"url": "https://example.org/x.zip", "extract": {"format": "zip", "unpacked": 10}}],
    "layout": ["a"],
}


def changed(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(GOOD), **changes}


def with_item(**changes: Any) -> dict[str, Any]:
    return changed(items=[{**GOOD["items"][0], **changes}])


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (changed(license="MIT"), "license"),
        ({k: v for k, v in GOOD.items() if k != "licence"}, "licence"),
        (changed(kind="film"), "kind"),
        (changed(name="Bad Name"), "recipe"),
        (changed(layout=[]), "recipe"),
        (changed(reader="cub"), "recipe"),
        (changed(gate={"how": "ask", "url": "https://example.org"}), "recipe"),
        (changed(items=[]), "recipe"),
        (changed(items=[*GOOD["items"], *GOOD["items"]]), "recipe"),
        (changed(default=["val"]), "recipe"),
        (changed(classes=3, class_names=["a"]), "recipe"),
        (with_item(url="ftp://example.org/x.zip"), "items.0.urls"),
        (with_item(url="file:///etc/passwd"), "items.0.urls"),
        (with_item(name="../x"), "items.0.name"),
        (with_item(into="../x"), "items.0.into"),
        (with_item(into="/x"), "items.0.into"),
        (with_item(sha256="123"), "items.0"),
        (with_item(md5="x" * 32), "items.0"),
        (with_item(sha256_prefix="12"), "items.0"),
        (with_item(size=0), "items.0.size"),
        (with_item(extract={"format": "rar", "unpacked": 1}), "items.0.extract.format"),
        (with_item(convert=[{"files": "*", "kind": "exec"}]), "items.0.convert.0.kind"),
        ([1, 2], "recipe"),
    ],
)
def test_wrong_recipes(tmp_path: Path, content: Any, place: str) -> None:
    Recipe.model_validate(GOOD)
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(content), "utf-8")
    with pytest.raises(RdxError, match=f"wrong at `{place}"):
        load_recipe(path)


def test_yaml_cannot_make_objects(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: !!python/object/apply:os.system ['true']\n", "utf-8")
    with pytest.raises(RdxError, match="not valid YAML"):
        load_recipe(path)


def test_own_recipes_and_duplicates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(changed(name="mine", aliases=["ours"])), "utf-8")
    monkeypatch.setenv("RDX_RECIPES", str(tmp_path))
    assert catalogue.get("ours").name == "mine"
    assert "cub" in catalogue.catalogue()
    other = tmp_path / "second"
    other.mkdir()
    (other / "cub.yaml").write_text(yaml.safe_dump(changed(name="cub")), "utf-8")
    monkeypatch.setenv("RDX_RECIPES", str(other))
    with pytest.raises(RdxError, match="both claim the name `cub`"):
        catalogue.catalogue()


def test_unknown_names_suggest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        catalogue.get("flower102")
    assert "`flowers102`" in str(caught.value.hint)
    with pytest.raises(UnknownNameError, match="part of coco"):
        catalogue.get("coco").chosen(["tset"])


def test_parts() -> None:
    coco = catalogue.get("coco")
    assert [item.name for item in coco.chosen(["val"])] == ["annotations_trainval2017.zip", "val2017.zip"]
    assert len(coco.chosen()) == 3
    assert [item.part for item in catalogue.get("places365").chosen()] == [None, "val"]


def test_the_page_lists_every_licence() -> None:
    from rdxcli.download.planning import human_bytes

    page = (Path(__file__).resolve().parents[3] / "docs" / "download.md").read_text("utf-8").splitlines()
    for recipe in catalogue.catalogue().values():
        size = human_bytes(recipe.bytes) if recipe.bytes is not None else "-"
        kind = "gated" if recipe.gate else recipe.kind
        assert f"| `{recipe.name}` | {kind} | {size} | {recipe.licence} |" in page
