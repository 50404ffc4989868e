"""A summary as Markdown, for a comment on a pull request, an issue or a notebook."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rdxcli.progress import human_count
from rdxcli.report.charts import histogram
from rdxcli.report.summary import Chart, Column, Item, Maps, Section, Summary, Table, against_table, written

MOST = 60_000
"""Characters; a comment on GitHub holds 65,536."""

SENTENCE = 2000
"""Characters of a foreign text."""

_MARKS = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_{}[]#|~"})
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "@\u200b"})


def text(value: Any, column: Column | None = None) -> str:
    """Foreign text that stays text: nothing in it is markup, a mention or a link."""
    return plain(value, column).translate(_MARKS)


def prose(value: str) -> str:
    """Sentences: what stands between backticks stays code, all else is `text`."""
    parts = written(value, None, SENTENCE).split("`")
    if len(parts) % 2 == 0:
        return text(value)
    return "".join(
        f"`{part}`" if i % 2 and part.strip() else text(part) if part else "" for i, part in enumerate(parts)
    )


def plain(value: Any, column: Column | None = None) -> str:
    """The same inside of HTML, where Markdown is not read."""
    return written(value, column, SENTENCE).translate(_HTML).replace("://", ":\u200b//")


def markdown(summary: Summary, most: int = MOST) -> str:
    """The summary as GitHub Markdown; what does not fit is left out and counted. `most`: characters."""
    lines = [f"### {text(summary.title)}", ""]
    if summary.verdict is not None:
        lines += [f"**{text(summary.chip)}**", ""]
    lines += [f"{text(summary.kicker)}: {text(summary.facts)}", ""]
    lines += [f"{prose(line)}  " for line in summary.said] + [""] * bool(summary.said)
    lines += [f"> {prose(note)}  " for note in summary.notes] + [""] * bool(summary.notes)
    if summary.against:
        lines += [*_table(against_table(summary.against)), ""]
    end = _provenance(summary)
    left = most - sum(len(line) + 1 for line in (*lines, *end)) - 200
    left_out = 0
    for part in (part for section in summary.sections for part in _section(section, summary.maps)):
        size = sum(len(line) + 1 for line in part)
        if size > left:
            left_out += 1
            continue
        left -= size
        lines += part
    if left_out:
        count = human_count(left_out, "part")
        lines += [f"Left out here: {count}; the page and the tables hold all (`--format html`, `csv`)."]
    return "\n".join([*lines, *end]) + "\n"


def _provenance(summary: Summary) -> list[str]:
    if not summary.provenance:
        return []
    rows = [f"| {text(name)} | {text(value)} |" for name, value in summary.provenance]
    return ["<details><summary>How this was made</summary>", "", "| | |", "|---|---|", *rows, "", "</details>"]


def _section(section: Section, maps: Maps | None) -> Iterator[list[str]]:
    """The parts of a section, each of which can be left out."""
    head = [f"#### {text(section.title)}", ""] + ([prose(section.text), ""] if section.text else [])
    if section.items:
        yield [*head, *_table(section.table), ""]
        head = []
        for item in section.items:
            said = _item(section, item)
            if said:
                yield [f"<details><summary>{plain(item.title)}</summary>", "", *said, "", "</details>", ""]
    for table in section.tables:
        title = [f"**{text(table.title)}**", ""] if table.title else []
        said = [prose(table.text), ""] if table.text else []
        yield [*head, *title, *said, *_table(table), ""]
        head = []
    for chart in section.charts:
        yield [*head, *_chart(chart), ""]
        head = []
    for drawing in section.drawings:
        if drawing.table is not None:
            title = [f"**{text(drawing.title)}**", ""]
            said = [prose(drawing.table.text), ""] if drawing.table.text else []
            yield [*head, *title, *said, *_table(drawing.table), ""]
            head = []
    if section.maps and maps is not None:
        yield [*head, _maps(maps), ""]
    if section.left_out:
        yield [f"Left out here: {section.left_out}.", ""]


def _maps(maps: Maps) -> str:
    """What the maps hold, and where they are: they have no room in a comment."""
    names = " and ".join(text(name) for name in maps.names.values())
    places = ", ".join(map(text, maps.placed))
    return (
        f"Maps of {names} with {human_count(len(maps.ids), 'image')} ({places}): in the page (`--format html`); "
        "one row an image in `--format parquet`."
    )


def _item(section: Section, item: Item) -> list[str]:
    """What a table has no room for."""
    lines = [f"{prose(line)}  " for line in (item.status, item.text, *item.beside) if line]
    if item.bars:
        parts = [
            text(f"{bar.label} {bar.text}" + ("" if bar.chance is None else f" (by chance {bar.chance:.0%})"))
            for bar in item.bars
        ]
        lines.append(f"{', '.join(parts)}  ")
    if item.pictures:
        shown = [text(one.sample_id) + (f" ({text(one.caption)})" if one.caption else "") for one in item.pictures]
        lines.append(f"Images: {', '.join(shown)}")
    for chart in item.charts:
        lines += ["", *_chart(chart)]
    for table in item.tables:
        lines += ["", f"**{text(table.title)}**", "", *_table(table)]
    return lines


def _table(table: Table) -> list[str]:
    """Numbers to the right; what a column means stands under the table."""
    lines = [
        "| " + " | ".join(text(column.name) for column in table.columns) + " |",
        "|" + "|".join("---:" if number else "---" for number in table.numeric) + "|",
    ]
    for row in table.rows:
        cells = [text(value, column) for value, column in zip(row, table.columns, strict=True)]
        lines.append(f"| {' | '.join(cells)} |")
    said = [
        f"{text(column.name)}: {text(column.meaning)}" + (f" ({column.better} is better)" if column.better else "")
        for column in table.columns
        if column.meaning
    ]
    if table.left_out:
        lines += ["", f"{human_count(table.left_out, 'more row', 'are')} not here."]
    return [*lines, "", f"<sub>{'; '.join(said)}</sub>"] if said else lines


def _chart(chart: Chart) -> list[str]:
    """The numbers behind a chart, folded."""
    head = f"<details><summary>{plain(chart.title)} ({plain(chart.y or 'y')} by {plain(chart.x)})</summary>"
    return [head, "", *_numbers(chart), "", "</details>"]


def _numbers(chart: Chart) -> list[str]:
    names = [text(name) for name in chart.series]
    if chart.shape == "histogram":
        edges, counts = histogram(chart)
        rows = [
            [f"{edges[i]:.3g} to {edges[i + 1]:.3g}", *(str(count[i]) for count in counts.values())]
            for i in range(len(edges) - 1)
            if any(count[i] for count in counts.values())
        ]
        return _plain([text(chart.x), *names], rows)
    if chart.shape == "stacked":
        rows = [
            [
                f"{chart.edges[i]:.3g} to {chart.edges[i + 1]:.3g}",
                *(written(values[i]) for values in chart.series.values()),
            ]
            for i in range(len(chart.edges) - 1)
        ]
        return _plain([text(chart.x), *names], rows)
    rows = [
        [name, written(x), written(y), written(tuple(ends)) if ends else "-"]
        for name, points in zip(names, chart.series.values(), strict=True)
        for x, y, *ends in points
    ]
    return _plain(["", text(chart.x), text(chart.y or "y"), "95 %"], rows)


def _plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows)]
