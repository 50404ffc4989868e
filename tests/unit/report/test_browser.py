"""Every kind of page in Chromium: accessible, narrow, printed, light and dark; brushing, search, sort, the address."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import browse, browser, made_up_comparison
from PIL import Image
from report_documents import MAKERS

from rdxcli.report.html import render
from rdxcli.report.kinds import summarize
from rdxcli.report.page import Images, page, sprites
from rdxcli.report.summary import Chart, Column, Item, Picture, Section, Summary, Table
from rdxcli.report.thumbnails import data_uri, square
from rdxcli.services.visualize import read_images

pytestmark = pytest.mark.browser

AXE = Path(pytest.importorskip("axe_playwright_python").__file__).with_name("axe.min.js")
LONGEST_NAME = "mobilenet_v2_inat_birds965_" * 4


class Tabs:
    """Tabs of one browser that show one page after the other: a new tab costs a process and its second."""

    def __init__(self, engine: Any) -> None:
        self.context, self.all, self.used = engine.new_context(), [], 0
        self.heard: dict[Any, tuple[list[str], str]] = {}

    def free(self, own: str) -> tuple[Any, list[str]]:
        """A tab, and the list of what it says and asks for besides ``own`` and what is in the page."""
        if self.used == len(self.all):
            tab = self.context.new_page()
            tab.on("console", lambda message: self.heard[tab][0].append(message.text))
            tab.on("pageerror", lambda error: self.heard[tab][0].append(str(error)))
            tab.on("request", lambda one: self._asked(tab, one.url))
            self.all.append(tab)
        tab = self.all[self.used]
        self.used += 1
        tab.mouse.move(0, 0)
        if tab.url.startswith(own):  # or the browser would only go to another place of the page that it has
            self.heard[tab] = [], "about:blank"
            tab.goto("about:blank")
        self.heard[tab] = [], own
        return tab, self.heard[tab][0]

    def _asked(self, tab: Any, url: str) -> None:
        said, own = self.heard[tab]
        if not url.startswith(("data:", own)):
            said.append(url)


@pytest.fixture(scope="module")
def tabs() -> Iterator[Tabs]:
    with pytest.importorskip("playwright.sync_api").sync_playwright() as engine:
        running = engine.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        yield Tabs(running)
        running.close()


@pytest.fixture
def chromium(tabs: Tabs) -> Tabs:
    tabs.used = 0
    return tabs


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A page of every kind, with pictures."""
    folder, made = tmp_path_factory.mktemp("pages"), {}
    for kind, make in MAKERS.items():
        parts = folder / kind
        parts.mkdir()
        summary = summarize(make(parts), parts, "rdx something --seed 3")
        if summary.maps is not None:
            turned = {side: found[:, ::-1] for side, found in summary.maps.points.items()}
            summary = replace(summary, maps=replace(summary.maps, layouts={"UMAP": turned}))
        ids = summary.shown_ids()
        picture = Image.new("RGB", (40, 30), "teal")
        sheets, places = sprites({row: square(picture, 48) for row in range(30)} if summary.maps else {}, 48)
        images = Images(dict.fromkeys(ids, data_uri(picture)), sheets, 48, 20, 400, places)
        made[kind] = folder / f"{kind}.html"
        made[kind].write_text(page(summary, images), "utf-8")
    rows = [{"name": LONGEST_NAME, "link": "x.html", "kind": "comparison", "verdict": None, "made": "2026-01-01"}]
    made["index"] = folder / "index.html"
    made["index"].write_text(render("index.html", rows=rows), "utf-8")
    return made


def _open(
    chromium: Tabs, path: Path, width: int = 1400, scheme: str = "light", anchor: str = ""
) -> tuple[Any, list[str]]:
    """A tab that shows the page, and what it says and asks for besides itself."""
    tab, said = chromium.free(path.as_uri())
    tab.set_viewport_size({"width": width, "height": 900})
    tab.emulate_media(media="screen", color_scheme=scheme)
    tab.goto(path.as_uri() + anchor)
    tab.wait_for_selector("html[data-ready]")
    return tab, said


def _axe(tab: Any, *rules: str) -> list[Any]:
    """What axe finds; all of its rules by default."""
    tab.evaluate(AXE.read_text("utf-8"))
    found = tab.evaluate("(rules) => axe.run(rules.length ? { runOnly: rules } : {})", list(rules))["violations"]
    return [(one["id"], one["nodes"][0]["html"][:200]) for one in found]


@pytest.mark.parametrize("kind", [*MAKERS, "index"])
def test_every_page_is_accessible_narrow_quiet_and_small(kind: str, chromium: Tabs, pages: Mapping[str, Path]) -> None:
    for width, scheme in ((1400, "light"), (390, "dark")):
        chromium.used = 0
        tab, said = _open(chromium, pages[kind], width, scheme)
        assert tab.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
        assert tab.evaluate("() => document.querySelectorAll('*').length") < 15_000
        shown, wanted = tab.evaluate("() => document.documentElement.dataset.images").split("/")
        assert shown == wanted
        tab.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        # colours differ in the dark, and what is too wide for a phone scrolls; the rest of the page is the same
        assert _axe(tab, *(["color-contrast", "scrollable-region-focusable"] if scheme == "dark" else [])) == []
        assert said == []


def test_a_printed_page_has_the_command_and_all_rows(chromium: Tabs, pages: Mapping[str, Path]) -> None:
    tab, _ = _open(chromium, pages["explanations"])
    tab.emulate_media(media="print")
    tab.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    assert tab.locator("footer code").first.is_visible()
    assert tab.get_by_text("rdx something --seed 3").is_visible()
    assert tab.locator(".tools").is_hidden()
    assert tab.locator("table[data-key=units] tbody tr").count() == 13
    pages_printed = tab.pdf().count(b"/Type /Page\n")
    assert 1 <= pages_printed <= 6


def test_nothing_is_cut_or_torn_on_paper(chromium: Tabs, pages: Mapping[str, Path]) -> None:
    """Wide tables and the command fit; headings stay with what they head; hints for the mouse are left out."""
    tab, _ = _open(chromium, pages["comparison"], 720)
    tab.emulate_media(media="print")
    tab.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    cells = "() => [...document.querySelectorAll('td, th')].map((one) => one.getBoundingClientRect().right)"
    assert max(tab.evaluate(cells)) <= 720
    style = "one => { const found = getComputedStyle(one); return [found.breakInside, found.breakAfter]; }"
    assert tab.locator("main h2").first.evaluate(style) == ["avoid", "avoid"]
    assert tab.locator(".before").first.is_visible()
    assert not tab.get_by_text("Drag a rectangle").first.is_visible()
    assert tab.locator(".concepts:empty").count() == 0


def test_a_page_holds_the_scripts_that_it_needs(pages: Mapping[str, Path]) -> None:
    sizes = {}
    for kind, path in pages.items():
        source = path.read_text("utf-8")
        script = source.rpartition("<script>")[2].partition("</script>")[0]
        assert ("canvas[data-map]" in script) == ('id="map-data"' in source)
        assert (".heatmap" in script) == ('id="cells"' in source)
        sizes[kind] = len(script)
    assert max(sizes.values()) < 25_000
    assert sizes["captions"] < 13_000


def test_a_table_beside_the_chosen_card(chromium: Tabs, tmp_path: Path) -> None:
    items = [Item(i, f"Unit {i}", [i / 500, f"word{i % 7}"], pictures=[Picture(f"s{i}")]) for i in range(500)]
    section = Section("Units", "units", items, "unit", [Column("score"), Column("word")])
    path = tmp_path / "x.html"
    pixel = data_uri(Image.new("L", (4, 4)))
    path.write_text(
        page(Summary("x", "m", "k", "t", "f", [section]), Images({f"s{i}": pixel for i in range(500)})), "utf-8"
    )
    tab, said = _open(chromium, path)
    rows = tab.locator("table[data-key=units] tbody tr:not([aria-hidden])")
    assert rows.count() < 100  # of 500: those in view
    assert tab.get_by_text("all 500").is_visible()
    tab.get_by_role("button", name="score").click()
    assert rows.first.locator("a").inner_text() == "499"
    assert tab.locator("th[aria-sort=descending]").inner_text().strip().startswith("score")
    rows.first.click()
    assert tab.locator(".chosen h3").inner_text() == "Unit 499"
    assert tab.locator(".chosen img").evaluate("picture => picture.decode().then(() => picture.naturalWidth)") > 1
    tab.keyboard.press("ArrowDown") if rows.first.locator("a").focus() is None else None
    assert tab.locator(".chosen h3").inner_text() == "Unit 498"
    tab.get_by_label("Search the page").fill("word3")
    assert tab.get_by_text("71 of 500").is_visible()
    # the address holds the choice, the order and the query: another tab shows the same
    address = tab.evaluate("() => location.hash")
    again, _ = _open(chromium, path, anchor=address)
    assert again.locator(".chosen h3").inner_text() == "Unit 498"
    assert again.get_by_text("71 of 500").is_visible()
    assert again.locator("table[data-key=units] tbody tr a").first.inner_text() == "493"
    assert said == []


def test_a_selection_in_one_map_shows_in_the_other(chromium: Tabs, pages: Mapping[str, Path]) -> None:
    tab, said = _open(chromium, pages["comparison"])
    other = "() => document.querySelectorAll('canvas')[1].toDataURL()"
    before = tab.evaluate(other)
    canvas = tab.locator("canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    selected = "() => Number(document.documentElement.dataset.selected)"
    for share, check in ((1.0, lambda count: count == 60), (0.5, lambda count: 0 < count < 60)):
        tab.mouse.move(box["x"] + 1, box["y"] + 1)
        tab.mouse.down()
        tab.mouse.move(box["x"] + share * box["width"] - 1, box["y"] + share * box["height"] - 1, steps=3)
        tab.mouse.up()
        assert check(tab.evaluate(selected))
    assert tab.evaluate(other) != before
    # another tab shows the same selection
    again, _ = _open(chromium, pages["comparison"], anchor=tab.evaluate("() => location.hash"))
    again.wait_for_selector("html[data-maps-drawn]")
    assert again.evaluate(selected) == tab.evaluate(selected)
    tab.keyboard.press("Escape")
    assert tab.locator("#selection").is_hidden()
    tab.locator("button.choose").first.click()
    assert "9 of 60 images" in tab.locator("#selection").inner_text()
    assert tab.locator("#selection .sprite").count() == 9
    assert said == []


def test_maps_have_two_layouts(chromium: Tabs, pages: Mapping[str, Path]) -> None:
    tab, said = _open(chromium, pages["comparison"])
    drawn = "() => document.querySelector('canvas').toDataURL()"
    tab.wait_for_selector("html[data-maps-drawn]")
    assert "UMAP" in tab.locator(".map figcaption").first.inner_text()
    first = tab.evaluate(drawn)
    canvas = tab.locator("canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    tab.mouse.move(box["x"] + 1, box["y"] + 1)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"], steps=3)
    tab.mouse.up()
    selected = "() => Number(document.documentElement.dataset.selected)"
    count = tab.evaluate(selected)
    tab.get_by_role("button", name="main axes").first.click()
    assert tab.evaluate(drawn) != first
    assert tab.evaluate(selected) == count  # the same images, at other places
    again, _ = _open(chromium, pages["comparison"], anchor=tab.evaluate("() => location.hash"))
    again.wait_for_selector("html[data-maps-drawn]")
    assert again.evaluate(drawn) == tab.evaluate(drawn)
    assert again.evaluate(selected) == count
    assert said == []


def test_an_image_shows_what_is_near_to_it_in_both(chromium: Tabs, pages: Mapping[str, Path]) -> None:
    tab, said = _open(chromium, pages["comparison"])
    picture = tab.locator("#a1 figure[data-row='3'] button")
    picture.hover()
    tip = tab.locator(".tooltip")
    assert tip.locator(".near").count() == 2
    # s4, s5, s6 in one and s5, s6, s7 in two: the common ones are framed
    assert [tip.locator(".near").nth(i).locator(".both").count() for i in (0, 1)] == [2, 2]
    picture.click()
    dialog = tab.get_by_role("dialog")
    assert dialog.locator("img").first.is_visible()
    assert dialog.locator(".near").count() == 2
    assert _axe(tab) == []
    tab.keyboard.press("Escape")
    assert dialog.is_hidden()
    assert said == []


def test_the_bar(chromium: Tabs, pages: Mapping[str, Path]) -> None:
    tab, said = _open(chromium, pages["comparison"], anchor="#b2")
    assert tab.locator("#b2").is_visible()  # folded, and opened by the address
    tab.get_by_role("button", name="Colours").click()
    tab.get_by_role("button", name="Colours").click()
    assert tab.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 28)"
    assert _axe(tab) == []
    tab.keyboard.press("/")
    tab.keyboard.type("no such thing")
    assert tab.locator(".concepts > article:visible").count() == 0
    tab.keyboard.press("Escape")
    assert tab.locator("#a1").is_visible()
    tab.evaluate(
        "() => { navigator.clipboard.writeText = (text) => { window.copied = text; return Promise.resolve(); }; }"
    )
    tab.get_by_role("button", name="copy command").click()
    assert tab.evaluate("() => window.copied") == "rdx something --seed 3"
    tab.locator(".contents summary").click()
    tab.get_by_role("navigation", name="Contents").get_by_role("link", name="Scores").click()
    assert tab.evaluate("() => location.hash").startswith("#scores")
    assert said == []


def test_fifty_thousand_rows_open_and_brush_without_a_node_each(chromium: Tabs, tmp_path: Path) -> None:
    n, rng = 50_000, np.random.default_rng(0)
    arrays = {f"map_{side}": rng.normal(size=(n, 2)) for side in "ab"}
    arrays |= {f"labels_{side}": np.arange(n) % 3 for side in "ab"}
    np.savez(tmp_path / "arrays.npz", **arrays, sample_ids=np.array([f"train/{i:06d}.jpg" for i in range(n)]))
    path = tmp_path / "x.html"
    path.write_text(page(summarize(made_up_comparison(dataset=None).to_document(), tmp_path)), "utf-8")
    assert path.stat().st_size < 1_500_000
    tab, _ = _open(chromium, path)
    assert tab.evaluate("() => document.documentElement.dataset.rows") == "50000"
    # all rows of a map are one picture, and no row is a node: what a brush costs is one walk through the rows
    tab.evaluate(
        """() => {
          const drawing = CanvasRenderingContext2D.prototype;
          window.calls = {};
          for (const name of ["putImageData", "fillRect", "fill", "stroke", "drawImage", "arc"]) {
            const own = drawing[name];
            drawing[name] = function (...given) {
              window.calls[name] = (window.calls[name] ?? 0) + 1;
              return own.apply(this, given);
            };
          }
        }"""
    )
    nodes = "() => document.querySelectorAll('*').length"
    before = tab.evaluate(nodes)
    tab.locator("button.choose").first.click()
    assert int(tab.evaluate("() => document.documentElement.dataset.selected")) > 0
    assert tab.evaluate("() => window.calls") == {"putImageData": tab.locator("canvas[data-map]").count()}
    assert tab.evaluate(nodes) < before + 300


def test_a_large_page_keeps_its_pictures_beside_it(
    chromium: Tabs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rdxcli.report import page

    monkeypatch.setattr(page, "LARGEST", 1000)
    items = [Item(i, f"Unit {i}", pictures=[Picture(f"s{i}")]) for i in range(3)]
    summary = Summary("x", "m", "k", "t", "f", [Section("Units", "units", items, "unit")])
    images = Images(
        {f"s{i}": data_uri(Image.new("RGB", (64, 64), colour)) for i, colour in enumerate(("red", "green"))}
    )
    path = tmp_path / "my page.html"
    beside = page.write_page(summary, images, path, path)
    assert beside == [tmp_path / "my page.data"]
    assert len(list(beside[0].iterdir())) == 2
    tab, said = chromium.free(tmp_path.as_uri())
    tab.goto(path.as_uri())
    tab.wait_for_selector("html[data-images='2/2']")
    assert "move both together" in tab.locator("footer").inner_text()
    assert said == []


def test_all_the_images_of_a_real_comparison(tmp_path: Path) -> None:
    record = made_up_comparison()
    np.savez(tmp_path / "arrays.npz", **record.arrays)
    summary = summarize(record.to_document(), tmp_path)
    images, unread = read_images(summary)
    assert unread == []
    assert sorted(images.places) == list(range(60))
    path = tmp_path / "x.html"
    path.write_text(page(summary, images), "utf-8")
    dom, shot = browse(path, tmp_path)
    assert 'data-images="38/38"' in dom
    assert 'data-maps-drawn="4"' in dom
    assert np.asarray(Image.open(shot)).shape[:2] == (2400, 1240)


def test_charts_and_tables_alone(chromium: Tabs, tmp_path: Path) -> None:
    """Charts without spread, a table without rows, values that are missing."""
    charts = [
        Chart("one", "curves", {"a": [(0.0, 0.0)]}, "x"),
        Chart("two", "histogram", {"a": [0.0]}, "x"),
        Chart("three", "stacked", {"a": [None, None]}, "x", edges=[0, 1, 2]),
        Chart("four", "scatter", {"a": [(1, 0.5, 0.4, 0.6)], "b": []}, "x"),
    ]
    tables = [Table("", [Column("x")], []), Table("", [Column("x")], [[None], [(0.1, 0.2)], [True]])]
    path = tmp_path / "x.html"
    path.write_text(page(Summary("x", "m", "k", "t", "f", [Section("S", "s", tables=tables, charts=charts)])), "utf-8")
    tab, said = _open(chromium, path, 390)
    assert tab.locator("svg").count() == 4
    assert said == []
    assert _axe(tab) == []
