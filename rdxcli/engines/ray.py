"""The Ray engine: the same loop, run by actors on several GPUs or machines (extra ``ray``).

Every actor opens the task for itself, claims shards and writes them into the outputs directory, which all machines must
share. An actor that dies is started again; what it held is done by the others in the meantime.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rdxcli.artifacts.leases import Worker
from rdxcli.engines.local import REPORT_AFTER, RunOptions, RunReport, check_failures, run_local
from rdxcli.engines.shards import ShardPlan, ShardStore
from rdxcli.engines.tasks import ShardTask
from rdxcli.errors import DependencyError, RdxError
from rdxcli.progress import Advance, human_count, human_seconds, log, track

RESTARTS = 3  # of one actor
REACH = 10.0  # seconds in which a cluster must answer
LOOK = 0.5  # seconds between looks at the finished shards


def run_ray(
    factory: Callable[..., ShardTask],
    arguments: tuple[Any, ...],
    plan: ShardPlan,
    places: Mapping[str, Path | ShardStore],
    sample_ids: Sequence[str],
    options: RunOptions,
    address: str | None = None,
) -> RunReport:
    """Do the shards that are not finished on a Ray cluster.

    Raises `DependencyError` (Ray is not installed) or `RdxError` (Ray cannot be reached, no worker is left, or samples
    failed beyond what was allowed).

    Parameters
    ----------
    factory : callable
        ``factory(*arguments)`` opens the task in each actor; an importable function.
    places : mapping of str to Path or ShardStore
        Where the shards of each output lie; absolute and seen by all machines.
    address : str, optional
        Of a running cluster; without it Ray starts on this machine, or takes ``RAY_ADDRESS``.
    """
    ray = _ray()
    stores = {
        name: ShardStore(
            place.folder if isinstance(place, ShardStore) else place,
            sample_ids,
            place.request if isinstance(place, ShardStore) else "",
        )
        for name, place in places.items()
    }
    todo = _unfinished(plan, stores, range(len(plan)))
    report = RunReport(batch_size=options.batch_size or plan.batch_size)
    report.resumed = plan.n - _rows(plan, todo)
    start = time.monotonic()
    if todo:
        owned = _connect(ray, address)
        try:
            actors = _actors(ray, len(todo), (factory, arguments, plan, stores, options))
            log.info("%d Ray actors, %s", len(actors), human_count(len(todo), "shard"))
            with track(options.description, _rows(plan, todo), "rows") as advance:
                _oversee(ray, actors, plan, stores, todo, advance)
        finally:
            if owned:
                ray.shutdown()
    left = _unfinished(plan, stores, todo, retry_empty=False)
    if left:
        raise RdxError(
            f"no Ray worker is left, with {len(left)} of {human_count(len(plan), 'shard')} to do",
            "run the same command again",
        )
    report.computed, report.seconds = _rows(plan, todo), time.monotonic() - start
    failures = {
        failure.row: failure
        for store in stores.values()
        for shard in range(len(plan))
        for failure in store.failures(shard, plan.rows(shard))
    }
    report.failures = [failures[row] for row in sorted(failures)]
    check_failures(report.failures, options)
    return report


def count_workers(address: str | None = None) -> int:
    """How many actors the cluster has room for; connects to it, or starts one on this machine."""
    ray = _ray()
    _connect(ray, address)
    return _room(ray)[0]


class _Worker:
    """Lives in a Ray actor."""

    def __init__(
        self,
        factory: Callable[..., Any],
        arguments: tuple[Any, ...],
        plan: ShardPlan,
        stores: Mapping[str, ShardStore],
        options: RunOptions,
    ) -> None:
        self.task = factory(*arguments)
        self.task.__enter__()
        self.plan, self.stores, self.options = plan, dict(stores), options

    def work(self, index: int, count: int) -> int:
        """Claim shards until none is left; returns the rows that were done here."""
        shards = [shard for first in range(count) for shard in range((index + first) % count, len(self.plan), count)]
        folders = tuple(store.folder.parent for store in self.stores.values())
        for store in self.stores.values():
            if not store.request:
                store.folder.mkdir(parents=True, exist_ok=True)
        with Worker(folders, f"ray actor {index}") as worker:
            return run_local(self.task, self.plan, self.stores, self.options, shards, worker).computed


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise DependencyError("ray", "ray") from None
    return ray


def _connect(ray: Any, address: str | None) -> bool:
    """Connect to the cluster; False when this process was connected before."""
    if ray.is_initialized():
        return False
    wanted = address or os.environ.get("RAY_ADDRESS")
    if wanted and wanted not in ("auto", "local"):
        _reach(wanted)
    try:
        ray.init(
            address=wanted or "local",  # not the remains of a cluster that somebody started here once
            ignore_reinit_error=True,
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=False,
        )
    except Exception as error:  # one that does not start in time is a bare `Exception` of Ray
        raise _unreachable(address or "this machine", _last(error)) from None
    return True


def _reach(address: str) -> None:
    """Ray itself tries for minutes: see first whether anything answers there, and whether it is Ray."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit() or not host:
        raise _unreachable(address, "expected HOST:PORT, ray://HOST:PORT or auto")
    start = time.monotonic()
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH / 2).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, getattr(error, "strerror", None) or str(error) or "no answer") from None
    if address.startswith("ray://"):
        return
    probe = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        left = max(1.0, _patience() - (time.monotonic() - start))
        done = subprocess.run(probe, capture_output=True, timeout=left, check=False)
    except subprocess.TimeoutExpired:
        raise _unreachable(address, f"no answer in {_patience():.0f} s") from None
    except OSError:
        return
    if b"AuthenticationError" in done.stderr:
        raise RdxError(
            f"Ray at {address} asks for a token", "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        )
    if done.returncode:
        raise _unreachable(address, "something answers there, and it is not Ray")


def _patience() -> float:
    """`REACH` on a machine with nothing else to do: to load Ray takes as much longer as processes wait for a core."""
    try:
        waiting = os.getloadavg()[0] / (os.cpu_count() or 1)
    except (AttributeError, OSError):  # Windows
        waiting = 1.0
    return REACH * min(6.0, max(1.0, waiting))


def _unreachable(address: str, why: str) -> RdxError:
    return RdxError(
        f"Ray cannot be reached at {address}: {why}", "check --address, or leave it out to use this machine"
    )


def _room(ray: Any) -> tuple[int, dict[str, float]]:
    """Actors the cluster has room for and what each takes: one per GPU, else one per two cores."""
    resources = ray.cluster_resources()
    gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    count = max(1, gpus or cores // 2)
    return count, {"num_gpus": 1} if gpus else {"num_cpus": max(1, cores // count)}


def _actors(ray: Any, shards: int, arguments: tuple[Any, ...]) -> list[Any]:
    """As many as there is room for, and never more than shards."""
    count, needs = _room(ray)
    actor = ray.remote(**needs, max_restarts=RESTARTS, max_task_retries=RESTARTS)(_Worker)
    return [actor.remote(*arguments) for _ in range(min(count, shards))]


def _oversee(
    ray: Any,
    actors: Sequence[Any],
    plan: ShardPlan,
    stores: Mapping[str, ShardStore],
    todo: Sequence[int],
    advance: Advance,
) -> None:
    """Wait until the actors have ended or all shards are finished; an actor that is lost for good is only told of."""
    running = {actor.work.remote(i, len(actors)): i for i, actor in enumerate(actors)}
    left, total, start, stated = list(todo), _rows(plan, todo), time.monotonic(), False
    while running:
        ended, _ = ray.wait(list(running), num_returns=1, timeout=LOOK)
        for reference in ended:
            index = running.pop(reference)
            try:
                ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                cause = getattr(error, "cause", None)
                raise (
                    cause if isinstance(cause, RdxError) else RdxError(f"a Ray worker failed: {_last(error)}")
                ) from None
            except ray.exceptions.RayError as error:
                log.warning("Ray actor %d is lost: %s", index, _last(error))
        before = _rows(plan, left)
        left = _unfinished(plan, stores, left)
        advance(before - _rows(plan, left))
        elapsed, done = time.monotonic() - start, total - _rows(plan, left)
        if not stated and elapsed >= REPORT_AFTER and done:
            stated = True
            log.info("%.1f rows/s, %s left", done / elapsed, human_seconds((total - done) * elapsed / done))
        if not left:
            return


def _unfinished(
    plan: ShardPlan, stores: Mapping[str, ShardStore], shards: Sequence[int], retry_empty: bool = True
) -> list[int]:
    return [
        shard
        for shard in shards
        if not all(store.done(shard, retry_empty, plan.rows(shard)) for store in stores.values())
    ]


def _rows(plan: ShardPlan, shards: Sequence[int]) -> int:
    return sum(len(plan.rows(shard)) for shard in shards)


def _last(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[-1].split())[:200] if lines else type(error).__name__
