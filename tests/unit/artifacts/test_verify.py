"""``rdx doctor --verify``: every byte below the outputs directory."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from helpers import rdx_here

from rdxcli.artifacts import Request, create


def test_what_is_damaged_and_unfinished_is_listed(tmp_path: Path) -> None:
    for name in ("good", "bad", "old", "cut"):
        with (
            suppress(KeyboardInterrupt),
            create(tmp_path / "x" / name, Request(kind="comparison"), resume=True) as draft,
        ):
            (draft.path / "concepts.json").write_text("{ }")
            if name == "cut":
                raise KeyboardInterrupt
    assert rdx_here("doctor", "--verify", "--outputs", str(tmp_path)).returncode == 0
    bad, old = tmp_path / "x" / "bad" / "concepts.json", tmp_path / "x" / "old" / "manifest.json"
    bad.write_text("[ ]")
    whole = json.loads(old.read_text())
    old.write_text(json.dumps({key: value for key, value in whole.items() if key not in ("hashes", "digest")}))
    done = rdx_here("doctor", "--verify", "--json", "--outputs", str(tmp_path))
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["intact"] == 1
    assert document["without_hashes"] == [old.parent.as_posix()]
    assert [entry["artifact"] for entry in document["damaged"]] == [bad.parent.as_posix()]
    assert "concepts.json is damaged" in document["damaged"][0]["problem"]
    (cut,) = document["unfinished"]
    assert cut["artifact"].endswith("cut.partial")
    assert f"begun by process {os.getpid()}" in cut["state"]
    table = rdx_here("doctor", "--verify", "--outputs", str(tmp_path))
    assert "1 artifact is intact, 1 damaged, 1 unfinished" in table.stderr
