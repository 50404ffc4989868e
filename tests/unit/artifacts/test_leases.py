"""Leases: one worker at a time, taken over from the dead, not from the living."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from rdxcli.artifacts import leases
from rdxcli.artifacts.leases import WORKERS, Watch, Worker


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shards").mkdir()
    return tmp_path


def test_one_at_a_time(folder: Path) -> None:
    lease = folder / "shards" / "0.lease"
    with Worker((folder,)) as one, Worker((folder,)) as other:
        assert one.claim(lease)
        assert one.claim(lease)
        assert not other.claim(lease)
        other.release(lease)  # it is not the other's
        assert not other.claim(lease)
        one.release(lease)
        assert other.claim(lease)
        assert [entry["process"] for entry in Watch().living(folder)] == [os.getpid()] * 2
    assert not Watch().living(folder)
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def _dead(folder: Path, lease: Path) -> str:
    """A worker that died with its lease; its id."""
    code = textwrap.dedent("""
        import os, sys
        from pathlib import Path
        from rdxcli.artifacts.leases import Worker
        worker = Worker((Path(sys.argv[1]),)).__enter__()
        assert worker.claim(Path(sys.argv[2]))
        print(worker.id, flush=True)
        os._exit(9)
    """)
    done = subprocess.run([sys.executable, "-c", code, folder, lease], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def test_the_lease_of_the_dead_is_free_at_once(folder: Path) -> None:
    lease = folder / "shards" / "0.lease"
    dead = _dead(folder, lease)
    assert lease.read_text() == dead
    with Worker((folder,)) as heir:
        assert heir.claim(lease)
        assert lease.read_text() == heir.id


def test_on_another_machine_the_heartbeat_decides(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = folder / "shards" / "0.lease"
    file = folder / WORKERS / f"{_dead(folder, lease)}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "machine": "elsewhere"}))
    with Worker((folder,)) as heir:
        assert not heir.claim(lease)
        old = file.stat().st_mtime - leases.LEASE - 1
        os.utime(file, (old, old))
        assert heir.claim(lease)
        heir.release(lease)
        # a clock that was set back does not keep the dead alive: watched long enough, the heartbeat stands still
        lease.write_text(file.stem)
        ahead = file.stat().st_mtime + 10 * leases.LEASE
        os.utime(file, (ahead, ahead))
        assert not heir.claim(lease)
        monkeypatch.setattr(leases, "LEASE", -1.0)
        assert heir.claim(lease)


def test_another_process_with_the_same_number(folder: Path) -> None:
    lease = folder / "shards" / "0.lease"
    file = folder / WORKERS / f"{_dead(folder, lease)}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "process": os.getpid()}))  # we began at another time
    with Worker((folder,)) as heir:
        assert heir.claim(lease)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"process": "x", "machine": 7}'])
def test_damaged_workers_and_leases(folder: Path, text: str) -> None:
    (folder / WORKERS).mkdir()
    (folder / WORKERS / "x.json").write_text(text)
    (folder / "shards" / "0.lease").write_text("x")
    (folder / "shards" / "1.lease").write_text("nobody")
    with Worker((folder,)) as worker:
        worker.claim(folder / "shards" / "0.lease")
        assert worker.claim(folder / "shards" / "1.lease")
        assert not worker.claim(folder / "gone" / "2.lease")
