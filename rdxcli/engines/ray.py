"""The Ray engine: the same shards, done by actors on several GPUs or machines (extra ``ray``).

Every actor opens the task for itself and writes its shards into the outputs directory, which all machines must share.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rdxcli.engines.local import RunOptions, RunReport, check_failures, run_local
from rdxcli.engines.shards import ShardPlan, ShardStore
from rdxcli.engines.tasks import ShardTask
from rdxcli.errors import DependencyError, RdxError
from rdxcli.progress import log, track


def run_ray(
    factory: Callable[..., ShardTask],
    arguments: tuple[Any, ...],
    plan: ShardPlan,
    folders: Mapping[str, Path],
    sample_ids: Sequence[str],
    options: RunOptions,
    address: str | None = None,
) -> RunReport:
    """Do the shards that are not finished on a Ray cluster.

    Parameters
    ----------
    factory : callable
        ``factory(*arguments)`` opens the task in each actor; an importable function.
    plan : ShardPlan
    folders : mapping of str to Path
        Folder of the shards of each output; absolute and seen by all machines.
    sample_ids : sequence of str
    options : RunOptions
    address : str, optional
        Of a running cluster; without it Ray starts on this machine, or takes ``RAY_ADDRESS``.

    Returns
    -------
    RunReport

    Raises
    ------
    DependencyError
        Ray is not installed.
    RdxError
        Ray cannot be reached, a worker failed, or samples failed beyond what was allowed.
    """
    try:
        import ray
    except ImportError:
        raise DependencyError("ray", "ray") from None
    import time

    stores = {name: ShardStore(folder, sample_ids) for name, folder in folders.items()}
    todo = [s for s in range(len(plan)) if not all(store.done(s, retry_empty=True) for store in stores.values())]
    report = RunReport(batch_size=options.batch_size or plan.batch_size)
    report.resumed = sum(len(plan.rows(shard)) for shard in set(range(len(plan))) - set(todo))
    total = sum(len(plan.rows(shard)) for shard in todo)
    start = time.monotonic()
    if todo:
        owned = not ray.is_initialized()
        try:
            ray.init(
                address=address,
                ignore_reinit_error=True,
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=False,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise RdxError(f"Ray cannot be reached: {' '.join(str(error).split())}", "check --address") from None
        try:
            actors = _actors(ray, len(todo), (factory, arguments, plan, dict(folders), list(sample_ids), options))
            log.info("%d Ray actors, %d shards", len(actors), len(todo))
            with track(options.description, total, "rows") as advance:
                for shard in _spread(ray, actors, todo):
                    advance(len(plan.rows(shard)))
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            raise (cause if isinstance(cause, RdxError) else RdxError(f"a Ray worker failed: {_last(error)}")) from None
        finally:
            if owned:
                ray.shutdown()
    report.computed, report.seconds = total, time.monotonic() - start
    failures = {
        failure.row: failure
        for store in stores.values()
        for shard in range(len(plan))
        for failure in store.failures(shard, plan.rows(shard))
    }
    report.failures = [failures[row] for row in sorted(failures)]
    check_failures(report.failures, options)
    return report


class _Worker:
    """Lives in a Ray actor."""

    def __init__(
        self,
        factory: Callable[..., Any],
        arguments: tuple[Any, ...],
        plan: ShardPlan,
        folders: Mapping[str, Path],
        sample_ids: Sequence[str],
        options: RunOptions,
    ) -> None:
        self.task = factory(*arguments)
        self.task.__enter__()
        self.plan, self.options = plan, options
        self.stores = {name: ShardStore(folder, sample_ids) for name, folder in folders.items()}

    def do(self, shard: int) -> int:
        run_local(self.task, self.plan, self.stores, self.options, [shard])
        return shard


def _actors(ray: Any, shards: int, arguments: tuple[Any, ...]) -> list[Any]:
    """One actor per GPU of the cluster, else one per two cores, and never more than shards."""
    resources = ray.cluster_resources()
    gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    count = max(1, min(shards, gpus or cores // 2))
    needs: dict[str, float] = {"num_gpus": 1} if gpus else {"num_cpus": max(1, cores // count)}
    actor = ray.remote(**needs)(_Worker)
    return [actor.remote(*arguments) for _ in range(count)]


def _spread(ray: Any, actors: Sequence[Any], todo: Sequence[int]) -> Any:
    """Give each actor its next shard as soon as it is free; yield the shards as they end."""
    waiting = iter(todo)
    running = {actor.do.remote(shard): actor for actor, shard in zip(actors, waiting, strict=False)}
    while running:
        (done,), _ = ray.wait(list(running), num_returns=1)
        actor = running.pop(done)
        yield ray.get(done)
        shard = next(waiting, None)
        if shard is not None:
            running[actor.do.remote(shard)] = actor


def _last(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
