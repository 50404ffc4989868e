"""``rdx`` in processes of its own, forked from one that has loaded the libraries once.

They are processes like others: with their own streams and environment, to be waited for, interrupted and killed. Only
the seconds that the imports cost are saved. What a fresh interpreter does is for other tests.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        *(
            "torch",
            "torchvision",
            "sklearn.cluster",
            "scipy.stats",
            "pyarrow.parquet",
            "matplotlib.figure",
            "rich.table",
        ),
        *("rdxcli.cli.app", "rdxcli.representations.extract", "rdxcli.services.compare.compare"),
        *("rdxcli.services.explain.neurons", "rdxcli.services.encode_concepts", "rdxcli.services.train_surrogate"),
    ]
)
PATIENCE = 300.0
"""Seconds after which a test gives up; nothing is measured by it."""


class Forked:
    """A process of ``rdx``, with what the tests use of ``subprocess.Popen``.

    Parameters
    ----------
    arguments : object
        What is typed after ``rdx``.
    cwd : Path, optional
    stdin, stdout : Path, optional
        A file or a named pipe; by default nothing is read, and what is written is kept for `communicate`.
    code : str
        What runs before the command, for example to hold it somewhere, or alone where nothing is typed.
    **variables : str
        Environment variables besides those of this process.
    """

    def __init__(
        self,
        *arguments: object,
        cwd: Path | None = None,
        stdin: Path | None = None,
        stdout: Path | None = None,
        code: str = "",
        **variables: str,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        kept = Path(self._folder.name)
        self.out, self.err = stdout or kept / "out", kept / "err"
        self.args = list(map(str, arguments))
        self.err.touch()
        self._process = FORKS.Process(
            target=_run,
            args=(
                self.args,
                str(cwd or Path.cwd()),
                {**os.environ, **variables},
                (str(stdin or os.devnull), str(self.out), str(self.err)),
                code,
            ),
        )
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    poll = returncode.fget

    def wait(self, timeout: float = PATIENCE) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            self._process.kill()
            self._process.join()
            raise subprocess.TimeoutExpired(self.args, timeout, None, self.err.read_bytes())
        return self.returncode

    def communicate(self, timeout: float = PATIENCE) -> tuple[str, str]:
        self.wait(timeout)
        return self.out.read_text("utf-8") if self.out.is_file() else "", self.err.read_text("utf-8")

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """``kill -9``, which must find it alive."""
        self.send_signal(signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL, self.communicate()

    def until(self, condition: Callable[[], object]) -> None:
        """Wait while it works, until the condition holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.returncode is None, self.communicate()
            assert time.monotonic() < deadline, self.err.read_text("utf-8")
            time.sleep(0.005)


def rdx_forked(
    *arguments: object, cwd: Path | None = None, stdin: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    process = Forked(*arguments, cwd=cwd, stdin=stdin, **variables)
    out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.wait(), out, err)


def stop_server() -> None:
    """End what a failed test left, then the process they are forked from; waited for, so that its time is counted."""
    for process in multiprocessing.active_children():
        process.kill()
        process.join()
    forkserver._forkserver._stop()


def _run(arguments: list[str], cwd: str, environment: dict[str, str], files: tuple[str, str, str], code: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    flags = (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT | os.O_TRUNC] * 2)
    for number, (file, flag) in enumerate(zip(files, flags, strict=True)):
        opened = os.open(file, flag)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(os.dup(i), "rw"[i > 0], encoding="utf-8") for i in range(3))
    sys.argv = ["rdx", *arguments]
    from rdxcli.cli.app import main

    exec(code, {"__name__": "__forked__"})
    if arguments:
        main()
