"""Faults thrown at long commands while they run and at what they leave behind (``make chaos``).

    python tests/chaos.py --faults 200 --seed 0 [--only kill,rank] [--work FOLDER]

Every command is run once undisturbed; its files are the truth. Then it is run again and again, and each time something
happens to it. A fault that comes after the end does not count and is thrown again. What is counted afterwards:

- lost: the same command does not bring the result back;
- half-made: a folder with a manifest whose files are not complete;
- silent: exit code 0, and other bytes than the undisturbed run;
- traceback, wrong exit, misleading ("defect of rdx", or a failure without a word), hang;
- stale: locks, leases or unfinished work that stay behind.

The process imports everything once and forks for every run, so that a fault costs the work and not the start.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
COLUMNS = ("lost", "half-made", "silent", "traceback", "wrong exit", "misleading", "hang", "stale")
PATIENCE = 120.0
WORDS = ("dog", "cat", "tree", "car", "house", "bird", "boat", "horse", "ball", "chair")
FAILED = (1, 2)
SERVICES = (
    *("rdxcli.representations.extract", "rdxcli.services.compare.compare", "rdxcli.services.explain.neurons"),
    *("rdxcli.services.encode_concepts", "rdxcli.services.train_surrogate"),
)


@dataclass
class Run:
    """A forked ``rdx``."""

    pid: int
    log: Path
    code: int | None = None

    def poll(self) -> int | None:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def wait(self, seconds: float = PATIENCE) -> int | None:
        end = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < end:
            time.sleep(0.002)
        if self.code is None:
            os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        return self.code

    @property
    def words(self) -> str:
        return self.log.read_text("utf-8", "replace")


def start(arguments: Sequence[str], log: Path, **variables: str) -> Run:
    """Fork and run ``rdx`` with these arguments."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return Run(pid, log)
    code = 70
    try:
        os.setsid()
        nobody, words = os.open(os.devnull, os.O_RDWR), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(nobody, 0)
        os.dup2(nobody, 1)
        os.dup2(words, 2)
        os.environ.update(variables)
        sys.argv = ["rdx", *arguments]
        from rdxcli.cli.app import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


@dataclass
class Command:
    """A command, its undisturbed result, and how long that took."""

    name: str
    arguments: list[str]
    shards: bool = False
    truth: dict[str, bytes] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class Chaos:
    work: Path
    dice: random.Random
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    place: Path = Path()
    number: int = 0

    # -- running ------------------------------------------------------------------------------------------------------

    def begin(self, command: Command, *more: str, **variables: str) -> Run:
        self.number += 1
        arguments = [*command.arguments, "--outputs", str(self.place), *more]
        return start(arguments, self.work / f"log-{self.number}", **variables)

    def finish(self, command: Command, *more: str) -> Run:
        run = self.begin(command, *more)
        run.wait()
        return run

    def found(self) -> dict[str, bytes]:
        """Contents of the finished files, manifests left out: they hold times."""
        return {
            # documents say where they are
            path.relative_to(self.place).as_posix(): path.read_bytes().replace(str(self.place).encode(), b"PLACE")
            for path in sorted(self.place.rglob("*"))
            if path.is_file()
            and path.name != "manifest.json"
            and not any(
                part.startswith(".") or part.endswith(".partial") for part in path.relative_to(self.place).parts
            )
        }

    # -- judging ------------------------------------------------------------------------------------------------------

    def blame(self, column: str, why: str) -> None:
        self.seen.append(f"{column}: {why}")

    def judge(self, run: Run, what: str, codes: Sequence[int], truth: dict[str, bytes] | None = None) -> None:
        """Of a run that has ended: its words, its code, and, where it says that all is well, its files."""
        words, code = run.words, run.code
        if code is None:
            self.blame("hang", f"{what}: {words[-300:]}")
            return
        if "Traceback" in words:
            self.blame("traceback", f"{what}: {words[-600:]}")
        if "defect of rdx" in words or (code in FAILED and "error: " not in words):
            self.blame("misleading", f"{what}: {words[-300:]}")
        if code not in codes:
            self.blame("wrong exit", f"{what}: {code}, expected {codes}: {words[-300:]}")
        if code == 0 and truth is not None and self.found() != truth:
            found = self.found()
            names = sorted(name for name in {*found, *truth} if found.get(name) != truth.get(name))
            self.blame("silent", f"{what}: {names[:3]} differ")

    def half_made(self, what: str) -> None:
        from rdxcli.artifacts import Artifact
        from rdxcli.errors import ArtifactError

        for path in list(self.place.rglob("manifest.json")):
            if not any(part.endswith((".partial", ".retired")) for part in path.parts):
                try:
                    Artifact.open(path.parent, full=True)
                except ArtifactError as error:
                    if path.exists():
                        self.blame("half-made", f"{what}: {error.message}")

    def recover(self, command: Command, what: str) -> None:
        """The same command must bring everything back and leave nothing behind."""
        run = self.finish(command)
        if run.code == 0:
            self.judge(run, f"{what}, again", (0,), command.truth)
        else:
            self.judge(run, f"{what}, again", (0,))
            self.blame("lost", f"{what}: {run.words[-300:]}")
        self.stale(what)

    def stale(self, what: str) -> None:
        left = [
            path.relative_to(self.place).as_posix()
            for path in self.place.rglob("*")
            if path.name.endswith((".partial", ".retired", ".holder", ".lease", ".tmp"))
        ]
        if left:
            self.blame("stale", f"{what}: {left[:3]}")

    def moment(self, command: Command, run: Run) -> bool:
        """Wait for a moment within the usual time of the command; False when it had ended before."""
        end = time.monotonic() + command.seconds * self.dice.uniform(0.02, 1.0)
        while time.monotonic() < end:
            if run.poll() is not None:
                return False
            time.sleep(0.001)
        return run.poll() is None

    # -- faults: each gives False when it came too late ---------------------------------------------------------------

    def kill(self, command: Command) -> bool:
        number = self.dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        run = self.begin(command)
        if not self.moment(command, run):
            return False
        os.killpg(run.pid, number)
        run.wait()
        what = f"{command.name}: {number.name}"
        if number != signal.SIGKILL:
            self.judge(run, what, (128 + number, 0), command.truth)
        self.half_made(what)
        if self.dice.random() < 0.3:  # and once more
            again = self.begin(command)
            if self.moment(command, again):
                os.killpg(again.pid, signal.SIGKILL)
            again.wait()
        self.recover(command, what)
        return True

    def rank(self, command: Command) -> bool:
        """Four ranks, of which one dies; the others end the work without being asked again."""
        ranks = [self.begin(command, RANK=str(i), WORLD_SIZE="4") for i in range(4)]
        victim = self.dice.choice(ranks)
        hit = self.moment(command, victim)
        if hit:
            os.killpg(victim.pid, signal.SIGKILL)
        for run in ranks:
            run.wait()
            if run is not victim:
                self.judge(run, f"{command.name}: a rank beside a dead one", (0,), command.truth)
        self.half_made("ranks")
        if hit and self.found() != command.truth:
            self.blame("lost", f"{command.name}: ranks left {len(self.found())} files")
        self.stale("ranks")
        return hit

    def pair(self, command: Command) -> bool:
        """Two processes want the same; one of them dies."""
        first, second = self.begin(command), self.begin(command)
        hit = self.moment(command, first)
        if hit:
            os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        second.wait()
        self.judge(second, f"{command.name}: second of two", (0,), command.truth)
        self.half_made("two processes")
        self.stale("two processes")
        return hit

    def damage(self, command: Command) -> bool:
        """A file of a finished artifact changes: nobody builds on it."""
        self.finish(command)
        path = self.dice.choice([path for path in self._files() if path.stat().st_size])
        what = f"{command.name}: {self._spoil(path)} {path.name}"
        again = self.finish(command)
        # a removed manifest leaves a folder of unknown origin, which is not touched either
        self.judge(again, what, FAILED)
        if again.code == 0:
            self.blame("silent", f"{what} was not noticed")
        forced = self.finish(command, "--force")
        if path.name != "manifest.json" or path.exists():
            self.judge(forced, f"{what}, --force", (0,), command.truth)
            self.stale(what)
        return True

    def unfinished(self, command: Command) -> bool:
        """A file of unfinished work changes: it is done again or refused."""
        run = self.begin(command)
        if not self.moment(command, run):
            return False
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        files = [path for path in self._files() if ".partial" in str(path) and path.stat().st_size]
        if not files:
            return False
        path = self.dice.choice(files)
        what = f"{command.name}: {self._spoil(path)} unfinished {path.name}"
        again = self.finish(command)
        self.judge(again, what, (0, *FAILED), command.truth)
        if again.code != 0:
            self.judge(self.finish(command, "--force"), f"{what}, --force", (0,), command.truth)
        self.stale(what)
        return True

    def clock(self, command: Command) -> bool:
        """The clock jumps by days, there or back, between a kill and the next run."""
        run = self.begin(command)
        if not self.moment(command, run):
            return False
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        jump = self.dice.choice([-1, 1]) * self.dice.uniform(1e3, 1e7)
        for path in self._files():
            os.utime(path, (path.stat().st_atime + jump, path.stat().st_mtime + jump))
        self.recover(command, f"{command.name}: clock {jump:+.0f} s")
        return True

    def removed(self, command: Command) -> bool:
        """Somebody removes the outputs under a running command."""
        run = self.begin(command)
        if not self.moment(command, run):
            return False
        shutil.rmtree(self.place, ignore_errors=True)
        run.wait()
        self.judge(run, f"{command.name}: outputs removed", (0, *FAILED))
        shutil.rmtree(self.place, ignore_errors=True)
        self.recover(command, f"{command.name}: outputs removed")
        return True

    def other(self, command: Command) -> bool:
        """Another request comes into unfinished work: refused, and what was done stays."""
        if not command.shards:
            return False
        run = self.begin(command)
        if not self.moment(command, run):
            return False
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        done = {path for path in self._files() if path.suffix == ".done"}
        if not done:
            return False
        foreign = self.finish(command, "--dtype", "bfloat16")
        self.judge(foreign, f"{command.name}: another request", FAILED)
        if not all(path.exists() for path in done):
            self.blame("lost", f"{command.name}: shards of another request were removed")
        self.recover(command, f"{command.name}: another request")
        return True

    def full(self, command: Command) -> bool:
        """The disk is full, or read-only; then it is not."""
        disk = self.work / "disk"
        disk.mkdir(exist_ok=True)
        need = sum(map(len, command.truth.values()))
        size = max(8192, int(need * self.dice.uniform(0.1, 1.9)))
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=False).returncode:
            return False
        self.place, before = disk / "out", self.place
        try:
            run = self.finish(command)
            self.judge(run, f"{command.name}: a disk of {size} bytes", (0, 1), command.truth)
            if run.code != 0 and not any(word in run.words.lower() for word in ("space", "disk", "quota")):
                self.blame("misleading", f"{command.name}: full disk: {run.words[-300:]}")
            if self.dice.random() < 0.5:
                subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
                locked = self.finish(command)
                self.judge(locked, f"{command.name}: read-only disk", (0, 1), command.truth)
                subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
            subprocess.run(["mount", "-o", "remount,size=1g", disk], check=True)
            self.recover(command, f"{command.name}: full disk")
            return run.code != 0
        finally:
            subprocess.run(["umount", "-l", disk], check=False)
            self.place = before

    def _files(self) -> list[Path]:
        return sorted(path for path in self.place.rglob("*") if path.is_file() and not path.name.startswith("."))

    def _spoil(self, path: Path) -> str:
        content = bytearray(path.read_bytes())
        kind = self.dice.choice(["flip", "flip", "cut", "edit", "remove"])
        if kind == "edit" and path.suffix == ".json":
            document = json.loads(content)
            if isinstance(document, dict):
                key = self.dice.choice(sorted(document))
                document[key] = self.dice.choice(
                    [value for value in (None, 7, "x", [], {}, 99) if value != document[key]]
                )
                path.write_text(json.dumps(document))
                return f"{kind} {key} of"
            kind = "flip"
        if kind == "remove" and path.name != "manifest.json" and path.suffix != ".done" and ".tmp" not in path.name:
            path.unlink()
            return kind
        if kind == "cut" and len(content) > 1:
            path.write_bytes(content[: self.dice.randrange(len(content))])
            return kind
        stat = path.stat()
        content[self.dice.randrange(len(content))] ^= 1 << self.dice.randrange(8)
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        return "flip"

    # -- the whole ----------------------------------------------------------------------------------------------------

    def throw(self, command: Command, fault: Callable[[Command], bool]) -> bool:
        """One fault on a fresh place; whether it counted."""
        self.place = self.work / f"out-{self.number}"
        before = len(self.seen)
        counted = fault(command)
        shutil.rmtree(self.place, ignore_errors=True)
        if counted or len(self.seen) > before:
            counts = self.counts.setdefault(fault.__name__, Counter())
            counts["faults"] += 1
            counts.update(line.partition(":")[0] for line in self.seen[before:])
        return counted


def commands(work: Path, wanted: Sequence[str]) -> list[Command]:
    """The commands that faults are thrown at, on inputs made here; ``wanted`` are their names, empty for all."""
    import numpy as np

    rng = np.random.default_rng(0)
    np.save(work / "a.npy", rng.normal(size=(400, 8)))
    np.save(work / "b.npy", rng.normal(size=(400, 8)))
    np.save(work / "labels.npy", rng.integers(0, 6, 400))
    a, b, labels = (str(work / name) for name in ("a.npy", "b.npy", "labels.npy"))
    small = ["--batch-size", "16", "--shard-rows", "16", "--workers", "1", "--limit", "600"]
    things, captions, images = rng.normal(size=(len(WORDS), 16)), {}, []
    for i in range(240):
        one, two = rng.choice(len(WORDS), 2, replace=False)
        captions[f"im{i:03d}"] = [f"a {WORDS[one]} near a {WORDS[two]}", f"the {WORDS[one]}"]
        images.append(things[one] + 0.5 * things[two])
    (work / "captions.json").write_text(json.dumps(captions))
    np.savez(work / "images.npz", values=np.array(images), sample_ids=np.array(list(captions)))
    np.save(work / "texts.npy", np.repeat(np.array(images), 2, axis=0))
    np.save(work / "offsets.npy", np.arange(0, 481, 2))
    encode = ["encode-concepts", "--captions", str(work / "captions.json"), "--tagger", "packaged"]
    encode += ["--max-threshold", "1"]
    folder = work / "encodings"
    if not wanted or "train" in wanted:
        run = start([*encode, "--outputs", str(folder)], work / "log-0")
        assert run.wait() == 0, run.words
        (folder,) = {path.parent for path in folder.rglob("encodings.npz")}
    train = ["train-surrogate", "--encodings", str(folder), "--image-embeddings", f"{work / 'images.npz'}:values"]
    train += ["--text-embeddings", str(work / "texts.npy"), "--text-offsets", str(work / "offsets.npy")]
    train += ["--epochs", "100", "--batch-size", "64", "--checkpoint-seconds", "0", "--param", "patience=100"]
    found = [
        Command(
            "extract",
            ["extract", "--model", "digits-cnn", "-l", "conv1", "-l", "conv2", *small, "--device", "cpu"],
            shards=True,
        ),
        Command("compare", ["compare", a, b, "--k", "3", "--no-test", "--bootstraps", "3", "--device", "cpu"]),
        Command(
            "explain", ["explain", "--method", "le-label", "--activations", a, "--labels", labels, "--device", "cpu"]
        ),
        Command("encode", encode),
        Command("train", [*train, "--device", "cpu"]),
    ]
    return [command for command in found if not wanted or command.name in wanted]


def faults_of(chaos: Chaos, command: Command) -> list[Callable[[Command], bool]]:
    found = [chaos.kill, chaos.pair, chaos.damage, chaos.clock, chaos.removed, chaos.full]
    return [*found, chaos.kill, chaos.rank, chaos.rank, chaos.unfinished, chaos.other] if command.shards else found


def table(counts: dict[str, Counter[str]]) -> Iterator[str]:
    total = Counter[str]()
    yield f"{'fault':<12}{'thrown':>8}" + "".join(f"{column:>12}" for column in COLUMNS)
    for name, row in sorted(counts.items()):
        total.update(row)
        yield f"{name:<12}{row['faults']:>8}" + "".join(f"{row[column]:>12}" for column in COLUMNS)
    yield f"{'all':<12}{total['faults']:>8}" + "".join(f"{total[column]:>12}" for column in COLUMNS)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="names of faults, with commas")
    parser.add_argument("--command", default="", help="names of commands, with commas")
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="rdx-chaos-"))
    import torch

    # what every run needs is loaded once, before it forks
    for module in ("torchvision", "sklearn.datasets", "rdxcli.cli.app", "rdxcli.models.digits", *SERVICES):
        importlib.import_module(module)

    torch.set_num_threads(1)
    chaos = Chaos(work, random.Random(options.seed))
    chosen = commands(work, options.command.split(",") if options.command else [])
    for command in chosen:
        for _ in range(2):  # the first trains the model and fills caches
            chaos.place = work / f"truth-{command.name}-{chaos.number}"
            begun = time.monotonic()
            run = chaos.finish(command)
            command.seconds = time.monotonic() - begun
            assert run.code == 0, run.words
            before, command.truth = command.truth, chaos.found()
        assert command.truth == before, f"{command.name} does not give the same twice"
        print(f"{command.name}: {command.seconds:.2f} s, {len(command.truth)} files", flush=True)
    turns = [
        (command, fault)
        for command in chosen
        for fault in faults_of(chaos, command)
        if not options.only or fault.__name__ in options.only.split(",")
    ]
    done, tries = 0, 0
    while done < options.faults and tries < 4 * options.faults:
        command, fault = turns[tries % len(turns)]
        tries += 1
        done += chaos.throw(command, fault)
    print(*table(chaos.counts), sep="\n")
    for line in chaos.seen:
        print(line)
    if options.work is None:
        shutil.rmtree(work, ignore_errors=True)
    return 1 if chaos.seen or done < options.faults else 0


if __name__ == "__main__":
    sys.exit(main())
