"""``rdx visualize``: where reports go, what is never replaced, what could not be read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import made_up_comparison, rdx_here
from PIL import Image

from rdxcli.artifacts import Request, create, write_json
from rdxcli.artifacts.layout import report_path
from rdxcli.artifacts.store import DOCUMENTS, Artifact


def stored(folder: Path, kind: str = "comparison", **changes: object) -> Artifact:
    """A made-up artifact of a comparison; of another kind only its name."""
    record = made_up_comparison(**{"dataset": None, **changes})  # type: ignore[arg-type]
    with create(folder, Request(kind=kind)) as draft:
        write_json(draft.path / DOCUMENTS[kind], record.to_document(str(folder)))
        np.savez(draft.path / "arrays.npz", **record.arrays)
    return draft.result


def test_every_artifact_has_a_file_of_its_own(tmp_path: Path) -> None:
    names = [
        "m/layer/explanations/one",
        "m/layer/simulations/one",
        "m/layer/directions/one",
        "comparisons/m--layer/one",
    ]
    paths = {report_path([stored(tmp_path / "digits" / name, "simulation").path], tmp_path, "html") for name in names}
    assert len(paths) == len(names)
    assert {path.parent for path in paths} == {tmp_path / "digits" / "reports"}


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    made = stored(tmp_path / "out" / "x" / "comparisons" / "a--b" / "rdx").path
    there = tmp_path / "mine.html"
    there.write_text("precious")
    for to, word in ((there, "--force"), (tmp_path / "precious.txt", ".html"), (tmp_path / "nothing", ".html")):
        done = rdx_here("visualize", made, "--to", to, "--outputs", tmp_path / "out")
        assert done.returncode == 2
        assert word in done.stderr
    assert there.read_text() == "precious"
    assert not (tmp_path / "precious.txt").exists()
    done = rdx_here("visualize", made, "--to", there, "--force", "--outputs", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "<!doctype html>" in there.read_text("utf-8")
    clash = rdx_here("visualize", made, "--to", tmp_path / "x.png", "--format", "pdf", "--outputs", tmp_path / "out")
    assert clash.returncode == 2
    assert "contradict" in clash.stderr


def test_the_ending_says_the_format_and_fonts_are_outlines(tmp_path: Path) -> None:
    made = stored(tmp_path / "out" / "x" / "comparisons" / "a--b" / "rdx").path
    for ending, width in (("pdf", "column"), ("svg", "page"), ("png", "column")):
        to = tmp_path / f"figure.{ending}"
        done = rdx_here("visualize", made, "--to", to, "--width", width, "--outputs", tmp_path / "out")
        assert done.returncode == 0, done.stderr
        raw = to.read_bytes()
        if ending == "pdf":
            assert b"/Type3" not in raw
            assert b"CIDFontType2" in raw
        elif ending == "svg":
            assert ">a1: n = 9, p = 0.01" in raw.decode("utf-8")  # text stays text
        else:
            assert Image.open(to).width == pytest.approx(3.3 * 300, abs=2)


def test_a_report_goes_to_the_standard_output(tmp_path: Path) -> None:
    made = stored(tmp_path / "out" / "x" / "comparisons" / "a--b" / "rdx").path
    out = ("--outputs", tmp_path / "out", "--to", "-")
    for form, begin in (("md", "### "), ("csv", "concept,"), ("json", "{"), ("html", "<!doctype html>")):
        done = rdx_here("visualize", made, "--format", form, *out)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(begin)
    assert "the first of 5 tables" in rdx_here("visualize", made, "--format", "csv", *out).stderr
    assert not list(tmp_path.rglob("reports"))
    assert rdx_here("visualize", made, "--json", *out).returncode == 2


def test_umap_is_for_comparisons_whose_values_are_there(tmp_path: Path) -> None:
    made = stored(tmp_path / "out" / "x" / "comparisons" / "a--b" / "rdx").path
    for more, word in (
        (("--map", "umap"), "compare files"),
        (("--map", "tsne"), "axes, umap"),
        (("--map", "umap", made), "one comparison"),
    ):
        done = rdx_here("visualize", stored(tmp_path / "out" / "x" / "comparisons" / "c--d" / "rdx").path, *more,
                        "--outputs", tmp_path / "out")  # fmt: skip
        assert done.returncode in (1, 2)
        assert word in done.stderr
    explained = stored(tmp_path / "out" / "x" / "captions" / "c", "captions").path
    done = rdx_here("visualize", explained, "--map", "umap", "--outputs", tmp_path / "out")
    assert done.returncode != 0


@pytest.mark.slow
def test_umap_of_files_is_made_once(tmp_path: Path) -> None:
    pytest.importorskip("umap")
    rng = np.random.default_rng(0)
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.concatenate([rng.normal(size=(20, 4)), rng.normal(9, 1, size=(20, 4))]))
    given = ("compare", "a.npy", "b.npy", "--no-test", "--bootstraps", 0, "--outputs", "out", "-q")
    made = rdx_here(*given, cwd=tmp_path).stdout.strip()
    page = ("visualize", made, "--map", "umap", "--outputs", "out")
    first = rdx_here(*page, "--to", "x.parquet", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "40 rows of 4 take about" in first.stderr
    table = pq.read_table(tmp_path / "x.parquet")
    across = np.array(table["umap_x_a"])
    groups = [
        np.stack([np.array(table[f"umap_{axis}_a"])[part] for axis in "xy"]) for part in (slice(20), slice(20, 40))
    ]
    apart = np.linalg.norm(groups[0].mean(1) - groups[1].mean(1))
    assert apart > 2 * max(group.std() for group in groups)
    again = rdx_here(*page, "--to", "y.parquet", cwd=tmp_path)
    assert "take about" not in again.stderr
    np.testing.assert_array_equal(across, np.array(pq.read_table(tmp_path / "y.parquet")["umap_x_a"]))
    np.save(tmp_path / "a.npy", rng.normal(size=(40, 4)))
    changed = rdx_here(*page, "--to", "z.parquet", cwd=tmp_path)
    assert changed.returncode == 1
    assert "does not hold the values" in changed.stderr
    assert not (tmp_path / "z.parquet").exists()


def test_several_are_one_page(tmp_path: Path) -> None:
    made = [str(stored(tmp_path / "x" / "comparisons" / name / "rdx").path) for name in ("a--b", "c--d")]
    out = ("--outputs", str(tmp_path))
    pages = []
    for given, stdin in ((made, ""), (["-"], "\n".join(made))):
        done = rdx_here("visualize", *given, *out, stdin=stdin)
        assert done.returncode == 0, done.stderr
        pages.append(Path(done.stdout.strip()).read_text("utf-8"))
    assert pages[0] == pages[1]
    assert "Matched by overlap" in pages[0]
    assert pages[0].count("difference found") >= 2
    assert rdx_here("visualize", *made, "--to", tmp_path / "one.md", *out).returncode == 0
    matched = (tmp_path / "one.md").read_text("utf-8").partition("Matched by overlap")[2]
    assert "| a1 | a1 | 1 | 0.0811 | 9 | 9 | 9 | 2.71e-10 |" in matched  # 9 of 60 expect 1.35 shared
    assert rdx_here("visualize", "-", *out).returncode == 2


def test_a_page_links_every_report(tmp_path: Path) -> None:
    for name in ("a--b", "c--d"):
        stored(tmp_path / "x" / "comparisons" / name / "rdx")
    done = rdx_here("visualize", "--all", "--outputs", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert len(said["made"]) == 2
    page = Path(said["report"])
    links = re.findall('href="([^"#]+)"', page.read_text("utf-8"))
    assert len(links) == 2
    assert all((page.parent / link).is_file() for link in links)
    assert page.read_text("utf-8").count("difference found") == 2
    again = json.loads(rdx_here("visualize", "--all", "--outputs", tmp_path, "--json").stdout)
    assert again["made"] == []
    assert rdx_here("visualize", "--all", "--outputs", tmp_path / "nowhere").returncode == 1
    assert rdx_here("visualize", "--all", "x", "--outputs", tmp_path).returncode == 2


def test_images_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    folder = tmp_path / "photos" / "things"
    folder.mkdir(parents=True)
    ids = [f"things/{i:02}.png" for i in range(18)]
    for name in ids:
        Image.new("RGB", (16, 16), "red").save(tmp_path / "photos" / name)
    record = made_up_comparison(dataset=None)
    concepts = [{**vars(concept), "sample_ids": [ids[row] for row in concept.samples]} for concept in record.concepts]
    document = {**record.to_document(), "concepts": concepts, "samples": {"dataset": f"folder:{tmp_path / 'photos'}"}}
    with create(tmp_path / "out" / "x" / "comparisons" / "a--b" / "rdx", Request(kind="comparison")) as draft:
        write_json(draft.path / "concepts.json", document)
        np.savez(draft.path / "arrays.npz", **record.arrays)
    (folder / "03.png").write_bytes(b"no image")
    done = rdx_here("visualize", draft.result.path, "--outputs", tmp_path / "out", "--json")
    assert done.returncode == 4
    said = json.loads(done.stdout)
    assert said["unread"] == ["things/03.png"]
    drawn = rdx_here("visualize", draft.result.path, "--outputs", tmp_path / "out", "--to", tmp_path / "x.parquet",
                     "--pictures", "--json")  # fmt: skip
    assert drawn.returncode == 4
    assert len(json.loads(drawn.stdout)["unread"]) >= 42  # most of the made-up ids are no photos
    page = Path(said["report"]).read_text("utf-8")
    assert "1 of 18 images could not be read" in page
    assert 'class="noimage"' in page


@pytest.mark.parametrize("evil", ["red\x1b[31m", "42 \u202e%", "a\rb", "x" * 10_000, ":smile:"])
def test_foreign_text_is_tame_in_the_terminal(evil: str, capsys: pytest.CaptureFixture[str]) -> None:
    from rdxcli.cli.console import Sink

    sink = Sink()
    sink.table(evil, ("label",), [(evil,)], to_stdout=True)
    sink.warning(evil)
    found = capsys.readouterr()
    for text in (found.out, found.err):
        assert not set(text) & set("\x1b\u202e\r")
        assert text.count("\n") < 25
    assert ":smile:" not in evil or ":smile:" in found.out
