"""Caption files as people have them, and what is said of those that are something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from rdxcli.concepts.captions import load_captions, read_captions
from rdxcli.datasets.selection import SelectionOptions
from rdxcli.errors import InputError

WANTED = {"a.jpg": ["a dog, brown", 'a "big" cat'], "b.jpg": ["two men"]}
FILES = {
    "plain.json": '{"a.jpg": ["a dog, brown", "a \\"big\\" cat"], "b.jpg": ["two men"]}',
    "rows.jsonl": '{"id": "a.jpg", "captions": ["a dog, brown", "a \\"big\\" cat"]}\n'
    '{"id": "b.jpg", "caption": "two men"}',
    "kaggle.csv": 'image,caption\na.jpg,"a dog, brown"\na.jpg,"a ""big"" cat"\nb.jpg,two men\n',
    "results.csv": "image_name| comment_number| comment\na.jpg| 0| a dog, brown\n"
    'a.jpg| 1| a "big" cat\nb.jpg| 0| two men\n',
    "split.tsv": 'a.jpg#0\ta dog, brown\na.jpg#1\ta "big" cat\nb.jpg#0\ttwo men\n',
    "flickr.token": 'a.jpg#0\ta dog, brown\na.jpg#1\ta "big" cat\nb.jpg#0\ttwo men',
    "titled.tsv": 'sentence\tfile\na dog, brown\ta.jpg\na "big" cat\ta.jpg\ntwo men\tb.jpg\n',
}


@pytest.mark.parametrize("name", FILES)
def test_layouts(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(FILES[name], "utf-8")
    assert read_captions(tmp_path / name) == WANTED


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.csv", "just one column\nof words", "one column"),
        ("x.csv", "name,age,town\na,3,b", "the columns name, age, town"),
        ("x.tsv", "a.jpg\ta dog\nb.jpg", "row 2 has 1 column"),
        ("x.odd", "a dog", "captions are read from .json, .jsonl, .txt, .csv"),
    ],
)
def test_other_files_are_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(InputError) as caught:
        read_captions(tmp_path / name)
    assert said in f"{caught.value} {caught.value.hint}"


def test_files_of_one_name_have_folders_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "f.txt").write_text("a dog\n", "utf-8")
    (tmp_path / "f.jsonl").write_text('{"id": "a", "caption": "a dog"}\n', "utf-8")
    (tmp_path / "f.json").write_text('{"a": ["a dog"]}', "utf-8")
    names = {load_captions(str(path), SelectionOptions(), tmp_path)[0] for path in tmp_path.iterdir()}
    assert len(names) == 3
