"""``kill -9`` at random moments of captioning and of training, each time taken up again: nothing of the result changes.

``RDX_KILLS`` sets how many moments are tried (by default few).
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from chaos import Run, start
from helpers import rdx_here
from PIL import Image
from tiny_models import save_blip2

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("RDX_KILLS", "2"))
IMAGES = 60
LOADED = {"caption": "rdxcli.models.captioners", "train-surrogate": "rdxcli.methods.surrogate.training"}
WORDS = ["dog", "cat", "tree", "car", "house", "bird", "boat", "horse", "ball", "chair"]


def test_captions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(IMAGES):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(tmp_path / "photos" / f"{i:02d}.png")
    command = [
        *("caption", "--dataset", f"images:{tmp_path}/photos", "--model", f"hf:{save_blip2(tmp_path / 'blip2')}"),
        *("--captions-per-image", "5", "--max-tokens", "20", "--batch-size", "1", "--device", "cpu"),
    ]
    whole, killed = compared(command, tmp_path, "captions.jsonl")
    assert whole == killed
    assert len(whole.splitlines()) == IMAGES


def test_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    things = rng.normal(size=(len(WORDS), 16))
    captions, images, texts = {}, [], []
    for i in range(240):
        one, two = rng.choice(len(WORDS), 2, replace=False)
        captions[f"im{i:03d}"] = [f"a {WORDS[one]} near a {WORDS[two]}", f"the {WORDS[one]}"]
        images.append(things[one] + 0.5 * things[two])
        texts += [things[one] + 0.5 * things[two], things[one]]
    (tmp_path / "caps.json").write_text(json.dumps(captions))
    np.savez(tmp_path / "img.npz", values=np.array(images), sample_ids=np.array(list(captions)))
    np.save(tmp_path / "txt.npy", np.array(texts))
    np.save(tmp_path / "offsets.npy", np.arange(0, 481, 2))
    done = rdx_here(
        "encode-concepts", "--captions", "caps.json", "--tagger", "packaged", "--max-threshold", "1", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    command = [
        *("train-surrogate", "--encodings", done.stdout.strip(), "--image-embeddings", "img.npz:values"),
        *("--text-embeddings", "txt.npy", "--text-offsets", "offsets.npy", "--device", "cpu", "--epochs", "60"),
        *("--batch-size", "64", "--learning-rate", "0.5", "--checkpoint-seconds", "0", "--param", "patience=60"),
        "--no-tensorboard",
    ]
    whole, killed = compared(command, tmp_path, "surrogate.safetensors", "metrics.csv")
    assert whole == killed


def compared(command: list[str], folder: Path, *files: str) -> tuple[bytes, bytes]:
    """The bytes of the files after one run, and after a run that was killed at random moments.

    All runs are forks of one process that has loaded the libraries, which costs the start of the program once.
    """
    done = subprocess.run(
        [sys.executable, __file__, json.dumps(command), str(folder), files[0]],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    places = [next((folder / name).rglob("manifest.json")).parent for name in ("whole", "killed")]
    assert not list(folder.rglob("*.partial"))
    read = [b"".join((place / name).read_bytes() for name in files) for place in places]
    return read[0], read[1]


def _runs(command: list[str], folder: Path, file: str) -> None:
    """One whole run, and one that is killed `KILLS` times and taken up again, as forks of this process."""
    import transformers

    importlib.import_module(f"rdxcli.services.{command[0].replace('-', '_')}")
    importlib.import_module(LOADED[command[0]])
    assert transformers.Blip2ForConditionalGeneration is not None  # loaded, not only named

    def begin(name: str) -> Run:
        """The process, once it has written something itself."""
        before = written(folder / name)
        run = start([*command, "--outputs", str(folder / name)], folder / f"{name}.log")
        deadline = time.monotonic() + 120
        while run.poll() is None and written(folder / name) == before:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        return run

    clock = time.monotonic()
    run = begin("whole")
    work = time.monotonic()
    assert run.wait(300) == 0, run.words
    seconds = time.monotonic() - work
    rng, moments = np.random.default_rng(int(clock * 1e6)), []
    for _ in range(KILLS):
        run = begin("killed")
        delay = float(rng.uniform(0, seconds / KILLS))
        time.sleep(delay)
        if run.poll() is not None:
            break
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        moments.append((round(delay, 3), len(written(folder / "killed"))))
        if any(".partial" not in str(path) for path in (folder / "killed").rglob(file)):
            break  # killed between the end of the work and the end of the process
    print(f"{command[0]}: {seconds:.1f} s of work, killed after (s, files): {moments}")
    assert moments
    last = start([*command, "--outputs", str(folder / "killed")], folder / "killed.log")
    assert last.wait(300) == 0, last.words


def written(outputs: Path) -> dict[str, int]:
    """Files of unfinished work and when each was written."""
    found: dict[str, int] = {}
    for path in outputs.rglob("*.partial/**/*"):
        try:
            found[str(path)] = path.stat().st_mtime_ns
        except OSError:
            continue  # renamed between the look at the folder and the look at the file
    return found


if __name__ == "__main__":
    _runs(json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
