"""The program in the surroundings that people have: closed and full streams, no home, old locales, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

LIST = [sys.executable, "-m", "rdxcli.cli.app", "list", "methods"]


def shell(redirections: str, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "RDX_CACHE"} | variables
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirections}', "sh", *(command or LIST)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


@pytest.mark.parametrize(
    ("redirections", "code"),
    [
        (">&-", 0),
        ("2>&-", 0),
        ("<&- >&- 2>&-", 0),
        ("2>/dev/full", 0),
        (">/dev/full", 1),
    ],
)
def test_closed_and_full_streams(redirections: str, code: int) -> None:
    done = shell(redirections)
    assert done.returncode == code, done.stderr
    assert "defect" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_no_file_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import os, sys
        from rdxcli.cli import streams
        streams.prepare()
        with open(sys.argv[1], "w") as stream:
            assert stream.fileno() > 2
            print("to nobody")
            os.write(1, b"nor this")
            os.write(2, b"nor this")
    """)
    shell(">&- 2>&- <&-", sys.executable, "-c", code, str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == ""


def test_an_old_locale() -> None:
    old = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    done = shell("", *LIST[:-2], "list", "layers", "no-such-mödel", **old)
    assert done.returncode == 2
    assert "unknown model" in done.stderr


def test_a_name_between_colons_and_brackets_is_a_name() -> None:
    done = shell("", *LIST[:-2], "list", "layers", "a:x: [bold]b[/bold]")
    assert "a:x: [bold]b[/bold]" in done.stderr


def test_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rdxcli import places

    def nobody(*args: object, **options: object) -> str:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("RDX_CACHE", raising=False)
    monkeypatch.setattr(places.platformdirs, "user_cache_dir", nobody)
    monkeypatch.setattr(places.tempfile, "tempdir", str(tmp_path))
    places.temporary_cache.cache_clear()
    first = places.cache_root()
    assert first.parent == tmp_path
    assert first.stat().st_mode & 0o077 == 0
    first.rmdir()
    first.symlink_to(tmp_path)  # what another user may have put there is not used
    places.temporary_cache.cache_clear()
    assert places.cache_root() != first
    places.temporary_cache.cache_clear()


def test_a_path_below_the_home_of_nobody() -> None:
    done = shell("", *LIST[:-2], "compare", "~no-such-user/a.npy", "b.npy")
    assert done.returncode != 0
    assert "defect" not in done.stderr


def test_sigterm_is_an_interruption() -> None:
    code = textwrap.dedent("""
        import os, signal, sys, time
        sys.argv = ["rdx", "list", "methods"]
        from rdxcli.cli import app, listing
        from rdxcli import listing as service
        def wait():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        service.methods = wait
        app.main()
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "asked to end" in done.stderr
    assert "Traceback" not in done.stderr
