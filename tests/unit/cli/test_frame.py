"""The frame of every command: results on stdout, words on stderr, one line per error, exit codes, --config."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from helpers import rdx_here
from typer.testing import CliRunner

from rdxcli.cli.console import Sink
from rdxcli.cli.options import Session, command, load_config, registered, with_errors
from rdxcli.errors import GateError, InputError, RdxError, UnknownNameError, UsageError

ROOT = Path(__file__).resolve().parents[3]


def rdx(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rdxcli.cli.app", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        **options,
    )  # type: ignore[call-overload]


def test_version() -> None:
    done = rdx("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("rdx ")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InputError("row 3 of `a.npy` is NaN", "drop it"), 1, ["error: row 3", "hint: drop it"]),
        (UsageError("k is 0"), 2, ["error: k is 0"]),
        (GateError("0.7 is above 0.5"), 3, ["0.7"]),
        (UnknownNameError("model", "dinno", ["dino", "dinov2"], "rdx list models"), 2, ["`dino`", "rdx list models"]),
        (ValueError("Got k=9,\n expected at most 5"), 1, ["error: Got k=9, expected at most 5"]),
        (OSError(28, "No space left on device", "x.npy"), 1, ["No space left", "x.npy"]),
        (MemoryError(), 1, ["out of memory"]),
        (KeyboardInterrupt(), 130, ["interrupted"]),
        (AttributeError("'NoneType' object has no attribute 'x'"), 1, ["unexpected AttributeError", "--debug"]),
    ],
)
def test_every_error_is_one_line_with_a_code(
    error: BaseException, code: int, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(typer.Exit) as caught:
        with_errors(Session(sink=Sink()), fail)
    assert caught.value.exit_code == code
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    for word in words:
        assert word in said.err


def test_debug_adds_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise InputError("bad")

    with pytest.raises(typer.Exit):
        with_errors(Session(debug=True), fail)
    assert "Traceback" in capsys.readouterr().err


def test_markup_in_messages_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    Sink().error("layer `mlp[/red]` [bold]", "[link=x]")
    said = capsys.readouterr().err
    assert "mlp[/red]" in said
    assert "[link=x]" in said


def test_json_result_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    Sink(as_json=True).result("ignored", {"score": float("nan"), "path": Path("x")})
    assert json.loads(capsys.readouterr().out) == {"score": None, "path": "x"}


def _app() -> typer.Typer:
    if "echo" not in registered():

        @command("echo", examples=["rdx echo 3"])
        def echo(session: Session, count: int, word: list[str] | None = None, loud: bool = False) -> None:
            """Say it back."""
            session.sink.result(None, {"count": count, "word": word, "loud": loud, "seed": session.seed})

    entry = registered()["echo"]
    app = typer.Typer()
    app.command("echo", epilog=entry.epilog)(entry.function)
    return app


@pytest.fixture
def echo() -> typer.Typer:
    app = _app()
    registered_before = dict(registered())
    registered_before.pop("echo")
    yield app
    registered().clear()
    registered().update(registered_before)


def test_config_gives_defaults_and_the_command_line_wins(echo: typer.Typer, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("description: a test\ncount: 4\nword: [a, b]\nloud: true\nseed: 7\n")
    runner = CliRunner()
    done = runner.invoke(echo, ["--config", str(config), "--json"])
    assert json.loads(done.stdout) == {"count": 4, "word": ["a", "b"], "loud": True, "seed": 7}
    done = runner.invoke(echo, ["5", "--config", str(config), "--seed", "9", "--json"])
    assert json.loads(done.stdout)["count"] == 5
    assert json.loads(done.stdout)["seed"] == 9


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cuont: 4", "did you mean `count`"),
        ("- 1", "got a list"),
        ("count: {x: 1}", "nested"),
        ("loud: 3", "switch"),
        ("count: [", "not valid YAML"),
        ("command: other", "is for `rdx other`"),
    ],
)
def test_config_mistakes_are_named(echo: typer.Typer, tmp_path: Path, text: str, words: str) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(text)
    done = CliRunner().invoke(echo, ["1", "--config", str(config)])
    assert isinstance(done.exception, RdxError)
    assert done.exception.exit_code == 2
    assert words in f"{done.exception.message} {done.exception.hint}"


def test_missing_config_is_a_usage_error_without_traceback() -> None:
    done = rdx_here("visualize", "--config", "/nowhere/run.yaml")
    assert done.returncode == 2
    assert "cannot read the configuration" in done.stderr
    assert "Traceback" not in done.stderr


def test_config_of_a_wrong_value_names_the_option(echo: typer.Typer, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("count: many")
    done = CliRunner().invoke(echo, ["--config", str(config)])
    assert isinstance(done.exception, UsageError)
    assert done.exception.message.startswith(f'{config}: `count`: got "many"')


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("k: two", "--k two: expected"),
        ("bootstraps: two", '`bootstraps`: got "two"'),
        ("sample: 0", "`sample`: got 0"),
        ("gamma: steep", '`gamma`: got "steep"'),
    ],
)
def test_a_wrong_value_in_a_configuration_is_one_line(written: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(written)
    done = rdx_here("compare", "a.npy", "b.npy", "--config", "c.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_a_configuration_may_nest_parameters(tmp_path: Path) -> None:
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(ord(name)).standard_normal((30, 4)))
    (tmp_path / "c.yaml").write_text("param: {gamma: 0.25, null_cluster: false}\ntest: false\n")
    done = rdx_here("compare", "a.npy", "b.npy", "--config", "c.yaml", "--dry-run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"gamma": 0.25, "null_cluster": False}.items() <= json.loads(done.stdout)["parameters"].items()


@pytest.mark.parametrize(("tol", "code"), [("steep", 2), ("0.1", 0)])
def test_a_configuration_may_nest_parameters_of_methods(tol: str, code: int, tmp_path: Path) -> None:
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(ord(name)).standard_normal((30, 4)))
    lines = ["method: kmeans,nmf", "test: false", "param:", "  kmeans: {n_init: 2}", f"  nmf: {{tol: {tol}}}"]
    (tmp_path / "c.yaml").write_text("\n".join(lines))
    done = rdx_here("compare", "a.npy", "b.npy", "--config", "c.yaml", "--dry-run", cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert code == 0 or "--param tol=steep: expected" in done.stderr


@pytest.mark.parametrize("command", ["compare a.npy b.npy", "explain --method eddp --activations a.npy"])
def test_a_shortcut_and_a_parameter_do_not_contradict(command: str, tmp_path: Path) -> None:
    short = ("--k", "n_clusters") if "compare" in command else ("--n-directions", "n_directions")
    done = rdx_here(*command.split(), short[0], "3", "--param", f"{short[1]}=5", cwd=tmp_path)
    assert done.returncode == 2
    assert f"{short[0]} 3 and --param {short[1]}=5 contradict each other" in done.stderr


def test_a_shortcut_and_its_former_name_do_not_contradict(tmp_path: Path) -> None:
    command = ["explain", "--method", "pca", "--activations", "a.npy", "--param", "num_directions=2"]
    for more, said in (
        (["--num-directions", "3"], "--n-directions 3 and --param n_directions=2"),
        (["--param", "n_directions=4"], "--param num_directions=2 and --param n_directions=4"),
    ):
        done = rdx_here(*command, *more, cwd=tmp_path)
        assert done.returncode == 2
        assert f"{said} contradict each other" in done.stderr


@pytest.mark.parametrize("limit", ["7", "-0.1", "nan"])
def test_a_gate_that_no_score_can_reach(limit: str, tmp_path: Path) -> None:
    done = rdx_here("compare", "a.npy", "b.npy", f"--fail-above={limit}", cwd=tmp_path)
    assert done.returncode == 2
    assert "lies between 0 and 1" in done.stderr


def test_load_config_ignores_absence() -> None:
    assert load_config(None, None) is None  # type: ignore[arg-type]


def test_commands_answer_in_json() -> None:
    done = rdx_here("list", "methods", "--json")
    assert done.returncode == 0
    assert {"name": "rdx", "command": "compare"}.items() <= json.loads(done.stdout)[0].items()


def test_no_colour_and_no_bars_without_a_terminal() -> None:
    done = rdx("list", "nothing")
    assert done.returncode == 2
    assert "\x1b" not in done.stderr + done.stdout


def test_reference_page_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("make_cli_reference", ROOT / "docs" / "make_cli_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text("utf-8") == module.page(), "run `make docs`"
