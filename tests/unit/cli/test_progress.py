"""How far a long step is: a rate and the time left, in a terminal and in a log."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from rdxcli import progress
from rdxcli.cli import console
from rdxcli.cli.console import Sink
from rdxcli.errors import OutOfTimeError
from rdxcli.progress import awaited, set_tracker, time_limit, track, turns


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
    monkeypatch.setattr(console, "QUIET_INTERVAL", 0.0)
    made = Sink()
    set_tracker(made._track)
    yield made
    set_tracker(None)


def test_a_log_has_the_rate_and_the_time_left(sink: Sink, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(turns("fit", 3, "epochs")) == [0, 1, 2]
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("fit: 1/3 epochs, ")
    assert "epochs/s, " in first
    assert first.endswith("s left")
    assert last.endswith("0 s left")


def test_slow_steps_say_how_long_each_takes() -> None:
    assert console._rate(2.5, "rows") == "2.5 rows/s"
    assert console._rate(0.05, "rows") == "20.0 s each"


def test_steps_within_a_step_share_the_display(sink: Sink) -> None:
    from rich.console import Console

    seen = io.StringIO()
    sink._console = Console(file=seen, force_terminal=True, width=120)
    with track("outer", 2, "pairs") as advance:
        shown = sink._shown
        assert shown is not None
        for _ in turns("inner", 4):
            assert sink._shown is shown
            assert [task.description for task in shown.tasks] == ["outer", "inner"]
        advance(1)
        assert [task.description for task in shown.tasks] == ["outer"]
        shown.refresh()
    assert sink._shown is None
    assert "outer" in seen.getvalue()


def test_a_silent_step_says_about_how_long(caplog: pytest.LogCaptureFixture) -> None:
    for seconds in (0.5, 40.0, None):
        with caplog.at_level("INFO", "rdxcli"), awaited("explain with nmf", seconds):
            pass
    assert caplog.messages == ["explain with nmf, about 40 s"]


def test_a_long_loop_ends_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with time_limit(5.0):
        loop = turns("fit", 10)
        for _ in range(3):
            next(loop)
            now[0] += 2.0
        with pytest.raises(OutOfTimeError, match="longer than 5 s"):
            next(loop)
