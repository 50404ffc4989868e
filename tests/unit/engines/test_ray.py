"""The Ray engine: a small real cluster on this machine when Ray is installed, and a clear word when it is not."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

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
