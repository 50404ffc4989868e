"""Pages of cards: everything can be reached, one scale, doubtful things look doubtful, few nodes."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from helpers import browser

from rdxcli.report import directions, gallery, neurons
from rdxcli.report.gallery import Bar, Card, Page, Picture, Section

EVIL = "<img src=x onerror=alert(1)>"
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="


def _page(*cards: Card) -> str:
    ids = {picture.sample_id: PIXEL for card in cards for picture in card.pictures}
    return gallery.html(Page("kind", "title", "facts", [Section("Things", cards)]), ids)


def _packed(page: str) -> list[str]:
    text = page.partition('data-cards="')[2].partition('"')[0]
    return json.loads(gzip.decompress(base64.b64decode(text))) if text else []


def test_every_card_can_be_reached() -> None:
    cards = [Card(f"thing {i} {EVIL}", pictures=[Picture(f"s{i}", heat=[[0.0, 1.0], [1.0, 0.0]])]) for i in range(300)]
    page = _page(*cards)
    later = _packed(page)
    assert page.count("<article") == gallery.FIRST
    assert len(later) == 300 - gallery.FIRST
    assert all(f"thing {i} " in (page if i < gallery.FIRST else later[i - gallery.FIRST]) for i in range(300))
    assert EVIL not in page + "".join(later)
    assert page.count("<") < 15_000


def test_bars_have_one_scale_and_one_zero() -> None:
    page = _page(
        Card("one", bars=[Bar("a", 0.7, "0.70")]), Card("two", bars=[Bar("b", 0.81, "0.81"), Bar("c", -1.62, "-")])
    )
    sizes = [float(part.partition("%")[0]) for part in page.split('style="--size: ')[1:]]
    assert sizes == [43.2, 50.0, 100.0]
    assert page.count("bars diverging") == 2


def _unit(number: int, **changes: Any) -> dict[str, Any]:
    fields = {"unit": number, "status": "explained", "concepts": [{"concept": "sky", "weight": 1.0}], "text": "sky"}
    return {**fields, "scores": {"iou": 0.1 * number}, "strongest": [], **changes}


def _document(**content: Any) -> dict[str, Any]:
    base = {"method": "m", "parameters": {}, "seed": 0, "notes": [], "model": {"name": "net", "layer": "l"}}
    return {**base, "samples": {"n": 9, "dataset": None}, "summary": {}, "scores": {}, **content}


def test_units_that_are_not_interpretable_say_so_and_come_last() -> None:
    units = [_unit(1, interpretable=True), _unit(9, interpretable=False), _unit(3, status="not better than chance")]
    units[2].pop("strongest")
    page = neurons.page(_document(units=units))
    cards = page.sections[1].cards
    assert [card.title for card in cards] == ["Unit 1", "Unit 9", "Unit 3"]
    assert [card.doubtful for card in cards] == [False, True, True]
    assert cards[1].text.startswith("not interpretable")
    assert "1 of 2 interpretable" in page.facts
    assert "images of 2 of them are stored" in page.facts


def test_directions_show_their_state_and_what_all_their_images_are() -> None:
    entry = {"index": 0, "share": 0.1, "images": 100, "labels": {"4": 0.47, "6": 0.53}, "sample_ids": [], "samples": []}
    entry |= {"label_chance": {"4": 0.1, "6": 0.1}, "health": "crowded", "influence": []}
    card = directions.page(_document(directions=[entry])).sections[0].cards[0]
    assert card.text == "All 100 images: 47% 4 (of all 10%), 53% 6 (of all 10%)"
    assert card.doubtful
    assert card.facts[0][1] == "crowded"


@pytest.mark.browser
def test_more_cards_unfold_and_are_found(tmp_path: Path) -> None:
    browsers = pytest.importorskip("playwright.sync_api")
    page = tmp_path / "page.html"
    page.write_text(_page(*(Card(f"thing {i}", pictures=[Picture(f"s{i}", f"s{i}")]) for i in range(100))), "utf-8")
    with browsers.sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        tab = chromium.new_page(viewport={"width": 390, "height": 900})
        said: list[str] = []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto(page.as_uri())
        tab.get_by_role("button", name="show more").click()
        tab.get_by_text("48 of 100 are shown").wait_for()
        assert tab.locator("article").count() == 48
        assert (
            tab.locator("article img").last.evaluate("picture => picture.decode().then(() => picture.naturalWidth)")
            == 1
        )
        tab.get_by_label("search all").fill("thing 99")
        tab.get_by_text("1 of 100 fit").wait_for()
        assert tab.locator("article h3").inner_text() == "thing 99"
        assert tab.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
        assert not said
        chromium.close()
