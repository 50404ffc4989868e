"""What every command costs, from the start of the process to its end, at two sizes (``make bench``).

    python tests/benchmarks/commands.py [--to FOLDER] [--only compare,extract]

One table, as Markdown on the terminal and as ``commands.json`` and ``commands.md`` in a folder: CPU seconds and peak
memory of the process for a small and a larger input, and how much more the larger one took *beside the start*, which is
what `rdx list methods` costs in the same run. The ratio says how a command grows; single seconds depend on the machine.
Captions and downloads come from local servers in this process, whose own work is not counted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tests' servers
import caption_server
import download_server
from miniatures import tarred

WORDS = [f"{a}{b}" for a in ("red", "big", "old", "wet") for b in ("dog", "cat", "car", "oak", "cup", "hat", "box")]
DEVICE = ("--device", "cpu")


@dataclass
class Row:
    """One line of the table."""

    command: str
    size: str
    larger: str
    cpu: float
    cpu_larger: float
    mebibytes: float
    mebibytes_larger: float
    growth: float | None

    def line(self) -> str:
        grown = "-" if self.growth is None else f"{self.growth:.1f}"
        sizes = f"{self.size} -> {self.larger}"
        return (
            f"| `{self.command}` | {sizes} | {self.cpu:.1f} -> {self.cpu_larger:.1f} | "
            f"{self.mebibytes:.0f} -> {self.mebibytes_larger:.0f} | {grown} |"
        )


HEAD = "| command | size | CPU seconds | peak MiB | growth beside the start |\n|---|---|---|---|---|"


def run(arguments: Sequence[str], work: Path) -> tuple[float, float]:
    """CPU seconds and peak MiB of one command in a process of its own."""
    variables = {
        **os.environ,
        **{"OMP_NUM_THREADS": "1", "RDX_CACHE": str(work / "cache"), "HF_HUB_OFFLINE": "1"},
        "RDX_RECIPES": str(work / "recipes"),
    }
    with open(work / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "rdxcli", *map(str, arguments)], stdout=log, stderr=log, cwd=work, env=variables
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))}\n{(work / 'log').read_text('utf-8', 'replace')[-2000:]}")
    scale = 1 if platform.system() == "Darwin" else 1024
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * scale / 2**20


def inputs(work: Path, n: int) -> dict[str, str]:
    """Arrays, labels and captions of n samples."""
    rng = np.random.default_rng(0)
    folder = work / f"n{n}"
    folder.mkdir()
    labels = rng.integers(0, 8, n)
    centres = rng.normal(size=(8, 32))
    np.save(folder / "a.npy", centres[labels] + rng.normal(size=(n, 32)))
    np.save(folder / "b.npy", centres[labels // 2] + rng.normal(size=(n, 32)))
    np.save(folder / "labels.npy", labels)
    texts, images = {}, np.empty((n, 32))
    things = rng.normal(size=(len(WORDS), 32))
    for i in range(n):
        one, two = rng.choice(len(WORDS), 2, replace=False)
        texts[f"im{i:06d}"] = [f"a {WORDS[one]} near a {WORDS[two]}"]
        images[i] = things[one] + 0.5 * things[two]
    (folder / "captions.json").write_text(json.dumps(texts))
    np.savez(folder / "images.npz", values=images, sample_ids=np.array(list(texts)))
    np.save(folder / "texts.npy", images)
    return {path.name: str(path) for path in folder.iterdir()}


def offer(site: download_server.Site, work: Path, n: int) -> str:
    """The name of a set of n small files in one archive, which a recipe describes and the server has."""
    rng, name = np.random.default_rng(0), f"set{n}"
    archive = tarred({f"{name}/{i:06d}.bin": rng.bytes(20_000) for i in range(n)})
    site.files[f"/{name}/{name}.tar"] = archive
    item = {
        **{"name": f"{name}.tar", "size": len(archive), "sha256": hashlib.sha256(archive).hexdigest()},
        "extract": {"format": "tar", "unpacked": 20_000 * n},
    }
    recipe = {
        **{"name": name, "title": "Small files", "kind": "concepts", "papers": ["rdx"], "licence": "CC0"},
        **{"homepage": "https://example.org", "base": "http://nowhere.invalid/", "items": [item], "layout": [name]},
    }
    (work / "recipes").mkdir(exist_ok=True)
    (work / "recipes" / f"{name}.yaml").write_text(yaml.safe_dump(recipe), "utf-8")
    return name


def cases(work: Path, n: int, site: download_server.Site, captions: str) -> Iterator[tuple[str, str, list[str]]]:
    """Name, size and arguments of every command for n samples; each may use what the one before made."""
    root = ("--root", str(work / f"data{n}"))
    yield "download", f"{n} files", ["download", offer(site, work, n), "--mirror", site.url, "--yes", *root]
    files, outputs = inputs(work, n), str(work / f"out{n}")
    a, b = files["a.npy"], files["b.npy"]
    to = ("--outputs", outputs)
    yield "extract", f"{n}", ["extract", "--model", "digits-cnn", "--limit", str(n), *DEVICE, *to]
    server = ("--model", "openai:served", "--base-url", captions)
    yield (
        "caption",
        f"{n}",
        ["caption", "--dataset", "digits", "--limit", str(n), "--captions-per-image", "1", *server, *to],
    )
    yield "compare", f"{n} x 32", ["compare", a, b, "--labels", files["labels.npy"], *DEVICE, *to]
    yield "visualize", f"{n} x 32", ["visualize", "COMPARISON", *to]
    units = ("--activations", a, "--labels", files["labels.npy"])
    yield "explain le-label", f"{n} x 32 units", ["explain", "--method", "le-label", *units, *DEVICE, *to]
    yield "explain rdr", f"{n} x 32", ["explain", "--method", "rdr", "--activations", a, "--target", "5", *to]
    table = str(Path(outputs) / "arrays")
    yield "simulate", f"{n} x 32 units", ["simulate", "--explanations", table, *units, *DEVICE, *to]
    yield (
        "encode-concepts",
        f"{n} captions",
        [
            *("encode-concepts", "--captions", files["captions.json"], "--tagger", "packaged", "--max-threshold", "1"),
            *to,
        ],
    )
    yield (
        "train-surrogate",
        f"{n}",
        [
            *("train-surrogate", "--encodings", "ENCODINGS", "--image-embeddings", f"{files['images.npz']}:values"),
            *("--text-embeddings", files["texts.npy"], "--epochs", "20", *DEVICE, *to),
        ],
    )


def made(arguments: Sequence[str], outputs: Path) -> list[str]:
    """Arguments with what an earlier command made in the place of its name."""
    found = []
    for argument in arguments:
        if argument == "ENCODINGS":
            argument = str(next(outputs.rglob("encodings.npz")).parent)
        elif argument == "COMPARISON":
            argument = str(next(outputs.rglob("concepts.json")).parent)
        elif argument.endswith("/arrays"):
            argument = str(next(path for path in outputs.rglob("explanations.csv") if "le-label" in str(path)))
        found.append(argument)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--to", type=Path, default=Path("build"))
    parser.add_argument("--only", default="")
    parser.add_argument("--sizes", default="400,1600")
    options = parser.parse_args()
    small, large = (int(size) for size in options.sizes.split(","))
    wanted = {name for name in options.only.split(",") if name}
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        site = stack.enter_context(download_server.serve(download_server.Site()))
        captions = stack.enter_context(caption_server.serving()).url
        run(["extract", "--model", "digits-cnn", "--limit", "8", *DEVICE], work)  # trains the model
        floor, _ = run(["list", "methods"], work)
        print(f"start of the program: {floor:.2f} CPU seconds\n\n{HEAD}", flush=True)
        rows = []
        for (name, size, first), (_, larger, second) in zip(
            cases(work, small, site, captions), cases(work, large, site, captions), strict=True
        ):
            if wanted and name.split()[0] not in wanted:
                continue
            cpu, memory = run(made(first, work / f"out{small}"), work)
            cpu_larger, memory_larger = run(made(second, work / f"out{large}"), work)
            beside = cpu - floor
            growth = (cpu_larger - floor) / beside if beside > 0.2 else None
            rows.append(Row(name, size, larger, cpu, cpu_larger, memory, memory_larger, growth))
            print(rows[-1].line(), flush=True)
        gpu = "GPU: not measured"
        print(f"\n{gpu}")
        options.to.mkdir(parents=True, exist_ok=True)
        lines = "\n".join(row.line() for row in rows)
        (options.to / "commands.md").write_text(f"{HEAD}\n{lines}\n\n{gpu}\n", "utf-8")
        document = {
            "start": floor,
            "machine": platform.platform(),
            "cores": os.cpu_count(),
            "time": time.strftime("%F"),
            "gpu": None,
            "rows": [asdict(row) for row in rows],
        }
        (options.to / "commands.json").write_text(json.dumps(document, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
