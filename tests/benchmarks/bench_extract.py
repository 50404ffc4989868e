"""How close `rdx extract` comes to the bare forward pass of the same model over the same batches, already decoded.

Prints, for each case, the seconds of (1) the bare forward pass, (2) extraction with decoding, storing and joining, and
(3) a straightforward loop that decodes, computes and appends in turn; and the ratios. Rounds alternate, and the best of
each is taken, because other programs on the machine only ever make things slower.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS = 5


def main() -> None:
    import torch

    print(f"threads {torch.get_num_threads()}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("RDX_CACHE", folder)
        measure("digits-cnn", _digits(Path(folder), copies=20), Path(folder))
        measure("torchvision:mobilenet_v2", _photographs(Path(folder), 96), Path(folder), untrained=True)


def measure(model_name: str, dataset: Any, folder: Path, untrained: bool = False) -> None:
    """Measure and print one model on one data set."""
    import torch

    from rdxcli.engines.activations import ActivationTask, default_batch_size, default_workers
    from rdxcli.engines.local import RunOptions, run_local
    from rdxcli.engines.shards import ShardPlan, ShardStore, assemble
    from rdxcli.models import load

    model = load(model_name, device="cpu", untrained=untrained)
    layer, n = model.default_layer, len(dataset)
    size = default_batch_size(model.input_size, "cpu")
    batches = [
        torch.stack([model.transform(dataset.image(i)) for i in range(start, min(n, start + size))])
        for start in range(0, n, size)
    ]

    def bare() -> None:
        with torch.inference_mode():
            for batch in batches:
                model.module(batch)

    def extraction() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as place, ActivationTask(model, dataset, [layer], "auto") as task:
            plan = ShardPlan.of(n, size, 4 * 1280)
            store = ShardStore(Path(place) / "shards", dataset.sample_ids)
            run_local(task, plan, {layer: store}, RunOptions(workers=default_workers("cpu")))
            assemble(store, plan, Path(place) / "a.npy", Path(place) / "s.parquet", {"label": dataset.labels})

    def plain_loop() -> None:
        rows = []
        with model.tap([layer]) as tap:
            for start in range(0, n, size):
                images = [model.transform(dataset.image(i)) for i in range(start, min(n, start + size))]
                rows.append(tap(torch.stack(images))[layer].numpy())
        np.save(folder / "plain.npy", np.concatenate(rows))

    forward, whole, loop = _best(bare, extraction, plain_loop)
    print(
        f"{model_name}, layer {layer}, {n} images of {'x'.join(map(str, model.input_size))}, batch {size}: "
        f"bare forward {forward:.3f} s, extract {whole:.3f} s ({n / whole:.0f} images/s), plain loop {loop:.3f} s; "
        f"{forward / whole:.2f} of the bare forward pass, {loop / whole:.2f} times as fast as the plain loop"
    )


def _best(*functions: Callable[[], None]) -> list[float]:
    """Smallest time of each over alternating rounds, after one to warm up."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(ROUNDS + 1):
        for function, collected in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            collected.append(time.perf_counter() - start)
    return [min(collected[1:]) for collected in times]


def _digits(folder: Path, copies: int) -> Any:
    from rdxcli.datasets.digits import digit_arrays
    from rdxcli.datasets.registry import open_dataset

    np.save(folder / "digits.npy", np.tile(digit_arrays()[0], (copies, 1, 1)))
    return open_dataset(f"array:{folder / 'digits.npy'}")


def _photographs(folder: Path, count: int) -> Any:
    """Real photographs where the shared folder is there, else noise stored as JPEG of the same size."""
    from PIL import Image

    from rdxcli.datasets.registry import open_dataset

    shared = Path(os.environ.get("RDX_SHARED", Path(__file__).resolve().parents[3] / "shared"))
    if (shared / "data" / "imagenet_sample").is_dir():
        return open_dataset(f"images:{shared / 'data' / 'imagenet_sample'}").select(limit=count)
    rng = np.random.default_rng(0)
    (folder / "noise").mkdir()
    for i in range(count):
        small = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
        small.resize((256, 256)).save(folder / "noise" / f"{i:03d}.jpg", quality=90)
    return open_dataset(f"images:{folder / 'noise'}")


if __name__ == "__main__":
    main()
