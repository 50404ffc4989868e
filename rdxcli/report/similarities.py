"""Many layers or models in a summary: heat maps, concepts along a series, the pairs that were compared in full."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from rdxcli.progress import human_count, human_p
from rdxcli.records import relied_on
from rdxcli.report.comparison import AS_CHANCE, CLEAR, UNRELIABLE, base_rates, doubts, stored_arrays
from rdxcli.report.html import png_uri, script_json
from rdxcli.report.summary import Bar, Chart, Column, Drawing, Heat, Item, Picture, Section, Summary, Table, images_of
from rdxcli.report.text import clean

TITLES = {
    "cka": "CKA (debiased, linear)",
    "mutual_knn": "common nearest neighbours",
    "rsa": "RSA (rank correlation of distances)",
    "score": "difference score",
}
"""Names of the measures for people."""

WALK = "consecutive"
"""What ``--layers`` says of neighbours."""

SEEN = 0.005
"""Smaller shares would be written as 0 %."""

CONCEPTS = 8
"""Concepts of a series that the sentences name."""

MEETINGS = 4
"""Groups of other steps that a card names."""

LABELS = 24
"""Names along a side of a heat map; of more layers every second, third ... is named."""

NUMBERED = 64
"""Heat maps of so many cells have the numbers in them."""

CELL = 76
"""Pixels across a cell at most."""

RAMP = np.array([(250, 231, 180), (240, 165, 90), (208, 84, 80), (132, 40, 104), (48, 18, 76)], dtype=np.float64)
"""From unlike to alike: lightness falls evenly, for every kind of colour vision."""

BY_CHANCE, NO_DIFFERENCE, UNKNOWN = (201, 206, 214), (99, 168, 128), (255, 255, 255)


def name_of(entry: Mapping[str, Any]) -> str:
    """A row or column in a word: the model, and the layer where it is one of several."""
    return f"{entry['name']} {entry['layer']}" if entry["layer"] else str(entry["name"])


def _place(document: Mapping[str, Any], side: str, place: int) -> str:
    """A row or column beside others of its kind."""
    entry = document[side][place]
    return str(entry["layer"] or entry["name"]) if document["of"] == "layers" else str(entry["name"])


def limit(document: Mapping[str, Any], row: int, column: int) -> float | None:
    """The largest score between two read-outs of either of two layers."""
    found = document["measures"]["score"]["read_outs"]
    values = [found["rows"][row]["max"], found["columns"][column]["max"]]
    return None if None in values else max(values)


def _said(document: Mapping[str, Any]) -> list[str]:
    """What was found, in sentences."""
    lines = list(_reference_lines(document))
    if not document["followed"]:
        lines += [_pair_line(document, pair) for pair in document["pairs"]]
    lines += [_followed_line(document, place, one) for place, one in enumerate(document["followed"][:CONCEPTS])]
    left = len(document["followed"]) - CONCEPTS
    more = [f"and {human_count(left, 'more concept')} on the page"] if left > 0 else []
    return [*lines, *more, f"{_chance_line(document)}; pooling: {document['pool']}"]


def _chance_line(document: Mapping[str, Any]) -> str:
    chances = {name: one["chance"] for name, one in document["measures"].items() if one["chance"]}
    parts = [f"{name} {chance['mean']:.3f} (95 % below {chance['high']:.3f})" for name, chance in chances.items()]
    return f"rows in random order give {', '.join(parts)}"


def _pair_line(document: Mapping[str, Any], pair: Mapping[str, Any]) -> str:
    """The verdict on a pair, with the number that decides it and what chance gives for that number."""
    row, column, difference = pair["row"], pair["column"], pair["difference"]
    names = f"{_place(document, 'rows', row)} and {_place(document, 'columns', column)}"
    unreliable = "".join(f" {doubt}." for doubt in doubts(pair).values())
    if sentences := difference.get("sentences"):
        return f"{pair['why']}: {names}: {difference['verdict']}. {sentences[0]}{unreliable}"
    score, most = document["measures"]["score"]["values"][row][column], limit(document, row, column)
    beside = "" if most is None else f"; two read-outs of either at most {most:.3f}"
    return f"{pair['why']}: {names}: score {score:.3f}{beside}; {difference['verdict']}{unreliable and '.'}{unreliable}"


def _verdict(difference: Mapping[str, Any]) -> str:
    """The verdict in a cell, with the number that decided it where one did."""
    by = difference.get("found_by") or []
    return difference["verdict"] + (f" by the {' and the '.join(by)}" if by else "")


def _reference_lines(document: Mapping[str, Any]) -> Iterator[str]:
    reference = document["reference"]
    if not reference:
        return
    scores = reference["measures"]["score"]
    yield (
        f"{human_count(reference['pairs'], 'pair')} of {human_count(len(reference['runs']), 'run')} have "
        f"difference scores of {scores['low']:.3f} to {scores['high']:.3f}"
    )
    values = document["measures"]["score"]["values"]
    for i in range(len(values)):
        for j in range(i + 1, len(values)):
            more = "more than every pair of runs" if reference["exceeded"][i][j] else "not more than the runs"
            names = f"{_place(document, 'rows', i)} and {_place(document, 'rows', j)}"
            yield f"{names}: {values[i][j]:.3f}, {more}"


def concept_of(document: Mapping[str, Any], one: Mapping[str, Any]) -> Mapping[str, Any]:
    """The concept of a pair that a followed one, or a meeting, was seen as."""
    pair = next(pair for pair in document["pairs"] if pair["row"] == one["step"])
    return next(c for c in pair["concepts"] if (c["closer_in"], c["index"]) == (one["side"], one["index"]))


def _step(document: Mapping[str, Any], step: int) -> str:
    return f"between {_place(document, 'rows', step)} and {_place(document, 'rows', step + 1)}"


def _made_of(concept: Mapping[str, Any], most: int = 3) -> str:
    shares = [(name, share) for name, share in concept["labels"].items() if share >= SEEN]
    parts = [f"{share:.0%} {clean(name, 40)}" for name, share in shares[:most]]
    return f" ({', '.join(parts)})" if parts else ""


def _followed_line(document: Mapping[str, Any], place: int, one: Mapping[str, Any]) -> str:
    concept = concept_of(document, one)
    return f"concept {place + 1}: {human_count(one['size'], 'image')}{_made_of(concept)}: {_story(document, one)}"


def _story(document: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    """When a concept appears, is refined, comes apart."""
    curve, parts = one["togetherness"], []
    for key, verb in (("appears", "drawn together most"), ("comes_apart", "comes apart most")):
        step = one[key]
        if step is not None:
            parts.append(f"{verb} {_step(document, step)} ({curve[step]:.2f} to {curve[step + 1]:.2f})")
    if not parts:
        parts.append(f"changes little ({min(curve):.2f} to {max(curve):.2f})")
    refined = [m for m in one["meetings"] if m["side"] == "b" and m["step"] > one["step"] and m["inside"] >= 0.5]
    if refined:
        steps = ", ".join(dict.fromkeys(_step(document, m["step"]) for m in refined[:3]))
        parts.append(f"refined {steps}")
    return "; ".join(parts) + f" (neighbours inside the group; chance {one['chance']:.2f})"


def build(document: Mapping[str, Any], folder: Path | None = None) -> Summary:
    """The summary of a ``similarities`` document."""
    rows, columns = document["rows"], document["columns"]
    if document["of"] == "models":
        kicker = "Many models"
    else:
        kicker = "Layers against layers"
    title, table = _table(document)
    sections = [Section(title[0].upper() + title[1:], "first", tables=[table], printed=True), _maps(document)]
    if document["tree"]:
        sections.append(_tree(document))
    if document["followed"]:
        sections += _series(document)
    base = base_rates(stored_arrays(folder).get("labels"))
    sections += [_pair(document, place, pair, base) for place, pair in enumerate(document["pairs"])]
    dataset = document["samples"].get("dataset")
    return Summary(
        kind="similarities",
        method=document["method"],
        kicker=kicker,
        title=title,
        facts=f"{len(rows)} x {len(columns)}; {images_of(document['n'], dataset)}; {document['pool']}",
        sections=sections,
        said=_said(document),
        notes=document["notes"],
        dataset=dataset,
    )


MEASURES = {
    "cka": Column("cka", "Debiased linear CKA; 1 = alike up to rotation and scale", better="higher"),
    "mutual_knn": Column("mutual_knn", "Mean overlap of the 10 nearest neighbours", better="higher"),
    "rsa": Column("rsa", "Rank correlation of the two distance matrices", better="higher"),
    "score": Column("score", "Difference score; 0: the same neighbours, 1: none in common", better="lower"),
}


def _table(document: Mapping[str, Any]) -> tuple[str, Table]:
    """What people see first: a step, a layer or a model a row."""
    values = {name: one["values"] for name, one in document["measures"].items()}
    rows, columns = document["rows"], document["columns"]
    series = document["parameters"]["timeline"] or str(document["parameters"]["layers"]).startswith(WALK)
    if document["of"] == "models" and not series:
        names = [_place(document, "rows", place) for place in range(len(rows))]
        title = "difference scores between models; 0: the same neighbours, 1: none in common"
        heads = [Column("model"), *(Column(str(i + 1), name) for i, name in enumerate(names))]
        return title, Table("", heads, [[f"{i + 1} {name}", *values["score"][i]] for i, name in enumerate(names)])
    if series:
        key = "name" if document["of"] == "models" else "layer"
        title = "from checkpoint to checkpoint" if key == "name" else f"from layer to layer of {rows[0]['name']}"
        heads = [
            Column("from"),
            Column("to"),
            MEASURES["cka"],
            MEASURES["score"],
            Column("two read-outs", "Mean score of what the verdict compares with: two read-outs of one of them"),
            Column("verdict"),
            Column("drawn together", "Strongest group that the second holds together and the first keeps apart"),
            Column("taken apart", "Strongest group that the first holds together and the second keeps apart"),
        ]
        return title, Table("", heads, [
            [
                rows[pair["row"]][key],
                rows[pair["column"]][key],
                values["cka"][pair["row"]][pair["column"]],
                values["score"][pair["row"]][pair["column"]],
                _nothing(document, pair),
                _verdict(pair["difference"]),
                *(_strongest(pair, side) for side in "ba"),
            ]
            for pair in document["pairs"]
        ])  # fmt: skip
    names = [rows[0]["name"], columns[0]["name"]]
    title = f"layers of {names[0]}" + ("" if document["symmetric"] else f", and the most similar ones of {names[1]}")
    cells = []
    for i, row in enumerate(rows):
        others = [j for j in range(len(columns)) if not (document["symmetric"] and i == j)]
        known = [j for j in others if values["cka"][i][j] is not None]
        best = max(known, key=lambda j: values["cka"][i][j], default=None)
        numbers = [None] * len(MEASURES) if best is None else [values[name][i][best] for name in MEASURES]
        cells.append(
            [row["layer"] or name_of(row), row["d"], columns[best]["layer"] if best is not None else None, *numbers]
        )
    heads = [Column("layer"), Column("d", "Dimensions"), Column("most similar by cka"), *MEASURES.values()]
    return title, Table("", heads, cells)


def _nothing(document: Mapping[str, Any], pair: Mapping[str, Any]) -> float:
    """The mean score where nothing differs: that of the verdict, else of two read-outs of the first."""
    tested = pair["difference"].get("null_mean")
    return float(document["measures"]["score"]["read_outs"]["rows"][pair["row"]]["mean"] if tested is None else tested)


def _strongest(pair: Mapping[str, Any], side: str) -> str:
    """The strongest concept of a side in words."""
    for concept in pair["concepts"]:
        trusted = relied_on(pair.get("reliability"), side, concept["index"])
        if trusted and concept["closer_in"] == side and (concept["p_value"] is None or concept["p_value"] <= CLEAR):
            return f"{human_count(concept['size'], 'image')}{_made_of(concept, 2)}"
    return UNRELIABLE if side in doubts(pair) else ""


def _maps(document: Mapping[str, Any]) -> Section:
    text = (
        "Dark cells are alike. Grey: no more alike than rows in random order. Green, of the difference score: no more "
        "different than two read-outs of one of the two. Choose a cell for its numbers, and for the concepts of that "
        "pair. "
    )
    chance = _chance_line(document)
    text += f"{chance[0].upper()}{chance[1:]}."
    return Section("How alike", "alike", text=text, drawings=[*_heat_maps(document), _panel(document)])


def pixels(document: Mapping[str, Any], measure: str) -> tuple[np.ndarray, float]:
    """Colours of a heat map, (rows, columns, 3) uint8, and the value that is darkest."""
    one = document["measures"][measure]
    values = np.array([[np.nan if v is None else v for v in row] for row in one["values"]], dtype=np.float64)
    alike = 1.0 - values if measure == "score" else values
    others = alike[~np.eye(len(alike), dtype=bool)] if document["symmetric"] and len(alike) > 1 else alike.ravel()
    known = others[np.isfinite(others)]
    top = max(1e-6, float(known.max(initial=0.0)))
    share = np.nan_to_num(np.clip(alike / top, 0.0, 1.0)) * (len(RAMP) - 1)
    lower = np.minimum(share.astype(int), len(RAMP) - 2)
    colours = RAMP[lower] + (RAMP[lower + 1] - RAMP[lower]) * (share - lower)[..., None]
    if measure == "score":
        limits = [[limit(document, i, j) or 0.0 for j in range(values.shape[1])] for i in range(len(values))]
        colours[values <= np.array(limits)] = NO_DIFFERENCE
    else:
        colours[values <= one["chance"]["high"]] = BY_CHANCE
    colours[~np.isfinite(values)] = UNKNOWN
    return np.rint(colours).astype(np.uint8), top


def named(document: Mapping[str, Any], side: str) -> list[str]:
    """Names along a side of a heat map; empty where there is no room."""
    count = len(document[side])
    every = -(-count // LABELS)
    return [_place(document, side, place) if place % every == 0 else "" for place in range(count)]


def _numbers(document: Mapping[str, Any], measure: str, colours: np.ndarray) -> str:
    """The values in the cells, where there are few: colours alone hide small differences."""
    if colours.shape[0] * colours.shape[1] > NUMBERED:
        return ""
    dark = colours.mean(axis=2) > 128
    values = document["measures"][measure]["values"]
    cells = "".join(
        f"<span{' class=ink' if dark[i, j] else ''}>{'-' if value is None else f'{value:.2f}'}</span>"
        for i, row in enumerate(values)
        for j, value in enumerate(row)
    )
    across = f"grid-template-columns: repeat({colours.shape[1]}, 1fr)"
    return f'<div class="numbers" aria-hidden="true" style="{across}">{cells}</div>'


def _heat_maps(document: Mapping[str, Any]) -> Iterator[Drawing]:
    columns = [_place(document, "columns", place) for place in range(len(document["columns"]))]
    sides = {side: named(document, side) for side in ("rows", "columns")}
    labels = {side: "".join(f"<span>{escape(name)}</span>" for name in names) for side, names in sides.items()}
    ramp = ", ".join(f"rgb({red:.0f} {green:.0f} {blue:.0f})" for red, green, blue in RAMP)
    for measure, title in TITLES.items():
        colours, top = pixels(document, measure)
        scale = (1.0, 1.0 - top) if measure == "score" else (0.0, top)
        ends = [f"{end:.2g}" for end in scale]
        markup = Markup(  # every text in it is escaped
            f'<figure class="heatmap" data-measure="{measure}">'
            f"<h3>{escape(title)}</h3>"
            f'<div class="axes" style="--room: {CELL * colours.shape[1]}px"><div class="y">{labels["rows"]}</div>'
            f'<div class="plot" tabindex="0" role="img" aria-label="{escape(title)}, '
            f"{human_count(len(colours), 'row')} and "
            f'{human_count(colours.shape[1], "column")}" style="aspect-ratio: {colours.shape[1]} / {len(colours)}">'
            f'<img src="{png_uri(colours)}" alt="">{_numbers(document, measure, colours)}'
            '<span class="marker" hidden></span></div>'
            f'<div class="x">{labels["columns"]}</div></div>'
            f'<figcaption>{ends[0]} <span class="ramp" style="background: linear-gradient(to right, {ramp})"></span> '
            f"{ends[1]}</figcaption></figure>"
        )
        values = document["measures"][measure]["values"]
        rows = [[_place(document, "rows", place), *row] for place, row in enumerate(values)]
        yield Drawing(
            title,
            markup,
            Table(title, [Column("model" if document["of"] == "models" else "layer"), *map(Column, columns)], rows),
            Heat(colours, sides["rows"], sides["columns"], RAMP, scale, _beside(document, measure)),
        )


def _beside(document: Mapping[str, Any], measure: str) -> str:
    chance = document["measures"][measure]["chance"]
    if chance is None:
        return "green: within two read-outs"
    return f"chance {chance['mean']:.3f}, grey: below {chance['high']:.3f}"


def _panel(document: Mapping[str, Any]) -> Drawing:
    """Where a chosen cell is told, and what the script needs for it."""
    count = len(document["rows"]), len(document["columns"])
    data = {
        "rows": [_place(document, "rows", i) for i in range(count[0])],
        "columns": [_place(document, "columns", j) for j in range(count[1])],
        "measures": {
            name: {
                "title": TITLES[name],
                "values": one["values"],
                "chance": one["chance"] and [one["chance"]["mean"], one["chance"]["high"]],
            }
            for name, one in document["measures"].items()
        },
        "limits": [[limit(document, i, j) for j in range(count[1])] for i in range(count[0])],
        "pairs": {f"{pair['row']},{pair['column']}": f"pair-{place}" for place, pair in enumerate(document["pairs"])},
        "repeat": document["parameters"].get("repeat"),
        "symmetric": document["symmetric"],
    }
    markup = Markup(
        '<div class="cell" id="cell" aria-live="polite"><p class="facts">Choose a cell: with the pointer, or with the '
        f'arrow keys.</p></div><script type="application/json" id="cells">{script_json(data)}</script>'
    )
    return Drawing("Numbers of a cell", markup)


def _series(document: Mapping[str, Any]) -> Iterator[Section]:
    places = [_place(document, "rows", place) for place in range(len(document["rows"]))]
    axis = f"0: {clean(places[0], 30)} to {len(places) - 1}: {clean(places[-1], 30)}"
    items = []
    for place, one in enumerate(document["followed"]):
        concept = concept_of(document, one)
        own = list(enumerate(one["togetherness"]))
        chance = [(at, one["chance"]) for at in (0, len(places) - 1)]
        chart = Chart(
            "Neighbours inside the group",
            "curves",
            {"this group": own, "chance": chance},
            axis,
            "share of the neighbours",
            (0.0, 1.0),
        )
        items.append(
            Item(
                f"concept {place + 1}",
                f"Concept {place + 1}{_made_of(concept, 2)}",
                [one["size"], one["strength"], concept["p_value"]],
                _story(document, one) + ".",
                pictures=[Picture(str(sample)) for sample in concept["sample_ids"][:8]],
                charts=[chart],
                beside=[_meeting(document, meeting) for meeting in one["meetings"][:MEETINGS]],
            )
        )
    what = "training" if document["of"] == "models" else "depth"
    columns = [
        Column("images", "In the group"),
        Column("strength", "What it explains at its own step: (affinity - 1) x share of images", better="higher"),
        Column("p", "How often chance gives as strong a group at that step", better="lower"),
    ]
    yield Section(
        f"Concepts through the {what}",
        "concepts",
        items,
        "group",
        columns,
        "Groups that one of two neighbours holds together and the other keeps apart, each once. A curve is the share "
        "of a member's nearest neighbours that are members too. A group was chosen at the step that is named first, so "
        "the rise there is expected; what happens elsewhere is not.",
    )


def _meeting(document: Mapping[str, Any], meeting: Mapping[str, Any]) -> str:
    verb = "drawn together" if meeting["side"] == "b" else "taken apart"
    return (
        f"{_step(document, meeting['step'])}: {meeting['shared']} of its images in a group that is {verb} "
        f"({meeting['side']}{meeting['index']}, {meeting['inside']:.0%} of it from here; chance "
        f"{meeting['expected']:.0%}, p {human_p(meeting['p_value'])})"
    )


def _pair(document: Mapping[str, Any], place: int, pair: Mapping[str, Any], base: Mapping[str, float]) -> Section:
    names = _place(document, "rows", pair["row"]), _place(document, "columns", pair["column"])
    difference = pair["difference"]
    items, unreliable = [], doubts(pair)
    for concept in pair["concepts"]:
        if document["followed"] and concept["index"] > 1:
            continue
        p_value = concept["p_value"]
        held = names[0] if concept["closer_in"] == "a" else names[1]
        status = f"uncertain: {AS_CHANCE}" if p_value is not None and p_value > CLEAR else ""
        trusted = relied_on(pair.get("reliability"), concept["closer_in"], concept["index"])
        status = status if trusted else UNRELIABLE
        items.append(
            Item(
                f"{concept['closer_in']}{concept['index']}",
                f"{concept['closer_in']}{concept['index']}: together in {held}",
                [concept["size"], concept["strength"], concept["stability"], p_value],
                status=status,
                doubtful=bool(status),
                pictures=[Picture(str(sample)) for sample in concept["sample_ids"][:8]],
                bars=[
                    Bar(name, share, f"{share:.0%}", base.get(name))
                    for name, share in list(concept["labels"].items())[:4]
                ],
            )
        )
    said = " ".join([*(f"{doubt}." for doubt in unreliable.values()), *difference.get("sentences", [])])
    question = f" ({difference['question']})" if difference.get("question") else ""
    return Section(
        f"{names[0]} and {names[1]}",
        f"pair-{place}",
        items,
        f"pair-{place}",
        GROUP,
        f"{pair['why']}: {difference['verdict']}{question}. {said}",
        scale=1.0,
    )


GROUP = (
    Column("images", "In the group"),
    Column("strength", "(affinity - 1) x share of the images", better="higher"),
    Column("stability", "Overlap with its best match when images are drawn again", better="higher"),
    Column("p", "How often chance gives as strong a group", better="lower"),
)


def _tree(document: Mapping[str, Any]) -> Section:
    order, merges = document["tree"]["order"], document["tree"]["merges"]
    names = [_place(document, "rows", place) for place in range(len(order))]
    step, left, width = 22, 8, 300
    height = step * len(order) + 26
    top = max([merge[2] for merge in merges] + [1e-9])
    at: dict[int, tuple[float, float]] = {leaf: (left + width, step * (i + 0.7)) for i, leaf in enumerate(order)}
    parts = [
        f'<text x="{left + width + 6}" y="{at[leaf][1] + 4:.1f}">{escape(clean(names[leaf], 40))}</text>'
        for leaf in order
    ]
    for i, (first, second, distance) in enumerate(merges):
        x = left + width * (1.0 - distance / top)
        (x1, y1), (x2, y2) = at[first], at[second]
        parts.append(
            f'<path d="M{x1:.1f},{y1:.1f} H{x:.1f} V{y2:.1f} H{x2:.1f}" fill="none" stroke="currentColor"/>'
            f"<title>{distance:.3f}</title>"
        )
        at[len(order) + i] = x, (y1 + y2) / 2
    parts += [
        f'<text x="{left}" y="{height - 6}">{top:.2f}</text>',
        f'<text x="{left + width}" y="{height - 6}" text-anchor="end">0</text>',
    ]
    runs = document["reference"].get("measures", {}).get("score")
    if runs:
        x = left + width * (1.0 - min(1.0, runs["high"] / top))
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - 22}" stroke="#1d7a4c" stroke-dasharray="4 3"/>'
        )
    wide = left + width + 8 * max(len(clean(name, 40)) for name in names) + 12
    drawing = Markup(  # every text in it is escaped above
        f'<figure class="chart tree"><svg viewBox="0 0 {wide} {height}" width="{wide}" height="{height}" role="img">'
        f"<title>Tree of the models by difference score</title>{''.join(parts)}</svg></figure>"
    )
    text = "Models joined by their mean difference score, the most alike first."
    if runs:
        text += (
            f" The dashed line is the largest score of {human_count(document['reference']['pairs'], 'pair')} of runs, "
            f"{runs['high']:.3f} (the smallest is {runs['low']:.3f}): joints to its right are no more."
        )
    members = {leaf: [names[leaf]] for leaf in range(len(names))}
    rows = []
    for i, (first, second, distance) in enumerate(merges):
        rows.append([", ".join(members[first]), ", ".join(members[second]), distance])
        members[len(order) + i] = [*members[first], *members[second]]
    columns = [Column("these"), Column("and these"), Column("score", "Mean difference score where they are joined")]
    title = "Which models are alike"
    return Section(
        title,
        "tree",
        text=text,
        drawings=[Drawing("Tree", drawing, Table("Tree", columns, rows))],
        tables=_reference_table(document, names),
    )


def _reference_table(document: Mapping[str, Any], names: list[str]) -> list[Table]:
    """Every pair of models beside the runs."""
    if not document["reference"]:
        return []
    values, exceeded = document["measures"]["score"]["values"], document["reference"]["exceeded"]
    said = {True: "more than every pair of runs", False: "not more than the runs"}
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
    rows = [[names[i], names[j], values[i][j], said[exceeded[i][j]]] for i, j in pairs]
    heads = [Column("model"), Column("other model"), MEASURES["score"], Column("beside the runs")]
    return [Table("Models beside the runs", heads, rows)]
