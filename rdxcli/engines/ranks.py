"""Plain ranks: a scheduler starts the same command several times, and each process does its share of the shards.

Ranks do not talk to each other. They share the outputs directory, claim one shard after the other, and the one that
finds every shard finished joins them. A rank that comes late, is slow or dies costs time and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from rdxcli.errors import UsageError

RANK_WAIT = 120.0
"""Seconds that a rank waits for shards that others hold: long enough to see that one of them has died."""


@dataclass(frozen=True)
class Rank:
    """Which of how many processes this is.

    Parameters
    ----------
    index, count : int
        0 <= index < count.
    local : int
        Number of this process on its machine, for choosing a GPU.
    source : str
        Environment variables it was read from, empty for a single process.
    """

    index: int = 0
    count: int = 1
    local: int = 0
    source: str = ""

    def shards(self, total: int) -> list[int]:
        """The shards this rank begins with: every ``count``-th, so that ranks that start together stay apart."""
        return list(range(self.index, total, self.count))

    def order(self, total: int) -> list[int]:
        """All shards as this rank looks for work: first `shards`, then those that the next ranks begin with."""
        return [
            shard
            for step in range(self.count)
            for shard in Rank((self.index + step) % self.count, self.count).shards(total)
        ]


def detect_rank(environment: Mapping[str, str] | None = None) -> Rank:
    """The rank that the environment gives: ``RANK`` and ``WORLD_SIZE`` (torchrun), or ``SLURM_ARRAY_TASK_ID`` and
    ``SLURM_ARRAY_TASK_COUNT`` (with ``SLURM_ARRAY_TASK_MIN`` and ``SLURM_ARRAY_TASK_STEP`` when they are set).

    Raises `UsageError` (the numbers make no sense).
    """
    env = os.environ if environment is None else environment
    if "RANK" in env and "WORLD_SIZE" in env:
        source = "RANK and WORLD_SIZE"
        index, count = _number(env, "RANK"), _number(env, "WORLD_SIZE")
        local = _number(env, "LOCAL_RANK") if "LOCAL_RANK" in env else 0
    elif "SLURM_ARRAY_TASK_ID" in env and "SLURM_ARRAY_TASK_COUNT" in env:
        source = "SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT"
        first = _number(env, "SLURM_ARRAY_TASK_MIN") if "SLURM_ARRAY_TASK_MIN" in env else 0
        step = _number(env, "SLURM_ARRAY_TASK_STEP") if "SLURM_ARRAY_TASK_STEP" in env else 1
        index, odd = divmod(_number(env, "SLURM_ARRAY_TASK_ID") - first, max(1, step))
        count, local = _number(env, "SLURM_ARRAY_TASK_COUNT"), 0
        if odd:
            raise UsageError(f"{source}: the task id does not fit a step of {step} from {first}")
    else:
        return Rank()
    if count < 1 or not 0 <= index < count:
        raise UsageError(f"{source}: got rank {index} of {count}, expected 0 to {count - 1}")
    return Rank(index, count, local, source if count > 1 else "")


def _number(env: Mapping[str, str], name: str) -> int:
    try:
        return int(env[name])
    except ValueError:
        raise UsageError(f"{name}: got `{env[name]}`, expected a whole number") from None
