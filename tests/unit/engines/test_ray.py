"""The Ray engine: a small real cluster on this machine when Ray is installed, and a clear word when it is not."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from rdxcli.engines import ray as engine
from rdxcli.engines.local import RunOptions, run_local
from rdxcli.engines.ray import run_ray
from rdxcli.engines.shards import ShardPlan, ShardStore, assemble
from rdxcli.engines.tasks import ShardTask
from rdxcli.errors import DependencyError, RdxError

N = 40
IDS = [f"s{i:02d}" for i in range(N)]
PLAN = ShardPlan(N, 4, 2)


class Doubles(ShardTask):
    def __init__(self, broken: tuple[int, ...]) -> None:
        self.broken = broken

    def __enter__(self) -> Doubles:
        return self

    def __exit__(self, *details: object) -> None:
        pass

    def prepare(self, row: int) -> np.ndarray:
        if row in self.broken:
            raise OSError("broken")
        return np.array([row, 2 * row], np.float32)

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        return {"values": batch}


class Slow(Doubles):
    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        time.sleep(0.2)
        return {"values": batch}


def test_without_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyError) as caught:
        run_ray(Doubles, ((),), PLAN, {"values": tmp_path}, IDS, RunOptions())
    assert caught.value.hint == "pip install 'rdx-vision[ray]'"


@pytest.mark.ray
@pytest.mark.slow
def test_the_same_bytes_as_the_local_engine(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    local = ShardStore(tmp_path / "local", IDS)
    run_local(Doubles((5,)), PLAN, {"values": local})
    store = ShardStore(tmp_path / "ray", IDS)
    run_local(Doubles((5,)), PLAN, {"values": store}, shards=[0, 1])
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import this test
    try:
        report = run_ray(Doubles, ((5,),), PLAN, {"values": store.folder}, IDS, RunOptions(description="test"))
        with pytest.raises(RdxError, match="s05: OSError: broken"):
            run_ray(Doubles, ((5,),), PLAN, {"values": store.folder}, IDS, RunOptions(strict=True))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
        ray.shutdown()
    assert (report.computed, report.resumed) == (32, 8)
    assert [failure.sample_id for failure in report.failures] == ["s05"]
    for name, one in (("local", local), ("ray", store)):
        assemble(one, PLAN, tmp_path / f"{name}.npy", tmp_path / f"{name}.parquet")
    assert (tmp_path / "local.npy").read_bytes() == (tmp_path / "ray.npy").read_bytes()
    assert (tmp_path / "local.parquet").read_bytes() == (tmp_path / "ray.parquet").read_bytes()


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_actor_costs_nothing_but_time(tmp_path: Path) -> None:
    """The others take over what it held, it is started again, and the bytes are the same."""
    ray = pytest.importorskip("ray")
    local = ShardStore(tmp_path / "local", IDS)
    run_local(Doubles(()), PLAN, {"values": local})
    place = ShardStore(tmp_path / "partial" / "shards", (), "request")
    plan = PLAN.settle(place.folder, "request")
    killed: list[int] = []

    def kill() -> None:
        while not killed:
            for file in (tmp_path / "partial" / "workers").glob("*.json"):
                if len(list(place.folder.glob("*.done"))) >= 2:
                    killed.append(json.loads(file.read_text())["process"])
                    os.kill(killed[0], signal.SIGKILL)
                    break
            time.sleep(0.01)

    cloudpickle = pytest.importorskip("ray.cloudpickle")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
        report = run_ray(Slow, ((),), plan, {"values": place}, IDS, RunOptions(description="test"))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
        ray.shutdown()
    assert killed
    assert report.computed == N
    store = ShardStore(place.folder, IDS, "request")
    for name, one in (("local", local), ("ray", store)):
        assemble(one, plan, tmp_path / f"{name}.npy", tmp_path / f"{name}.parquet")
    assert (tmp_path / "local.npy").read_bytes() == (tmp_path / "ray.npy").read_bytes()
    # one that was killed after its work and before it let go leaves a lease of what is done: nobody needs it
    assert all(lease.with_suffix(".done").is_file() for lease in place.folder.glob("*.lease"))


@pytest.mark.ray
@pytest.mark.parametrize("address", ["127.0.0.1:{free}", "ray://127.0.0.1:{free}", "nowhere", "127.0.0.1:{other}"])
def test_an_address_where_nobody_answers(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(engine, "_patience", lambda: 2.0)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray itself tries for minutes"))
    with socket.create_server(("127.0.0.1", 0)) as other, socket.create_server(("127.0.0.1", 0)) as free:
        ports = {"other": other.getsockname()[1], "free": free.getsockname()[1]}
        free.close()
        with pytest.raises(RdxError, match="Ray cannot be reached") as caught:
            run_ray(Doubles, ((),), PLAN, {"values": tmp_path}, IDS, RunOptions(), address.format(**ports))
    assert len(caught.value.message.splitlines()) == 1
    assert "--address" in str(caught.value.hint)


@pytest.mark.ray
def test_a_cluster_that_does_not_start_in_time_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine Ray gives up with a bare `Exception`."""
    ray = pytest.importorskip("ray")

    def init(**_: object) -> None:
        raise Exception("Failed to get node info\nThe current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(RdxError, match=r"Ray cannot be reached.*timed out during startup"):
        run_ray(Doubles, ((),), PLAN, {"values": tmp_path}, IDS, RunOptions())


def test_a_busy_machine_gets_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself takes longer to load where processes wait for a core; a live cluster is not called dead for that."""
    monkeypatch.setattr(engine.os, "cpu_count", lambda: 2)
    for load, expected in ((0.1, 10.0), (2.0, 10.0), (8.0, 40.0), (100.0, 60.0)):
        monkeypatch.setattr(engine.os, "getloadavg", lambda load=load: (load, load, load), raising=False)
        assert engine._patience() == expected
