"""What each gate of ``rdx compare`` says of release candidates (the table in docs/methods/significance.md).

    RDX_SHARED=... python tests/benchmarks/gate_trial.py [--model 20|56] [--resume FILE]

A nightly job in small: a CIFAR-10 ResNet is shipped, and copies of it come along that are honest (the same file, half
precision), quantised, pruned, fine-tuned well and badly, or read with other preprocessing. Each is compared with the
shipped one by the command line on 500 photographs; every gate is asked of the same document.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from rdxcli.cli.app import main as command_line
from rdxcli.models.architectures import CifarResNet
from rdxcli.report.gates import parse_gates

SHARED = Path(os.environ["RDX_SHARED"])
FILES = {20: "weights/cifar10_resnet20.th", 56: "weights/cifar10_resnet56.safetensors"}
GATES = ("verdict", "score>0.1", "flips>1%", "negative-flips>1%", "reference")

State = dict[str, torch.Tensor]


def shipped(depth: int) -> State:
    file = SHARED / FILES[depth]
    if file.suffix == ".safetensors":
        return load_file(file)
    state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    return {name.removeprefix("module."): value for name, value in state.items()}


def on_weights(state: State, change: Callable[[torch.Tensor], torch.Tensor]) -> State:
    return {name: change(value) if value.ndim > 1 else value for name, value in state.items()}


def quantised(bits: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(value: torch.Tensor) -> torch.Tensor:
        step = value.abs().amax() / (2 ** (bits - 1) - 1)
        return (value / step).round() * step

    return change


def pruned(share: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda value: value * (value.abs() > value.abs().flatten().kthvalue(int(share * value.numel())).values)


def images(part: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Every second photograph, as the network reads it, and the labels."""
    files = sorted((SHARED / "cifar10_test").glob("*/*.jpg"))[part::2]
    pixels = torch.tensor(np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files]))
    mean, spread = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    names = sorted({file.parent.name for file in files})
    labels = torch.tensor([names.index(file.parent.name) for file in files])
    return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / spread, labels


def tuned(depth: int, state: State, rate: float, epochs: int, wrong: bool = False) -> State:
    """Trained on the other half of the photographs; ``wrong``: every cat is called a dog."""
    torch.manual_seed(0)
    model = CifarResNet(depth)
    model.load_state_dict(state)
    model.eval()  # the statistics of the batch norms stay
    x, y = images(1)
    if wrong:
        y = torch.where(y == 3, 5, y)
    steps = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(50):
            steps.zero_grad()
            torch.nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            steps.step()
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def candidates(depth: int, state: State) -> dict[str, tuple[State, str, tuple[str, ...]]]:
    """Weights, preprocessing in the model's name, and options of the command."""
    half = {name: value.half().float() if value.is_floating_point() else value for name, value in state.items()}
    small = depth == 20
    found: dict[str, tuple[State, str, tuple[str, ...]]] = {
        "the same file": (state, "", ()),
        "stored in float16": (half, "", ()),
        "weights of 8 bits": (on_weights(state, quantised(8)), "", ()),
        "weights of 6 bits": (on_weights(state, quantised(6)), "", ()),
        "weights of 5 bits": (on_weights(state, quantised(5)), "", ()),
        "10 % of the weights removed": (on_weights(state, pruned(0.1)), "", ()),
        "30 % of the weights removed": (on_weights(state, pruned(0.3)), "", ()),
        "fine-tuned, one epoch at 1e-4": (tuned(depth, state, 1e-4, 1), "", ()),
        "other mean and spread": (state, "&mean=0.5&std=0.5", ()),
    }
    if small:
        found |= {
            "weights of 4 bits": (on_weights(state, quantised(4)), "", ()),
            "fine-tuned, three epochs at 1e-3": (tuned(depth, state, 1e-3, 3), "", ()),
            "fine-tuned with cats called dogs": (tuned(depth, state, 1e-3, 3, wrong=True), "", ()),
            "resized through 28 pixels": (state, "&input_size=28", ()),
        }
    return found


def run(arguments: list[str]) -> tuple[int, str]:
    out, before = io.StringIO(), sys.argv
    try:
        sys.argv = ["rdx", *arguments]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            command_line()
    except SystemExit as end:
        return int(end.code or 0), out.getvalue()
    finally:
        sys.argv = before
    return 0, out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=int, choices=sorted(FILES), default=20)
    parser.add_argument("--resume", type=Path, default=Path("gate_trial.jsonl"))
    given = parser.parse_args()
    depth, done = given.model, []
    if given.resume.exists():
        done = [json.loads(line) for line in given.resume.read_text().splitlines()]
    known = {(one["model"], one["candidate"]) for one in done}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for part, name in enumerate(("seen", "unseen")):
            for file in sorted((SHARED / "cifar10_test").glob("*/*.jpg"))[1 - part :: 2]:
                place = folder / name / file.parent.name / file.name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(file)
        state = shipped(depth)
        save_file({k: v.contiguous() for k, v in state.items()}, folder / "shipped.safetensors")
        for name, (weights, preprocessing, options) in candidates(depth, state).items():
            if (depth, name) in known:
                continue
            save_file({k: v.contiguous() for k, v in weights.items()}, folder / "candidate.safetensors")
            started = time.process_time()
            code, printed = run(
                [
                    *("compare", f"file:{folder}/shipped.safetensors?arch=cifar_resnet{depth}"),
                    f"file:{folder}/candidate.safetensors?arch=cifar_resnet{depth}{preprocessing}",
                    *("--dataset", f"folder:{folder}/unseen", "--yardstick", "jitter", "--bootstraps", "0", "--json"),
                    *("--no-properties", "--fail-on", "verdict", "--outputs", f"{folder}/outputs", *options),
                ]
            )
            document = json.loads(printed)
            difference, predictions = document["difference"], document["predictions"]
            row = {
                "model": depth,
                "candidate": name,
                "exit": code,
                "score": difference["score"],
                "strength": difference["strength"]["value"],
                "question": difference["question"],
                "flips": predictions["churn"]["value"],
                "negative": predictions["negative_flips"]["value"],
                "positive": predictions["positive_flips"]["value"],
                "shift": predictions["confidence_shift"]["value"],
                "gates": {text: parse_gates([text], None)[0].reason(document) is not None for text in GATES},
                "seconds": time.process_time() - started,
            }
            done.append(row)
            with given.resume.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
    print(
        f"| candidate | score | right to wrong, wrong to right | confidence | {' | '.join(f'`{g}`' for g in GATES)} |"
    )
    print("|---|---|---|---|" + "---|" * len(GATES))
    for row in done:
        if row["model"] == depth:
            said = " | ".join("fails" if fails else "passes" for fails in row["gates"].values())
            flips = f"{row['negative']:.1%}, {row['positive']:.1%}"
            print(f"| {row['candidate']} | {row['score']:.3f} | {flips} | {row['shift']:+.1%} | {said} |")
    print(f"\n{sum(row['seconds'] for row in done) / max(1, len(done)):.1f} CPU seconds each")


if __name__ == "__main__":
    main()
