"""Whatever stands in a file or on the command line: a value, or an error that people can read."""

from __future__ import annotations

import contextlib
import json
import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rdxcli.artifacts import Artifact, Request, create, slug
from rdxcli.artifacts.layout import model_slug
from rdxcli.download.catalogue import load_recipe
from rdxcli.engines.ranks import detect_rank
from rdxcli.engines.shards import ShardPlan, ShardStore
from rdxcli.errors import ArtifactError, RdxError, UsageError
from rdxcli.models import grammar

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    with create(tmp_path_factory.mktemp("fuzz") / "run", Request(kind="comparison")) as draft:
        (draft.path / "concepts.json").write_text("{}")
    return draft.result


@FEW
@given(data=st.data())
def test_manifests(artifact: Artifact, data: Any) -> None:
    path = artifact.path / "manifest.json"
    whole = path.read_text("utf-8")
    document = json.loads(whole)
    key = data.draw(st.sampled_from(sorted(document)))
    changed = data.draw(
        st.one_of(
            st.binary(max_size=60),
            JSON.map(lambda value: json.dumps(value).encode()),
            JSON.map(lambda value: json.dumps({**document, key: value}).encode()),
            st.integers(0, len(whole) - 1).map(lambda end: whole[:end].encode()),
        )
    )
    same = False
    with contextlib.suppress(ValueError):
        same = json.loads(changed) == document
    path.write_bytes(changed)
    try:
        if same:
            Artifact.open(artifact.path)
        else:
            with pytest.raises(ArtifactError):
                Artifact.open(artifact.path)
    finally:
        path.write_text(whole, "utf-8")


@FEW
@given(content=st.one_of(st.binary(max_size=60), JSON.map(lambda value: json.dumps(value).encode())))
def test_plans_and_markers(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(ArtifactError):
        ShardPlan(10, 4, 2).settle(tmp_path)
    (tmp_path / "00000.done").write_bytes(content)
    store = ShardStore(tmp_path, list("abcdefghij"))
    assert not store.done(0)
    assert store.marker(0) is None
    assert store.failures(0, range(4)) == []


@FEW
@given(
    content=st.one_of(
        JSON.map(yaml.safe_dump),
        st.text(max_size=80),
        st.dictionaries(st.sampled_from(["name", "items", "layout", "kind", "models", "url"]), JSON).map(
            yaml.safe_dump
        ),
    )
)
@example("a: [")
@example("&a [*a]")
@example("x: !!python/object/apply:os.system [true]")
@example("items: 1\n0:")
@example("base: 3\nitems: [{name: 1}, {url: 2}, {urls: 7}, {url: a, urls: 5}, 8]")
def test_recipes(tmp_path: Path, content: str) -> None:
    path = tmp_path / "fuzz.yaml"
    path.write_text(content, "utf-8", "surrogatepass")
    with pytest.raises(RdxError):
        load_recipe(path)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=string.ascii_letters + string.digits + ":/?&=@._-#% \0üé[]", max_size=40))
def test_model_names(text: str) -> None:
    with contextlib.suppress(UsageError):
        grammar.parse(text)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
@example("\udce9.png")
@example("con")
@example("../../etc")
def test_every_name_becomes_a_legal_folder(text: str) -> None:
    for made in (slug(text), model_slug(text)):
        assert made
        assert len(made) <= 107
        assert set(made) <= set(string.ascii_letters + string.digits + "._@+-")
        assert made.strip(".") == made


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "RANK",
                "WORLD_SIZE",
                "LOCAL_RANK",
                *(f"SLURM_ARRAY_TASK_{part}" for part in ("ID", "COUNT", "MIN", "STEP")),
            ]
        ),
        st.integers(-3, 9).map(str) | st.text(max_size=4),
    )
)
def test_environments_of_schedulers(environment: dict[str, str]) -> None:
    with contextlib.suppress(UsageError):
        rank = detect_rank(environment)
        assert 0 <= rank.index < rank.count
        assert sorted(rank.order(7)) == list(range(7))
