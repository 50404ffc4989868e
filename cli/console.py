"""The one place that prints. Results go to stdout; tables, progress, messages and errors go to stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rdxcli.errors import RdxError, UsageError, without_passwords
from rdxcli.progress import Advance, human_bytes, set_tracker
from rdxcli.report.text import clean

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from rdxcli.report.summary import Column
    from rdxcli.services.base import Outcome

LOG_WIDTH = 140  # columns of tables that go to a file or a pipe
MESSAGE = 2000  # characters of a line of a message
SHORT = 8  # cells up to this many characters are never broken into lines
QUIET_INTERVAL = 30.0  # seconds between plain progress lines when stderr is no terminal
BYTES = "B"  # unit of progress that is shown as kB, MB ... per second


class Sink:
    """Where a command's words go.

    Parameters
    ----------
    as_json : bool
        Print one JSON document as the result instead of a line.
    verbosity : int
        -1 warnings and errors only, 0 normal, 1 details.
    """

    def __init__(self, as_json: bool = False, verbosity: int = 0) -> None:
        self.as_json = as_json
        self.verbosity = verbosity
        self._console: Console | None = None
        self._shown: Progress | None = None

    @property
    def stderr(self) -> Console:
        """Rich console on stderr (made on first use: importing Rich costs time)."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(
                stderr=True,
                highlight=False,
                emoji=False,  # a name between colons is a name
                soft_wrap=not sys.stderr.isatty(),
                width=_width(sys.stderr),
            )
        return self._console

    def install(self) -> None:
        """Route the ``rdxcli`` logger and the progress of services here."""
        handler = _SinkHandler(self)
        logger = logging.getLogger("rdxcli")
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel({-1: logging.WARNING, 0: logging.INFO}.get(self.verbosity, logging.DEBUG))
        # what libraries warn of is for developers: shown with -v
        logging.captureWarnings(True)
        foreign = logging.getLogger("py.warnings")
        foreign.handlers, foreign.propagate = [handler if self.verbosity > 0 else logging.NullHandler()], False
        set_tracker(self._track if self.verbosity >= 0 else None)

    def result(self, line: str | None, document: Any = None) -> None:
        """Print the result: ``document`` with ``--json``, else ``line``."""
        if self.as_json and document is not None:
            from rdxcli.records import plain  # loads NumPy, which `--help` does without

            text = json.dumps(plain(document), indent=2, ensure_ascii=False, allow_nan=False)
        elif line is not None:
            text = line
        else:
            return
        try:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise RdxError(f"cannot write to the standard output: {error.strerror or error}") from None

    def raw(self, content: bytes) -> None:
        """Bytes on the standard output, as they are. Raises `UsageError` (it is a terminal, and they are no text)."""
        if sys.stdout.isatty() and b"\0" in content:
            raise UsageError("this is no text for a terminal", "pipe it, or give --to FILE")
        try:
            sys.stdout.flush()
            binary = getattr(sys.stdout, "buffer", None)
            if binary is None:  # a stream of text, in place of the real one
                sys.stdout.write(content.decode("utf-8"))
            else:
                binary.write(content)
                binary.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise RdxError(f"cannot write to the standard output: {error.strerror or error}") from None

    def message(self, text: str) -> None:
        """A line for people, on stderr, unless quiet."""
        if self.verbosity >= 0:
            self.stderr.print(_lines(text), markup=False)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], to_stdout: bool = False) -> None:
        """A table for people. It goes to stderr, or to stdout when the table itself is what was asked for."""
        if self.verbosity < 0 and not to_stdout:
            return
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console(highlight=False, emoji=False, width=_width(sys.stdout)) if to_stdout else self.stderr
        table = Table(
            title=Text(clean(title)) if title else None,
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            show_header=any(columns),
        )
        numeric = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(columns))]
        widths = [max([len(column), *(len(_cell(row[i])) for row in rows)]) for i, column in enumerate(columns)]
        if sum(min(width, 2 * SHORT) for width in widths) + 3 * len(columns) > console.width:
            # too narrow for columns: a paragraph for each row
            if title:
                console.print(Text(clean(title), style="bold"))
            for row in rows:
                cells = [f"{name}: {_cell(value)}" for name, value in zip(columns[1:], row[1:], strict=True)]
                console.print(Text(_cell(row[0]), style="bold"), Text("; ".join(cells)), soft_wrap=False)
            return
        for column, is_number, width in zip(columns, numeric, widths, strict=True):
            keep = width <= SHORT
            table.add_column(column, justify="right" if is_number else "left", overflow="fold", no_wrap=keep)
        for row in rows:
            table.add_row(*(Text(_cell(value)) for value in row))
        console.print(table)

    def page(self, text: str, document: Any) -> None:
        """A page of Markdown: set for the terminal when stdout is one, else as it is; ``document`` with ``--json``."""
        if self.as_json or not sys.stdout.isatty():
            self.result(text.rstrip("\n"), document)
            return
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(text))

    def summary(self, outcome: Outcome) -> None:
        """What an analysis found: its tables, cut to what people read, then its words."""
        found = outcome.summary
        for number, table in enumerate(found.printed()):
            title = found.title if number == 0 else table.title
            rows = [
                [_shown(value, column) for value, column in zip(row, table.columns, strict=True)] for row in table.rows
            ]
            self.table(title, [column.name for column in table.columns], rows)
            if table.left_out:
                count = len(table.rows) + table.left_out
                what = table.title.lower() or "rows"
                self.message(
                    f"{len(table.rows)} of {count:,} {what} are shown; all of them are in {outcome.artifact.path}"
                )
        for line in (*found.lines(), *outcome.lines):
            self.message(line)

    def error(self, message: str, hint: str | None = None) -> None:
        """An error: what is wrong, and in a line of its own what to do."""
        from rich.text import Text

        self.stderr.print(Text("error: ", style="bold red") + Text(_lines(message)))
        if hint:
            self.stderr.print(Text("hint: ", style="bold cyan") + Text(_lines(hint)))

    def traceback(self) -> None:
        """The traceback of the exception that is being handled, without the values of local variables."""
        import traceback

        self.stderr.print(without_passwords(traceback.format_exc()), markup=False)

    def warning(self, text: str) -> None:
        from rich.text import Text

        self.stderr.print(Text("warning: ", style="bold yellow") + Text(_lines(text)))

    @contextmanager
    def _track(self, description: str, total: int | None, unit: str) -> Iterator[Advance]:
        if not self.stderr.is_terminal:
            yield _PlainProgress(self, description, total, unit)
            return
        with self._display(unit) as display:
            task = display.add_task(description, total=total, unit=unit)
            try:
                yield lambda steps: display.advance(task, steps)
            finally:
                display.remove_task(task)

    @contextmanager
    def _display(self, unit: str) -> Iterator[Progress]:
        """The bars: steps inside a step have a bar below its own."""
        if self._shown is not None:
            yield self._shown
            return
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            SpinnerColumn,
            Task,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.text import Text

        class RateColumn(ProgressColumn):
            def render(self, task: Task) -> Text:
                return Text(_rate(task.speed, task.fields["unit"]) if task.speed else "")

        amount: tuple[ProgressColumn, ...] = (MofNCompleteColumn(), RateColumn())
        if unit == BYTES:
            amount = (DownloadColumn(), TransferSpeedColumn())
        progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            *amount,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.stderr,
            transient=True,
        )
        with progress:
            self._shown = progress
            try:
                yield progress
            finally:
                self._shown = None


def _rate(speed: float, unit: str) -> str:
    """How fast, or of slow steps how long each takes."""
    return f"{speed:.1f} {unit}/s" if speed >= 1 else f"{1 / speed:.1f} s each"


class _PlainProgress:
    """One line every half minute: how many, how fast, how long still."""

    def __init__(self, sink: Sink, description: str, total: int | None, unit: str) -> None:
        self.sink, self.description, self.total, self.unit = sink, description, total, unit
        self.start = self.last = time.monotonic()
        self.done = 0

    def __call__(self, steps: int) -> None:
        self.done += steps
        now = time.monotonic()
        if now - self.last < QUIET_INTERVAL:
            return
        self.last = now
        rate = self.done / (now - self.start)
        left = f", {max(0, self.total - self.done) / rate:.0f} s left" if self.total and rate > 0 else ""
        if self.unit == BYTES:
            of = f" of {human_bytes(self.total)}" if self.total else ""
            self.sink.message(f"{self.description}: {human_bytes(self.done)}{of}, {human_bytes(rate)}/s{left}")
            return
        of = f"/{self.total}" if self.total else ""
        self.sink.message(f"{self.description}: {self.done}{of} {self.unit}, {_rate(rate, self.unit)}{left}")


class _SinkHandler(logging.Handler):
    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self.sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            self.sink.warning(text)
        else:
            self.sink.stderr.print(_lines(text), markup=False, style="dim" if record.levelno < logging.INFO else None)


def _width(stream: Any) -> int | None:
    """Columns of a file or pipe, which has none of its own: enough for every table. None lets Rich ask the terminal."""
    return None if stream.isatty() or "COLUMNS" in os.environ else LOG_WIDTH


def _lines(text: str) -> str:
    """A message of one or more lines, each `clean`."""
    return "\n".join(clean(line, MESSAGE) for line in without_passwords(text).split("\n"))


def _shown(value: Any, column: Column) -> Any:
    """A value for the table: numbers stay numbers, so that they are set to the right."""
    if isinstance(value, tuple | list):
        return " to ".join(map(_cell, value))
    if column.unit == "share" and isinstance(value, float):
        return f"{100 * value:.3g} %"
    return "-" if value in (None, "") else value


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 0.1 else f"{value:.2f}"
    return clean(without_passwords(value) if isinstance(value, str) else value)
