"""``--log`` and ``--junit``: runs on a real MLflow server, other trackers in their offline modes, XML that holds."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers import rdx_here
from processes import rdx_forked

from rdxcli.report.junit import JunitCase, junit

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("--k", "2", "--bootstraps", "2")


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("old", "new"):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(60, 6)).astype(np.float32))
    return tmp_path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an MLflow server of this test, on this machine only."""
    pytest.importorskip("mlflow")
    program = shutil.which("mlflow", path=f"{ROOT / '.venv-mlflow/bin'}{os.pathsep}{os.environ['PATH']}")
    if program is None or not (Path(program).parent / "uvicorn").exists():
        pytest.skip("`make mlflow-server` installs the server")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [program, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/runs.db", "--artifacts-destination", str(folder / "files")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            for _ in range(240):
                try:
                    urllib.request.urlopen(f"{address}/health", timeout=2).close()
                    break
                except OSError:
                    assert process.poll() is None, (folder / "log").read_text()
                    time.sleep(0.5)
            yield address
        finally:
            os.killpg(process.pid, 15)
            process.wait(timeout=30)


@pytest.mark.slow
def test_a_comparison_becomes_a_run_on_an_mlflow_server(server: str, pair: Path) -> None:
    from mlflow.tracking import MlflowClient

    done = rdx_here("compare", "old.npy", "new.npy", *QUICK, "--log", f"mlflow:{server}", cwd=pair)
    assert done.returncode == 0, done.stderr
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("rdx")
    run = client.search_runs([experiment.experiment_id])[0]
    assert run.info.status == "FINISHED"
    assert run.data.params["method"] == "rdx"
    assert run.data.params["a"] == "old"
    assert run.data.metrics["difference.score"] > 0.5
    names = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    assert {"concepts.json", "manifest.json"} <= names


def test_a_server_that_is_not_there_is_one_line(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    address = "mlflow:http://127.0.0.1:1"
    done = rdx_here("compare", "old.npy", "new.npy", *QUICK, "--no-test", "--log", address, cwd=pair)
    assert done.returncode == 1
    assert f"error: --log {address}" in done.stderr
    assert "the result itself is stored" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("tracker", "places"), [("wandb", "WANDB_DIR"), ("trackio", "TRACKIO_DIR")])
def test_other_trackers_in_their_offline_modes(
    tracker: str, places: str, pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(tracker)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv(places, str(pair / "runs"))
    # in a process of its own: they read these variables when they are imported
    done = rdx_forked("compare", "old.npy", "new.npy", *QUICK, "--no-test", "--log", f"{tracker}:mine", cwd=pair)
    assert done.returncode == 0, done.stderr
    assert any(path.is_file() for path in (pair / "runs").rglob("*"))


@pytest.mark.parametrize("line", ["compare old.npy new.npy", "explain --method pca --activations old.npy"])
def test_a_tracker_is_checked_before_the_work(line: str, pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = rdx_here(*line.split(), "--log", "mlfow:here", cwd=pair)
    assert wrong.returncode == 2
    assert "unknown tracker: `mlfow`" in wrong.stderr
    assert "did you mean `mlflow`" in wrong.stderr
    monkeypatch.setitem(sys.modules, "wandb", None)
    missing = rdx_here(*line.split(), "--log", "wandb", cwd=pair)
    assert missing.returncode == 1
    assert "pip install 'rdx-vision[wandb]'" in missing.stderr
    assert not (pair / "outputs").exists()


def test_gates_are_test_cases(pair: Path) -> None:
    gates = ("--fail-above", "0.01", "--fail-on", "p>0.9", "--junit", "rdx.xml")
    done = rdx_here("compare", "old.npy", "new.npy", *QUICK, *gates, cwd=pair)
    assert done.returncode == 3
    suite = ElementTree.parse(pair / "rdx.xml").getroot()
    assert (suite.get("name"), suite.get("tests"), suite.get("failures")) == ("rdx compare old and new", "2", "1")
    score, p = suite
    assert score.get("name") == "--fail-above"
    failure = score.find("failure")
    assert failure is not None
    assert "is above 0.01" in str(failure.get("message"))
    assert p.find("failure") is None
    assert "verdict:" in str(p.findtext("system-out"))
    rdx_here("compare", "old.npy", "new.npy", *QUICK, "--junit", "plain.xml", cwd=pair)
    assert ElementTree.parse(pair / "plain.xml").getroot().get("failures") == "0"


def test_foreign_text_does_not_break_the_xml() -> None:
    text = junit("a<b>&\x00\x1b]]>", [JunitCase("c\u202e\"'", "why\x0b <![CDATA[", "one\ntwo\x00")])
    case = ElementTree.fromstring(text)[0]
    assert case.get("name") == "c\\u202e\"'"
    assert case.findtext("system-out") == "one\ntwo\\x00"
