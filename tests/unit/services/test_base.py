"""The walk of an analysis: the request holds all that was read, and nothing goes by without an identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from rdxcli.artifacts import Draft
from rdxcli.artifacts.identity import identity, named_files
from rdxcli.errors import ArtifactError, UsageError
from rdxcli.parameters import estimator_parameters
from rdxcli.records import ConceptMatrix, Regions, Representation
from rdxcli.services.base import Analysis


@dataclass(frozen=True)
class Options:
    outputs: Path
    record: Any = None
    note: Path | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    force: bool = False


class Counting(Analysis[Options]):
    kind = "regions"
    worked = 0

    def check(self) -> Mapping[str, Any]:
        return {"method": "counting"}

    def gather(self) -> Mapping[str, Any]:
        return {"record": self.options.record}

    def folder(self) -> Path:
        return self.options.outputs / "one"

    def compute(self, draft: Draft) -> Regions:
        type(self).worked += 1
        return Regions("counting", self.settings, self.options.seed)


def representation(**changes: Any) -> Representation:
    fields: dict[str, Any] = {
        "values": np.ones((3, 2), np.float32),
        "sample_ids": np.array(["x", "y", "z"]),
        "name": "made up",
        "labels": np.array(["1", "2", "1"]),
        "source": {"sha256": "0"},
        "dataset": "digits",
    }
    return Representation(**{**fields, **changes})


def test_the_second_run_is_reused_and_a_changed_record_refused(tmp_path: Path) -> None:
    before = Counting.worked
    first = Counting(Options(tmp_path, representation())).run()
    second = Counting(Options(tmp_path, representation())).run()
    assert (first.reused, second.reused, Counting.worked - before) == (False, True, 1)
    for changes in (
        {"labels": np.array(["1", "1", "2"])},
        {"labels": None},
        {"sample_ids": np.array(["x", "z", "y"])},
        {"source": {"sha256": "1"}},
        {"dataset": None},
    ):
        with pytest.raises(ArtifactError, match="other parameters or inputs"):
            Counting(Options(tmp_path, representation(**changes))).run()


def test_the_content_of_a_named_file_is_part_of_the_request(tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("one")
    Counting(Options(tmp_path / "o", note=note)).run()
    note.write_text("two")
    with pytest.raises(ArtifactError, match="note"):
        Counting(Options(tmp_path / "o", note=note)).run()


def test_files_are_found_wherever_an_option_names_them(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    np.savez(tmp_path / "b.npz", k=np.ones(2))
    named = named_files(
        Options(
            tmp_path,
            note=tmp_path / "a.txt",
            files={"masks": f"{tmp_path}/b.npz:k", "absent": "nowhere.txt", "long": "a.jpg," * 99},
        )
    )
    assert set(named) == {"note", "files.masks"}


def test_identities_follow_the_content() -> None:
    dense = np.arange(6.0).reshape(2, 3)
    for one, other in (
        (dense, dense + 1),
        (csr_array(dense), csr_array(dense + 1)),
        (ConceptMatrix(dense, ["a", "b", "c"]), ConceptMatrix(dense, ["a", "b", "d"])),
        (ConceptMatrix(dense, ["a", "b", "c"]), ConceptMatrix(dense + 1, ["a", "b", "c"])),
        ({"x": dense}, {"x": dense + 1}),
        ([1, 2], [2, 1]),
        (["w"] * 40, [*["w"] * 39, "v"]),
    ):
        assert identity(one) == identity(one)
        assert identity(one) != identity(other)


def test_what_has_no_identity_cannot_be_a_record() -> None:
    with pytest.raises(TypeError, match="no identity"):
        identity(object())


def test_parameters_go_to_whom_they_belong() -> None:
    from rdxcli.methods.regions.rdr import RDR
    from rdxcli.parameters import Parameter

    own = {"use": Parameter("use", str, "regions")}
    estimator, mine = estimator_parameters("rdr", RDR, {"n_neighbors": "4"}, own, {"min_support": 2})
    assert (estimator, mine) == ({"min_support": 2, "n_neighbors": 4}, {"use": "regions"})
    with pytest.raises(UsageError, match="has no parameter `usee`"):
        estimator_parameters("rdr", RDR, {"usee": 1}, own)
