"""Odd images in every container: which files are images, what their pixels are, and what is refused by name."""

from __future__ import annotations

import io
import logging
import os
import socket
import tarfile
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdxcli.datasets.base import Dataset
from rdxcli.datasets.pixelrange import parse_range
from rdxcli.datasets.registry import open_dataset
from rdxcli.errors import InputError, RdxError, UsageError
from rdxcli.models.preprocessing import Preprocessing, _cut

RAMP = np.tile(np.linspace(0, 1, 32), (32, 1))
COLOUR = np.stack([RAMP, RAMP.T, np.full_like(RAMP, 0.5)], axis=2)
SHORT = "its range is not known"


def encoded(array: np.ndarray, kind: str, mode: str | None = None) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(stream, kind)
    return stream.getvalue()


U8 = (RAMP * 255).astype(np.uint8)
RGB = (COLOUR * 255).astype(np.uint8)

ODD: dict[str, tuple[Callable[[], bytes], str, float | str]] = {
    # name -> (content, ending, mean of the 8-bit pixels in 0..1 or the error)
    "grey": (lambda: encoded(U8, "PNG"), "png", 0.5),
    "colour": (lambda: encoded(RGB, "PNG"), "png", 0.5),
    "palette": (lambda: encoded(RGB, "PNG", "P"), "png", 0.5),
    "one bit": (lambda: encoded(U8, "PNG", "1"), "png", 0.5),
    "grey with alpha": (lambda: encoded(U8, "PNG", "LA"), "png", 0.5),
    "alpha": (lambda: encoded(RGB, "PNG", "RGBA"), "png", 0.5),
    "cmyk": (lambda: encoded(RGB, "TIFF", "CMYK"), "tif", 0.5),
    "jpeg": (lambda: encoded(RGB, "JPEG"), "jpg", 0.5),
    "gif": (lambda: encoded(U8, "GIF"), "gif", 0.5),
    "16 bits": (lambda: encoded((RAMP * 65535).astype(np.uint16), "PNG"), "png", 0.5),
    "14 bits": (lambda: encoded((RAMP * 16383).astype(np.uint16), "PNG"), "png", 0.5),
    "12 bits in 16": (lambda: encoded((RAMP * 4095).astype(np.uint16), "TIFF"), "tif", 0.5),
    "10 bits in 16": (lambda: encoded((RAMP * 1023).astype(np.uint16), "TIFF"), "tif", 0.5),
    "8 bits in 16": (lambda: encoded((RAMP * 255).astype(np.uint16), "TIFF"), "tif", 0.5),
    "int32 to 255": (lambda: encoded((RAMP * 255).astype(np.int32), "TIFF"), "tif", 0.5),
    "int32 to 65535": (lambda: encoded((RAMP * 65535).astype(np.int32), "TIFF"), "tif", 0.5),
    "float to 1": (lambda: encoded(RAMP.astype(np.float32), "TIFF"), "tif", 0.5),
    "float to 255": (lambda: encoded((RAMP * 255).astype(np.float32), "TIFF"), "tif", 0.5),
    "float to 65535": (lambda: encoded((RAMP * 65535).astype(np.float32), "TIFF"), "tif", 0.5),
    "black": (lambda: encoded(np.zeros((8, 8), np.uint16), "PNG"), "png", 0.0),
    "negative": (lambda: encoded((RAMP - 0.5).astype(np.float32), "TIFF"), "tif", "no known range"),
    "beyond 16 bits": (lambda: encoded((RAMP * 1e6).astype(np.int32), "TIFF"), "tif", "no known range"),
    "a mask": (lambda: encoded((RAMP > 0.5).astype(np.int32), "TIFF"), "tif", "nothing but 0 and 1"),
    "not a number": (lambda: encoded(np.full((8, 8), np.nan, np.float32), "TIFF"), "tif", "NaN or infinity"),
    "truncated": (lambda: encoded(RGB, "JPEG")[:-200], "jpg", "[Tt]runcated"),
    "empty": (lambda: b"", "jpg", "identify"),
}


def in_folder(root: Path, files: dict[str, bytes]) -> Dataset:
    for name, content in files.items():
        (root / "a").mkdir(exist_ok=True)
        (root / "a" / name).write_bytes(content)
    return open_dataset(f"folder:{root}")


def in_list(root: Path, files: dict[str, bytes]) -> Dataset:
    in_folder(root, files)
    (root / "list.csv").write_text("path,label\n" + "".join(f'"a/{name}",a\n' for name in sorted(files)))
    return open_dataset(f"images:{root / 'list.csv'}")


def in_tar(root: Path, files: dict[str, bytes]) -> Dataset:
    with tarfile.open(root / "x.tar", "w") as archive:
        for name, content in sorted(files.items()):
            add(archive, f"a/{name}", content)
            add(archive, f"a/{name.partition('.')[0]}.cls", b"a")
    return open_dataset(f"tar:{root / 'x.tar'}")


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("container", [in_folder, in_list, in_tar])
@pytest.mark.parametrize("name", ODD)
def test_odd_images(tmp_path: Path, container: Callable[[Path, dict[str, bytes]], Dataset], name: str) -> None:
    make, ending, expected = ODD[name]
    # the ending of a name says nothing about pixels
    dataset = container(tmp_path, {f"x.{ending}": make(), "y.png": encoded(U8, "PNG")})
    assert dataset.labels == ["a", "a"]
    assert [sample.rpartition("/")[2].partition(".")[0] for sample in dataset.sample_ids] == ["x", "y"]
    if isinstance(expected, str):
        with pytest.raises(Exception, match=expected):
            dataset.image(0)
    else:
        mean = np.asarray(dataset.image(0).convert("RGB")).mean() / 255
        assert mean == pytest.approx(expected, abs=0.02)
        assert dataset.image(0).mode not in ("F", "I", "I;16")
    assert np.asarray(dataset.image(1)).mean() / 255 == pytest.approx(0.5, abs=0.01)


def test_a_dim_picture_stays_dim_and_the_range_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def deep(share: float) -> bytes:
        return encoded((RAMP * share * 65535).astype(np.uint16), "PNG")

    dataset = in_folder(tmp_path, {"bright.png": deep(1), "dim.png": deep(0.03)})
    assert np.asarray(dataset.image(1)).max() == 7  # first, before the bright one was seen
    assert "16-bit images: values from 0 to 65535 in 2 of them; 0 is taken as black and 65535 as white" in caplog.text


def test_float_pictures_of_two_ranges_are_refused(tmp_path: Path) -> None:
    dataset = in_folder(
        tmp_path, {f"{top}.tif": encoded((RAMP * top).astype(np.float32), "TIFF") for top in (1, 65535)}
    )
    with pytest.raises(InputError, match=SHORT):
        dataset.image(0)
    assert np.asarray(dataset.image(1)).mean() / 255 == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("scheme", ["folder:{}", "images:{}/a", "tar:{}/x.tar"])
def test_a_range_that_is_given(tmp_path: Path, scheme: str) -> None:
    content = encoded((RAMP - 0.5).astype(np.float32), "TIFF")
    in_folder(tmp_path, {"x.tif": content})
    in_tar(tmp_path, {"x.tif": content})
    text = scheme.format(tmp_path)
    dataset = open_dataset(f"{text}?range=-0.5,0.5")
    assert np.asarray(dataset.image(0)).mean() / 255 == pytest.approx(0.5, abs=0.01)
    assert dataset.fingerprint() != open_dataset(text).fingerprint()
    assert open_dataset(dataset.spec).fingerprint() == dataset.fingerprint()
    with pytest.raises(UsageError, match="takes no `rang`"):
        open_dataset(f"{text}?rang=1")
    with pytest.raises(UsageError, match="values of black and white"):
        parse_range("3,1")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("order", ["last", "first", "grey"])
def test_arrays_of_pixels(tmp_path: Path, dtype: type, order: str) -> None:
    values = COLOUR if order != "grey" else RAMP
    top = {"u": np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 0, "i": 255, "f": 1}[np.dtype(dtype).kind]
    images = np.stack([values, values[::-1]]) * top
    images = images.transpose(0, 3, 1, 2) if order == "first" else images
    np.save(tmp_path / "x.npy", images.astype(dtype))
    dataset = open_dataset(f"array:{tmp_path / 'x.npy'}")
    assert dataset.image(1).size == (32, 32)
    assert np.asarray(dataset.image(1)).mean() / 255 == pytest.approx(0.5, abs=0.01)


class TestFiles:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        root = tmp_path / "set"
        for name in ("a/one.png", "a/two", "a/three.dat", "b/four.JFIF", "b/five.jpeg2"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(encoded(RGB, "JPEG"))
        for name in ("a/._one.png", "a/.hidden.png", "b/Thumbs.db", "a/notes.txt", "b/list.json", "b/raw.dng"):
            (root / name).write_bytes(b"x" * 100)
        (root / "b" / "__MACOSX").mkdir()
        (root / "b" / "__MACOSX" / "six.png").write_bytes(encoded(RGB, "PNG"))
        return root

    def test_what_pillow_opens_is_an_image(self, root: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "rdxcli")
        dataset = open_dataset(f"folder:{root}")
        assert dataset.sample_ids == ["a/one.png", "a/three.dat", "a/two", "b/five.jpeg2", "b/four.JFIF"]
        assert all(dataset.image(i).size == (32, 32) for i in range(len(dataset)))
        assert "5 images; left out: 4 hidden" in caplog.text
        assert "1 .txt" in caplog.text

    def test_links(self, root: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "rdxcli")
        (root / "a" / "up").symlink_to(root)
        (root / "a" / "self").symlink_to(root / "a")
        (root / "a" / "loop").symlink_to("loop")
        (root / "c").symlink_to(root / "b")
        (root / "a" / "other.png").symlink_to(root / "a" / "one.png")
        dataset = open_dataset(f"folder:{root}")
        assert sorted(set(dataset.labels or ())) == ["a", "b", "c"]
        assert len(dataset) == 8
        assert "2 links to a folder above" in caplog.text

    def test_a_link_above_the_data_set_brings_nothing_in(self, root: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "rdxcli")
        Image.new("RGB", (4, 4)).save(root.parent / "not ours.png")
        before = open_dataset(f"images:{root}").sample_ids
        (root / "a" / "parent").symlink_to("../..")
        assert open_dataset(f"images:{root}").sample_ids == before
        assert "1 links to a folder above" in caplog.text

    def test_siblings_that_link_to_each_other(self, root: Path) -> None:
        (root / "a" / "to_b").symlink_to(root / "b")
        (root / "b" / "to_a").symlink_to(root / "a")
        assert len(open_dataset(f"folder:{root}")) == 10  # each image under both classes, no circle

    @pytest.mark.parametrize("given", ["images:{}/paths.txt", "folder:{}/paths.txt", "tar:{}/paths.tar"])
    def test_a_pipe_is_no_list(self, given: str, root: Path) -> None:
        """Nobody writes into it: it is refused, not waited for."""
        for ending in ("txt", "tar"):
            os.mkfifo(root / f"paths.{ending}")
        with pytest.raises(RdxError, match=r"paths\.t.* is|no images|not a"):
            open_dataset(given.format(root))

    def test_what_is_no_file_fails_by_name(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        os.mkfifo(root / "a" / "pipe.png")
        os.mkfifo(root / "a" / "pipe.txt")
        (root / "a" / "gone.png").symlink_to(root / "nowhere.png")
        os.rename(os.fsencode(root / "a" / "one.png"), os.fsencode(root / "a") + b"/caf\xe9.png")
        os.rename(os.fsencode(root / "b" / "four.JFIF"), os.fsencode(root / "b" / "👩‍🔬 e\u0301.png"))
        monkeypatch.chdir(root / "b")  # a socket's path must be short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket.png")
            dataset = open_dataset(f"folder:{root}")
        errors = {}
        for i, sample in enumerate(dataset.sample_ids):
            sample.encode()  # every id can be stored
            try:
                dataset.image(i)
            except (InputError, OSError) as error:
                errors[sample] = str(error)
        assert set(errors) == {"a/caf\\xe9.png", "a/pipe.png", "a/gone.png", "b/socket.png"}
        assert "not UTF-8" in errors["a/caf\\xe9.png"]
        assert "is a pipe" in errors["a/pipe.png"]
        assert "is a socket" in errors["b/socket.png"]
        assert dataset.fingerprint() == open_dataset(f"folder:{root}").fingerprint()
        assert "b/👩‍🔬 e\u0301.png" in dataset.sample_ids

    def test_two_forms_of_a_class(self, tmp_path: Path) -> None:
        for form in ("NFC", "NFD"):
            folder = tmp_path / form / unicodedata.normalize(form, "café")  # type: ignore[arg-type]
            folder.mkdir(parents=True)
            (folder / unicodedata.normalize(form, "é.png")).write_bytes(encoded(RGB, "PNG"))  # type: ignore[arg-type]
            dataset = open_dataset(f"folder:{tmp_path / form}")
            assert dataset.class_names == ["café"]
            assert len(dataset.select(classes=unicodedata.normalize("NFD", "café"))) == 1
            for name in ("café/é.png", unicodedata.normalize("NFD", "é.png"), "é"):
                assert dataset.locate([name]).tolist() == [0]


class TestLists:
    def test_lines_of_path_and_label(self, tmp_path: Path) -> None:
        in_folder(tmp_path, {"x y.png": encoded(RGB, "PNG"), "z.png": encoded(U8, "PNG")})
        (tmp_path / "l.txt").write_text("a/x y.png golden retriever\na/z.png\tcat, domestic\n")
        dataset = open_dataset(f"images:{tmp_path / 'l.txt'}")
        assert dataset.sample_ids == ["a/x y.png", "a/z.png"]
        assert dataset.labels == ["golden retriever", "cat, domestic"]
        assert dataset.image(0).size == (32, 32)
        assert len(dataset.select(classes="cat, domestic,golden retriever")) == 2
        (tmp_path / "l.csv").write_text("a/x y.png,dog\na/z.png,cat\n")  # no header
        assert open_dataset(f"images:{tmp_path / 'l.csv'}").labels == ["dog", "cat"]
        (tmp_path / "m.csv").write_text("img_path;breed;code\na/x y.png;;007\na/z.png;cat;1e5\n")
        dataset = open_dataset(f"images:{tmp_path / 'm.csv'}?label=breed&id=code")
        assert dataset.sample_ids == ["007", "1e5"]
        assert dataset.labels == ["(none)", "cat"]
        assert open_dataset(dataset.spec).fingerprint() == dataset.fingerprint()
        with pytest.raises(InputError, match="no column `bred`"):
            open_dataset(f"images:{tmp_path / 'm.csv'}?label=bred")


class TestWebDataset:
    def shard(self, path: Path, files: dict[str, bytes]) -> None:
        with tarfile.open(path, "w") as archive:
            for name, content in files.items():
                add(archive, name, content)

    def test_keys_belong_to_their_shard(self, tmp_path: Path) -> None:
        png = encoded(RGB, "PNG")
        self.shard(tmp_path / "s-0.tar", {"0.png": png, "0.cls": b"cat", "1.png": png, "1.cls": b"cat"})
        self.shard(tmp_path / "s-1.tar", {"0.cls": b"dog", "1.cls": b"dog"})
        dataset = open_dataset(f"tar:{tmp_path}/s-*.tar")
        assert (dataset.sample_ids, dataset.labels) == (["0", "1"], ["cat", "cat"])
        self.shard(tmp_path / "s-1.tar", {"1.png": png, "1.cls": b"dog"})
        dataset = open_dataset(f"tar:{tmp_path}/s-*.tar")
        assert (dataset.sample_ids, dataset.labels) == (["s-0/0", "s-0/1", "s-1/1"], ["cat", "cat", "dog"])

    def test_what_is_missing_is_said(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "rdxcli")
        png = encoded(RGB, "PNG")
        files = {"0.png": png, "0.cls": b"cat", "0.txt": b"a cat", "1.png": png, "2.cls": b"dog", "._0.png": b"x"}
        self.shard(tmp_path / "m.tar", files)
        dataset = open_dataset(f"tar:{tmp_path}/m.tar")
        assert dataset.labels == ["cat", "(none)"]
        assert dataset.captions == [["a cat"], []]
        assert "1 of 2 samples have no label" in caplog.text
        assert "1 of 2 samples have no caption" in caplog.text
        assert "left out: 1 hidden, 1 without an image" in caplog.text

    def test_several_images_of_a_sample(self, tmp_path: Path) -> None:
        self.shard(
            tmp_path / "x.tar",
            {"0.jpg": encoded(RGB, "JPEG"), "0.seg.png": encoded(U8, "PNG"), "1.jpg": encoded(RGB, "JPEG")},
        )
        with pytest.raises(InputError, match=r"end in \.jpg, \.seg\.png") as caught:
            open_dataset(f"tar:{tmp_path}/x.tar")
        assert caught.value.hint == f"choose one: `tar:{tmp_path}/x.tar?image=jpg`"
        assert len(open_dataset(f"tar:{tmp_path}/x.tar?image=jpg")) == 2
        assert open_dataset(f"tar:{tmp_path}/x.tar?image=seg.png").image(0).mode == "L"
        with pytest.raises(InputError, match=r"no images that end in `\.webp`"):
            open_dataset(f"tar:{tmp_path}/x.tar?image=webp")


class TestThin:
    @pytest.mark.parametrize("size", [(2, 16000), (16000, 2), (1, 60000)])
    @pytest.mark.parametrize("resize", ["shortest", "longest", "squash"])
    def test_memory_is_bounded(self, size: tuple[int, int], resize: str) -> None:
        import resource

        Preprocessing(resize=resize)(Image.new("RGB", (300, 300)))  # libraries are loaded
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        tensor = Preprocessing(resize=resize)(Image.new("RGB", size, (10, 20, 30)))
        assert tensor.shape == (3, 224, 224)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB

    @pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
    @pytest.mark.parametrize("to", [(256, 256), (300, 260)])
    def test_only_the_part_that_is_kept_is_the_same(self, interpolation: str, to: tuple[int, int]) -> None:
        from torchvision.transforms import InterpolationMode, functional
        from torchvision.transforms.functional import pil_modes_mapping

        how = Preprocessing(interpolation=interpolation, resize_to=to)
        rows, columns = np.mgrid[0:1:640j, 0:1:500j]
        smooth = np.stack([rows, columns, (rows + columns) / 2], axis=2)
        for size in ((300, 400), (640, 111), (37, 500), (224, 225)):
            image = Image.fromarray((255 * smooth[: size[0], : size[1]]).astype(np.uint8))
            assert how._resized(image).size == how._size_of(image)[::-1]
            whole = functional.center_crop(how._resized(image), [224, 224])
            cut = _cut(image, how._size_of(image), (224, 224), pil_modes_mapping[InterpolationMode(interpolation)])
            gap = np.abs(np.asarray(whole, int) - np.asarray(functional.center_crop(cut, [224, 224]), int))
            assert gap.max() <= 2
