"""Every field of every summary stands in the page and in the Markdown; every format is made from it."""

from __future__ import annotations

import base64
import csv
import dataclasses
import gzip
import html
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import made_up_comparison
from report_documents import MAKERS

from rdxcli.cli.console import Sink
from rdxcli.progress import human_count
from rdxcli.records import Verdict
from rdxcli.report import exports
from rdxcli.report.figures import figure
from rdxcli.report.kinds import BUILDERS, summarize
from rdxcli.report.markdown import markdown, plain, prose, text
from rdxcli.report.page import page, unit_square
from rdxcli.report.several import several
from rdxcli.report.similarities import _table as similarities_table
from rdxcli.report.summary import Bar, Chart, Column, Drawing, Item, Maps, Picture, Section, Summary, Table, written
from rdxcli.report.text import clean


@dataclasses.dataclass
class Shown:
    """What the terminal needs of an outcome."""

    summary: Summary
    lines: tuple[str, ...] = ()

    @property
    def artifact(self) -> Any:
        return self

    path = Path("outputs/x")


EVIL = '<img src=x onerror="alert(1)"> | \u202e [a](http://b) @you `x`\n\x1b[31m'


@pytest.fixture(scope="module")
def summaries(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Summary]:
    made = {}
    for kind, make in MAKERS.items():
        folder = tmp_path_factory.mktemp(kind)
        made[kind] = summarize(make(folder), folder, "rdx something --seed 3")
    return made


def test_every_kind_has_one() -> None:
    assert set(MAKERS) == set(BUILDERS)


def _said(value: Any, column: Column | None = None) -> Iterator[str]:
    """Everything that a reader must find, as it is written: text and numbers, in tables with the unit of the column."""
    if isinstance(value, Chart):
        yield from (value.title, value.x, value.y, *value.series)
    elif isinstance(value, Table):
        yield from (value.title, value.text, *(part for one in value.columns for part in (one.name, one.meaning)))
        for row in value.rows:
            yield from (written(cell, one) for cell, one in zip(row, value.columns, strict=True))
    elif isinstance(value, Drawing):
        yield from _said(value.table)
    elif isinstance(value, Section):
        yield from (value.title, value.text)
        yield from _said([value.tables, value.charts, value.drawings])
        yield from _said(value.table if value.items else Table("", [], []))
        for item in value.items:
            yield from _said(dataclasses.replace(item, values=[], group=None))
    elif isinstance(value, Picture):
        yield from (value.sample_id, value.caption)
    elif isinstance(value, Bar):
        yield from (value.label, value.text)
    elif isinstance(value, Column):
        yield from (value.name, value.meaning)
    elif isinstance(value, Verdict):
        yield str(value)
    elif isinstance(value, Maps):
        yield human_count(len(value.ids), "image")
        yield from (*value.placed, *value.names.values())
    elif dataclasses.is_dataclass(value):
        skipped = {"kind", "method", "markup", "most", "ends", "grid", "scale", "left_out", "key", "dataset"}
        for part in dataclasses.fields(value):
            if part.name not in skipped:
                yield from _said(getattr(value, part.name))
    elif isinstance(value, str):
        yield value
    elif isinstance(value, float | int) and not isinstance(value, bool):
        yield written(value)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _said(one)


def _packed(source: str) -> list[Any]:
    found = re.findall(r'data-(?:packed|cards)="([^"]+)"', source)
    return [json.loads(gzip.decompress(base64.b64decode(one))) for one in found]


def _unpacked(source: str) -> str:
    """The text of a page with what it packs."""
    cells = "\n".join(map(str, _packed(source)))
    whole = source + cells.replace("\\'", "'").replace("\\n", " ")
    return html.unescape(whole.replace("<code>", "`").replace("</code>", "`"))


@pytest.mark.parametrize("kind", MAKERS)
def test_every_field_is_in_the_page_and_in_the_markdown(kind: str, summaries: Mapping[str, Summary]) -> None:
    summary = summaries[kind]
    shown, commented = _unpacked(page(summary)), markdown(summary)
    wanted = {one for one in _said(summary) if one}
    assert len(wanted) > 20
    assert [one for one in wanted if clean(one, 4000) not in shown] == []
    assert [one for one in wanted if not any(way(one) in commented for way in (text, plain, prose))] == []


def test_every_row_of_the_maps_is_in_the_page(summaries: Mapping[str, Summary]) -> None:
    """What the page packs: places, groups, labels, ids and neighbours of all rows, in every layout."""
    maps = summaries["comparison"].maps
    assert maps is not None
    turned = {side: points[:, ::-1] for side, points in maps.points.items()}
    maps = dataclasses.replace(maps, layouts={"UMAP": turned})
    source = page(dataclasses.replace(summaries["comparison"], maps=maps))
    held = json.loads(source.partition('id="map-data">')[2].partition("</script>")[0])

    def raw(packed: str) -> bytes:
        return gzip.decompress(base64.b64decode(packed))

    def numbers(packed: str) -> np.ndarray:
        return np.frombuffer(raw(packed), "<u2")

    assert raw(held["ids"]).decode().split("\n") == [str(one) for one in maps.ids]
    assert maps.labels is not None
    assert [held["names"][code] for code in numbers(held["labels"])] == maps.labels.tolist()
    for side, groups in maps.groups.items():
        assert numbers(held["groups"][side]).tolist() == groups.tolist()
    assert set(held["layouts"]) == set(maps.placed) == {"main axes", "UMAP"}
    for name, sides in maps.placed.items():
        for side, points in sides.items():
            shown = numbers(held["layouts"][name][side]).reshape(-1, 2) / 65535
            np.testing.assert_allclose(shown, unit_square(points), atol=1e-5)
    assert maps.shown is not None
    assert held["shown"] == maps.shown.tolist()
    assert held["neighbours"] == {side: rows.tolist() for side, rows in maps.neighbours.items()}
    assert held["sides"] == dict(maps.names)


@pytest.mark.parametrize("kind", MAKERS)
def test_every_format_is_made(kind: str, summaries: Mapping[str, Summary], tmp_path: Path) -> None:
    summary = summaries[kind]
    document = json.loads(exports.as_json(summary))
    assert document["title"] == summary.title
    tables = exports.tables(summary)
    assert tables
    for name, written_table in tables.items():
        assert re.fullmatch(r"[\w-]+", name)
        rows = list(csv.reader(io.StringIO(written_table)))
        assert len({len(row) for row in rows}) == 1
        assert len(set(rows[0])) == len(rows[0]), rows[0]
    figure(summary, {}, tmp_path / "x.svg", "svg", 3.3)
    drawn = (tmp_path / "x.svg").read_text("utf-8")
    assert "<text" in drawn
    assert clean(summary.title[:1].upper() + summary.title[1:], 30).removesuffix("...") in drawn.replace("&amp;", "&")
    printed = list(summary.printed())
    assert printed
    assert all(len(row) == len(table.columns) for table in printed for row in table.rows)


def test_one_row_a_sample(summaries: Mapping[str, Summary], tmp_path: Path) -> None:
    summary = summaries["comparison"]
    assert summary.maps is not None
    vectors = {"vector_a": np.arange(120, dtype=np.float64).reshape(60, 2)}
    exports.samples(summary, tmp_path / "x.parquet", lambda ids: [f"/photos/{one}" for one in ids], vectors)
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.num_rows == 60
    assert table["id"].to_pylist() == list(map(str, summary.maps.ids))
    assert table["image"][3].as_py() == "/photos/3"
    assert table["concept_a"].to_pylist() == ["a1"] * 9 + ["a2"] * 9 + [None] * 42
    assert table["neighbours_b"][0].as_py() == ["2", "3", "4"]
    assert table["vector_a"][7].as_py() == [14.0, 15.0]
    np.testing.assert_allclose(np.array(table["x_b"]), summary.maps.points["b"][:, 0])
    for field in table.schema:
        assert field.metadata[b"description"] == exports.SAMPLE_COLUMNS[field.name].encode()
    exports.samples(summary, tmp_path / "z.parquet", lambda ids: ids, draw=lambda ids: [b"jpeg", *[None] * 59])
    assert pq.read_table(tmp_path / "z.parquet")["picture"].to_pylist()[:2] == [b"jpeg", None]
    # of a kind without maps: which things show a sample
    exports.samples(summaries["regions"], tmp_path / "y.parquet", lambda ids: [None] * len(ids))
    shown = {row["id"]: row["member_of"] for row in pq.read_table(tmp_path / "y.parquet").to_pylist()}
    assert set(shown["s01"]) == {"target s00", "target s02", "target s03"}


def test_what_went_wrong_comes_first(summaries: Mapping[str, Summary]) -> None:
    regions = summaries["regions"].sections[0]
    assert [column.name for column in regions.columns][:3] == ["label", "taken for", "lift"]
    assert "3.5 times as many as in all images" in regions.items[0].text
    assert [bar.chance for bar in regions.items[0].bars] == [0.1, None]  # known of the commonest label only
    document = MAKERS["regions"](Path())
    document["regions"][1]["cause"]["lift"] = 9.0
    document["regions"].insert(0, {**document["regions"][0], "cause": None, "sample_predictions": ["cat", "dog"]})
    found = [item.values[2] for item in summarize(document).sections[0].items]
    assert found == [9.0, 3.5, None, 3.5]  # the most striking, then the right prediction, then the unbounded one


def test_counts_have_their_nouns() -> None:
    counted = [human_count(count, noun) for count, noun in ((1, "image"), (0, "epoch"), (2000, "class"))]
    assert counted == ["1 image", "0 epochs", "2,000 classes"]


def test_commands_in_notes_are_code() -> None:
    summary = Summary("x", "m", "k", "t", "f", [], notes=["see `rdx <list>`", "a ` alone", "`a|b` @you"])
    shown = page(summary)
    assert "see <code>rdx &lt;list&gt;</code>" in shown
    assert "<li>a ` alone</li>" in shown
    commented = markdown(summary)
    assert "> see `rdx <list>`" in commented
    assert "a \\` alone" in commented


def test_foreign_text_stays_text() -> None:
    item = Item(EVIL, EVIL, [EVIL, 1.0], EVIL, EVIL, True, [Picture(EVIL, EVIL)], [Bar(EVIL, 1.0, EVIL)], beside=[EVIL])
    columns = [Column(EVIL, EVIL), Column("n")]
    chart = Chart(EVIL, "curves", {EVIL: [(0, 1), (1, 2)]}, EVIL, EVIL)
    for count in (1, 20):
        items = [dataclasses.replace(item, key=f"{EVIL}{i}") for i in range(count)]
        section = Section(EVIL, "one", items, EVIL, columns, EVIL, [Table(EVIL, columns, [[EVIL, 2]])], [chart])
        summary = Summary("x", "m", EVIL, EVIL, EVIL, [section], said=[EVIL], notes=[EVIL], provenance=[(EVIL, EVIL)])
        shown, commented = page(summary), markdown(summary)
        cards = "".join(card for part in _packed(shown) if isinstance(part, list) for card in part)
        assert "<img src=x" not in shown + cards
        assert cards.count("<article") == (20 if count == 20 else 0)
        assert not set(shown + commented) & set("\u202e\x1b")
        assert "onerror=" not in re.sub(r"onerror=&#34;|onerror=\\?&quot;", "", shown)
        read = re.sub("<summary>.*?</summary>", "", commented)  # in which no Markdown is read
        assert not any(part in commented for part in ("<img", "http://", " @you"))
        assert "[a](" not in read
        assert all("\\`x\\`" in line for line in read.splitlines() if line.startswith("|") and "@" in line)
    assert exports.written_csv(Table("", [Column("x")], [["=HYPERLINK(1)"], ["-1+2"], [None], [-1.5]])) == (
        "x\n'=HYPERLINK(1)\n'-1+2\n\"\"\n-1.5\n"
    )


def test_names_from_the_right_leave_numbers_where_they_are() -> None:
    text = "60% of them \u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd, 40% <b>"
    shown = page(Summary("x", "m", "k", "t", "f", [Section("Units", "units")], said=[text]))
    assert "60% of them <bdi>\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd</bdi>, 40% &lt;b&gt;" in shown
    assert "There is none." in shown


def test_what_is_not_a_number_is_missing() -> None:
    nan = float("nan")
    chart = Chart("one", "curves", {"a": [(0.0, nan)], "b": [(0.0, 1.0), (nan, 2.0)]}, "x")
    empty = Chart("two", "histogram", {"a": [nan]}, "x")
    table = Table("", [Column("x"), Column("y", unit="share")], [[nan, nan], [1.0, (nan, 0.5)]])
    shown = page(Summary("x", "m", "k", "t", "f", [Section("S", "s", tables=[table], charts=[chart, empty])]))
    assert "nan" not in shown.partition("<main")[2].partition("<script>")[0].lower()
    assert shown.count("<svg") == 1
    assert chart.series == {"a": [], "b": [(0.0, 1.0)]}


def test_long_markdown_is_cut_and_counted() -> None:
    items = [Item(i, f"unit {i}", [0.5], "said " * 30) for i in range(1000)]
    found = markdown(Summary("x", "m", "k", "t", "f", [Section("Units", "units", items, "unit", [Column("score")])]))
    assert len(found) < 62_000
    left_out = int(re.search(r"Left out here: (\d+) parts", found).group(1))  # type: ignore[union-attr]
    assert found.count("<summary>unit") + left_out >= 1000


def test_a_make_up_of_single_images_is_left_out() -> None:
    document = made_up_comparison(dataset=None).to_document()
    document["concepts"][0]["labels"] = {"owl": 1 / 9, "8 others": 8 / 9}
    first, second = summarize(document).sections[0].items
    assert (first.text, first.bars) == ("one holds 9 images together, each of a label of its own.", [])
    assert len(second.bars) == 2


def test_units_that_are_not_interpretable_say_so_and_come_last(summaries: Mapping[str, Summary]) -> None:
    items = summaries["explanations"].sections[0].items
    assert [item.key for item in items if item.doubtful] == [11, 10]
    assert items[-2].text.startswith("not interpretable")
    assert items[-1].status == "not better than chance"
    assert "0 of 1 interpretable" in summaries["explanations"].facts


def test_directions_show_their_state_and_what_all_their_images_are(summaries: Mapping[str, Summary]) -> None:
    first, second = summaries["directions"].sections[0].items
    assert first.text.startswith("All 12 images: 60% cat (of all 30%), 40% dog")
    assert second.doubtful
    assert second.status.startswith("crowded")


def test_bars_have_one_scale_and_one_zero() -> None:
    bars = [[Bar("a", 0.7, "0.70")], [Bar("b", 0.81, "0.81"), Bar("c", -1.62, "-", 0.5)]]
    section = Section("Things", "things", [Item(i, str(i), bars=own) for i, own in enumerate(bars)])
    shown = page(Summary("x", "m", "k", "t", "f", [section]))
    sizes = [float(part.partition("%")[0]) for part in shown.split('style="--size: ')[1:]]
    assert sizes == [43.2, 50.0, 100.0]
    assert shown.count("bars diverging") == 2


def test_names_lead_into_their_own_artifact() -> None:
    table = Table("What became of it", (Column("concept"), Column("n")), [["a1", 3]])
    section = Section("Concepts", "concepts", [Item("a1", "a1")], "concept", tables=[table])
    one = Summary("comparison", "rdx", "", "", "", [section])
    links = re.findall(r'<a href="#([^"]+)">a1</a>', page(several({"old": one, "new": one})))
    cards = re.findall(r'<article class="concept" id="([^"]+)"', page(several({"old": one, "new": one})))
    assert links == [card for card in cards for _ in range(2)]  # the table, and the cards as a table
    assert len(set(cards)) == 2


def test_groups_are_matched_by_all_their_members(summaries: Mapping[str, Summary]) -> None:
    found = several({"one": summaries["comparison"], "two": summaries["comparison"], "three": summaries["regions"]})
    tables = {table.title: table for section in found.sections for table in section.tables}
    row = next(row for row in tables["one and two"].rows if row[0] == "a1")
    assert row == ["a1", "a1", 1.0, pytest.approx(1.35 / 16.65), 9, 9, 9, pytest.approx(2.7e-10, rel=0.01)]
    assert "one and three" not in tables  # they share no image
    shown = several({"three": summaries["regions"], "four": summaries["regions"]}).sections[1].tables[0]
    assert [column.name for column in shown.columns] == [  # of which only the shown images are known: nothing by chance
        *("in the first", "in the second", "overlap", "shared", "first", "second")
    ]
    assert page(found).count("<article") > 6


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_terminal_reads_at_every_width(
    width: int, summaries: Mapping[str, Summary], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for kind, summary in summaries.items():
        sink = Sink()
        sink.stderr.soft_wrap = False
        sink.summary(Shown(summary))
        said = capsys.readouterr().err
        assert max(map(len, said.splitlines())) <= width, kind
        whole = " ".join(said.split())
        for table in summary.printed():
            numbers = [row[i] for row in table.rows for i, number in enumerate(table.numeric) if number]
            shown = [f"{one:.3g}" if abs(one) < 0.1 else f"{one:.2f}" for one in numbers if isinstance(one, float)]
            shares = {i for i, column in enumerate(table.columns) if column.unit == "share"}
            if not shares:
                assert [one for one in shown if one not in whole] == [], kind


def test_a_step_shows_the_null_of_its_verdict() -> None:
    document = MAKERS["similarities"](Path())
    document["parameters"] = {"timeline": True, "layers": None}
    (pair,) = document["pairs"]
    own = document["measures"]["score"]["read_outs"]["rows"][0]["mean"]
    for null_mean, shown in ((own + 0.1, own + 0.1), (None, own)):
        pair["difference"]["null_mean"] = null_mean
        table = similarities_table(document)[1]
        (place,) = [i for i, column in enumerate(table.columns) if column.name == "two read-outs"]
        assert table.rows[0][place] == shown


def test_labels_of_a_group_stand_beside_those_of_all_images(tmp_path: Path) -> None:
    """Also on the cards of layers and models: 80 % cats mean nothing without the share of cats in all."""
    document = MAKERS["similarities"](tmp_path)
    np.savez(tmp_path / "arrays.npz", labels=np.array(["cat", "cat", "dog", "cat"]))
    (section,) = [one for one in summarize(document, tmp_path).sections if one.key == "pair-0"]
    assert [(bar.label, bar.chance) for bar in section.items[0].bars] == [("cat", 0.75)]


def test_of_long_paths_the_end_is_shown() -> None:
    path = "/a/long/way/to/the/photographs/of/birds/n0144_tench.jpg"
    section = Section("Images", "images", [Item(1, "1", pictures=[Picture(path)])])
    shown = page(Summary("x", "m", "k", "t", "f", [section]))
    assert f'title="{path}">\u2026birds/n0144_tench.jpg</figcaption>' in shown
    assert ">\u2026tographs/of/birds/n0144_tench.jpg</div>" in shown
