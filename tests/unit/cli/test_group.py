"""The commands by name: imported when called, completed by the shell, helped with the pages and the parameters."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import rdx_here

from rdxcli.cli.group import COMMANDS, entry, loaded

PROGRAM = "import sys; sys.argv[0] = 'rdx'; from rdxcli.cli.app import main; main()"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_sentence_of_a_command_is_its_own(name: str) -> None:
    assert COMMANDS[name].help == entry(name).help.split("\n\n")[0]
    assert loaded(name).name == name


def _cpu_seconds(code: str, *arguments: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_costs_little_more_than_its_libraries() -> None:
    # processor time, and the least of several runs in turn: what else the machine does hardly counts
    pairs = [(_cpu_seconds(PROGRAM, "--help"), _cpu_seconds("import typer, rich.table")) for _ in range(5)]
    ours, libraries = (min(side) for side in zip(*pairs, strict=True))
    assert ours < 1.8 * libraries


def test_a_command_imports_no_other() -> None:
    code = f"import sys; sys.argv[1:] = ['doctor', '--help']\ntry:\n  {PROGRAM}\nexcept SystemExit: pass\n"
    code += "print('rdxcli.cli.compare' in sys.modules, 'rdxcli.cli.listing' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False True\n")


def _rdx_on_path(folder: Path) -> dict[str, str]:
    (folder / "rdx").write_text(f'#!/bin/sh\nexec {sys.executable} -m rdxcli "$@"\n', "utf-8")
    (folder / "rdx").chmod(0o755)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder)}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("rdx comp", "compare"),
        ("rdx compare digits-cnn-", "digits-cnn-m35"),
        ("rdx explain --method le-", "le-label"),
        ("rdx list mod", "models"),
        ("rdx compare a.npy digits-cnn --layer-b con", "conv1"),
        ("rdx help signif", "significance"),
        ("rdx visualize --form", "--format"),
    ],
)
def test_the_shell_completes(line: str, expected: str, tmp_path: Path) -> None:
    asked = {"_RDX_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    done = subprocess.run(
        ["rdx"], env={**_rdx_on_path(tmp_path), **asked}, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "Usage:" not in done.stdout
    assert expected in done.stdout.split()


def test_completion_is_installed_for_the_shell_that_asks(tmp_path: Path) -> None:
    command = ["bash", "-c", "rdx --install-completion; true"]
    done = subprocess.run(
        command, env=_rdx_on_path(tmp_path), cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert "bash completion installed" in done.stdout + done.stderr
    script = (tmp_path / ".bash_completions" / "rdx.sh").read_text("utf-8")
    assert "_RDX_COMPLETE=complete_bash" in script
    assert str(tmp_path / ".bash_completions" / "rdx.sh") in (tmp_path / ".bashrc").read_text("utf-8")


def test_help_of_a_method_shows_its_parameters(tmp_path: Path) -> None:
    said = re.sub(r"\s+", " ", rdx_here("explain", "--method", "uibe", "--help", cwd=tmp_path).stdout)
    assert "--target" in said
    assert "parameters of uibe: --param NAME=VALUE" in said
    assert "n_directions" in said
    assert "parameters of" not in rdx_here("explain", "--help", cwd=tmp_path).stdout
    wrong = rdx_here("compare", "--method=rdxx", "--help", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "unknown method: `rdxx`" in wrong.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_eighty_columns_cuts_no_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = rdx_here(name, "--help").stdout
    assert max(map(len, said.splitlines())) <= 80
    assert "…" not in said
    for param in loaded(name).params:
        for spelling in param.opts if param.param_type_name == "option" else ():
            assert re.search(rf"(?<![\w-]){spelling}(?![\w-])", said), spelling
    assert said.index("Common") > said.index("Options")


def test_help_shows_pages(tmp_path: Path) -> None:
    assert rdx_here("help", "linear_explanations", cwd=tmp_path).stdout.startswith("# Linear explanations")
    topics = {row["topic"] for row in json.loads(rdx_here("help", "--json", cwd=tmp_path).stdout)}
    assert {"models", "significance", "outputs"} <= topics
    wrong = rdx_here("help", "significanse", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "did you mean `significance`" in wrong.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "simulate --method le-label --model digits-cnn --layer conv2",
            "`rdx explain --method le-label --model digits-cnn` makes it",
        ),
        ("encode-concepts --captions none.json", "outputs, and no file none.json"),
        (
            "caption --dataset folder:nowhere",
            "no such folder: nowhere hint: give a folder with one sub-folder of images",
        ),
        ("list layers", "needs a model hint: rdx list layers MODEL"),
        ("list models dino", "`rdx list models` takes no model, got `dino`"),
    ],
)
def test_what_is_missing_is_said_at_once_with_what_makes_it(line: str, said: str, tmp_path: Path) -> None:
    done = rdx_here(*line.split(), cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert said in " ".join(done.stderr.split())
    assert not any(tmp_path.rglob("activations"))  # nothing was extracted before the complaint


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("download --jobs 99", "'--jobs': got `99`, expected less than or equal to 32"),
        ("download --timeout soon", "'--timeout': got `soon`, expected a valid number"),
        (
            "caption --dataset digits --model blip-bse",
            "did you mean `blip-base` or `blip-large`? `rdx help caption` lists them",
        ),
        ("compare a.npy b.npy --format pdf", "unknown format `pdf` hint: choose md"),
        ("visualize x --all", "--all takes no artifact, --format or --to"),
        ("visualize --to - --json", "--to - and --json both want the standard output"),
        ("explain --method pca", "what is to be explained? hint: give --model NAME [--layer L], or --activations FILE"),
        ("help modles", "unknown topic: `modles` hint: did you mean `models`"),
        ("list modles", "unknown list: `modles` hint: did you mean `models`"),
    ],
)
def test_what_cannot_be_meant_is_named(line: str, said: str, tmp_path: Path) -> None:
    done = rdx_here(*line.split(), cwd=tmp_path)
    assert done.returncode == 2
    words = " ".join(done.stderr.replace("│", " ").split())
    assert said in words.replace('"message": ', "")


def test_a_file_in_the_way_of_the_outputs_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(60, 6)))
    (tmp_path / "notes.txt").write_text("x")
    for place in ("notes.txt", "notes.txt/below"):
        done = rdx_here("explain", "--method", "pca", "--activations", "a.npy", "--outputs", place, cwd=tmp_path)
        assert done.returncode != 0
        assert "notes.txt is a file, expected a folder" in done.stderr


def test_a_layer_with_few_dimensions_has_as_many_directions(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(60, 6)))
    ask = ("explain", "--method", "pca", "--activations", "a.npy")
    refused = rdx_here(*ask, "--num-directions", "7", cwd=tmp_path)
    assert refused.returncode == 2
    assert "6 dimensions, expected at most 6" in refused.stderr
    assert "pca:" not in refused.stderr  # before the plan
    done = rdx_here(*ask, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "so 6 directions are looked for, not 16" in done.stderr
