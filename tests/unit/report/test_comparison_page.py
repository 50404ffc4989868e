"""The page of a comparison: complete, escaped, without a network."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import browse, browser, made_up_comparison
from PIL import Image

from rdxcli.methods.difference.predictions import compare_predictions
from rdxcli.records import DifferenceConcept
from rdxcli.report import comparison, figures
from rdxcli.report.html import script_json
from rdxcli.report.palette import concept_colours
from rdxcli.report.thumbnails import data_uri


def _page(**changes: object) -> str:
    record = made_up_comparison(dataset=None, **changes)  # type: ignore[arg-type]
    document = record.to_document("outputs/x")
    picture = data_uri(Image.fromarray(np.full((8, 8), 200, np.uint8)))
    return comparison.page(document, record.arrays, dict.fromkeys(comparison.shown_ids(document), picture))


def test_complete() -> None:
    page = _page()
    assert page.count("<article") == 4
    assert page.count("<canvas") == 4
    assert len(re.findall(r'<img src="data:image/png', page)) == 4 * 9 + 2  # grids and two matrices
    assert "Difference score 0.600" in page
    assert "describe noise" not in page


def test_nothing_comes_from_elsewhere() -> None:
    page = _page()
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", page)
    assert "default-src 'none'" in page
    assert "@import" not in page
    assert "url(" not in page


def test_no_difference_is_said_before_the_groups() -> None:
    page = _page(found=False)
    assert "no difference found" in page
    assert page.count("these groups describe noise") == 2


def test_predictions_stand_beside_the_groups() -> None:
    truth = np.arange(60) % 3
    wrong = np.where(np.arange(60) < 9, (truth + 1) % 3, truth)
    groups = {"a1": np.arange(60) < 9}
    page = _page(predictions={"source": "given", **compare_predictions(truth, wrong, truth, groups)})
    assert "Predictions (given)" in page
    assert '<a href="#a1">concept a1</a>' in page
    assert "right to wrong" in page
    assert page.count("<tr><td>class ") == 3
    assert 'id="predictions"' not in _page()


def test_names_are_escaped() -> None:
    evil = '</script><script>alert("x")</script>'
    page = _page(
        a={"name": evil, "layer": evil, "n": 60, "d": 2},
        notes=[evil],
        concepts=[
            DifferenceConcept(
                "a",
                1,
                2,
                1.0,
                [0],
                [evil],
                None,
                None,
                {evil: 1.0},
                [{"word": evil, "kind": "word", "margin": 0.1, "effect": 1.0, "p_value": 0.01, "clear": True}],
            )
        ],
    )
    assert evil not in page
    assert "&lt;/script&gt;" in page
    assert "</script" not in str(script_json({"x": evil}))


def test_missing_parts_are_left_out() -> None:
    record = made_up_comparison(dataset=None)
    document = record.to_document("outputs/x")
    document["difference"] = {}
    document["concepts"][0].update(stability=None, p_value=None, labels={})
    arrays = {name: value for name, value in record.arrays.items() if name.startswith("labels")}
    page = comparison.page(document, arrays, {})
    assert "<canvas" not in page
    assert page.count('class="noimage"') == 36
    assert "no test was made" in page


def test_thumbnails_are_small_and_faithful() -> None:
    digit = np.arange(64, dtype=np.uint8).reshape(8, 8)
    kept = Image.open(io.BytesIO(base64.b64decode(data_uri(Image.fromarray(digit)).partition(",")[2])))
    assert np.array_equal(np.asarray(kept)[::16, ::16], digit)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 600, 3), dtype=np.uint8))
    uri = data_uri(photo)
    assert uri.startswith("data:image/jpeg")
    assert Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size == (85, 128)
    for mode in ("RGBA", "P", "1", "CMYK", "LA", "I;16"):
        assert data_uri(Image.new(mode, (10, 10))).startswith("data:image/")


def test_colours_differ() -> None:
    assert len(set(concept_colours(30))) == 30


@pytest.mark.parametrize("form", ["png", "pdf"])
def test_still_pictures(tmp_path: Path, form: str) -> None:
    record = made_up_comparison(dataset=None)
    document = record.to_document("outputs/x")
    path = tmp_path / f"figure.{form}"
    figures.comparison_figure(document, record.arrays, {}, path, form)
    head = path.read_bytes()[:5]
    assert head.startswith(b"%PDF" if form == "pdf" else b"\x89PNG")


def test_every_row_is_in_the_map_and_the_page_is_small() -> None:
    n = 50_000
    rng = np.random.default_rng(0)
    labels = np.zeros(n, np.int32)
    labels[-22:] = 1
    arrays = {
        **{f"map_{side}": rng.normal(size=(n, 2)) for side in "ab"},
        **{f"labels_{side}": labels for side in "ab"},
        "sample_ids": np.array([f"train/{i % 7}/{i:06d}.jpg" for i in range(n)]),
        "labels": np.array([f"class {i % 7}" for i in range(n)]),
    }
    page = comparison.page(made_up_comparison(dataset=None).to_document(), arrays, {})
    assert len(page) < 1_500_000
    data = json.loads(page.partition('id="map-data">')[2].partition("</script>")[0])

    def unpacked(text: str) -> bytes:
        return gzip.decompress(base64.b64decode(text))

    assert len(unpacked(data["maps"]["a"])) == len(unpacked(data["maps"]["b"])) == 4 * n
    assert (np.frombuffer(unpacked(data["groups"]["a"]), "<u2") == labels).all()
    assert unpacked(data["ids"]).decode().split("\n") == arrays["sample_ids"].tolist()


@pytest.mark.parametrize(
    ("verdict", "style"),
    [
        ("difference found", "found"),
        ("no difference found", "none"),
        ("undecided", "undecided"),
        ("not tested", "untested"),
    ],
)
def test_each_verdict_has_its_own_style(verdict: str, style: str) -> None:
    page = _page(difference={"score": None, "verdict": verdict})
    assert f'class="verdict {style}"' in page
    assert ("Nothing was tested" in page) == (style == "untested")


def test_uncertain_concepts_are_folded() -> None:
    concepts = [DifferenceConcept("a", k, 9, 2.0, [0], ["0"], None, p, {"3": 1.0}) for k, p in ((1, 0.01), (2, 0.28))]
    page = _page(
        concepts=concepts, arrays={**made_up_comparison(dataset=None).arrays, "labels": np.array(["3", "5"] * 30)}
    )
    sure, _, folded = page.partition('<details class="uncertain"')
    assert 'id="a1"' in sure
    assert 'id="a2"' in folded
    assert "1 uncertain: chance gives as strong groups (a2 p = 0.28)" in page
    assert "one holds 9 images together, 100% of them 3 (of all images 50%)." in page


def test_few_scores_are_shown_and_the_others_folded() -> None:
    scores = {"cka": 0.7, "mutual_knn": 0.4, "rsa": 0.5, **{f"bsr_local_{i}": 0.1 for i in range(30)}}
    head, _, folded = _page(scores=scores).partition("30 more scores")
    assert [name in head for name in ("cka", "mutual_knn", "rsa", "bsr_local_3")] == [True, True, True, False]
    assert "bsr_local_29" in folded


@pytest.mark.browser
def test_a_selection_in_one_map_shows_in_the_other(tmp_path: Path) -> None:
    browsers = pytest.importorskip("playwright.sync_api")
    page = tmp_path / "page.html"
    name = "mobilenet_v2_inat_birds965_" * 3  # long names do not widen a narrow page
    page.write_text(_page(b={"name": name, "layer": "features", "n": 60, "d": 32}), "utf-8")
    with browsers.sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        for width, scheme in ((1400, "light"), (390, "dark")):
            tab = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            said: list[str] = []
            requests: list[str] = []
            tab.on("console", lambda message, said=said: said.append(message.text))
            tab.on("pageerror", lambda error, said=said: said.append(str(error)))
            tab.on("request", lambda one, requests=requests: requests.append(one.url))
            tab.goto(page.as_uri())
            tab.wait_for_selector("html[data-maps-drawn='4']")
            state = tab.evaluate(
                "() => [document.documentElement.scrollWidth - innerWidth, document.querySelectorAll('*').length]"
            )
            assert state[0] <= 0
            assert state[1] < 15_000
            other = "() => document.querySelectorAll('canvas')[1].toDataURL()"
            before = tab.evaluate(other)
            box = tab.locator("canvas").first.bounding_box()
            tab.locator("canvas").first.scroll_into_view_if_needed()
            box = tab.locator("canvas").first.bounding_box()
            tab.mouse.move(box["x"] + 1, box["y"] + 1)
            tab.mouse.down()
            tab.mouse.move(box["x"] + box["width"] - 1, box["y"] + box["height"] - 1, steps=3)
            tab.mouse.up()
            assert tab.evaluate("() => document.documentElement.dataset.selected") == "60"
            tab.mouse.down()
            tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=3)
            tab.mouse.up()
            assert 0 < int(tab.evaluate("() => document.documentElement.dataset.selected")) < 60
            assert tab.evaluate(other) != before
            tab.keyboard.press("Escape")
            assert tab.locator("#selection").is_hidden()
            tab.locator("button.choose").first.click()
            assert "9 of 60 images" in tab.locator("#selection").inner_text()
            assert not said
            assert [url for url in requests if not url.startswith("data:")] == [page.as_uri()]
        chromium.close()


@pytest.mark.browser
def test_a_browser_shows_the_images_and_the_maps(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(_page(), "utf-8")
    dom, shot = browse(page, tmp_path)
    assert 'data-images="38/38"' in dom
    assert 'data-maps-drawn="4"' in dom
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    assert pixels.shape[:2] == (2400, 1240)
    # the grey of the pictures and the colour of the first concept are on the sheet
    assert (np.abs(pixels.astype(int) - 200).max(axis=2) == 0).mean() > 0.02
    assert (pixels == [0, 114, 178]).all(axis=2).sum() > 200
