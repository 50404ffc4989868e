"""Whatever stands in a file or on the command line: a value, or an error that people can read."""

from __future__ import annotations

import contextlib
import io
import json
import string
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from helpers import rdx_here
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from rdxcli.artifacts import Artifact, Request, create, slug
from rdxcli.artifacts.layout import model_slug
from rdxcli.concepts.captions import read_captions
from rdxcli.concepts.gather import read_splits
from rdxcli.datasets.addresses import SCHEMES, Place, address, archive
from rdxcli.datasets.arrays import load_representation
from rdxcli.datasets.base import fitting
from rdxcli.datasets.metadata import read_metadata
from rdxcli.datasets.registry import open_dataset
from rdxcli.datasets.tables import read_table
from rdxcli.download.catalogue import load_recipe
from rdxcli.engines.ranks import detect_rank
from rdxcli.engines.shards import ShardPlan, ShardStore
from rdxcli.errors import ArtifactError, RdxError, UsageError
from rdxcli.models import grammar, load
from rdxcli.report.gates import parse_gates
from rdxcli.representations.units import parse_units

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PIXEL = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\0\0\0\0:~\x9bU\0\0\0\nIDATx\x9cc`\0\0\0\2\0\1H\xaf\xa4q"
    b"\0\0\0\0IEND\xaeB`\x82"
)
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


NAMES = st.text(st.characters(blacklist_characters="/\0"), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..") and len(name.encode("utf-8", "surrogatepass")) < 200
)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40) | st.tuples(st.sampled_from([*SCHEMES, "zip://"]), st.text(max_size=20)).map("".join))
@example("zip://::")
@example("s3://\udce9")
@example("https://[::1/x")
def test_addresses(text: str) -> None:
    found = address(text)
    assert found in (None, text)
    if found is not None and "//" not in text.partition("://")[2] and not text.endswith(("/", "/.")):
        again = address(Path(text))
        assert again is None or again.partition("://")[0] == text.partition("://")[0]
    assert Place(text).name
    assert archive(text) is None or archive(text) == address(str(archive(text)))


@FEW
@given(
    names=st.lists(NAMES, min_size=1, max_size=5, unique_by=str.lower), kind=st.sampled_from(["files", "tar", "zip"])
)
@example(["a:b?c=d.png", "?range=0,1"], "files")
@example(["\udce9"], "files")
@example(["::", "a::b"], "zip")
def test_names_of_files(tmp_path_factory: pytest.TempPathFactory, names: list[str], kind: str) -> None:
    """Whatever images are called: each is there once, under a name that can be stored, or the failure is said."""
    place = tmp_path_factory.mktemp("names")
    wanted = [f"{name}.png" for name in names if not name.startswith(".")]
    try:
        if kind == "tar":
            with tarfile.open(place / "x.tar", "w") as tar:
                for name in wanted:
                    entry = tarfile.TarInfo(f"c/{name}")
                    entry.size = len(PIXEL)
                    tar.addfile(entry, io.BytesIO(PIXEL))
        elif kind == "zip":
            with zipfile.ZipFile(place / "x.zip", "w") as packed:
                for name in wanted:
                    packed.writestr(f"c/{name}", PIXEL)
        else:
            (place / "c").mkdir()
            for name in wanted:
                (place / "c" / name).write_bytes(PIXEL)
    except (OSError, ValueError, UnicodeError):
        return  # no name for a file of this system
    with contextlib.suppress(RdxError):
        dataset = open_dataset(f"folder:{place if kind == 'files' else place / f'x.{kind}'}")
        assert len(dataset) <= len(wanted)
        assert len(set(dataset.sample_ids)) == len(dataset)
        for row, sample in enumerate(dataset.sample_ids):
            sample.encode("utf-8")
            with contextlib.suppress(RdxError):
                assert dataset.image(row).size == (1, 1)
        assert len(dataset.fingerprint()) == 64


@pytest.fixture(scope="module")
def model() -> Any:
    return load("digits-cnn", "cpu", untrained=True)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=string.ascii_lowercase + string.digits + ".[]*:-_/ \0é", max_size=20))
@example("conv1[0]")
@example("[0]")
@example("conv1..")
@example("*")
def test_names_of_layers(model: Any, text: str) -> None:
    try:
        found = model.layer(text)
    except UsageError as error:
        assert len(error.message) < 400  # noqa: PT017
    else:
        assert found in {layer.path for layer in model.layers()} | {"output"}


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.text(max_size=6), min_size=1, max_size=6), patterns=st.text(max_size=12))
@example(ids=["a"], patterns="[")
@example(ids=["[a"], patterns="[a")
@example(ids=["a"], patterns="@")
def test_patterns_of_ids(ids: list[str], patterns: str) -> None:
    with contextlib.suppress(RdxError):
        found = fitting(ids, patterns, "--include", "data")
        assert found.shape == (len(ids),)
        assert found.any()


@FEW
@given(content=st.binary(max_size=200), name=st.sampled_from(["x.parquet", "x.arrow", "x.tar.gz", "x.tar", "x.zip"]))
def test_files_of_images(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RdxError):
        open_dataset(f"images:{tmp_path / name}")


@FEW
@given(content=st.one_of(st.binary(max_size=60), JSON.map(lambda value: json.dumps(value).encode())))
@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.csv", "x.txt"])
def test_captions(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with contextlib.suppress(RdxError):
        captions = read_captions(tmp_path / name)
        assert all(isinstance(text, str) for texts in captions.values() for text in texts)


def _saved(name: str) -> bytes:
    """A whole file of arrays, to be damaged."""
    values, out = np.arange(12.0, dtype=np.float32).reshape(4, 3), io.BytesIO()
    if name.endswith(".npy"):
        np.save(out, values)
    elif name.endswith(".npz"):
        np.savez_compressed(out, x=values)
    elif name.endswith(".safetensors"):
        return save({"x": values})
    elif name.endswith(".parquet"):
        pq.write_table(pa.table({"sample_id": list("abcd"), "x": values[:, 0]}), out)
    else:
        return b"id,x,y\na,1,2\nb,3,4\nc,5,6\n"
    return out.getvalue()


@FEW
@given(data=st.data())
@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.safetensors", "x.parquet", "x.csv", "x.pt"])
def test_arrays(tmp_path: Path, name: str, data: Any) -> None:
    whole = _saved(name)
    cut = data.draw(st.integers(0, len(whole)))
    flips = data.draw(st.dictionaries(st.integers(0, len(whole) - 1), st.integers(1, 255), max_size=4))
    damaged = bytes(byte ^ flips.get(place, 0) for place, byte in enumerate(whole))
    content = data.draw(
        st.sampled_from([damaged, damaged[:cut], damaged[:cut] + damaged, b""]) | st.binary(max_size=80)
    )
    (tmp_path / name).write_bytes(content)
    with contextlib.suppress(RdxError):
        found = load_representation(str(tmp_path / name))
        assert found.values.ndim in (2, 4)
        assert np.isfinite(found.values).all()


@FEW
@given(
    content=st.one_of(st.binary(max_size=60), st.text(alphabet='id,x1.\n\t";-e\u00e9 ', max_size=60).map(str.encode))
)
@example(content=b"id\n")
@example(content=b"id a b c\n1 2\n2 3\n")
@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.json", "x.jsonl", "x.txt", "x.parquet"])
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_tables(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with contextlib.suppress(RdxError):
        read_table(tmp_path / name)
    with contextlib.suppress(RdxError):
        found = read_metadata(tmp_path / name, ["a", "b"], 2)
        assert all(len(values) == 2 for values in found.columns.values())
    with contextlib.suppress(RdxError):
        read_splits(tmp_path / name, 2)


@settings(FEW, max_examples=25)
@given(content=st.one_of(st.binary(max_size=40), JSON.map(lambda value: yaml.safe_dump(value).encode())))
@example(content=b"k: [1\n")
@example(content=b"k: !!python/object/apply:os.system [id]\n")
@example(content=b"a: &a [*a]\nk: *a\n")
def test_configurations(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.yaml").write_bytes(content)
    done = rdx_here("list", "methods", "--config", tmp_path / "x.yaml")
    assert done.returncode in (0, 2), done.stderr
    assert "Traceback" not in done.stderr
    assert "defect" not in done.stderr


@FEW
@given(text=st.text(alphabet="verdictflipsco-re<>=%.,0159 ", max_size=16))
def test_gates(text: str) -> None:
    with contextlib.suppress(UsageError):
        for gate in parse_gates([text], None):
            assert gate.name


@FEW
@given(text=st.text(alphabet="0123456789-,: al", max_size=12), count=st.integers(1, 300))
def test_numbers_of_units(text: str, count: int) -> None:
    with contextlib.suppress(UsageError):
        units = parse_units(text, count)
        assert len(units) == len(set(units)) > 0
        assert all(0 <= unit < count for unit in units)
