"""``rdx list methods``: every method with the parameters that ``--param`` takes."""

from __future__ import annotations

import json
from pathlib import Path

from helpers import rdx_here

from rdxcli.methods.registry import methods


def test_all_methods_with_their_parameters(tmp_path: Path) -> None:
    listed = json.loads(rdx_here("list", "methods", "--json", cwd=tmp_path).stdout)
    assert [(entry["command"], entry["name"]) for entry in listed] == list(methods())
    by_name = {(entry["command"], entry["name"]): entry["parameters"] for entry in listed}
    for (family, name), method in methods().items():
        shown = {parameter["name"]: parameter["default"] for parameter in by_name[family, name]}
        assert {key: shown[key] for key in method.parameters} == dict(method.parameters)
        assert "random_state" not in shown
    assert by_name["compare", "rdx"]


def test_one_method(tmp_path: Path) -> None:
    done = rdx_here("list", "methods", "rdx-pagerank", "--json", cwd=tmp_path)
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["clustering"]["default"] == '"pagerank"'
    assert rows["gamma"]["help"]
    assert "gamma" in rdx_here("list", "methods", "rdx", cwd=tmp_path).stdout


def test_an_unknown_method_names_near_ones(tmp_path: Path) -> None:
    done = rdx_here("list", "methods", "rdx-pagrank", cwd=tmp_path)
    assert done.returncode == 2
    assert "rdx-pagerank" in done.stderr
