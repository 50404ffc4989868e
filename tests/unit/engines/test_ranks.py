"""Ranks read from the environment of schedulers."""

from __future__ import annotations

import pytest

from rdxcli.engines.ranks import Rank, detect_rank
from rdxcli.errors import UsageError


@pytest.mark.parametrize(
    ("environment", "index", "count"),
    [
        ({}, 0, 1),
        ({"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, 2, 4),
        ({"RANK": "0", "WORLD_SIZE": "1"}, 0, 1),
        ({"RANK": "3"}, 0, 1),
        ({"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "8"}, 5, 8),
        ({"SLURM_ARRAY_TASK_ID": "8", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "1"}, 7, 8),
        (
            {
                "SLURM_ARRAY_TASK_ID": "14",
                "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_ARRAY_TASK_MIN": "10",
                "SLURM_ARRAY_TASK_STEP": "2",
            },
            2,
            3,
        ),
    ],
)
def test_detect(environment: dict[str, str], index: int, count: int) -> None:
    rank = detect_rank(environment)
    assert (rank.index, rank.count) == (index, count)


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "4", "WORLD_SIZE": "4"},
        {"RANK": "x", "WORLD_SIZE": "4"},
        {"RANK": "-1", "WORLD_SIZE": "2"},
        {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "8"},
    ],
)
def test_nonsense_is_an_error(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"RANK|SLURM"):
        detect_rank(environment)


@pytest.mark.parametrize("total", [0, 1, 7, 20])
def test_every_shard_belongs_to_one_rank(total: int) -> None:
    shards = [shard for index in range(3) for shard in Rank(index, 3).shards(total)]
    assert sorted(shards) == list(range(total))
