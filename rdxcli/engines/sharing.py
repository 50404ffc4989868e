"""Making artifacts of many rows, alone or together with other processes that make the same ones.

`make` walks the whole way: the shards are cut, every process claims and does some, and the one that finds all of them
finished puts the artifact in place. Nothing has to be started in an order, and nothing has to be ended by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rdxcli.artifacts import Draft, abandon, complete, wait_time
from rdxcli.artifacts.leases import Worker
from rdxcli.artifacts.manifest import command_line
from rdxcli.engines.local import RunOptions, RunReport, run_local
from rdxcli.engines.ranks import RANK_WAIT, Rank, detect_rank
from rdxcli.engines.ray import count_workers, run_ray
from rdxcli.engines.shards import FOLDER, DamagedShardError, ShardPlan, ShardStore
from rdxcli.engines.tasks import ShardTask
from rdxcli.errors import ArtifactError, RdxError, UsageError
from rdxcli.progress import human_count, log

MOST_ROUNDS = 3  # of doing damaged shards again: a disk that damages more than that is broken


@dataclass(frozen=True)
class Making:
    """One output that becomes an artifact.

    Parameters
    ----------
    folder : Path
        Its final place.
    draft : Draft
        From `rdxcli.artifacts.join`, not reused.
    finish : callable
        ``finish(plan, store, draft, report)`` joins the shards and fills in the manifest; called once all are there.
    """

    folder: Path
    draft: Draft
    finish: Callable[[ShardPlan, ShardStore, Draft, RunReport], None]


@dataclass(frozen=True)
class Engine:
    """Where long work runs.

    Parameters
    ----------
    name : {"auto", "local", "ranks", "ray"}
        ``auto`` is ``ranks`` for `rdx extract` where the environment gives a rank, else ``local``.
    address : str, optional
        Of a running Ray cluster.
    """

    name: str = "auto"
    address: str | None = None

    def rank(self, auto: bool = False) -> Rank:
        """Which of several processes this is; also under ``auto`` when that is wanted.

        Raises `UsageError` (ranks are asked for and the environment gives none, or there is no such engine).
        """
        if self.name not in ENGINES:
            raise UsageError(f"unknown engine: `{self.name}`", f"expected {' or '.join(ENGINES)}")
        rank = detect_rank() if self.name == "ranks" or (auto and self.name == "auto") else Rank()
        if self.name == "ranks" and not rank.source:
            raise UsageError(
                "--engine ranks: the environment gives no rank",
                "start it with torchrun or as a SLURM array, or set RANK and WORLD_SIZE",
            )
        return rank


ENGINES = ("auto", "local", "ranks", "ray")
_chosen: dict[str, Engine] = {}


def set_engine(name: str, address: str | None = None) -> None:
    """Where commands of this process run long work, on the way to an analysis too. Raises `UsageError`."""
    engine = Engine(name, address)
    engine.rank()
    _chosen["engine"] = engine


def engine_chosen() -> Engine:
    """What `set_engine` said."""
    return _chosen.get("engine", Engine())


class ShareDone(RdxError):  # noqa: N818  (no error: a rank that ends before the artifact is there)
    """This rank has done what it could, and others still work on the rest.

    Attributes
    ----------
    left : int
        Shards that others hold.
    """

    exit_code = 0

    def __init__(self, left: int, rank: Rank, folder: Path) -> None:
        super().__init__(
            f"share done, {left} {'shard' if left == 1 else 'shards'} left, which other ranks are doing; "
            f"the last of them makes {folder}",
            "--wait forever waits for it",
        )
        self.left, self.rank = left, rank


Do = Callable[[ShardPlan, dict[str, ShardStore], Worker], RunReport]


def make(outputs: Mapping[str, Making], wanted: ShardPlan, sample_ids: Sequence[str], do: Do) -> int:
    """Make the artifacts of ``outputs``, or this process's share of them.

    Parameters
    ----------
    outputs : mapping of str to Making
        By the names of the outputs of the task.
    wanted : ShardPlan
        For work that is not begun; else the plan counts that it was begun with.
    sample_ids : sequence of str
        Of all rows.
    do : callable
        ``do(plan, stores, worker)`` does shards until all are finished or waiting for others takes too long, as
        `rdxcli.engines.local.run_local` and `rdxcli.engines.ray.run_ray` do.

    Returns
    -------
    int
        Shards that other processes still hold: 0 when the artifacts are in place.
    """
    groups: dict[ShardPlan, list[str]] = {}
    try:
        for name, making in outputs.items():
            plan = wanted.settle(making.draft.path / FOLDER, making.draft.manifest.fingerprint)
            groups.setdefault(plan, []).append(name)  # several plans: interrupted runs of single outputs
        return sum(
            _make(plan, {name: outputs[name] for name in names}, sample_ids, do) for plan, names in groups.items()
        )
    except BaseException:
        for making in outputs.values():
            if making.draft.artifact is None:
                # shards of which every row failed are not worth keeping: their cause is rarely the rows
                store = ShardStore(making.draft.path / FOLDER, sample_ids, making.draft.manifest.fingerprint)
                worth = any(store.done(int(path.stem), retry_empty=True) for path in store.folder.glob("*.done"))
                abandon(making.folder, making.draft, worth)
        raise


def make_one(
    making: Making,
    output: str,
    wanted: ShardPlan,
    sample_ids: Sequence[str],
    task: ShardTask,
    options: RunOptions,
    elsewhere: tuple[Callable[..., ShardTask], tuple[Any, ...]] | None = None,
) -> None:
    """`make` for a task with one output, by the engine that was chosen; waits for others who make the same.

    Raises `ArtifactError` (they still work on it after ``--wait``) or `ShareDone` (the same, on one of several ranks).

    Parameters
    ----------
    elsewhere : tuple of callable and arguments, optional
        Opens the task in a process of another machine; without it the task runs here, whatever was chosen.
    """
    engine = engine_chosen()
    rank, on_ray = engine.rank(), engine.name == "ray" and elsewhere is not None
    workers = count_workers(engine.address) if on_ray else rank.count

    def do(plan: ShardPlan, stores: dict[str, ShardStore], worker: Worker) -> RunReport:
        how = replace(options, wait=wait_time(default=RANK_WAIT if rank.count > 1 else math.inf))
        if on_ray:
            assert elsewhere is not None
            places = {name: ShardStore(store.folder.resolve(), (), store.request) for name, store in stores.items()}
            return run_ray(*elsewhere, plan, places, sample_ids, how, engine.address)
        return run_local(task, plan, stores, how, rank.order(len(plan)), worker)

    left = make({output: making}, wanted.among(workers), sample_ids, do)
    if left:
        raise ShareDone(left, rank, making.folder) if rank.count > 1 else still_made(making.folder, left)


def still_made(folder: Path, left: int) -> ArtifactError:
    """Others hold the last shards, and waiting for them took too long."""
    return ArtifactError(
        f"{folder} is being made by other processes: {human_count(left, 'shard')} left",
        "wait for it to end, with --wait SECONDS or --wait forever",
    )


def _make(plan: ShardPlan, outputs: Mapping[str, Making], sample_ids: Sequence[str], do: Do) -> int:
    drafts = {name: making.draft for name, making in outputs.items()}
    stores = {
        name: ShardStore(draft.path / FOLDER, sample_ids, draft.manifest.fingerprint) for name, draft in drafts.items()
    }
    for number in range(MOST_ROUNDS):
        try:
            with Worker(tuple(draft.path for draft in drafts.values()), command_line()) as worker:
                report = do(plan, stores, worker)
            if report.left:
                return report.left
            for name, making in outputs.items():
                if making.draft.artifact is not None:
                    continue
                with complete(making.folder, making.draft) as draft:
                    if not draft.reused:
                        making.finish(plan, stores[name], draft, report)
                        draft.discard_at_end(FOLDER)
        except DamagedShardError as error:
            if number + 1 == MOST_ROUNDS:
                raise
            log.warning("%s; it is done again", error.message)
            continue
        break
    return 0
