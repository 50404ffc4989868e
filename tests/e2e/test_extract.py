"""``rdx extract`` in processes of its own: killed, resumed, reused, refused."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import rdx_here
from PIL import Image
from processes import Forked

N = 40
MODEL = """
import os, pathlib, time
import torch
from torch import nn


class Held(nn.Module):
    '''Stops where the outputs have so many files of a kind, until it is let go or killed.'''

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2)
        self.head = nn.Linear(4, 6)

    def forward(self, x):
        world = pathlib.Path(__file__).parent
        pattern, _, count = os.environ.get("HOLD", "").partition(":")
        while pattern and len(list(world.joinpath("outputs").rglob(pattern))) >= int(count):
            if world.joinpath("go").exists():
                break
            time.sleep(0.005)
        return self.head(torch.relu(self.stem(x)).mean((2, 3)))


def build():
    torch.manual_seed(%d)
    return Held()
"""


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A folder with images of three classes and a model of its own."""
    rng = np.random.default_rng(0)
    for i in range(N):
        path = tmp_path / "images" / "abc"[i % 3] / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(path)
    (tmp_path / "net.py").write_text(MODEL % 0)
    return tmp_path


def arguments(world: Path, *more: str) -> list[str]:
    model = f"{world / 'net.py'}:build?input_size=16"
    return [
        *("extract", "--model", model, "--dataset", f"folder:{world / 'images'}", "--batch-size", "2"),
        *("--outputs", str(world / "outputs"), "--device", "cpu", *more),
    ]


def artifacts(world: Path, outputs: str = "outputs") -> dict[str, bytes]:
    """Contents of every data file by its path, manifests left out: they hold times."""
    root = world / outputs
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "manifest.json" and not path.name.startswith(".")
    }


def start(world: Path, *more: str, **variables: str) -> Forked:
    return Forked(*arguments(world, *more), **variables)


def shards_done(folder: Path) -> int:
    return len(list(folder.rglob("*.done")))


LAYERS = ("--layer", "head", "--layer", "stem", "--pool", "max", "--shard-rows", "4")


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(world: Path) -> None:
    """Killed with nothing, some and most shards done, and once more in the middle of joining them."""
    whole = rdx_here(*arguments(world, *LAYERS, "--outputs", str(world / "whole")))
    assert whole.returncode == 0, whole.stderr
    for kind, count in (("max.partial", 2), ("*.done", 6), ("*.done", 14)):
        process = start(world, *LAYERS, HOLD=f"{kind}:{count}")
        process.until(lambda kind=kind, count=count: len(list((world / "outputs").rglob(kind))) >= count)
        process.kill()
        assert not list((world / "outputs").rglob("manifest.json"))
    (partial, _) = sorted((world / "outputs").rglob("max.partial"))
    done = {path: path.with_suffix(".npy").stat().st_mtime_ns for path in partial.glob("shards/*.done")}
    assert 7 <= len(done) < 10
    (partial / "activations.npy").write_bytes(b"half of an array")
    (partial / "shards" / "00009.npy.4711.tmp").write_bytes(b"half of a shard")
    process = start(world, *LAYERS, HOLD="*.done:18")
    process.until(lambda: shards_done(partial) > 8)
    assert all(path.with_suffix(".npy").stat().st_mtime_ns == time for path, time in done.items())
    (world / "go").touch()
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "continuing the interrupted run" in err
    assert "of 40 images were done before" in err
    assert len(out.splitlines()) == 2
    assert artifacts(world) == artifacts(world, "whole")
    assert sorted(Path(name).name for name in artifacts(world)) == ["activations.npy"] * 2 + ["samples.parquet"] * 2


def test_two_processes_make_one_artifact(world: Path) -> None:
    first, second = (start(world, "--json", HOLD="*.partial:1") for _ in range(2))
    first.until(lambda: list((world / "outputs").rglob("*.partial")))
    second.until(lambda: second.err.stat().st_size)
    (world / "go").touch()
    documents = []
    for process in (first, second):
        out, err = process.communicate()
        assert process.returncode == 0, err
        documents.append(json.loads(out))
    assert sorted(document["artifacts"][0]["reused"] for document in documents) == [False, True]


def test_a_rank_that_comes_late_finds_it_done(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rdx_here(*arguments(world, *LAYERS, "--outputs", str(world / "whole")))
    assert whole.returncode == 0
    with monkeypatch.context() as patch:
        patch.setenv("RANK", "0")
        patch.setenv("WORLD_SIZE", "2")
        first = rdx_here(*arguments(world, *LAYERS))
        assert first.returncode == 0, first.stderr
        assert "rank 0 of 2" in first.stderr
        assert "--force cannot be used with several ranks" in rdx_here(*arguments(world, "--force")).stderr
    assert artifacts(world) == artifacts(world, "whole")
    for name, value in (("ID", "2"), ("MIN", "1"), ("COUNT", "2")):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    second = rdx_here(*arguments(world, *LAYERS))
    assert (second.returncode, second.stdout) == (0, first.stdout), second.stderr
    monkeypatch.delenv("SLURM_ARRAY_TASK_COUNT")
    alone = rdx_here(*arguments(world, "--engine", "ranks"))
    assert alone.returncode == 2
    assert "the environment gives no rank" in alone.stderr


@pytest.mark.slow
def test_ranks_share_the_work_and_outlive_one_of_them(world: Path) -> None:
    whole = rdx_here(*arguments(world, *LAYERS, "--outputs", str(world / "whole")))
    assert whole.returncode == 0
    ranks = [start(world, *LAYERS, HOLD="*.done:4", RANK=str(i), WORLD_SIZE="3") for i in range(3)]
    ranks[0].until(lambda: shards_done(world / "outputs") >= 4)
    ranks[1].kill()
    (world / "go").touch()
    for process in (ranks[0], ranks[2]):
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert len(out.splitlines()) == 2
    assert artifacts(world) == artifacts(world, "whole")


@pytest.mark.slow
def test_a_share_that_is_done_says_so(world: Path) -> None:
    """One rank holds its last shard for long; the other ends at once, and nobody takes that for the artifact."""
    slow = start(world, "--shard-rows", "20", HOLD="*.lease:1", RANK="0", WORLD_SIZE="2")
    slow.until(lambda: list((world / "outputs").rglob("*.lease")))
    rank = {"RANK": "1", "WORLD_SIZE": "2"}
    more = ("--shard-rows", "20", "-q", "--wait", "0")
    plain = start(world, *more, **rank)
    out, err = plain.communicate()
    assert (plain.returncode, out) == (0, "")
    assert "share done, 1 shard left" in err
    strict = start(world, *more, "--strict", "--json", **rank)
    out, err = strict.communicate()
    assert strict.returncode == 5, err
    assert json.loads(out) | {"schema_version": 1} == {
        "schema_version": 1,
        "kind": "share",
        "share": "done",
        "shards_left": 1,
        "rank": 1,
        "ranks": 2,
    }
    slow.kill()
    alone = start(world, "--wait", "never")
    assert "--wait: got `never`" in alone.communicate()[1]


def test_ranks_of_another_request_are_refused(world: Path) -> None:
    """What one rank has done is neither mixed with other work nor thrown away, while it works and after its death."""
    first = start(world, "--shard-rows", "4", HOLD="*.done:2", RANK="0", WORLD_SIZE="2")
    first.until(lambda: shards_done(world / "outputs") >= 2)
    other = start(world, "--shard-rows", "4", "--dtype", "bfloat16", RANK="1", WORLD_SIZE="2")
    out, err = other.communicate()
    assert (other.returncode, out) == (1, "")
    assert f"is being made from another request, by process {first.pid}" in err
    assert 'parameters.dtype: "float32" -> "bfloat16"' in err
    first.kill()
    kept = {path: path.read_bytes() for path in (world / "outputs").rglob("shards/*.npy")}
    assert len(kept) >= 2
    late = rdx_here(*arguments(world, "--dtype", "bfloat16"))
    assert late.returncode == 1
    assert f"unfinished work of another request, begun by process {first.pid}" in late.stderr
    assert "parameters.dtype" in late.stderr
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert rdx_here(*arguments(world, "--dtype", "bfloat16", "--force")).returncode == 0
    assert not list((world / "outputs").rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["00001.npy", "00001.parquet", "00001.done", "plan.json", "request.json"])
def test_unfinished_work_that_was_damaged(world: Path, victim: str) -> None:
    """A shard is done again; what says how the shards belong together is refused."""
    whole = rdx_here(*arguments(world, "--shard-rows", "4", "--outputs", str(world / "whole")))
    assert whole.returncode == 0
    process = start(world, "--shard-rows", "4", HOLD="*.done:3")
    process.until(lambda: shards_done(world / "outputs") >= 3)
    process.kill()
    (path,) = (world / "outputs").rglob(victim)
    content = bytearray(path.read_bytes())
    content[-30] ^= 0x40
    path.write_bytes(content)
    done = rdx_here(*arguments(world, "--shard-rows", "4"))
    assert "Traceback" not in done.stderr
    assert "defect" not in done.stderr
    if victim.endswith("n.json") or victim == "request.json":
        assert done.returncode == 1
        assert "--force" in done.stderr
        done = rdx_here(*arguments(world, "--shard-rows", "4", "--force"))
    assert done.returncode == 0, done.stderr
    assert artifacts(world) == artifacts(world, "whole")


def test_an_interrupt_says_that_the_work_is_kept(world: Path) -> None:
    process = start(world, *LAYERS, HOLD="*.done:1")
    process.until(lambda: shards_done(world / "outputs"))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "continues where it stopped" in err
    assert "Traceback" not in err


def test_dry_run_touches_nothing(world: Path) -> None:
    done = rdx_here(*arguments(world, "--dry-run", "--json"))
    assert done.returncode == 0, done.stderr
    (job,) = json.loads(done.stdout)["jobs"]
    assert job["images"] == N
    assert job["layers"][0]["shape"] == [N, 4]
    assert job["bytes_on_disk"] == N * 4 * 4
    assert job["layers"][0]["state"] == "made"
    assert job["peak_memory_bytes"] > 10**7
    assert not (world / "outputs").exists()
    rdx_here(*arguments(world))
    again = rdx_here(*arguments(world, "--dry-run", "--json", "--layer", "head", "--layer", "penultimate"))
    (job,) = json.loads(again.stdout)["jobs"]
    assert {entry["layer"]: entry["state"] for entry in job["layers"]} == {"head": "made", "stem": "reused"}
    assert job["bytes_on_disk"] == N * 6 * 4
    assert "40 x 6, 960 B, made" in rdx_here(*arguments(world, "--dry-run", "--layer", "head")).stdout


class TestBrokenImages:
    @pytest.fixture
    def broken(self, world: Path) -> list[str]:
        names = ["a/000.png", "b/004.png", "c/038.png"]
        whole = (world / "images" / names[0]).read_bytes()
        (world / "images" / names[0]).write_bytes(whole[: len(whole) // 2])
        (world / "images" / names[1]).write_bytes(b"")
        (world / "images" / names[2]).write_text("<html>404</html>")
        return names

    def test_they_are_recorded_and_skipped(self, world: Path, broken: list[str]) -> None:
        done = rdx_here(*arguments(world, "--json"))
        assert done.returncode == 4
        (artifact,) = json.loads(done.stdout)["artifacts"]
        assert [entry["sample_id"] for entry in artifact["failed"]] == broken
        assert artifact["shape"] == [N - 3, 4]
        assert "3 images failed" in done.stderr
        folder = Path(artifact["artifact"])
        values = np.load(folder / "activations.npy")
        table = pq.read_table(folder / "samples.parquet").to_pydict()
        assert np.isfinite(values).all()
        assert values.shape == (N - 3, 4)
        assert table["sample_id"][N - 3 :] == broken
        assert table["status"] == ["ok"] * (N - 3) + ["failed"] * 3
        assert all(error is None for error in table["error"][: N - 3])
        assert "identify" in table["error"][-1]
        # a second run finds the artifact and still says what is missing
        again = rdx_here(*arguments(world))
        assert again.returncode == 4
        assert "reusing" in again.stderr
        assert broken[2] in again.stderr

    def test_the_other_rows_are_what_they_were(self, world: Path) -> None:
        rdx_here(*arguments(world))
        (before,) = (world / "outputs").rglob("activations.npy")
        values = np.load(before)
        (world / "images" / "b" / "001.png").write_bytes(b"gone")
        rdx_here(*arguments(world, "--force"))
        table = pq.read_table(before.parent / "samples.parquet").to_pydict()
        whole = sorted(table["sample_id"])
        kept = [row for row, sample in enumerate(whole) if sample != "b/001.png"]
        np.testing.assert_allclose(np.load(before), values[kept], rtol=1e-5, atol=1e-6)

    def test_strict_and_max_errors(self, world: Path, broken: list[str]) -> None:
        strict = rdx_here(*arguments(world, "--strict"))
        assert strict.returncode == 1
        assert broken[0] in strict.stderr
        many = rdx_here(*arguments(world, "--max-errors", "2"))
        assert many.returncode == 1
        assert "3 samples failed, --max-errors allows 2" in many.stderr
        assert not list((world / "outputs").rglob("manifest.json"))
        assert rdx_here(*arguments(world, "--max-errors", "3")).returncode == 4
        late = rdx_here(*arguments(world, "--strict"))
        assert late.returncode == 1
        assert f"lacks 3 images; the first, {broken[0]}" in late.stderr

    def test_all_of_them(self, world: Path) -> None:
        for path in (world / "images").rglob("*.png"):
            path.write_bytes(b"x")
        done = rdx_here(*arguments(world))
        assert done.returncode == 1
        assert "all 40 samples failed; the first, a/000.png" in done.stderr
        assert not [path for path in (world / "outputs").rglob("*") if path.is_file() and not path.name.startswith(".")]


class TestStaleness:
    def test_a_changed_image_is_noticed(self, world: Path) -> None:
        first = rdx_here(*arguments(world))
        assert rdx_here(*arguments(world)).stdout == first.stdout
        Image.new("RGB", (20, 20), (1, 2, 3)).save(world / "images" / "a" / "003.png")
        stale = rdx_here(*arguments(world))
        assert stale.returncode == 1
        assert "inputs.dataset.fingerprint" in stale.stderr
        assert "--force" in stale.stderr
        assert stale.stdout == ""
        fresh = rdx_here(*arguments(world, "--force", "--json"))
        assert not json.loads(fresh.stdout)["artifacts"][0]["reused"]

    def test_changed_weights_are_noticed(self, world: Path) -> None:
        rdx_here(*arguments(world))
        (world / "net.py").write_text(MODEL % 1)
        stale = rdx_here(*arguments(world))
        assert stale.returncode == 1
        assert "inputs.weights" in stale.stderr
        assert rdx_here(*arguments(world, "--run", "retrained")).returncode == 0

    def test_another_preprocessing_is_noticed(self, world: Path) -> None:
        rdx_here(*arguments(world))
        with_other_mean = [f"{part}&mean=0.1" if "net.py" in part else part for part in arguments(world)]
        assert rdx_here(*with_other_mean).returncode == 0  # another name, another folder
        assert len(list((world / "outputs").rglob("activations.npy"))) == 2

    def test_half_of_the_work_for_other_images_is_not_continued(self, world: Path) -> None:
        process = start(world, "--shard-rows", "4", HOLD="*.done:1")
        process.until(lambda: shards_done(world / "outputs"))
        process.kill()
        Image.new("RGB", (20, 20), (1, 2, 3)).save(world / "images" / "a" / "000.png")
        done = rdx_here(*arguments(world, "--shard-rows", "4"))
        assert done.returncode == 1
        assert "inputs.dataset.fingerprint" in done.stderr
        done = rdx_here(*arguments(world, "--shard-rows", "4", "--force"))
        assert done.returncode == 0
        assert "done before" not in done.stderr
        clean = rdx_here(*arguments(world, "--shard-rows", "4", "--outputs", str(world / "whole")))
        assert clean.returncode == 0
        assert artifacts(world) == artifacts(world, "whole")

    def test_a_damaged_artifact_is_noticed(self, world: Path) -> None:
        rdx_here(*arguments(world))
        (path,) = (world / "outputs").rglob("activations.npy")
        whole = path.read_bytes()
        path.write_bytes(whole[:-4])
        assert "missing or damaged" in rdx_here(*arguments(world)).stderr
        path.write_bytes(bytes([*whole[:200], whole[200] ^ 1, *whole[201:]]))
        assert "its bytes are not the ones that were written" in rdx_here(*arguments(world)).stderr
        path.write_bytes(whole)
        assert rdx_here(*arguments(world)).returncode == 0
        manifest = path.with_name("manifest.json")
        manifest.write_text(manifest.read_text().replace('"pool": "auto"', '"pool": "max"'))
        assert "edited or damaged" in rdx_here(*arguments(world)).stderr


class TestResults:
    @pytest.mark.parametrize(
        "more", [("--batch-size", "7"), ("--workers", "3"), ("--shard-rows", "1"), ("--batch-size", "40")]
    )
    def test_they_do_not_depend_on_how_it_runs(self, world: Path, more: tuple[str, ...]) -> None:
        rdx_here(*arguments(world))
        rdx_here(*arguments(world, *more, "--outputs", str(world / "other")))
        one, other = (np.load(next((world / name).rglob("activations.npy"))) for name in ("outputs", "other"))
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)

    def test_several_layers_are_what_single_runs_give(self, world: Path) -> None:
        both = rdx_here(*arguments(world, "--layer", "stem", "--layer", "head"))
        for layer, folder in zip(("stem", "head"), both.stdout.splitlines(), strict=True):
            rdx_here(*arguments(world, "--layer", layer, "--outputs", str(world / layer)))
            (single,) = (world / layer).rglob("activations.npy")
            assert single.read_bytes() == (Path(folder) / "activations.npy").read_bytes()

    def test_a_layer_more_computes_only_that_one(self, world: Path) -> None:
        rdx_here(*arguments(world, "--layer", "stem"))
        done = rdx_here(*arguments(world, "--layer", "stem", "--layer", "head", "--json"))
        assert [entry["reused"] for entry in json.loads(done.stdout)["artifacts"]] == [True, False]
        assert "extracting head of" in done.stderr

    def test_labels_and_ids_stand_beside_the_rows(self, world: Path) -> None:
        folder = Path(rdx_here(*arguments(world)).stdout.strip())
        table = pq.read_table(folder / "samples.parquet").to_pydict()
        assert table["sample_id"] == sorted(table["sample_id"])
        assert table["label"] == [sample[0] for sample in table["sample_id"]]

    def test_maps_and_half_precision(self, world: Path) -> None:
        maps = rdx_here(*arguments(world, "--layer", "stem", "--pool", "none", "--json"))
        (artifact,) = json.loads(maps.stdout)["artifacts"]
        assert artifact["shape"] == [N, 4, 7, 7]
        half = rdx_here(*arguments(world, "--dtype", "float16", "--run", "half", "--json"))
        assert half.returncode == 0, half.stderr
        (artifact,) = json.loads(half.stdout)["artifacts"]
        values = np.load(Path(artifact["artifact"]) / "activations.npy")
        assert values.dtype == np.float16
        rdx_here(*arguments(world))
        (full,) = (path for path in (world / "outputs").rglob("auto/activations.npy"))
        np.testing.assert_allclose(values, np.load(full), rtol=0.02, atol=0.02)

    def test_a_selection_has_a_folder_of_its_own(self, world: Path) -> None:
        paths = {
            rdx_here(*arguments(world, *more)).stdout
            for more in ((), ("--limit", "5"), ("--sample", "5"), ("--classes", "a"))
        }
        assert len(paths) == 4


class TestMistakes:
    @pytest.mark.parametrize(
        ("more", "code", "message"),
        [
            (("--layer", "haed"), 2, "did you mean `head`"),
            (("--pool", "mode"), 2, "unknown pooling"),
            (("--dtype", "int8"), 2, "unknown dtype"),
            (("--engine", "spark"), 2, "unknown engine"),
            (("--dataset", "folder:/nowhere"), 1, "no such folder"),
            (("--dataset", "digts"), 2, "did you mean `digits`"),
            (("--model", "digits-cmm"), 2, "unknown model"),
            (("--split", "train"), 2, "has no splits"),
            (("--classes", "z"), 2, "unknown class"),
        ],
    )
    def test_each_has_a_clear_word(self, world: Path, more: tuple[str, ...], code: int, message: str) -> None:
        done = rdx_here(*arguments(world, *more))
        assert done.returncode == code
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert not list((world / "outputs").rglob("*.npy"))

    def test_a_model_without_a_data_set_of_its_own(self, world: Path) -> None:
        done = rdx_here("extract", "--model", f"{world / 'net.py'}:build?input_size=16")
        assert done.returncode == 2
        assert "give --dataset" in done.stderr

    def test_outputs_that_cannot_be_written(self, world: Path) -> None:
        (world / "outputs").write_text("a file")
        done = rdx_here(*arguments(world))
        assert done.returncode == 1
        assert "cannot write to" in done.stderr

    def test_images_of_one_size_where_the_model_wants_another(self, world: Path) -> None:
        (world / "net.py").write_text((MODEL % 0).replace("nn.Linear(4, 6)", "nn.Linear(5, 6)"))
        done = rdx_here(*arguments(world))
        assert done.returncode == 1
        assert "Traceback" not in done.stderr


def test_out_of_memory_halves_the_batch(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from rdxcli.engines.activations import ActivationTask

    rdx_here(*arguments(world, "--outputs", str(world / "whole")))
    plain = ActivationTask.run

    def small(self: ActivationTask, batch: torch.Tensor) -> object:
        if len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return plain(self, batch)

    monkeypatch.setattr(ActivationTask, "run", small)
    done = rdx_here(*arguments(world, "--batch-size", "6"))
    assert done.returncode == 0
    assert done.stderr.count("out of memory with a batch of 6: going on with batches of 3") == 1
    one, other = (np.load(next((world / name).rglob("activations.npy"))) for name in ("outputs", "whole"))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_the_embedded_default_needs_no_data_set() -> None:
    done = rdx_here("extract", "--model", "digits-cnn", "--limit", "20", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["kind"] == "activations"
    assert document["artifacts"][0]["shape"] == [20, 32]
    assert "device cpu, dtype float32" in done.stderr or "device cuda" in done.stderr


@pytest.mark.shared
def test_real_weights_on_real_images(shared: Path, tmp_path: Path) -> None:
    weights = shared / "data" / "weights" / "mobilenet_v2_imagenet1k.safetensors"
    done = rdx_here(
        *("extract", "--model", f"file:{weights}?arch=torchvision:mobilenet_v2", "--layer", "output", "--limit", "24"),
        *("--dataset", f"images:{shared / 'data' / 'imagenet_sample' / 'index.csv'}", "--json", "--device", "cpu"),
    )
    assert done.returncode == 0, done.stderr
    (artifact,) = json.loads(done.stdout)["artifacts"]
    logits = np.load(Path(artifact["artifact"]) / "activations.npy")
    import csv

    with open(shared / "data" / "imagenet_sample" / "index.csv", newline="") as stream:
        expected = [int(row["expected_top1"]) for row in csv.DictReader(stream)][:24]
    assert logits.shape == (24, 1000)
    assert np.mean(logits.argmax(1) == expected) >= 0.95


def test_time_and_memory_are_said_before_the_start(world: Path) -> None:
    planned = rdx_here(*arguments(world, "--dry-run", "--json"))
    job = json.loads(planned.stdout)["jobs"][0]
    assert 0 < job["estimated_seconds"] < 600
    assert not (world / "outputs").exists()
    done = rdx_here(*arguments(world))
    line = next(line for line in done.stderr.splitlines() if line.startswith("extracting "))
    assert re.search(r"shards \d+; [\d.]+ \w+, about [\d.]+ [MG]B of memory, about \d+ (s|min)$", line), line
    again = json.loads(rdx_here(*arguments(world, "--dry-run", "--json")).stdout)["jobs"][0]
    assert again["estimated_seconds"] is None  # there is nothing to do
