"""The page of a comparison: complete, escaped, without a network."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import made_up_comparison
from PIL import Image

from rdxcli.errors import GateError
from rdxcli.methods.difference.predictions import compare_predictions
from rdxcli.records import DifferenceConcept
from rdxcli.report import html
from rdxcli.report.comparison import UNRELIABLE
from rdxcli.report.figures import figure
from rdxcli.report.html import script_json
from rdxcli.report.kinds import summarize
from rdxcli.report.markdown import markdown
from rdxcli.report.page import Images, page
from rdxcli.report.palette import concept_colours
from rdxcli.report.summary import Summary
from rdxcli.report.thumbnails import data_uri
from rdxcli.services.compare.compare import as_junit, check_gates
from rdxcli.services.compare.options import CompareOptions


def _summary(folder: Path | None = None, **changes: object) -> Summary:
    record = made_up_comparison(**{"dataset": None, **changes})  # type: ignore[arg-type]
    if folder is not None:
        np.savez(folder / "arrays.npz", **record.arrays)
    return summarize(record.to_document("outputs/x"), folder)


def _page(folder: Path | None = None, **changes: object) -> str:
    found = _summary(folder, **changes)
    picture = data_uri(Image.fromarray(np.full((8, 8), 200, np.uint8)))
    return page(found, Images(dict.fromkeys(found.shown_ids(), picture)))


def test_complete(tmp_path: Path) -> None:
    text = _page(tmp_path)
    assert text.count("<article") == 4
    assert text.count("<canvas") == 4
    assert len(re.findall(r'<img src="data:image/png', text)) == 4 * 9 + 2  # grids and two matrices
    assert "Difference score 0.600" in text
    assert "describe noise" not in text


def test_the_script_is_small_and_its_sources_are_read_whole() -> None:
    static = Path(html.__file__).parent / "static"
    script = _page().rpartition("<script>")[2].partition("</script>")[0]
    assert len(script) < 30_000
    assert "/**" not in script
    for path in static.glob("*.js"):  # a comment is one line, and no text goes over several
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
        assert all(line.endswith("*/") for line in lines if line.startswith("/**"))
        assert all(line.count("`") % 2 == 0 for line in lines)


def test_nothing_comes_from_elsewhere(tmp_path: Path) -> None:
    text = _page(tmp_path)
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", text)
    assert "default-src 'none'" in text
    assert "@import" not in text
    assert "url(" not in text.partition("<script>")[0]


def test_no_difference_is_said_before_the_groups() -> None:
    text = _page(found=False)
    assert "no difference found" in text
    assert text.count("these groups describe noise") == 2


def test_rows_that_do_not_belong_together_are_not_called_alike() -> None:
    record = made_up_comparison(dataset=None)
    summary = summarize(replace(record, difference={**record.difference, "verdict": "undecided"}).to_document("x"))
    assert all("do not seem to be the same images" in one.text for one in summary.sections[:2])
    assert "No difference was found" not in page(summary, Images({})) + markdown(summary)


def test_joined_concepts_say_so_everywhere() -> None:
    """In the table of the terminal, on the page and in Markdown; without any, nothing is said of parts."""
    record = made_up_comparison(dataset=None)
    first, *others = record.concepts
    joined = replace(record, concepts=[replace(first, parts=3), *others]).to_document("outputs/x")
    summary = summarize(joined)
    [table] = summary.printed()
    place = [column.name for column in table.columns].index("parts")
    assert [row[place] for row in table.rows] == [3, *[1] * len(others)]
    text = markdown(summary)
    for said in (page(summary, Images({})), text):
        assert said.count("joined from 3 parts") == 1
        assert "--param twins=null" in said
    assert "| parts |" in text
    plain = summarize(record.to_document("outputs/x"))
    assert "parts" not in [column.name for column in next(plain.printed()).columns]
    assert "joined from" not in markdown(plain)
    older = {**joined, "concepts": [{k: v for k, v in one.items() if k != "parts"} for one in joined["concepts"]]}
    assert "joined from" not in markdown(summarize(older))


def test_predictions_stand_beside_the_groups() -> None:
    truth = np.arange(60) % 3
    wrong = np.where(np.arange(60) < 9, (truth + 1) % 3, truth)
    groups = {"a1": np.arange(60) < 9}
    text = _page(predictions={"source": "given", **compare_predictions(truth, wrong, truth, groups)})
    assert "Predictions (given)" in text
    assert '<a href="#a1">a1</a>' in text
    assert "right to wrong" in text
    assert text.count("<tr><td>class ") == 3
    assert 'id="predictions"' not in _page()


def test_names_are_escaped() -> None:
    evil = '</script><script>alert("x")</script>'
    text = _page(
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
    assert evil not in text
    assert "&lt;/script&gt;" in text
    assert "</script" not in str(script_json({"x": evil}))


def test_missing_parts_are_left_out() -> None:
    document = made_up_comparison(dataset=None).to_document("outputs/x")
    document["difference"] = {}
    document["concepts"][0].update(stability=None, p_value=None, labels={})
    text = page(summarize(document))
    assert "<canvas" not in text
    assert text.count('class="noimage"') == 36
    assert ">not tested</a>" in text


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
    path = tmp_path / f"figure.{form}"
    figure(_summary(tmp_path), {}, path, form)
    head = path.read_bytes()[:5]
    assert head.startswith(b"%PDF" if form == "pdf" else b"\x89PNG")


def test_every_row_is_in_the_map_and_the_page_is_small(tmp_path: Path) -> None:
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
    np.savez(tmp_path / "arrays.npz", **arrays)
    text = page(summarize(made_up_comparison(dataset=None).to_document(), tmp_path))
    assert len(text) < 1_500_000
    data = json.loads(text.partition('id="map-data">')[2].partition("</script>")[0])

    def unpacked(packed: str) -> bytes:
        return gzip.decompress(base64.b64decode(packed))

    maps = data["layouts"]["main axes"]
    assert len(unpacked(maps["a"])) == len(unpacked(maps["b"])) == 4 * n
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
    text = _page(difference={"score": None, "verdict": verdict})
    assert f'class="verdict {style}"' in text
    assert f'class="chip {style}"' in text
    assert ("Nothing was tested" in text) == (style == "untested")


def test_uncertain_concepts_are_folded(tmp_path: Path) -> None:
    concepts = [DifferenceConcept("a", k, 9, 2.0, [0], ["0"], None, p, {"3": 1.0}) for k, p in ((1, 0.01), (2, 0.28))]
    arrays = {**made_up_comparison(dataset=None).arrays, "labels": np.array(["3", "5"] * 30)}
    text = _page(tmp_path, concepts=concepts, arrays=arrays)
    sure, _, folded = text.partition('<details class="uncertain"')
    assert 'id="a1"' in sure
    assert 'id="a2"' in folded
    assert "1 uncertain: chance gives groups as strong (a2)" in text
    assert "one holds 9 images together, 100% of them 3 (of all images 50%)." in text


def _unreliable() -> dict[str, object]:
    """A comparison whose groups of a the exact method denies, though they are far from chance."""
    concepts = [
        DifferenceConcept(
            *(side, 1, 9, 2.0, [0], ["0"], 0.9, 0.01, {"3": 1.0}),
            descriptions=[{"sentence": f"of {side}", "auc": 0.9, "p_value": 0.01, "images": 4, "others": 9}],
        )
        for side in "ab"
    ]
    numbers = {"difference": 0.5, "inside": 0.9, "rest": 0.4, "low": 0.4, "high": 0.6, "p_corrected": 0.01}
    shared = [
        {"group": f"{side}1", "property": "tint", "kind": "category", "value": "red", "within_labels": None, **numbers}
        for side in "ab"
    ]
    trust = {
        "a": {
            "reliable": False,
            "agreement": 0.05,
            "reason": "concepts of a: not reliable at this size, use --landmarks 9",
        },
        "b": {"reliable": True, "agreement": 0.9, "reason": None},
    }
    return {"concepts": concepts, "reliability": trust, "properties": {"shared": shared}}


def test_groups_that_the_exact_method_denies_are_said_to_be_unreliable_everywhere(tmp_path: Path) -> None:
    reason = "concepts of a: not reliable at this size, use --landmarks 9"
    given = _unreliable()
    summary = _summary(**given)
    assert summary.said[0] == f"{reason}."
    assert [item.status for section in summary.sections[:2] for item in section.items] == [UNRELIABLE, ""]
    said = "\n".join(summary.lines())
    assert "b1 shows more than the rest" in said
    assert "a1 shows more than the rest" not in said
    assert "The images of b1 are" in said
    assert "The images of a1 are" not in said
    text = _page(tmp_path, **given)
    sure, _, folded = text.partition('<details class="uncertain"')
    assert 'id="b1"' in text
    assert 'id="a1"' not in sure
    assert 'id="a1"' in folded
    assert "1 uncertain: not reliable at this size, the exact method finds others (a1)" in text
    assert "chance gives groups as strong" not in text
    written = markdown(summary)
    assert written.index(reason) < written.index("Difference score")
    document = made_up_comparison(dataset=None, **given).to_document("x")
    outcome = SimpleNamespace(document=document, lines=())
    with pytest.raises(GateError, match=r"the verdict is: difference found .*concepts of a: not reliable"):
        check_gates(outcome, CompareOptions("a", "b", fail_on=("verdict",)))
    assert reason in as_junit(outcome, CompareOptions("a", "b"))


def test_what_the_exact_method_finds_too_is_said_beside_groups_that_it_denies(tmp_path: Path) -> None:
    given = _unreliable()
    given["concepts"].append(replace(given["concepts"][0], index=2))
    found = {"overlap": 0.9, "by_chance": 0.1}
    given["reliability"]["a"]["concepts"] = {"1": {"reliable": True, **found}, "2": {"reliable": False, **found}}
    summary = _summary(**given)
    assert [item.status for section in summary.sections[:2] for item in section.items] == ["", UNRELIABLE, ""]
    said = "\n".join(summary.lines())
    assert "a1 shows more than the rest" in said
    assert "The images of a1 are" in said
    assert "a2 shows more" not in said
    sure = _page(tmp_path, **given).partition('<details class="uncertain"')[0]
    assert 'id="a1"' in sure
    assert 'id="a2"' not in sure


def test_few_scores_are_shown_and_the_others_folded() -> None:
    scores = {"cka": 0.7, "mutual_knn": 0.4, "rsa": 0.5, **{f"bsr_local_{i}": 0.1 for i in range(30)}}
    head, _, folded = _page(scores=scores).partition("30 more scores")
    assert [name in head for name in ("cka", "mutual_knn", "rsa", "bsr_local_3")] == [True, True, True, False]
    assert "bsr_local_29" in folded
