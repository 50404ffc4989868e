"""Data sets: what opens, in which order, what a selection gives, and that fingerprints are never stale."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdxcli.datasets import digits
from rdxcli.datasets.base import Dataset, draw
from rdxcli.datasets.digits import digit_arrays
from rdxcli.datasets.images import ArrayImages, FileImages
from rdxcli.datasets.registry import describe_datasets, list_datasets, open_dataset
from rdxcli.errors import InputError, MissingDataError, RdxError, UnknownNameError, UsageError


def picture(path: Path, value: int = 0, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 10, 20)).save(path)
    return path


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    root = tmp_path / "birds"
    for name in ("robin/b.PNG", "robin/a.jpg", "jay/deep/er/c.JPeG", "jay/d.webp", "wren/e.bmp"):
        picture(root / name, len(name))
    (root / "robin" / "notes.txt").write_text("no image")
    (root / ".hidden").mkdir()
    picture(root / ".hidden" / "x.png")
    return root


class TestDigits:
    def test_images_labels_and_ids(self) -> None:
        dataset = open_dataset("digits")
        assert len(dataset) == 1797
        assert (dataset.sample_ids[0], dataset.sample_ids[-1]) == ("0000", "1796")
        assert list(dataset.class_names or []) == [str(i) for i in range(10)]
        image = dataset.image(3)
        assert (image.mode, image.size) == ("L", (8, 8))
        assert np.array_equal(np.asarray(image), digit_arrays()[0][3])
        assert digit_arrays()[0].max() == 255

    def test_they_are_read_as_scikit_learn_reads_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = digits._table()
        monkeypatch.setattr(digits, "find_spec", lambda _: None)
        assert np.array_equal(found, digits._table())

    @pytest.mark.parametrize(("name", "flip"), [("digits-hflip", np.fliplr), ("digits-vflip", np.flipud)])
    def test_doubles(self, name: str, flip: object) -> None:
        dataset = open_dataset(name)
        assert len(dataset) == 2 * 1797
        assert len(dataset.class_names or []) == 20
        plain, flipped = np.asarray(dataset.image(40)), np.asarray(dataset.image(1797 + 40))
        assert np.array_equal(flip(plain), flipped)  # type: ignore[operator]
        assert dataset.labels is not None
        assert dataset.labels[1797 + 40] == dataset.labels[40] + "-flipped"
        assert dataset.sample_ids[1797 + 40] == f"0040-{name.removeprefix('digits-')}"


class TestFolders:
    def test_classes_are_the_first_level_and_the_order_is_stable(self, birds: Path) -> None:
        dataset = open_dataset(f"folder:{birds}")
        assert dataset.sample_ids == ["jay/d.webp", "jay/deep/er/c.JPeG", "robin/a.jpg", "robin/b.PNG", "wren/e.bmp"]
        assert dataset.labels == ["jay", "jay", "robin", "robin", "wren"]
        assert dataset.splits is None
        assert dataset.image(2).size == (6, 4)
        assert dataset.location(2) == str(birds / "robin" / "a.jpg")
        assert dataset.name.startswith("birds-")

    def test_names_of_equal_folders_differ(self, tmp_path: Path) -> None:
        for parent in ("one", "two"):
            picture(tmp_path / parent / "birds" / "jay" / "a.png")
        names = {open_dataset(f"folder:{tmp_path / parent / 'birds'}").name for parent in ("one", "two")}
        assert len(names) == 2

    def test_splits(self, tmp_path: Path) -> None:
        for name in ("train/jay/a.png", "train/wren/b.png", "val/jay/c.png"):
            picture(tmp_path / "set" / name)
        dataset = open_dataset(f"folder:{tmp_path / 'set'}")
        assert dataset.splits == ["train", "train", "val"]
        assert dataset.labels == ["jay", "wren", "jay"]
        part = dataset.select(split="val")
        assert part.sample_ids == ["val/jay/c.png"]
        assert part.class_names == ["jay"]
        assert part.name.endswith("@val")

    def test_a_flat_folder_is_pointed_to_the_right_scheme(self, tmp_path: Path) -> None:
        picture(tmp_path / "flat" / "a.png")
        with pytest.raises(InputError, match="no sub-folders") as caught:
            open_dataset(f"folder:{tmp_path / 'flat'}")
        assert caught.value.hint == f"write `images:{tmp_path / 'flat'}`"

    def test_images_beside_the_classes_are_left_out_loudly(self, birds: Path, caplog: pytest.LogCaptureFixture) -> None:
        picture(birds / "stray.png")
        assert len(open_dataset(f"folder:{birds}")) == 5
        assert "leaving out 1 image" in caplog.text

    @pytest.mark.parametrize("scheme", ["folder", "images"])
    def test_an_empty_folder(self, tmp_path: Path, scheme: str) -> None:
        (tmp_path / "nothing").mkdir()
        with pytest.raises(InputError, match=r"no images|0 images"):
            open_dataset(f"{scheme}:{tmp_path / 'nothing'}")

    def test_a_misspelt_folder(self, birds: Path) -> None:
        with pytest.raises(MissingDataError, match="no such folder") as caught:
            open_dataset(f"folder:{birds.parent / 'brids'}")
        assert str(birds) in (caught.value.hint or "")

    def test_16_bit_images_are_scaled_not_clipped(self, tmp_path: Path) -> None:
        values = np.linspace(0, 65535, 24).astype(np.uint16).reshape(4, 6)
        Image.fromarray(values).save(tmp_path / "deep.png")
        image = open_dataset(f"images:{tmp_path}").image(0)
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), values >> 8)


class TestLists:
    def test_a_text_file(self, birds: Path) -> None:
        (birds / "list.txt").write_text("robin/b.PNG\n\njay/d.webp\n")
        dataset = open_dataset(f"images:{birds / 'list.txt'}")
        assert dataset.sample_ids == ["robin/b.PNG", "jay/d.webp"]
        assert dataset.image(1).size == (6, 4)

    @pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "json"])
    def test_tables(self, birds: Path, kind: str) -> None:
        columns = {
            "File": ["robin/b.PNG", "jay/d.webp"],
            "label": ["robin", "jay"],
            "split": ["train", "test"],
            "id": ["r1", "j1"],
            "caption": ["a robin, red", "a jay"],
        }
        path = birds / f"list.{kind}"
        if kind == "parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.table(columns), path)
        elif kind == "json":
            import json

            path.write_text(json.dumps(columns))
        else:
            import csv

            with open(path, "w", newline="") as stream:
                writer = csv.writer(stream, delimiter="," if kind == "csv" else "\t")
                writer.writerow(columns)
                writer.writerows(zip(*columns.values(), strict=True))
        dataset = open_dataset(f"images:{path}")
        assert dataset.sample_ids == ["r1", "j1"]
        assert dataset.labels == ["robin", "jay"]
        assert dataset.splits == ["train", "test"]
        assert dataset.captions == [["a robin, red"], ["a jay"]]
        assert dataset.image(0).size == (6, 4)

    def test_a_table_without_paths_names_its_columns(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text("width,height\n1,2\n")
        with pytest.raises(InputError, match="columns are: width, height"):
            open_dataset(f"images:{tmp_path / 't.csv'}")

    def test_ragged_rows_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text("path,label\na.png,x\nb.png\n")
        with pytest.raises(InputError, match="row 3 has 1 cell"):
            open_dataset(f"images:{tmp_path / 't.csv'}")

    def test_a_path_that_occurs_twice(self, birds: Path) -> None:
        (birds / "list.txt").write_text("jay/d.webp\njay/d.webp\n")
        with pytest.raises(InputError, match=r"`jay/d\.webp` occurs more than once"):
            open_dataset(f"images:{birds / 'list.txt'}")


class TestPixels:
    def test_npy_with_labels(self, tmp_path: Path) -> None:
        pixels = np.arange(3 * 4 * 5 * 3, dtype=np.uint8).reshape(3, 4, 5, 3)
        np.save(tmp_path / "x.npy", pixels)
        (tmp_path / "y.txt").write_text("cat\ndog\ncat\n")
        dataset = open_dataset(f"array:{tmp_path / 'x.npy'},{tmp_path / 'y.txt'}")
        assert dataset.labels == ["cat", "dog", "cat"]
        assert np.array_equal(np.asarray(dataset.image(1)), pixels[1])
        assert isinstance(dataset.source, ArrayImages)
        assert isinstance(dataset.source.images, np.memmap)
        assert open_dataset(dataset.spec).labels == dataset.labels

    def test_npz_finds_images_and_labels(self, tmp_path: Path) -> None:
        images = np.zeros((4, 8, 8), np.uint8)
        np.savez(tmp_path / "d.npz", images=images, labels=np.array([0, 1, 1, 0]), weights=np.zeros((3, 3, 3)))
        assert open_dataset(f"array:{tmp_path / 'd.npz'}").labels == ["0", "1", "1", "0"]
        assert len(open_dataset(f"array:{tmp_path / 'd.npz'}:images")) == 4
        with pytest.raises(InputError, match="keys are: images, labels, weights") as caught:
            open_dataset(f"array:{tmp_path / 'd.npz'}:image")
        assert caught.value.hint == "did you mean `images`?"

    @pytest.mark.parametrize(
        ("pixels", "message"),
        [
            (np.zeros((3, 4, 5), np.float32), "got dtype float32, expected uint8"),
            (np.zeros((3, 4), np.uint8), "expected images of shape"),
            (np.zeros((3, 4, 5, 7), np.uint8), "expected images of shape"),
            (np.zeros((3, 0, 5), np.uint8), "empty images"),
            (np.zeros((0, 4, 5), np.uint8), "has no images"),
        ],
    )
    def test_what_is_no_image(self, tmp_path: Path, pixels: np.ndarray, message: str) -> None:
        np.save(tmp_path / "x.npy", pixels)
        with pytest.raises(InputError, match=message):
            open_dataset(f"array:{tmp_path / 'x.npy'}")


def write_idx(path: Path, array: np.ndarray, kind: int = 8) -> Path:
    content = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


class TestIdx:
    @pytest.mark.parametrize("ending", ["", ".gz"])
    def test_images_and_labels(self, tmp_path: Path, ending: str) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 4), np.uint8)
        images = write_idx(tmp_path / f"i{ending}", pixels)
        labels = write_idx(tmp_path / f"l{ending}", np.arange(7, dtype=np.uint8))
        dataset = open_dataset(f"idx:{images},{labels}")
        assert np.array_equal(np.asarray(dataset.image(6)), pixels[6])
        assert dataset.labels == [str(i) for i in range(7)]
        assert open_dataset(dataset.spec).fingerprint() == dataset.fingerprint()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "not an idx file"),
            (b"\x89PNG....", "not an idx file"),
            (bytes([0, 0, 13, 3]) + bytes(12), "idx type 0x0d"),
            (bytes([0, 0, 8, 3, 0, 0]), "ends inside its header"),
            (bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 3, 4) + bytes(23), "promises 24 bytes"),
            (bytes([0, 0, 8, 1]) + struct.pack(">I", 4) + bytes(4), "1 dimension"),
        ],
    )
    def test_damage(self, tmp_path: Path, content: bytes, message: str) -> None:
        for name, data in (("i", content), ("i.gz", gzip.compress(content))):
            (tmp_path / name).write_bytes(data)
            with pytest.raises(InputError, match=message):
                open_dataset(f"idx:{tmp_path / name}")

    def test_a_truncated_gzip(self, tmp_path: Path) -> None:
        path = write_idx(tmp_path / "i.gz", np.zeros((50, 5, 4), np.uint8))
        path.write_bytes(path.read_bytes()[:-12])
        with pytest.raises(InputError, match="cannot be read"):
            open_dataset(f"idx:{path}")

    def test_mnist_is_found_below_the_data_root(self, tmp_path: Path) -> None:
        with pytest.raises(MissingDataError) as caught:
            open_dataset("mnist", root=tmp_path)
        assert caught.value.hint == "rdx download mnist"
        write_idx(tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz", np.zeros((3, 28, 28), np.uint8))
        write_idx(tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz", np.arange(3, dtype=np.uint8))
        dataset = open_dataset("mnist", root=tmp_path)
        assert dataset.sample_ids == ["test/00000", "test/00001", "test/00002"]
        assert dataset.splits == ["test"] * 3
        (entry,) = [entry for entry in describe_datasets(tmp_path) if entry["name"] == "mnist"]
        assert entry["ready"]


class TestSelection:
    def test_order_split_classes_sample_limit(self) -> None:
        dataset = open_dataset("digits")
        part = dataset.select(classes="3, 5", sample=50, limit=10)
        assert dataset.select(classes="#3,5", sample=50, limit=10).sample_ids == part.sample_ids
        assert len(part) == 10
        assert set(part.labels or []) <= {"3", "5"}
        assert part.class_names == [name for name in ("3", "5") if name in set(part.labels or [])]
        assert list(part.sample_ids) == sorted(part.sample_ids)
        assert part.name == "digits@classes-3-5+sample-50-seed-0+limit-10"
        index = dataset.sample_ids.index(part.sample_ids[4])
        assert np.array_equal(np.asarray(part.image(4)), np.asarray(dataset.image(index)))

    def test_a_draw_depends_on_seed_and_ids_only(self) -> None:
        ids = [f"s{i}" for i in range(200)]
        drawn = {ids[i] for i in draw(ids, 20, 0)}
        assert len(drawn) == 20
        assert drawn == {ids[::-1][i] for i in draw(ids[::-1], 20, 0)}
        assert drawn != {ids[i] for i in draw(ids, 20, 1)}
        assert draw(ids, 500, 0).tolist() == list(range(200))
        # a draw of a part is that part of the draw of the whole, as far as it goes
        assert {ids[i] for i in draw(ids, 10, 0)} < drawn

    def test_per_class(self) -> None:
        part = open_dataset("digits").select(per_class=7)
        assert len(part) == 70
        assert set(open_dataset("digits").select(classes=["4"], per_class=7).sample_ids) <= set(part.sample_ids)

    def test_nothing_asked_for_is_the_data_set_itself(self) -> None:
        dataset = open_dataset("digits")
        assert dataset.select() is dataset

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"limit": 0}, "--limit: got 0"),
            ({"sample": -1}, "--sample: got -1"),
            ({"per_class": 0}, "--per-class: got 0"),
            ({"split": "train"}, "has no splits"),
            ({"classes": "3,x"}, "unknown class of digits: `x`"),
            ({"classes": "#10"}, "#10 is not one of the 10 classes"),
        ],
    )
    def test_what_cannot_be_selected(self, options: dict, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            open_dataset("digits").select(**options)

    def test_without_labels(self, tmp_path: Path) -> None:
        picture(tmp_path / "a.png")
        with pytest.raises(UsageError, match="has no labels"):
            open_dataset(f"images:{tmp_path}").select(classes="x")

    def test_locate(self, birds: Path) -> None:
        dataset = open_dataset(f"folder:{birds}")
        assert dataset.locate(["robin/a.jpg", "robin/b", "c.JPeG", "e", "nobody"]).tolist() == [2, 3, 1, 4, -1]
        picture(birds / "wren" / "a.jpg")
        assert open_dataset(f"folder:{birds}").locate(["a.jpg", "a"]).tolist() == [-1, -1]


class TestFingerprints:
    def test_any_change_of_a_selected_image_counts_and_no_other(self, birds: Path) -> None:
        whole = open_dataset(f"folder:{birds}")
        part = whole.select(classes="robin")
        before = whole.fingerprint(), part.fingerprint()
        picture(birds / "jay" / "d.webp", 99)
        assert whole.fingerprint() != before[0]
        assert part.fingerprint() == before[1]
        picture(birds / "robin" / "a.jpg", 98)
        assert part.fingerprint() != before[1]

    def test_reading_again_gives_the_same(self, birds: Path) -> None:
        assert open_dataset(f"folder:{birds}").fingerprint() == open_dataset(f"folder:{birds}").fingerprint()

    def test_same_size_and_time_but_other_content(self, birds: Path) -> None:
        path = birds / "wren" / "e.bmp"
        before, stat = open_dataset(f"folder:{birds}").fingerprint(), path.stat()
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert open_dataset(f"folder:{birds}").fingerprint() != before

    def test_large_sets_go_by_size_and_time(self, birds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("rdxcli.datasets.images.CONTENT_LIMIT", 10)
        paths = sorted(birds.rglob("*.jpg"))
        source = FileImages(paths)
        before = source.fingerprint(np.array([0]))
        assert before["by"] == "size and time"
        os.utime(paths[0], ns=(0, 1))
        assert source.fingerprint(np.array([0])) != before

    def test_a_missing_file_counts(self, birds: Path) -> None:
        dataset = open_dataset(f"folder:{birds}")
        before = dataset.fingerprint()
        (birds / "wren" / "e.bmp").unlink()
        assert dataset.fingerprint() != before

    def test_labels_count(self, tmp_path: Path) -> None:
        picture(tmp_path / "a.png")
        prints = set()
        for label in ("x", "y"):
            (tmp_path / "t.csv").write_text(f"path,label\na.png,{label}\n")
            prints.add(open_dataset(f"images:{tmp_path / 't.csv'}").fingerprint())
        assert len(prints) == 2

    def test_pixels_count(self) -> None:
        pixels = np.zeros((4, 2, 2), np.uint8)
        before = ArrayImages(pixels).fingerprint(np.arange(4))
        changed = pixels.copy()
        changed[3, 1, 1] = 1
        assert ArrayImages(changed).fingerprint(np.arange(4)) != before
        assert ArrayImages(changed).fingerprint(np.arange(3)) == ArrayImages(pixels).fingerprint(np.arange(3))


class TestNames:
    def test_near_matches(self) -> None:
        with pytest.raises(UnknownNameError, match="unknown data set: `digts`") as caught:
            open_dataset("digts")
        assert "`digits`" in (caught.value.hint or "")

    def test_a_bare_path_is_told_its_scheme(self, birds: Path) -> None:
        with pytest.raises(UsageError) as caught:
            open_dataset(str(birds))
        assert f"folder:{birds}" in (caught.value.hint or "")

    def test_nothing_after_the_colon(self) -> None:
        with pytest.raises(UsageError, match="nothing after the colon"):
            open_dataset("folder:")

    def test_every_listed_name_opens_or_says_what_fetches_it(self, tmp_path: Path) -> None:
        assert {"digits", "digits-hflip", "digits-vflip", "mnist"} <= set(list_datasets())
        for name in list_datasets():
            try:
                assert len(open_dataset(name, root=tmp_path)) > 0
            except RdxError as error:
                assert f"rdx download {name}" in f"{error.hint}"  # noqa: PT017

    def test_a_plug_in(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        from importlib.metadata import EntryPoint

        points = (
            EntryPoint("ours", "rdxcli.datasets.digits:digits_hflip", "rdx.datasets"),
            EntryPoint("odd", "builtins:str", "rdx.datasets"),
        )
        monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
        assert "ours" in list_datasets()
        assert len(open_dataset("ours", root=tmp_path)) == 2 * 1797
        with pytest.raises(RdxError, match="gave a str, expected a Dataset"):
            open_dataset("odd", root=tmp_path)


class TestDatasetChecks:
    def test_lengths(self) -> None:
        source = ArrayImages(np.zeros((2, 3, 3), np.uint8))
        with pytest.raises(InputError, match="2 sample ids but 1 label"):
            Dataset("d", "d", source, ["a", "b"], labels=["x"])
        with pytest.raises(InputError, match="3 sample ids but 2 images"):
            Dataset("d", "d", source, ["a", "b", "c"])

    def test_masks(self) -> None:
        source = ArrayImages(np.zeros((3, 2, 2), np.uint8))
        dataset = Dataset("d", "d", source, list("abc"), mask=lambda row: np.full((2, 2), row), mask_names=["sky"])
        assert dataset.take([2], {}, "@x").mask_of(0)[0, 0] == 2
        with pytest.raises(InputError, match="no concept masks"):
            Dataset("d", "d", source, list("abc")).mask_of(0)


def test_torchvision_sets_that_are_on_disk(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
    raw = tmp_path / "MNIST" / "raw"
    for prefix in ("train", "t10k"):
        write_idx(raw / f"{prefix}-images-idx3-ubyte", pixels)
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", np.arange(5, dtype=np.uint8))
    dataset = open_dataset(f"torchvision:MNIST?root={tmp_path}&train=false")
    assert np.array_equal(np.asarray(dataset.image(2)), pixels[2])
    assert (dataset.labels or [])[2] == "2 - two"
    before = dataset.fingerprint()
    write_idx(raw / "t10k-images-idx3-ubyte", pixels[::-1].copy())
    assert open_dataset(f"torchvision:MNIST?root={tmp_path}&train=false").fingerprint() != before


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("torchvision:MNIT", UnknownNameError, "unknown torchvision data set"),
        ("torchvision:CIFAR10", UsageError, "pickles"),
        ("torchvision:MNIST?rot=x", UsageError, "takes no `rot`"),
        ("torchvision:MNIST?download=true", UsageError, "takes no `download`"),
        ("torchvision:MNIST?root=/nowhere/at/all", MissingDataError, "is not in /nowhere/at/all"),
    ],
)
def test_torchvision_mistakes(spec: str, kind: type[RdxError], message: str) -> None:
    with pytest.raises(kind, match=message):
        open_dataset(spec)


def test_hugging_face_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(RdxError, match="`datasets` is needed") as caught:
        open_dataset("hf:beans")
    assert "rdx-vision[hf]" in (caught.value.hint or "")


@pytest.mark.shared
def test_real_images(shared: Path) -> None:
    root = shared / "data"
    dataset = open_dataset(f"images:{root / 'imagenet_sample' / 'index.csv'}")
    assert len(dataset) == 300
    assert (dataset.labels or [])[0] == "tench"
    assert dataset.image(0).size == (256, 256)
    assert len(open_dataset(f"folder:{root / 'cifar10_test'}").select(per_class=5)) == 50
    mnist = root / "mnist"
    digits = open_dataset(f"idx:{mnist / 't10k-images-idx3-ubyte.gz'},{mnist / 't10k-labels-idx1-ubyte.gz'}")
    assert len(digits) == 10000
    assert (digits.labels or [])[:3] == ["7", "2", "1"]


class TestTars:
    @pytest.fixture
    def shards(self, tmp_path: Path) -> Path:
        import io
        import tarfile

        for shard in range(2):
            with tarfile.open(tmp_path / f"s-{shard:03d}.tar", "w") as archive:
                for i in range(3):
                    stream = io.BytesIO()
                    Image.new("RGB", (5, 4), (shard, i, 0)).save(stream, "PNG")
                    for ending, content in (
                        ("png", stream.getvalue()),
                        ("cls", str(i % 2).encode()),
                        ("json", b'{"caption": "a dot", "label": "overruled"}'),
                    ):
                        info = tarfile.TarInfo(f"part/{shard}{i}.{ending}")
                        info.size = len(content)
                        archive.addfile(info, io.BytesIO(content))
        return tmp_path

    @pytest.mark.parametrize("pattern", ["s-{000..001}.tar", "s-*.tar"])
    def test_several_archives(self, shards: Path, pattern: str) -> None:
        dataset = open_dataset(f"tar:{shards / pattern}")
        assert dataset.sample_ids == ["part/00", "part/01", "part/02", "part/10", "part/11", "part/12"]
        assert dataset.labels == ["0", "1", "0"] * 2
        assert dataset.captions == [["a dot"]] * 6
        assert dataset.image(4).getpixel((0, 0)) == (1, 1, 0)
        assert open_dataset(dataset.spec).fingerprint() == dataset.fingerprint()

    def test_changes_are_noticed(self, shards: Path) -> None:
        path = shards / "s-001.tar"
        before = open_dataset(f"tar:{path}").fingerprint()
        content = path.read_bytes()
        path.write_bytes(content.replace(b"IDAT", b"IDAX", 1))
        assert open_dataset(f"tar:{path}").fingerprint() != before

    def test_mistakes(self, shards: Path) -> None:
        with pytest.raises(MissingDataError, match="no such tar archive"):
            open_dataset(f"tar:{shards / 't-*.tar'}")
        with pytest.raises(MissingDataError, match=r"s-002\.tar"):
            open_dataset(f"tar:{shards / 's-{000..002}.tar'}")
        (shards / "x.tar").write_bytes(b"no archive" * 100)
        with pytest.raises(InputError, match="cannot be read as a plain tar"):
            open_dataset(f"tar:{shards / 'x.tar'}")
