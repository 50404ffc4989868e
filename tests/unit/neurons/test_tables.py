"""Tables: every layout, awkward words, and the published files."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdxcli.methods.neurons.tables import (
    Explanation,
    ExplanationTable,
    clean_netdissect_label,
    format_explanation,
    format_table,
    parse_table,
    table_statistics,
)

HEADER = "layer,unit,val correlation," + "".join(f"weight{i},concept{i}," for i in range(3)) + "bias"


def table(*rows: str, header: str = HEADER) -> str:
    return "\n".join([header, *rows]) + "\n"


def test_layout() -> None:
    rows = (
        Explanation(0, ("dog", "null"), (1.5, -0.25), 0.125, "fc", {"val correlation": 0.5}),
        Explanation(3, (), (), 2.0, "fc", {"val correlation": None}, "constant"),
    )
    text = format_table(ExplanationTable("linear", rows, 3))
    assert text.splitlines() == [
        HEADER + ",status",
        "fc,0,0.5,1.5,dog,-0.25,null,0,0,0.125,explained",
        "fc,3,,0,0,0,0,0,0,2.0,constant",
    ]
    assert parse_table(text).rows == rows
    assert format_table(ExplanationTable("linear", rows[:1], 3)).splitlines()[0] == HEADER


def test_a_concept_may_be_called_zero() -> None:
    read = parse_table(table("fc,0,0.5,2.0,0,1.0,nan,0.0,0,0.5"))
    assert read.rows[0].concepts == ("0", "nan")
    assert parse_table(format_table(read)).rows == read.rows


words = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(lambda s: s != "0" and s != "0.0")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(words, st.floats(-1e6, 1e6).filter(bool)), max_size=4, unique_by=lambda pair: pair[0]),
        min_size=1,
        max_size=5,
    ),
    st.floats(-1e9, 1e9),
)
def test_every_text_survives(rows: list[list[tuple[str, float]]], bias: float) -> None:
    made = tuple(
        Explanation(
            2 * unit,
            tuple(name for name, _ in row),
            tuple(weight for _, weight in row),
            bias,
            "l",
            {"val correlation": 0.5, "sim correlation": None},
            "explained" if row else "no concept",
        )
        for unit, row in enumerate(rows)
    )
    read = parse_table(format_table(ExplanationTable("linear", made, 4)))
    assert read.rows == made


@pytest.mark.parametrize("word", ["null", "nan", "NA", "None", "", "a,b", 'say "x"', "caf\u00e9", " spaced "])
def test_descriptions(word: str) -> None:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([["unit", "description", "similarity"], [4, word, 0.5], [5, "x", "-"]])
    read = parse_table(out.getvalue())
    assert read.kind == "description"
    assert read.rows[0].concepts == ((word,) if word else ())
    assert read.rows[0].scores == {"similarity": 0.5}
    assert read.rows[1].scores == {"similarity": None}
    assert parse_table(format_table(read)).rows == read.rows
    assert format_explanation(read.rows[1]) == "x"


def test_raw_network_dissection_counts_from_one() -> None:
    read = parse_table("unit,category,label,score,extra\n1,color,green-c,0.01,5\n2,scene,living_room-s,0.2,6\n")
    assert [(row.unit, row.concepts, row.scores["score"]) for row in read.rows] == [
        (0, ("green color",), 0.01),
        (1, ("living room",), 0.2),
    ]
    assert clean_netdissect_label("car_interior-backseat-s") == "car interior, backseat"


def test_layers() -> None:
    text = "layer,unit,description\nconv1,0,a\nconv1,1,b\nfc,0,c\n"
    assert [row.concepts for row in parse_table(text, layer="fc").rows] == [("c",)]
    with pytest.raises(ValueError, match="layers conv1, fc, expected one"):
        parse_table(text)
    with pytest.raises(ValueError, match="not 'x'"):
        parse_table(text, layer="x")


def test_concepts_win_over_a_description_beside_them() -> None:
    text = table("fc,0,0.5,2.0,dog,0,0,0,0,0.5,a dog", header=HEADER + ",description")
    read = parse_table(text)
    assert (read.kind, read.rows[0].concepts) == ("linear", ("dog",))
    assert len(read.notes) == 1
    assert parse_table(text, use="description").rows[0].concepts == ("a dog",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a column `unit`"),
        ("unit,description\n", "without rows"),
        ("unit,words\n0,a\n", "expected `description`"),
        ("unit,description\n0,a\n0,b\n", "unit 0 more than once"),
        ("unit,description\n-1,a\n", "the unit '-1'"),
        ("unit,description\nx,a\n", "column `unit`"),
        ("unit,description\n0.5,a\n", "the unit '0.5'"),
        ("unit,description\n0,a,b\n", "more values than columns"),
        ("unit,unit,description\n0,0,a\n", "more than once"),
        ("unit,concept0,bias\n0,a,1\n", "`weight0`"),
        (table("fc,0,0.5,x,dog,0,0,0,0,0.5"), "line 2, column `weight0`"),
        (table("fc,0,0.5,inf,dog,0,0,0,0,0.5"), "column `weight0`"),
        (table("fc,0,0.5,2.0,,0,0,0,0,0.5"), "weight without a concept"),
        (table("fc,0,0.5,2.0,dog,0,0,0,0,"), None),
        ('unit,description\n0,"a\n', "no CSV"),
    ],
)
def test_broken_tables(text: str, message: str | None) -> None:
    if message is None:
        assert parse_table(text).rows[0].bias == 0.0
        return
    with pytest.raises(ValueError, match=message):
        parse_table(text)


def test_selection_and_documents() -> None:
    read = parse_table(table("fc,2,0.5,2.0,dog,0,0,0,0,0.5", "fc,7,0.25,1.0,cat,0.5,dog,0,0,0.5"))
    assert read.concepts() == ["dog", "cat"]
    assert read.select([7, 2]).units.tolist() == [7, 2]
    with pytest.raises(ValueError, match=r"units \[3\]"):
        read.select([3])
    scored = read.rows[0].with_scores(sim_correlation=float("nan"), sim_ablation=0.5)
    assert scored.to_document() == {
        "unit": 2,
        "layer": "fc",
        "status": "explained",
        "concepts": [{"concept": "dog", "weight": 2.0}],
        "bias": 0.5,
        "scores": {"val correlation": 0.5, "sim correlation": None, "sim ablation": 0.5},
    }
    with pytest.raises(ValueError, match="at most 1"):
        format_table(ExplanationTable("linear", read.rows, 1))


@pytest.mark.shared
def test_published_tables_give_their_published_figures(shared: Path) -> None:
    folder = shared / "reference" / "linear_explanations" / "results"
    wanted = json.loads((folder / "expected_stats.json").read_text(encoding="utf-8"))
    assert len(wanted) >= 16
    for name, figures in wanted.items():
        read = parse_table((folder / name).read_text(encoding="utf-8"))
        found = table_statistics(read)
        assert found["rows"] == figures["rows"], name
        for key, value in figures["sim correlation"].items():
            assert found["sim correlation"][key] == pytest.approx(value, abs=1e-12), name
        if read.kind == "linear":
            lengths = figures["concepts_per_explanation"]
            assert found["concepts_per_explanation"]["histogram"] == lengths["histogram_0_to_10"], name
            for key in ("mean", "min", "max"):
                assert found["concepts_per_explanation"][key] == pytest.approx(lengths[key]), name
            for key in ("share_of_negative_weights", "distinct_concepts", "rows_with_weights_not_sorted"):
                assert found[key] == pytest.approx(figures[key]), name
            assert found["val correlation"]["mean"] == pytest.approx(figures["val correlation mean"]), name
        assert parse_table(format_table(read)).rows == read.rows, name


@pytest.mark.shared
def test_raw_published_tables_convert_to_the_published_ones(shared: Path) -> None:
    folder = shared / "reference" / "linear_explanations" / "results"
    compared = 0
    for method in ("CLIP_Dissect", "MILAN", "NetDissect"):
        for raw in (folder / "baselines_orig" / method).glob("*.csv"):
            for layer in ("layer1", "layer4"):
                converted = folder / "baselines" / method / f"resnet18_places365_{layer}.csv"
                if method == "NetDissect" and layer not in raw.name:
                    continue
                ours = parse_table(raw.read_text(encoding="utf-8"), layer=layer)
                theirs = parse_table(converted.read_text(encoding="utf-8"))
                assert [(r.unit, r.concepts) for r in ours.rows] == [(r.unit, r.concepts) for r in theirs.rows]
                compared += 1
    assert compared >= 5


def test_explanations_as_people_write_sums() -> None:
    def text(weights: tuple[float, ...], bias: float) -> str:
        row = Explanation(0, tuple("abcd"[: len(weights)]), weights, bias)
        return format_explanation(row, published=False)

    assert text((0.75, -0.42), 1.5) == "0.75∙a - 0.42∙b + 1.50"
    assert text((-0.42,), -0.1) == "-0.42∙a - 0.10"
    assert text((0.0012, 2e-6), 0.0) == "0.0012∙a + 2e-06∙b"
    assert text((2.0, 0.004), -0.0004) == "2.00∙a + 0.004∙b - 0.0004"
    assert text((1.0,), 0.0) == "a"
    row = Explanation(0, ("a", "b"), (0.75, -0.42), -0.001)
    assert format_explanation(row) == "0.75∙a + -0.42∙b + -0.00"  # as published


def test_formulas_in_products_stand_in_parentheses() -> None:
    row = Explanation(0, ("a OR b", "c"), (1.5, -1.0), 0.25)
    assert format_explanation(row, published=False) == "1.50∙(a OR b) - 1.00∙c + 0.25"
    assert format_explanation(Explanation(0, ("a OR b",), (1.0,)), published=False) == "a OR b"
