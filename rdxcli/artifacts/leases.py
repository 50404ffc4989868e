"""Who is at work on what: workers with a heartbeat, and leases on pieces of work.

Everything is a file below the partial folder of an artifact, so that processes on one machine, ranks of a scheduler and
actors of a cluster can share work without talking to each other::

    workers/<id>.json      one for every process at work here; its time is set anew every `BEAT` seconds
    shards/00003.lease     the id of the worker that does shard 3

A lease counts for as long as its worker lives. A worker on this machine has died when its process is gone; any worker
has died when its heartbeat stood still for `LEASE` seconds, by the clock of the disk or by watching it. Doing a piece
twice is wasteful and harmless, so a worker that was only asleep does no damage when it wakes up.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

WORKERS = "workers"
_TAKEOVER = ".takeover.lock"  # held for a moment by whoever takes a lease from the dead
BEAT = 5.0
LEASE = 90.0  # longer than a network disk keeps the attributes of a file (60 s)


@dataclass
class Worker:
    """This process at work below some folders; a context manager. Its leases end with it.

    Parameters
    ----------
    folders : sequence of Path
        Partial folders of artifacts.
    command : str
        What it runs, for people.
    """

    folders: tuple[Path, ...]
    command: str = ""
    id: str = field(default_factory=lambda: f"{_plain(socket.gethostname())}-{os.getpid()}-{secrets.token_hex(4)}")

    def __post_init__(self) -> None:
        self._held: set[Path] = set()
        self._stop = threading.Event()
        self._watch = Watch()

    def __enter__(self) -> Worker:
        for file in self._files():
            file.parent.mkdir(exist_ok=True)
            temporary = file.with_name(f"{file.name}.tmp")
            temporary.write_text(json.dumps({**_identity(), "command": self.command}), "utf-8")
            os.replace(temporary, file)
        threading.Thread(target=self._beat, name="rdx-heartbeat", daemon=True).start()
        return self

    def __exit__(self, *details: object) -> None:
        self._stop.set()
        for path in list(self._held):
            self.release(path)
        for file in self._files():
            with suppress(OSError):
                file.unlink()

    def claim(self, path: Path) -> bool:
        """Take the lease ``path``; False when a living worker has it, or its folder is gone."""
        for _ in range(2):
            if self._create(path):
                self._held.add(path)
                return True
            holder = _holder_of(path)
            if holder == self.id:
                return True
            if holder is None:
                if not _left_empty(path):
                    return False
            elif self._watch.alive(path.parent.parent / WORKERS / f"{holder}.json"):
                return False
            self._take_away(path, holder)
        return False

    def release(self, path: Path) -> None:
        """Give the lease back, unless another worker has taken it over."""
        self._held.discard(path)
        if _holder_of(path) == self.id:
            with suppress(OSError):
                path.unlink()

    def _files(self) -> list[Path]:
        return [folder / WORKERS / f"{self.id}.json" for folder in self.folders]

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            for file in self._files():
                with suppress(OSError):  # the artifact was finished by another
                    os.utime(file)

    def _create(self, path: Path) -> bool:
        temporary = path.with_name(f"{path.name}.{self.id}.tmp")
        try:
            temporary.write_text(self.id, "utf-8")
            try:
                os.link(temporary, path)  # unlike a rename, this fails when another process was first
            except FileExistsError:
                return False
            except OSError:  # a file system without hard links
                try:
                    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
                except FileExistsError:
                    return False
                os.replace(temporary, path)
            return True
        except FileNotFoundError:
            return False
        finally:
            with suppress(OSError):
                temporary.unlink()

    def _take_away(self, path: Path, holder: str | None) -> None:
        """Remove the lease of a dead worker, unless another has taken it over in the meantime."""
        with suppress(OSError, Timeout), FileLock(path.with_name(_TAKEOVER), timeout=BEAT):
            if _holder_of(path) == holder:
                path.unlink()


class Watch:
    """Judges whether workers live, and remembers for how long a heartbeat has stood still."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[int, float]] = {}

    def alive(self, file: Path) -> bool:
        """Whether the worker of ``file`` lives."""
        try:
            beat = file.stat().st_mtime_ns
        except OSError:
            return False
        if _died_here(_facts(file)):
            return False
        before, since = self._seen.get(file, (None, 0.0))
        if before != beat:
            self._seen[file] = (beat, time.monotonic())
        elif time.monotonic() - since > LEASE:
            return False
        return _disk_time(file.parent) - beat / 1e9 <= LEASE

    def living(self, folder: Path) -> list[dict[str, Any]]:
        """The workers that live below the partial folder ``folder``: ``{process, host, command}``."""
        return [_facts(file) for file in sorted((folder / WORKERS).glob("*.json")) if self.alive(file)]


def say_workers(workers: Iterable[dict[str, Any]]) -> str:
    """Workers in words; of many of them the first."""
    listed = list(workers)
    first = listed[0]
    more = f" and {len(listed) - 1} more" if len(listed) > 1 else ""
    return f"process {first.get('process')} on {first.get('host')} (`{first.get('command')}`){more}"


def _facts(file: Path) -> dict[str, Any]:
    """What a worker wrote of itself; nothing when that cannot be read."""
    try:
        facts = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _holder_of(path: Path) -> str | None:
    try:
        return path.read_text("utf-8") or None
    except (OSError, ValueError):
        return None


def _left_empty(path: Path) -> bool:
    """Whether a lease without a name has been so for long: its worker died while it wrote it."""
    try:
        return _disk_time(path.parent) - path.stat().st_mtime > LEASE
    except OSError:
        return False


def _identity() -> dict[str, Any]:
    return {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "machine": _machine(),
        "started": _started(os.getpid()),
    }


def _died_here(facts: dict[str, Any]) -> bool:
    """Whether this is a process of this machine that is gone, or a corpse that nobody has collected."""
    if not facts.get("machine") or facts["machine"] != _machine():
        return False
    try:
        process = int(facts["process"])
        if _started(process) != facts.get("started"):
            return True
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False


def _machine() -> str:
    """What tells machines, boots and containers apart: process numbers mean something only within one of them."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _started(process: int) -> float | None:
    """When a process began, in a unit that does not change when the clock is set; None when it is gone."""
    try:
        # the name in brackets may hold spaces and brackets
        return float(Path(f"/proc/{process}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19])
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except (OSError, ValueError, IndexError):
        pass
    with suppress(psutil.Error):
        return psutil.Process(process).create_time()
    return None


def _disk_time(folder: Path) -> float:
    """The time as the disk of ``folder`` knows it: the clocks of several machines may differ."""
    probe = folder / f"time.{os.getpid()}.{threading.get_ident()}.tmp"
    try:
        probe.write_bytes(b"")
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink()


def _plain(name: str) -> str:
    return "".join(character if character.isalnum() or character in "-_" else "-" for character in name)[:60]
