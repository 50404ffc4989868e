"""What is said before the start beside what the run took: the table of docs/costs.md (CPU seconds of one core).

    python tests/benchmarks/estimates.py [--to FILE.json] [--only compare:rdx,explain:uibe] [--seconds 60]

Every method at two sizes: ``--dry-run --json`` says a time, then the command runs: in a process that has the libraries
already, or with ``--fresh`` in one of its own. A run that is said to take more than ``--seconds`` is left out. With
``--to`` results are added to those of earlier calls.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))
from commands import DEVICE, run

from rdxcli.cli.app import main as main_of_rdx

LOW, HIGH = 3.0, 2.0
"""An estimate is wrong when it is out by more than the first factor, unless both are seconds: at most the second."""

LIBRARIES = (
    *(
        "torch",
        "torchvision",
        "sklearn.cluster",
        "sklearn.decomposition",
        "scipy.stats",
        "pyarrow.parquet",
        "PIL.Image",
    ),
    *("umap", "hdbscan", "matplotlib.figure", "rich.table", "rdxcli.services.compare.compare"),
    *("rdxcli.services.explain.neurons", "rdxcli.services.encode_concepts", "rdxcli.services.train_surrogate"),
)
"""Loaded before the commands, each of which then costs its own work."""

HEAD = "| command | size | said | took | said / took |\n|---|---|---|---|---|"


def planted(
    work: Path, name: str, n: int, d: int, classes: int = 8, *, own: bool = False, positive: bool = False
) -> str:
    """An array of groups, where every second group is two in the twin of it."""
    path = work / f"{name}{'p' if positive else ''}-{n}x{d}.npy"
    if not path.exists():
        rng = np.random.default_rng(1 if own else 0)
        labels = np.random.default_rng(9).integers(0, 8, n)
        values = rng.normal(size=(8, d))[labels // 2 if own else labels] + rng.normal(size=(n, d))
        np.save(path, (np.maximum(values, 0.0) if positive else values).astype(np.float32))
        np.save(work / f"labels-{n}.npy", labels)
    return str(path)


def matrix(work: Path, n: int, c: int) -> tuple[str, ...]:
    """Scores of n images for c concepts, as options."""
    path, names = work / f"concepts-{n}x{c}.npy", work / f"names-{c}.txt"
    if not path.exists():
        np.save(path, np.random.default_rng(2).random((n, c), dtype=np.float32) ** 2)
        names.write_text("".join(f"concept {i}\n" for i in range(c)))
    return ("--concepts", str(path), "--concept-names", str(names))


def maps(work: Path, n: int, d: int, side: int) -> str:
    """Non-negative feature maps."""
    path = work / f"maps-{n}x{d}x{side}.npy"
    if not path.exists():
        rng = np.random.default_rng(3)
        parts = np.maximum(rng.normal(size=(12, d)), 0.0)
        which = rng.integers(0, 12, (n, side, side))
        values = parts[which] * rng.uniform(0.5, 1.5, (n, side, side, 1)) + 0.1 * rng.random((n, side, side, d))
        np.save(path, values.transpose(0, 3, 1, 2).astype(np.float32))
    return str(path)


def masks(work: Path, n: int, side: int = 64) -> tuple[str, ...]:
    folder = work / f"masks-{n}"
    if not folder.exists():
        folder.mkdir()
        rng = np.random.default_rng(4)
        for i in range(n):
            small = rng.integers(0, 12, (4, 4)).astype(np.uint8)
            Image.fromarray(np.kron(small, np.ones((side // 4, side // 4), np.uint8))).save(folder / f"s{i}.png")
        (work / f"ids-{n}.txt").write_text("".join(f"s{i}\n" for i in range(n)))
        (work / "parts.txt").write_text("".join(f"part {i}\n" for i in range(12)))
    return (
        *("--sample-ids", str(work / f"ids-{n}.txt"), "--file", f"masks={folder}"),
        *("--concept-names", str(work / "parts.txt")),
    )


def folder_of_images(work: Path, n: int, side: int) -> str:
    """Photographs' size and noise; names sort as rows."""
    folder = work / f"images-{n}-{side}"
    if not folder.exists():
        rng = np.random.default_rng(5)
        for label in ("cat", "dog"):
            (folder / label).mkdir(parents=True)
        for i in range(n):
            small = Image.fromarray(rng.integers(0, 255, (side // 8, side // 8, 3), dtype=np.uint8))
            small.resize((side, side)).save(folder / ("cat", "dog")[i % 2] / f"{i:05d}.jpg", quality=90)
    return f"folder:{folder}"


def captions(work: Path, n: int, each: int) -> str:
    path = work / f"captions-{n}x{each}.json"
    if not path.exists():
        rng = np.random.default_rng(6)
        things = ["dog", "cat", "car", "tree", "table", "hat", "box", "horse", "river", "house", "woman", "street"]
        looks = ["red", "old", "small", "wet", "white", "wooden", "large", "young"]

        def sentence() -> str:
            a, b = rng.choice(things, 2, replace=False)
            one, two = rng.choice(looks, 2)
            return f"a {one} {a} stands beside a {two} {b} in the morning light"

        path.write_text(json.dumps({f"im{i:06d}": [sentence() for _ in range(each)] for i in range(n)}))
    return str(path)


def compare_cases(work: Path) -> Iterator[tuple[str, str, list[str]]]:
    sizes = {
        "rdx": ((2000, 64), (8000, 64)),
        "rdx-pagerank": ((2000, 64), (6000, 64)),
        "rdx-v2": ((2000, 64), (6000, 64)),
        "cnmf": ((1000, 64), (4000, 64)),
        "nlmcd": ((1000, 64), (4000, 64)),
        "usae": ((500, 16), (1000, 32)),
        "crosscoder": ((1000, 32), (2000, 128)),
        "kmeans": ((4000, 64), (20000, 128)),
        "pca": ((4000, 64), (20000, 128)),
        "nmf": ((2000, 64), (10000, 128)),
        "snmf": ((2000, 64), (10000, 128)),
        "sae": ((1000, 64), (4000, 128)),
        "topk-sae": ((1000, 64), (4000, 128)),
    }
    for name, own in sizes.items():
        for n, d in own:
            a = planted(work, "a", n, d, positive=name == "nmf")
            b = planted(work, "b", n, d, own=True, positive=name == "nmf")
            yield f"compare:{name}", f"{n} x {d}", ["compare", a, b, "--method", name, "--no-test", "--bootstraps", "0"]
    for n, d in ((500, 16), (2000, 64), (5000, 512)):
        a, b = planted(work, "a", n, d), planted(work, "b", n, d, own=True)
        yield "compare:default", f"{n} x {d}", ["compare", a, b, "--labels", str(work / f"labels-{n}.npy")]
    for n, d in ((24000, 64),):
        a, b = planted(work, "a", n, d), planted(work, "b", n, d, own=True)
        quick = ("--no-test", "--bootstraps", "0")
        yield "compare:landmarks", f"{n} x {d}", ["compare", a, b, *quick, "--landmarks", "4000"]
    yield "compare:digits", "1797", ["compare", "digits-cnn-m35", "digits-cnn", "--k", "3"]
    yield "compare:digits, patches", "1797", ["compare", "digits-cnn-m35", "digits-cnn", "--k", "3", "--patches"]
    for n, side in ((100, 512), (400, 512), (400, 64)):
        a, b = planted(work, "a", n, 16), planted(work, "b", n, 16, own=True)
        quick = ("--no-test", "--bootstraps", "0", "--images", folder_of_images(work, n, side))
        yield "compare:properties", f"{n}, {side} pixels", ["compare", a, b, *quick]
    for n, d in ((500, 16), (1000, 32)):
        a, b = planted(work, "a", n, d, positive=True), planted(work, "b", n, d, own=True, positive=True)
        yield "compare:all", f"{n} x {d}", ["compare", a, b, "--method", "all", "--yes"]
    for n, d in ((500, 32), (2000, 64)):
        several = [planted(work, name, n, d, own=name != "a") for name in ("a", "b", "a")]
        yield "compare:several", f"{n} x {d}", ["compare", *several]


def unit_cases(work: Path) -> Iterator[tuple[str, str, list[str]]]:
    for method in ("le-label", "logical", "find-units"):
        more = ("--param", "query=3") if method == "find-units" else ()
        for n, u in ((1000, 64), (5000, 512)):
            source = ("--activations", planted(work, "a", n, u), "--labels", str(work / f"labels-{n}.npy"))
            yield f"explain:{method}", f"{n} x {u}, 8 labels", ["explain", "--method", method, *source, *more]
    for method in ("le-label", "logical", "clip-dissect", "find-units"):
        more = ("--param", "query=concept 3") if method == "find-units" else ()
        for n, u, c in ((1000, 32, 100), (2000, 64, 1000)):
            source = ("--activations", planted(work, "a", n, u), *matrix(work, n, c))
            yield f"explain:{method}", f"{n} x {u}, {c} concepts", ["explain", "--method", method, *source, *more]
    for n, u, words in ((1000, 32, 100), (4000, 64, 1000)):
        images, texts = work / f"images-{n}.npy", work / f"texts-{words}.npy"
        rng = np.random.default_rng(7)
        if not images.exists():
            np.save(images, rng.normal(size=(n, 64)).astype(np.float32))
        if not texts.exists():
            np.save(texts, rng.normal(size=(words, 64)).astype(np.float32))
            (work / f"words-{words}.txt").write_text("".join(f"word {i}\n" for i in range(words)))
        given = (
            *("--file", f"image_embeddings={images}", "--file", f"text_embeddings={texts}"),
            *("--concept-set", str(work / f"words-{words}.txt"), "--activations", planted(work, "a", n, u)),
        )
        scale = ("--param", "a=10", "--param", "b=0")
        yield "explain:le-siglip", f"{n} x {u}, {words} words", ["explain", "--method", "le-siglip", *given, *scale]
        yield "explain:clip-dissect", f"{n} x {u}, {words} words", ["explain", "--method", "clip-dissect", *given]
        files = ("--file", f"image_embeddings={images}", "--file", f"word_embeddings={texts}")
        vocabulary = ("--concept-set", str(work / f"words-{words}.txt"))
        yield "explain:splice", f"{n}, {words} words", ["explain", "--method", "splice", *files, *vocabulary]
    for n, u, side in ((100, 32, 7), (500, 128, 7), (200, 64, 28)):
        given = ("--activations", maps(work, n, u, side), *masks(work, n))
        size = f"{n} x {u} x {side} x {side}"
        yield "explain:network-dissection", size, ["explain", "--method", "network-dissection", *given]
    for n, u in ((1000, 64), (10000, 512)):
        given = ("--activations", planted(work, "a", n, u), "--labels", str(work / f"labels-{n}.npy"))
        table = work / f"units-{u}.csv"
        table.write_text("unit,description\n" + "".join(f"{i},{i % 8}\n" for i in range(u)))
        yield "simulate", f"{n} x {u}, 8 labels", ["simulate", "--explanations", str(table), *given]
    for n, u in ((1000, 32), (5000, 128)):
        given = ("--activations", planted(work, "a", n, u), "--labels", str(work / f"labels-{n}.npy"))
        yield "explain:all", f"{n} x {u}, 8 labels", ["explain", "--method", "all", *given]


def direction_cases(work: Path) -> Iterator[tuple[str, str, list[str]]]:
    for name in ("pca", "nmf", "ica", "kmeans", "natural"):
        for n, d, side in ((200, 32, 7), (800, 128, 7)):
            more = () if name == "natural" else ("--num-directions", "16")
            source = ("--activations", maps(work, n, d, side))
            yield f"explain:{name}", f"{n} x {d} x {side} x {side}", ["explain", "--method", name, *source, *more]
    for name in ("uibe", "eddp"):
        for n, d, side, k in ((300, 8, 1, 3), (1000, 16, 1, 4)):
            source = planted(work, "a", n, d) if side == 1 else maps(work, n, d, side)
            given = ("--activations", source, "--num-directions", str(k))
            yield f"explain:{name}", f"{n} x {d} x {side} x {side}, {k}", ["explain", "--method", name, *given]
    for n, d, k in ((500, 16, 32), (1000, 32, 128)):
        given = ("--activations", planted(work, "a", n, d), "--num-directions", str(k))
        yield "explain:sae", f"{n} x {d}, {k}", ["explain", "--method", "sae", *given]
    for n, d in ((1000, 32), (4000, 256)):
        shown = (f"--concept-images={planted(work, 'shown', 50, d)}", f"--random-images={planted(work, 'r', 200, d)}")
        source = ("--activations", planted(work, "a", n, d))
        yield "explain:tcav", f"{n} x {d}", ["explain", "--method", "tcav", *source, *shown]
    for n, d, side in ((200, 32, 7), (600, 128, 7)):
        labels = work / f"labels-{n}.npy"
        np.save(labels, np.arange(n) % 2)
        given = ("--activations", maps(work, n, d, side), "--labels", str(labels), "--target", "class:1")
        more = ("--num-directions", "8")
        yield "explain:ice", f"{n} x {d} x {side} x {side}", ["explain", "--method", "ice", *given, *more]
    for n, d in ((1000, 64), (10000, 512)):
        for target in ("3", "all"):
            if target == "all" and n > 1000:
                continue
            given = ("--activations", planted(work, "a", n, d), "--target", target)
            yield "explain:rdr", f"{n} x {d}, {target}", ["explain", "--method", "rdr", *given]


def model_cases(work: Path) -> Iterator[tuple[str, str, list[str]]]:
    for limit in (300, 1797):
        given = ("--model", "digits-cnn", "--limit", str(limit))
        yield "explain:le-label", f"digits, {limit}", ["explain", "--method", "le-label", *given]
        yield "explain:rdr", f"digits, {limit}", ["explain", "--method", "rdr", *given, "--target", "17"]
        yield "explain:uibe", f"digits, {limit}", ["explain", "--method", "uibe", *given, "--num-directions", "4"]
        yield "extract", f"digits, {limit}", ["extract", *given]
        craft = ("--layer", "conv2", "--target", "class:0", "--num-directions", "4")
        yield "explain:craft", f"digits, {limit}", ["explain", "--method", "craft", *given, *craft]


def word_cases(work: Path) -> Iterator[tuple[str, str, list[str]]]:
    for n, each in ((400, 1), (2000, 5), (10000, 5)):
        given = ("--captions", captions(work, n, each), "--tagger", "packaged", "--max-threshold", "1")
        yield "encode-concepts", f"{n} x {each} captions", ["encode-concepts", *given]
    for n, each, epochs in ((400, 1, 20), (2000, 5, 20), (10000, 5, 10)):
        vectors = work / f"vectors-{n}.npz"
        if not vectors.exists():
            ids = np.array([f"im{i:06d}" for i in range(n)])
            values = np.random.default_rng(8).normal(size=(n, 64)).astype(np.float32)
            np.savez(vectors, values=values, sample_ids=ids)
        made = work / f"encoded-{n}x{each}"
        given = ("--image-embeddings", f"{vectors}:values", "--text-embeddings", f"{vectors}:values")
        learn = ["train-surrogate", "--encodings", f"ENCODINGS {made}", *given, "--epochs", str(epochs), *DEVICE]
        yield "train-surrogate", f"{n}, {epochs} epochs", learn
        use = ("--surrogate", f"SURROGATE {work}/out-train-surrogate-{n}", "--encodings", f"ENCODINGS {made}")
        yield "explain:surrogate", f"{n}", ["explain", "--method", "surrogate", *use]


def cases(work: Path) -> Iterator[tuple[str, str, list[str]]]:
    for family in (compare_cases, unit_cases, direction_cases, model_cases, word_cases):
        yield from family(work)


def filled(arguments: list[str], work: Path) -> list[str]:
    """Arguments with artifacts in the place of what names them; made when they are not there."""
    found = []
    for argument in arguments:
        kind, _, place = argument.partition(" ")
        if kind in ("ENCODINGS", "SURROGATE"):
            folder = Path(place)
            if kind == "ENCODINGS" and not folder.exists():
                name = folder.name.removeprefix("encoded-")
                source = str(work / f"captions-{name}.json")
                captions(work, *map(int, name.split("x")))
                quick = ("--tagger", "packaged", "--max-threshold", "1", "--outputs", place)
                run(["encode-concepts", "--captions", source, *quick], work)
            file = "encodings.npz" if kind == "ENCODINGS" else "surrogate.safetensors"
            argument = str(next(folder.rglob(file)).parent)
        found.append(argument)
    return found


def forked(arguments: list[str], work: Path) -> tuple[str, float]:
    """What a command prints, and its CPU seconds besides those of a fresh start: the libraries are there already."""
    out, err = work / "out.txt", work / "err.txt"
    child = os.fork()
    if child == 0:
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.environ |= {"RDX_CACHE": str(work / "cache"), "HF_HUB_OFFLINE": "1"}
        os.chdir(work)
        sys.argv = ["rdx", *arguments]
        code = 1
        try:
            main_of_rdx()
        except SystemExit as end:
            code = int(str(end.code or 0))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status, usage = os.wait4(child, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(arguments)}\n{err.read_text('utf-8', 'replace')[-2000:]}")
    return out.read_text("utf-8"), usage.ru_utime + usage.ru_stime


def line(row: dict[str, Any]) -> str:
    ratio = "-" if row["said"] is None else f"{row['said'] / row['took']:.2f}"
    told = "-" if row["said"] is None else f"{row['said']:.1f}"
    return f"| `{row['command']}` | {row['size']} | {told} | {row['took']:.1f} | {ratio} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--to", type=Path)
    parser.add_argument("--work", type=Path, help="keep inputs there")
    parser.add_argument("--only", default="")
    parser.add_argument("--fresh", action="store_true", help="a process of its own for each, with its start")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    wanted = [name for name in options.only.split(",") if name]
    rows = json.loads(options.to.read_text()) if options.to and options.to.exists() else []
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        work.mkdir(exist_ok=True)
        os.environ["OMP_NUM_THREADS"] = "1"
        if not options.fresh:
            for library in LIBRARIES:
                import_module(library)
        print(HEAD, flush=True)
        for number, (name, size, given) in enumerate(cases(work)):
            if wanted and not any(name == one or (one.endswith("*") and name.startswith(one[:-1])) for one in wanted):
                continue
            arguments = filled(given, work)
            printed, _ = forked([*arguments, "--dry-run", "--json", "--outputs", str(work / f"nothing-{number}")], work)
            plan = json.loads(printed)
            seconds = plan.get("estimated_seconds")
            if seconds is not None and seconds > options.seconds:
                print(f"| `{name}` | {size} | {seconds:.1f} | not run | - |", flush=True)
                continue
            label = size.split(",")[0] if name == "train-surrogate" else str(number)
            outputs = work / f"out-{name.replace(':', '-').replace(', ', '-')}-{label}"
            command = [*arguments, "--outputs", str(outputs), "--force"]
            took = run(command, work)[0] if options.fresh else forked(command, work)[1]
            row = {"command": name, "size": size, "said": seconds, "took": took, "fresh": options.fresh}
            row |= {"parts": plan.get("estimated_seconds_by_method")}
            rows = [one for one in rows if (one["command"], one["size"]) != (name, size)] + [row]
            print(line(row), flush=True)
            if options.to:
                options.to.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
