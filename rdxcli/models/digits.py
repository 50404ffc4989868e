"""``digits-cnn`` and its variants: small networks that rdx trains itself on scikit-learn's handwritten digits.

The variants repeat the MNIST experiments of the RDX paper (SPEC section 6) on data that needs no download: the
difference between two of them is known, so the right answer of a comparison is known.

=============  ==========================================================================================
variant        what its training saw
=============  ==========================================================================================
(none)         1797 images, ten true labels
``m35``        every 5 was called 3
``m49``        every 9 was called 4
``hflip``      each image and its mirror image (left-right) under the same label
``hflip-nl``   mirror images under new labels 10 to 19
``vflip``      each image and its upside-down copy under the same label
``vflip-nl``   upside-down copies under new labels 10 to 19
``early``      the training of the plain network, stopped early
=============  ==========================================================================================

Training runs in double precision on the CPU. Rounding differences between thread counts and machines then stay far
below single precision, in which the weights are stored: the same seed gives the same file.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock
from safetensors import SafetensorError, safe_open

from rdxcli.datasets.digits import digit_arrays
from rdxcli.lazy import safetensors_torch, torch
from rdxcli.numerics.seeding import torch_generator
from rdxcli.numerics.threads import torch_on_one_thread
from rdxcli.places import cache_root
from rdxcli.progress import human_count, log, track

if TYPE_CHECKING:
    from rdxcli.models.architectures import PooledCNN

WIDTHS = (16, 32)
#: Raise when anything changes that changes the weights.
RECIPE_VERSION = 1


@dataclass(frozen=True)
class Variant:
    """How one variant is trained. Adam with OneCycleLR on shuffled batches, as in the published experiments.

    Parameters
    ----------
    stream : str
        Name of the random stream for initial weights and order; variants that share it share both.
    relabel : pair of int, optional
        (from, to): the training label of the first digit.
    flip : {"h", "v"}, optional
        Adds a flipped copy of every image.
    new_labels : bool
        Whether flipped copies get labels 10 to 19.
    peak_rate : float
        Highest learning rate of the cycle.
    stop : int, optional
        Number of steps after which training ends.
    """

    stream: str
    relabel: tuple[int, int] | None = None
    flip: str | None = None
    new_labels: bool = False
    epochs: int = 15
    batch: int = 64
    peak_rate: float = 1e-2
    stop: int | None = None

    @property
    def classes(self) -> int:
        return 20 if self.new_labels else 10


RECIPES: dict[str, Variant] = {
    "": Variant("plain"),
    "m35": Variant("m35", relabel=(5, 3)),
    "m49": Variant("m49", relabel=(9, 4)),
    "hflip": Variant("hflip", flip="h"),
    "hflip-nl": Variant("hflip-nl", flip="h", new_labels=True),
    "vflip": Variant("vflip", flip="v"),
    "vflip-nl": Variant("vflip-nl", flip="v", new_labels=True),
    "early": Variant("plain", stop=58),
}


@dataclass(frozen=True)
class Trained:
    """A trained variant.

    Parameters
    ----------
    state : dict of str to Tensor
        Weights, float32.
    facts : dict
        ``train_accuracy`` (share of the training set), ``steps``, ``seconds``, ``images``, ``recipe``, ``seed``.
    path : Path or None
        Cached file; None when the cache cannot be written.
    """

    state: dict[str, torch.Tensor]
    classes: int
    facts: dict[str, Any]
    path: Path | None


def cache_folder() -> Path:
    """Folder of the trained weights."""
    return cache_root() / "models"


def training_set(recipe: Variant) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 8, 8) uint8 and labels (n,) int64 that a recipe trains on."""
    images, labels = digit_arrays()
    if recipe.relabel is not None:
        old, new = recipe.relabel
        labels = np.where(labels == old, new, labels)
    if recipe.flip is not None:
        flipped = images[:, :, ::-1] if recipe.flip == "h" else images[:, ::-1]
        images = np.concatenate([images, flipped])
        labels = np.concatenate([labels, labels + 10 * recipe.new_labels])
    return images, labels


def train(recipe: Variant, seed: int, name: str = "digits-cnn") -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Train one variant.

    `name`: for progress.

    Returns
    -------
    state : dict of str to Tensor
        float32 weights of `PooledCNN`.
    facts : dict
        See `Trained`.
    """
    images, labels = training_set(recipe)
    x = ((torch.tensor(images).double() / 255 - 0.5) / 0.5)[:, None]
    y = torch.from_numpy(labels)
    random = torch_generator(seed, "digits-cnn", recipe.stream)
    net = _initial(recipe.classes, random)
    steps = -(-len(x) // recipe.batch) * recipe.epochs
    optimizer = torch.optim.Adam(net.parameters(), lr=recipe.peak_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=recipe.peak_rate, total_steps=steps)
    total = min(recipe.stop or steps, steps)
    start = time.perf_counter()
    done = 0
    # batches are so small that more threads only wait for each other
    with torch_on_one_thread(), track(f"train {name}", total, "steps") as advance:
        while done < total:
            for rows in torch.randperm(len(x), generator=random).split(recipe.batch):
                loss = torch.nn.functional.cross_entropy(net(x[rows]), y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                advance(1)
                done += 1
                if done == total:
                    break
        net.eval()
        with torch.no_grad():
            accuracy = float((net(x).argmax(1) == y).double().mean())
    facts = {
        "train_accuracy": accuracy,
        "images": len(x),
        "steps": done,
        "seconds": round(time.perf_counter() - start, 2),
        "seed": seed,
        "recipe": asdict(recipe),
        "recipe_version": RECIPE_VERSION,
    }
    return {
        key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in net.state_dict().items()
    }, facts


def network(classes: int) -> PooledCNN:
    """The network before its training."""
    from rdxcli.models.architectures import PooledCNN

    with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator
        return PooledCNN(WIDTHS, classes)


def _initial(classes: int, random: torch.Generator) -> PooledCNN:
    """The network in double precision with torch's default initial distribution, drawn from ``random``."""
    net = network(classes).double()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                bound = module.weight[0].numel() ** -0.5
                module.weight.uniform_(-bound, bound, generator=random)
                if module.bias is not None:
                    module.bias.uniform_(-bound, bound, generator=random)
    return net


def obtain(variant: str = "", seed: int = 0) -> Trained:
    """The weights of a variant: from the cache, else trained now and cached.

    Two processes that ask at once train once: the second waits for the first. Without a writable cache folder the
    weights are trained anew each time, with a warning. `variant`: key of `RECIPES`.
    """
    recipe = RECIPES[variant]
    name = "digits-cnn" + (f"-{variant}" if variant else "") + (f"@{seed}" if seed else "")
    digest = hashlib.sha256(json.dumps([RECIPE_VERSION, WIDTHS, asdict(recipe)], sort_keys=True).encode()).hexdigest()
    path = cache_folder() / f"{name}-{digest[:8]}.safetensors"
    found = _read(path, recipe)
    if found is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        lock.acquire()
    except OSError as error:
        log.warning(
            "the cache folder %s cannot be written (%s): %s is trained for this run only", path.parent, error, name
        )
        state, facts = train(recipe, seed, name)
        return Trained(state, recipe.classes, facts, None)
    try:
        found = _read(path, recipe)  # another process may have finished meanwhile
        if found is not None:
            return found
        state, facts = train(recipe, seed, name)
        _write(path, state, facts)
    finally:
        lock.release()
    log.info(
        "trained %s: %s, %s, train accuracy %.1f %%, %.1f s, kept in %s",
        name, human_count(facts["images"], "image"), human_count(facts["steps"], "step"),
        100 * facts["train_accuracy"], facts["seconds"], path,
    )  # fmt: skip
    return Trained(state, recipe.classes, facts, path)


def _read(path: Path, recipe: Variant) -> Trained | None:
    """A cached file, or None when there is none or it is damaged."""
    if not path.is_file():
        return None

    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        log.warning("the cached weights %s are damaged (%s) and are made again", path, error)
        return None
    return Trained(state, recipe.classes, facts, path)


def _write(path: Path, state: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        safetensors_torch.save_file(state, partial, metadata={"facts": json.dumps(facts, sort_keys=True)})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
