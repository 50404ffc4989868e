"""Data that is not in a local folder of files: object stores, web servers, archives, tables of images."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from download_server import Fault, Site, serve
from helpers import rdx_here
from PIL import Image

from rdxcli.datasets import addresses, files
from rdxcli.datasets.addresses import Place, address, local_copy, localised
from rdxcli.datasets.arrays import load_representation
from rdxcli.datasets.base import Dataset
from rdxcli.datasets.registry import open_dataset
from rdxcli.errors import DependencyError, InputError, MissingDataError, RdxError, UsageError

RNG = np.random.default_rng(0)


def png(shade: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((6, 6), shade, np.uint8)).save(out, "PNG")
    return out.getvalue()


def npy(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, values)
    return out.getvalue()


PHOTOS = {f"{kind}/{i}.png": png(100 * (kind == "dogs") + i) for kind in ("cats", "dogs") for i in range(3)}


def shades(dataset: Dataset) -> list[int]:
    return [int(np.asarray(dataset.image(i))[0, 0]) for i in range(len(dataset))]


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RDX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(addresses, "PAUSE", 0.01)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of a local server that speaks S3."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    import fsspec

    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in keys.items():
            patch.setenv(name, value)
        server.start()
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        system = fsspec.filesystem("s3")
        system.mkdir("photos")
        for name, content in PHOTOS.items():
            system.pipe(f"photos/birds/{name}", content)
        system.pipe("photos/birds/.hidden/x.png", png(1))
        system.pipe("photos/birds/notes.txt", b"no image")
        system.pipe("photos/a.npy", npy(RNG.normal(size=(30, 4))))
        yield "s3://photos"
        server.stop()


@pytest.fixture
def web() -> Iterator[Site]:
    with serve(Site()) as site:
        yield site


@pytest.mark.parametrize("given", ["s3://b/a.npy", "https://h/a?b=c", "memory://x/y", "zip://a.png::/tmp/x.zip"])
def test_addresses_survive_being_paths(given: str) -> None:
    assert address(given) == given
    assert address(Path(given)) == given


@pytest.mark.parametrize(
    "given", ["a.npy", "/x/s3/a.npy", "hf:/data/birds", "C:/x", "s3:", "digits", "file:x.pt?arch=a"]
)
def test_what_is_no_address(given: str) -> None:
    assert address(given) is None
    assert localised(given) == given


class TestObjectStore:
    def test_a_folder_of_images(self, bucket: str) -> None:
        dataset = open_dataset(f"folder:{bucket}/birds")
        assert list(dataset.sample_ids) == sorted(PHOTOS)
        assert dataset.class_names == ["cats", "dogs"]
        assert shades(dataset) == [0, 1, 2, 100, 101, 102]
        assert open_dataset(dataset.spec).fingerprint() == dataset.fingerprint()
        assert dataset.source.waits

    def test_a_changed_object_changes_the_fingerprint_and_only_of_what_holds_it(self, bucket: str) -> None:
        import fsspec

        def prints() -> list[str]:
            whole = open_dataset(f"images:{bucket}/birds")
            return [whole.fingerprint(), whole.select(include="cats/*").fingerprint()]

        before, system = prints(), fsspec.filesystem("s3")
        system.pipe("photos/birds/dogs/0.png", png(250))
        changed = prints()
        system.pipe("photos/birds/dogs/0.png", PHOTOS["dogs/0.png"])
        assert changed[0] != before[0]
        assert changed[1] == before[1]

    def test_arrays_are_fetched_once_per_version(self, bucket: str) -> None:
        import fsspec

        first = local_copy(f"{bucket}/a.npy")
        stamp = first.stat().st_mtime_ns
        assert local_copy(f"{bucket}/a.npy").stat().st_mtime_ns == stamp
        system = fsspec.filesystem("s3")
        whole = system.cat("photos/a.npy")
        system.pipe("photos/a.npy", npy(np.zeros((30, 4))))
        assert not np.load(local_copy(f"{bucket}/a.npy")).any()
        assert not first.exists()  # what nobody can ask for any more takes no room
        system.pipe("photos/a.npy", whole)

    def test_the_command_line(self, bucket: str, tmp_path: Path) -> None:
        again = [
            rdx_here("explain", "--method", "rdr", "--activations", f"{bucket}/a.npy", "--target", "3", cwd=tmp_path)
            for _ in range(2)
        ]
        assert [done.returncode for done in again] == [0, 0], again[0].stderr
        assert "reusing" in again[1].stderr

    @pytest.mark.parametrize(
        ("spec", "kind", "words"),
        [
            ("folder:s3://photos/nothing", MissingDataError, "nothing is at s3://photos/nothing"),
            ("images:s3://photos/none.csv", MissingDataError, "no such file: s3://photos/none.csv"),
            ("s3://photos/birds", UsageError, "unknown data set"),
            ("folder:gs://photos/birds", DependencyError, "gcsfs"),
            ("images:s3://photos/a.npy.parquet", MissingDataError, "no such file"),
        ],
    )
    def test_what_is_not_there(self, bucket: str, spec: str, kind: type[RdxError], words: str) -> None:
        if "gs:" in spec:
            try:
                import gcsfs  # noqa: F401
            except ImportError:
                pass
            else:
                pytest.skip("gcsfs is installed")
        with pytest.raises(kind, match=words):
            open_dataset(spec)


class TestWebServer:
    def test_arrays_lists_and_images(self, web: Site) -> None:
        web.files = {f"/p/{name}": content for name, content in PHOTOS.items()}
        web.files["/p/list.csv"] = (
            b"path,label\n"
            + "".join(
                f"{name if i % 2 else f'{web.url}/p/{name}'},{name[:4]}\n" for i, name in enumerate(sorted(PHOTOS))
            ).encode()
        )
        web.files["/a.npy"] = npy(np.eye(5))
        assert load_representation(localised(f"{web.url}/a.npy")).n == 5
        dataset = open_dataset(f"images:{web.url}/p/list.csv")
        assert shades(dataset) == [0, 1, 2, 100, 101, 102]
        assert set(dataset.labels or ()) == {"cats", "dogs"}
        before = dataset.fingerprint()
        web.files["/p/cats/1.png"] = png(9)
        assert open_dataset(f"images:{web.url}/p/list.csv").fingerprint() != before

    def test_without_tags_the_content_counts(self, web: Site, tmp_path: Path) -> None:
        web.etags = False
        web.files = {"/x.png": png(1), "/a.npy": npy(np.eye(2))}
        (tmp_path / "list.txt").write_text(f"{web.url}/x.png\n")
        before = open_dataset(f"images:{tmp_path / 'list.txt'}").fingerprint()
        assert not np.load(local_copy(f"{web.url}/a.npy"))[0, 1]
        web.files = {"/x.png": png(2), "/a.npy": npy(np.ones((2, 2)))}
        assert open_dataset(f"images:{tmp_path / 'list.txt'}").fingerprint() != before
        assert np.load(local_copy(f"{web.url}/a.npy"))[0, 1]

    def test_a_tar_is_read_in_pieces_and_indexed_once(self, web: Site) -> None:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name, content in {**PHOTOS, "cats/0.cls": b"cat", "dogs/0.txt": b"a dog"}.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        web.files["/s-0.tar"] = out.getvalue()
        dataset = open_dataset(f"tar:{web.url}/s-{{0..0}}.tar")
        assert sorted(shades(dataset)) == [0, 1, 2, 100, 101, 102]
        assert sorted(set(dataset.labels or ())) == ["(none)", "cat"]
        assert [caption for captions in dataset.captions or () for caption in captions] == ["a dog"]
        asked = len(web.log)
        assert open_dataset(f"tar:{web.url}/s-0.tar").fingerprint() == dataset.fingerprint()
        assert len(web.log) - asked <= 3  # its version, and nothing of its content

    def test_a_server_that_ignores_ranges_gives_no_wrong_bytes(self, web: Site) -> None:
        web.files["/x.bin"], web.ranges = bytes(range(200)), False
        with pytest.raises(InputError):
            Place(f"{web.url}/x.bin").read(10, 5)

    @pytest.mark.parametrize("fault", [Fault(status=503), Fault(cut=20)])
    def test_a_server_that_stumbles_is_asked_again(self, web: Site, fault: Fault) -> None:
        web.files["/x.png"] = png(7)
        web.faults["/x.png"] = [fault]
        assert Place(f"{web.url}/x.png").read() == png(7)

    @pytest.mark.parametrize(("code", "words"), [(404, "no such file"), (403, "access is denied"), (500, "be read")])
    def test_refusals(self, web: Site, code: int, words: str) -> None:
        web.always["/a.npy"] = code
        with pytest.raises(InputError, match=words) as caught:
            local_copy(web.url.replace("://", "://me:secret@") + "/a.npy")
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize("secret", ["me:s3cr3t@", "?X-Amz-Signature=s3cr3t"])
    def test_secrets_are_neither_ids_nor_names_and_open_again(self, web: Site, tmp_path: Path, secret: str) -> None:
        def guarded(name: str) -> str:
            web.files[f"/{name}{secret if '?' in secret else ''}"] = web.files[f"/{name}"]
            return f"{web.url}/{name}{secret}" if "?" in secret else f"{web.url.replace('//', f'//{secret}')}/{name}"

        web.files = {"/x.png": png(1), "/y.png": png(2)}
        (tmp_path / "list.csv").write_text(f"path,label\n{guarded('x.png')},a\n{guarded('y.png')},b\n")
        listed = open_dataset(f"images:{tmp_path / 'list.csv'}")
        assert shades(listed) == [1, 2]
        table = io.BytesIO()
        pq.write_table(pa.table({"image": [png(3)], "label": ["a"]}), table)
        web.files["/t.parquet"] = table.getvalue()
        tabled = open_dataset(f"images:{guarded('t.parquet')}")
        assert "s3cr3t" not in f"{listed.description()} {list(listed.sample_ids)} {tabled.description()} {tabled.spec}"
        assert "s3cr3t" not in f"{[one.source.location(0) for one in (listed, tabled)]}"
        assert shades(open_dataset(tabled.spec)) == [3]
        assert web.log[-1][0].endswith("s3cr3t" if "?" in secret else ".parquet")

    @pytest.mark.parametrize("scheme", ["tar:/x.tar", "tar:/x.tar.gz", "images:/x.parquet", "images:/x.arrow"])
    @pytest.mark.parametrize(
        ("faults", "words"),
        [
            ([Fault(cut=30)], None),
            ([Fault(cut=30)] * 99, "cannot be read"),
            ([Fault(), *[Fault(status=403)] * 99], "access is denied"),
        ],
    )
    def test_a_line_that_is_cut_while_an_archive_or_table_is_read(
        self, web: Site, scheme: str, faults: list[Fault], words: str | None
    ) -> None:
        kind, _, path = scheme.partition(":")
        out, table = io.BytesIO(), pa.table({"image": [png(3), png(4)]})
        if path.endswith("parquet"):
            pq.write_table(table, out)
        elif path.endswith("arrow"):
            with pa.ipc.new_file(out, table.schema) as writer:
                writer.write_table(table)
        else:
            with tarfile.open(fileobj=out, mode="w:gz" if path.endswith("gz") else "w") as tar:
                for shade in (3, 4):
                    entry = tarfile.TarInfo(f"{shade}.png")
                    entry.size = len(png(shade))
                    tar.addfile(entry, io.BytesIO(png(shade)))
        web.files[path], web.faults[path] = out.getvalue(), list(faults)
        with pytest.raises(InputError, match=words) if words else nullcontext():
            assert len(open_dataset(f"{kind}:{web.url}{path}")) == 2

    def test_what_the_server_answers_is_said(self, web: Site) -> None:
        web.always["/a.npy"] = 500
        with pytest.raises(InputError, match=r"a\.npy cannot be read: its server answers HTTP 500"):
            local_copy(f"{web.url}/a.npy")

    def test_nobody_there(self) -> None:
        with pytest.raises(InputError, match="cannot be reached"):
            local_copy("http://127.0.0.1:9/a.npy")

    def test_folders_of_web_servers_are_refused(self, web: Site) -> None:
        with pytest.raises(InputError, match="cannot be listed"):
            open_dataset(f"folder:{web.url}/p")


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"])
@pytest.mark.parametrize("where", ["here", "memory"])
def test_archives_are_folders(tmp_path: Path, ending: str, where: str) -> None:
    path = tmp_path / f"photos{ending}"
    content = {**PHOTOS, "__MACOSX/cats/._0.png": png(1), "cats/notes.txt": b"x"}
    if ending == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(path, f"w:{ending.removeprefix('.tar').lstrip('.').replace('tgz', 'gz')}") as tar:
            for name, data in content.items():
                entry = tarfile.TarInfo(f"./{name}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    location = str(path)
    if where == "memory":
        import fsspec

        location = f"memory://archives/{path.name}"
        fsspec.filesystem("memory").pipe(f"/archives/{path.name}", path.read_bytes())
    for scheme in ("folder", "images"):
        dataset = open_dataset(f"{scheme}:{location}")
        assert list(dataset.sample_ids) == sorted(PHOTOS)
        assert shades(dataset) == [0, 1, 2, 100, 101, 102]
        assert open_dataset(dataset.spec).fingerprint() == dataset.fingerprint()
    if ending != ".zip":
        assert len(open_dataset(f"tar:{location}")) == 6


def test_a_compressed_archive_that_changes_is_decompressed_again(tmp_path: Path) -> None:
    for count in (2, 3):
        with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
            for i in range(count):
                entry = tarfile.TarInfo(f"{i}.png")
                entry.size = len(png(i))
                tar.addfile(entry, io.BytesIO(png(i)))
        assert len(open_dataset(f"tar:{tmp_path / 'x.tar.gz'}")) == count


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tar.xz", "x.zip", "x.parquet", "x.arrow"])
def test_damaged_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04" + bytes(RNG.integers(0, 256, 300, dtype=np.uint8)))
    with pytest.raises(InputError):
        open_dataset(f"images:{tmp_path / name}")


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@pytest.mark.parametrize(
    "cells",
    [
        pa.array([png(1), png(2)]).dictionary_encode(),
        pa.array([png(1), png(2)], pa.large_binary()),
        pa.array([png(1), png(2)], pa.binary_view()),
        pa.array([png(1).ljust(99), png(2).ljust(99)], pa.binary(99)),
    ],
    ids=lambda cells: str(cells.type)[:20],
)
def test_cells_of_every_kind_of_bytes_are_images(tmp_path: Path, ending: str, cells: Any) -> None:
    images = pa.table({"image": cells})
    if ending == "parquet":
        try:
            pq.write_table(images, tmp_path / "x.parquet")
        except pa.ArrowNotImplementedError as error:  # views, before pyarrow 17
            pytest.skip(str(error))
    else:
        with pa.ipc.new_file(tmp_path / "x.arrow", images.schema) as writer:
            writer.write_table(images)
    assert shades(open_dataset(f"images:{tmp_path}/x.{ending}")) == [1, 2]


def test_what_holds_no_images_is_said(tmp_path: Path) -> None:
    empty = pa.table({"image": pa.array([], pa.binary()), "label": pa.array([], pa.string())})
    with pa.ipc.new_file(tmp_path / "x.arrow", empty.schema) as writer:
        writer.write_table(empty)
    (tmp_path / "l.txt").write_bytes(b"a.png\n\0.png\n")
    pq.write_table(pa.table({"image": [1, 2, 30], "word": ["a", "b", "c"]}), tmp_path / "n.parquet")
    for name, words in (
        ("x.arrow", "lists no images"),
        ("l.txt", "the path of row 1 is no path"),
        ("n.parquet", r"its column `image` holds 1, 2, 30, expected paths or pictures"),
    ):
        with pytest.raises(InputError, match=words):
            open_dataset(f"images:{tmp_path / name}")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        entry = tarfile.TarInfo("a.png")
        tar.addfile(entry)
    with pytest.raises(InputError, match="cannot identify an image in these bytes"):
        open_dataset(f"tar:{tmp_path / 'x.tar'}").image(0)


# -- tables of images ---------------------------------------------------------------------------------------------


def table(first: int, count: int, named: bool = False, hub: bool = True) -> pa.Table:
    cells = [{"bytes": png(first + i), "path": f"{first + i}.png" if named else None} for i in range(count)]
    images = pa.array(cells) if hub else pa.array([cell["bytes"] for cell in cells], pa.binary())
    found = pa.table(
        {"image": images, "label": pa.array([i % 2 for i in range(count)]), "caption": ["a thing"] * count}
    )
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    return found.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


@pytest.mark.parametrize("hub", [True, False])
@pytest.mark.parametrize("kind", [".parquet", ".arrow", "stream", "memory"])
def test_one_table(tmp_path: Path, kind: str, hub: bool) -> None:
    content = table(10, 7, hub=hub)
    path = tmp_path / ("x.parquet" if kind in (".parquet", "memory") else "x.arrow")
    if path.suffix == ".parquet":
        pq.write_table(content, path, row_group_size=3)
    else:
        opener = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
        with opener(path, content.schema) as writer:
            writer.write_table(content, max_chunksize=3)
    location = str(path)
    if kind == "memory":
        import fsspec

        fsspec.filesystem("memory").pipe("/tables/x.parquet", path.read_bytes())
        location = "memory://tables/x.parquet"
    dataset = open_dataset(f"images:{location}")
    assert shades(dataset) == list(range(10, 17))
    assert list(dataset.labels or ()) == ["cat", "dog"] * 3 + ["cat"]
    assert dataset.class_names == ["cat", "dog"]
    assert next(iter(dataset.captions or ())) == ["a thing"]
    assert dataset.sample_ids[:2] == ["0000", "0001"]
    part = dataset.select(limit=2)
    assert shades(part) == [10, 11]
    assert open_dataset(dataset.spec).select(limit=2).fingerprint() == part.fingerprint()


@pytest.mark.parametrize(
    "names",
    [
        ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"],
        ["train/0000.parquet", "train/0001.parquet", "test/0000.parquet"],
        ["train/data-00000-of-00002.arrow", "train/data-00001-of-00002.arrow", "test/data-00000-of-00001.arrow"],
    ],
)
@pytest.mark.parametrize("scheme", ["images", "hf"])
def test_folders_as_the_hub_keeps_them(tmp_path: Path, names: list[str], scheme: str) -> None:
    for first, name in zip((0, 10, 50), names, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if name.endswith(".parquet"):
            pq.write_table(table(first, 4, named=True), tmp_path / name)
        else:
            with pa.ipc.new_stream(tmp_path / name, table(0, 1, named=True).schema) as writer:
                writer.write_table(table(first, 4, named=True))
            (tmp_path / name).with_name("state.json").write_text("{}")
            (tmp_path / name).with_name("cache-1234.arrow").write_bytes(b"x")
    dataset = open_dataset(f"{scheme}:{tmp_path}")
    assert shades(dataset) == [*range(4), *range(10, 14), *range(50, 54)]
    assert list(dataset.splits or ()) == ["train"] * 8 + ["test"] * 4
    assert dataset.sample_ids[0] == "0.png"
    assert shades(open_dataset(f"{scheme}:{tmp_path}?split=test")) == list(range(50, 54))
    with pytest.raises(UsageError, match="has no split `val`"):
        open_dataset(f"{scheme}:{tmp_path}?split=val")


def kept_in_memory(scheme: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A storage of the given scheme that speaks to no server."""
    from fsspec.implementations.memory import MemoryFileSystem

    class Storage(MemoryFileSystem):
        protocol = scheme
        store: ClassVar[dict[str, Any]] = {}
        pseudo_dirs: ClassVar[list[str]] = [""]
        cachable = False

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return "/" + path.removeprefix(f"{scheme}://").strip("/")

    monkeypatch.setitem(import_module("fsspec.registry")._registry, scheme, Storage)
    return Storage()


@pytest.mark.parametrize("copy", ["", "@refs%2Fconvert%2Fparquet"])
def test_tables_of_the_hub_are_read_where_they_are(copy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = kept_in_memory("hf", monkeypatch)
    for first, name in ((0, "data/train-00000-of-00001.parquet"), (50, "data/test-00000-of-00001.parquet")):
        out = io.BytesIO()
        pq.write_table(table(first, 4, named=True), out)
        hub.pipe(f"hf://datasets/someone/birds{copy}/{name}", out.getvalue())
    if copy:  # what the repository itself holds is no table
        hub.pipe("hf://datasets/someone/birds/README.md", b"birds")
    dataset = open_dataset("hf:someone/birds?streaming=true")
    assert shades(dataset) == [*range(4), *range(50, 54)]
    assert list(dataset.splits or ()) == ["train"] * 4 + ["test"] * 4
    assert dataset.class_names == ["cat", "dog"]
    part = open_dataset("hf:someone/birds?streaming=true&split=test")
    assert shades(part) == list(range(50, 54))
    assert open_dataset(part.spec).fingerprint() == part.fingerprint()
    assert open_dataset(part.spec).fingerprint() != dataset.fingerprint()
    with pytest.raises(UsageError, match="has no split `val`"):
        open_dataset("hf:someone/birds?streaming=true&split=val")
    with pytest.raises(MissingDataError, match="nothing is at"):
        open_dataset("hf:someone/fish?streaming=true")


def test_a_bucket_of_another_kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bucket = kept_in_memory("gs", monkeypatch)
    for name, content in PHOTOS.items():
        bucket.pipe(f"gs://photos/birds/{name}", content)
    bucket.pipe("gs://photos/a.npy", npy(np.arange(120.0).reshape(30, 4)))
    dataset = open_dataset("folder:gs://photos/birds")
    assert shades(dataset) == [0, 1, 2, 100, 101, 102]
    assert list(dataset.labels or ()) == ["cats"] * 3 + ["dogs"] * 3
    assert load_representation(str(localised("gs://photos/a.npy"))).values.shape == (30, 4)
    with pytest.raises(MissingDataError, match="gs://photos/fish"):
        open_dataset("folder:gs://photos/fish")


def test_tables_without_images_are_lists_of_paths(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(png(3))
    pq.write_table(pa.table({"path": ["0.png"], "blob": pa.array([b"abc"])}), tmp_path / "list.parquet")
    assert shades(open_dataset(f"images:{tmp_path / 'list.parquet'}")) == [3]


def test_a_cell_that_names_a_file_is_a_failure_of_its_own(tmp_path: Path) -> None:
    cells = [{"bytes": png(1), "path": "a"}, {"bytes": None, "path": "/etc/passwd"}, None]
    pq.write_table(pa.table({"image": cells}), tmp_path / "x.parquet")
    dataset = open_dataset(f"images:{tmp_path / 'x.parquet'}")
    assert np.asarray(dataset.image(0))[0, 0] == 1
    for row, words in ((1, "does not hold it"), (2, "no image in this row")):
        with pytest.raises(InputError, match=words):
            dataset.image(row)
    assert dataset.fingerprint()


# -- a part, and a second start -----------------------------------------------------------------------------------


def test_include_and_exclude(tmp_path: Path) -> None:
    for name, content in PHOTOS.items():
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / name).write_bytes(content)
    whole = open_dataset(f"folder:{tmp_path / 'p'}")
    assert list(whole.select(include="cats/*,*/2.png").sample_ids) == [
        "cats/0.png",
        "cats/1.png",
        "cats/2.png",
        "dogs/2.png",
    ]
    assert list(whole.select(include="cats/*", exclude="*/[01].png").sample_ids) == ["cats/2.png"]
    (tmp_path / "ids.txt").write_text("dogs/1.png\ncats/0.png\n\n")
    assert list(whole.select(include=f"@{tmp_path / 'ids.txt'}").sample_ids) == ["cats/0.png", "dogs/1.png"]
    with pytest.raises(UsageError, match=r"--include bird\*: none of the 6 ids"):
        whole.select(include="bird*")
    with pytest.raises(InputError, match="no samples are left"):
        whole.select(exclude="*")
    assert whole.select(include="cats/*").name != whole.select(include="dogs/*").name


class TestSecondStart:
    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from rdxcli.datasets import images

        for module in (files, images):
            monkeypatch.setattr(module, "_MANY", 1)
            monkeypatch.setattr(module, "_QUIET", -(10**12))  # nothing here is older than two seconds

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        for name, content in PHOTOS.items():
            (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "p" / name).write_bytes(content)
        (tmp_path / "p" / "cats" / "odd.dat").write_bytes(b"nothing")
        return tmp_path / "p"

    def test_nothing_is_listed_or_read_again(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = open_dataset(f"folder:{place}").description()
        monkeypatch.setattr(files.os, "scandir", lambda path: pytest.fail(f"{path} is listed"))
        monkeypatch.setattr("builtins.open", _no_images(open))
        assert open_dataset(f"folder:{place}").description() == before

    @pytest.mark.parametrize("change", ["new", "gone", "new folder", "content", "same size and time", "odd", "swapped"])
    def test_every_change_is_noticed(self, place: Path, change: str) -> None:
        before = open_dataset(f"folder:{place}").description()
        one, two = place / "cats" / "0.png", place / "dogs" / "1.png"
        if change == "new":
            (place / "cats" / "7.png").write_bytes(png(7))
        elif change == "gone":
            one.unlink()
        elif change == "new folder":
            (place / "cats" / "deep").mkdir()
            (place / "cats" / "deep" / "1.png").write_bytes(png(1))
        elif change == "content":
            one.write_bytes(png(200))
        elif change == "same size and time":
            stat, content = one.stat(), bytearray(one.read_bytes())
            content[-1] ^= 1
            one.write_bytes(content)
            os.utime(one, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        elif change == "odd":
            (place / "cats" / "odd.dat").write_bytes(png(5))
        else:
            one.rename(place / "x")
            two.rename(one)
            (place / "x").rename(two)
        assert open_dataset(f"folder:{place}").description()["fingerprint"] != before["fingerprint"]

    def test_what_changed_just_now_is_not_trusted(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "_QUIET", 10**12)
        open_dataset(f"folder:{place}")
        assert not (Path(os.environ["RDX_CACHE"]) / "folders").exists()


def _no_images(real: object) -> object:
    def guarded(file: object, *arguments: object, **options: object) -> object:
        assert not str(file).endswith(".png"), f"{file} is read"
        return real(file, *arguments, **options)  # type: ignore[operator]

    return guarded
