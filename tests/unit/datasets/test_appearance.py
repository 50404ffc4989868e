"""What is measured of pictures, and tables about them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from rdxcli.datasets.appearance import PROPERTIES, look, measure
from rdxcli.datasets.base import Dataset
from rdxcli.datasets.images import FileImages
from rdxcli.datasets.metadata import read_metadata
from rdxcli.errors import InputError


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    rng = np.random.default_rng(0)
    rough = rng.integers(40, 200, (9, 12, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(rough).resize((120, 90), Image.Resampling.BICUBIC), dtype=np.int16)
    return Image.fromarray(np.clip(smooth + rng.integers(-15, 16, smooth.shape), 0, 255).astype(np.uint8))


def _seen(image: Image.Image) -> dict[str, float]:
    return dict(zip([name for name in PROPERTIES if name != "near-duplicates"], look(image)[0], strict=True))


def test_each_change_moves_its_own_property(picture: Image.Image) -> None:
    before = _seen(picture)
    values = np.asarray(picture, dtype=np.float64)
    framed = Image.new("RGB", (120, 90), (10, 20, 200))
    framed.paste(picture.resize((100, 70)), (10, 10))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=40)
    changes: dict[str, tuple[Image.Image, int]] = {
        "brightness": (Image.fromarray((values * 0.6 + 90).astype(np.uint8)), 1),
        "contrast": (Image.fromarray((values * 0.5 + 60).astype(np.uint8)), -1),
        "colourfulness": (picture.convert("L"), -1),
        "sharpness": (picture.filter(ImageFilter.GaussianBlur(2)), -1),
        "megapixels": (picture.resize((240, 180)), 1),
        "aspect": (picture.crop((0, 0, 60, 90)), -1),
        "border": (framed, 1),
    }
    for name, (changed, sign) in changes.items():
        assert np.sign(_seen(changed)[name] - before[name]) == sign, name
    assert _seen(picture.convert("L"))["colourfulness"] == 0.0
    assert _seen(framed)["border"] == pytest.approx(1 - 100 * 70 / (120 * 90), abs=0.05)
    assert _seen(Image.open(stream))["JPEG quality"] == 40
    assert np.isnan(before["JPEG quality"])


def test_all_modes_flat_tiny_and_broken(picture: Image.Image, tmp_path: Path) -> None:
    paths = []
    for name, image in {
        "rgb.png": picture,
        "twin.jpg": picture,
        "palette.png": picture.convert("P"),
        "bits.png": picture.convert("1"),
        "alpha.png": picture.convert("LA"),
        "flat.png": Image.new("L", (5, 4), 9),
        "dot.png": Image.new("RGB", (1, 1)),
    }.items():
        image.save(tmp_path / name)
        paths.append(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    paths += [tmp_path / "broken.png", tmp_path / "gone.png"]
    dataset = Dataset("d", "d", FileImages(paths), [path.name for path in paths])
    found = measure(dataset, [*range(len(paths)), -1])
    assert set(found) == set(PROPERTIES)
    assert np.isfinite(found["brightness"][:7]).all()
    assert all(np.isnan(values[7:]).all() for values in found.values())
    assert found["near-duplicates"][0] >= 1
    assert found["near-duplicates"][5] == 0  # flat pictures are no copies of each other
    assert found["border"][5] == 1.0


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "about.csv"
    rows = ["image,age,site,taken,code,note"]
    rows += [f"p{i},{30 + i}.5,{'AB'[i % 2]},2024-0{1 + i % 3}-15,{i % 3}," for i in range(20)]
    path.write_text("\n".join([*rows, ""]))
    return path


def test_columns_are_what_they_are_and_rows_are_found_by_id(table: Path) -> None:
    ids = [f"scans/p{i}.png" for i in (3, 0, 19, 99)]
    found = read_metadata(table, ids, 4)
    np.testing.assert_array_equal(found.columns["age"], [33.5, 30.5, 49.5, np.nan])
    assert found.columns["site"].tolist() == ["B", "A", "B", ""]
    assert found.columns["taken"].astype("datetime64[D]").astype(str).tolist() == [
        *("2024-01-15", "2024-01-15", "2024-02-15"),
        "NaT",
    ]
    assert found.columns["code"].tolist() == ["0", "0", "1", ""]
    assert "image" not in found.columns
    assert "1 of 4 samples" in found.notes[0]


def test_tables_that_do_not_fit(table: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ids look like `p0` and `x0`"):
        read_metadata(table, ["x0", "x1"], 2)
    with pytest.raises(InputError, match="20 rows for 3 samples"):
        read_metadata(table, None, 3)
    with pytest.raises(InputError, match="no column `who`"):
        read_metadata(table, ["p1"], 1, id_column="who")
    assert "in the order" in read_metadata(table, None, 20).notes[0]


def test_several_rows_of_one_picture_are_said(tmp_path):
    table = tmp_path / "m.csv"
    table.write_text("id,place\na,north\nb,south\na,east\nz,west\nz,north\n")
    found = read_metadata(table, ["a", "b"], 2)
    assert found.columns["place"].tolist() == ["north", "south"]
    assert found.notes == ["m.csv has several rows of 1 sample, for example of `a`: the first row is taken"]
