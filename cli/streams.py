"""The surroundings of the program as it may find them: closed or odd streams, no home, a request to end.

Schedulers, daemons and containers start programs without a standard output, without a home directory, with a locale of
the last century. None of that is a reason to fail.
"""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

INTERRUPTED, TERMINATED = 130, 128 + signal.SIGTERM


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM): what can be continued is kept, as after Ctrl-C."""


class Forgiving:
    """A stream for people whose reader may have gone: what cannot be written is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def prepare() -> None:
    """Make the surroundings bearable; called once, before anything is read or written."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        _open(number, name)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.stderr = Forgiving(sys.stderr)  # type: ignore[assignment]
    _find_home()
    with suppress(ValueError, OSError):  # not in the main thread
        signal.signal(signal.SIGTERM, _terminate)


def _open(number: int, name: str) -> None:
    """Give a closed stream to nobody, so that no file that is opened later becomes the standard output."""
    try:
        os.fstat(number)
    except OSError:
        nobody = os.open(os.devnull, os.O_RDWR)
        if nobody != number:
            os.dup2(nobody, number)
            os.close(nobody)
    if getattr(sys, name) is None:
        setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115


def _find_home() -> None:
    """Without a home directory the libraries that keep caches in it fail, each in its own way: lend them one."""
    try:
        if Path.home().is_absolute():
            return
    except (RuntimeError, KeyError):
        pass
    from rdxcli.places import temporary_cache

    with suppress(OSError):
        os.environ["HOME"] = str(temporary_cache())


def close() -> int | None:
    """Write out what waits in the streams; the exit code when standard output cannot take it.

    Without this Python does it while it ends, with a message of its own.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            sys.stderr.write(f"error: cannot write to the standard output: {error.strerror}\n")
        return 1
    return None


_asked: list[int] = []


def exit_code(code: Any) -> Any:
    """The code to end with: whoever caught our interruption and took it for a Ctrl-C is corrected."""
    return TERMINATED if _asked and code == 130 else code


def _terminate(number: int, frame: FrameType | None) -> None:
    _asked.append(number)
    raise Terminated


__all__ = ["TERMINATED", "Forgiving", "Terminated", "close", "exit_code", "prepare"]
