"""The training loop: steps, validation, early stopping, and a checkpoint from which the loop goes on exactly."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rdxcli.numerics.seeding import generator
from rdxcli.progress import track

from . import checkpoints
from .losses import DistillationLoss, LossValue
from .model import Rows, Surrogate
from .trainer_data import CodeBatches, Parts, Teacher, group, merged
from .validation import compare

Callback = Callable[[Mapping[str, Any]], None]


def training_step(
    model: Surrogate,
    loss: DistillationLoss,
    optimizer: torch.optim.Optimizer,
    rows: Rows,
    images: Tensor,
    texts: Tensor,
    index: Tensor,
    autocast: AbstractContextManager[Any] | None = None,
) -> LossValue:
    """One optimisation step on one batch.

    Parameters
    ----------
    rows : Rows
        Encodings of the B images.
    images, texts : (B, d), (B, e) tensors
        Teacher embeddings.
    index : (B,) int64 tensor
        Positions of the images in the data set.
    autocast : context manager, optional
        Lower precision of the similarity products; the parameters stay as they are.
    """
    optimizer.zero_grad(set_to_none=True)
    with autocast or nullcontext():
        value = loss(model(rows), model.keys(texts), images, texts, index)
    value.loss.backward()
    optimizer.step()
    return value


@dataclass
class Position:
    """Where a run stands."""

    epoch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float | None = None
    best_epoch: int | None = None
    waited: int = 0
    finished: bool = False


@dataclass
class Loop:
    """One training run.

    Parameters
    ----------
    model, loss, optimizer, batches, teacher, split
        The pieces of the run.
    classes : array (J, e) or None
        Text embeddings of classes.
    batch_size, steps, epochs, validate_every : int
        ``steps`` is the number of batches of an epoch.
    monitor : {"kl", "agreement"}
    autocast : torch.dtype or None
        Lower precision of the similarity products.
    identity : mapping
        What two runs must share for one to be the continuation of the other; plain JSON.
    folder : path or None
        Where the checkpoint lives.
    seconds : float
        Least time between two checkpoints.
    """

    model: Surrogate
    loss: DistillationLoss
    optimizer: torch.optim.Optimizer
    batches: CodeBatches
    teacher: Teacher
    split: Parts
    classes: Any
    batch_size: int
    steps: int
    epochs: int
    validate_every: int
    patience: int | None
    monitor: str
    autocast: torch.dtype | None
    seed: int
    identity: Mapping[str, Any]
    folder: str | Path | None = None
    seconds: float = 60.0
    position: Position = field(default_factory=Position)
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.model.bias.device

    def resume(self) -> tuple[int, int] | None:
        """Take up the checkpoint of the folder, if there is one: the (epoch, step) it stands at.

        Raises `ValueError` when the checkpoint belongs to another run or cannot be read.
        """
        found = None if self.folder is None else checkpoints.load(self.folder)
        if found is None:
            return None
        tensors, document = found
        if document.get("identity") != self.identity:
            raise ValueError(
                f"Got a checkpoint of another run ({_difference(self.identity, document.get('identity') or {})}), "
                "expected one of this run or none"
            )
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(tensors[f"model/{name}"])
        self.loss.load(group(tensors, "loss"))
        state: dict[int, dict[str, Any]] = {}
        for key, value in group(tensors, "optimizer").items():
            number, _, name = key.partition("/")
            state.setdefault(int(number), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.best = {name: value.to(self.device) for name, value in group(tensors, "best").items()}
        self.position = Position(**document["position"])
        return self.position.epoch, self.position.step

    def save(self) -> None:
        """Replace the checkpoint of the folder."""
        if self.folder is None:
            return
        optimizer = {
            f"{number}/{name}": value
            for number, members in self.optimizer.state_dict()["state"].items()
            for name, value in members.items()
            if isinstance(value, Tensor)
        }
        parts: dict[str, Mapping[str, Tensor]] = {
            "model": dict(self.model.named_parameters()),
            "optimizer": optimizer,
            "loss": self.loss.state(),
            "best": self.best,
        }
        checkpoints.save(self.folder, merged(parts), {"identity": self.identity, "position": vars(self.position)})

    def run(self, callback: Callback | None = None) -> None:
        """Train until the last epoch or until validation stops getting better."""
        at, saved = self.position, time.monotonic()
        names = ["kl", "accuracy", *(["i2t_kl", "i2t_accuracy"] if self.loss.symmetric else [])]
        wide = torch.float32 if self.device.type == "mps" else torch.float64
        if callback is not None:
            for row in at.history:
                callback(row)
        with track("train surrogate", self.epochs * self.steps, "steps") as advance:
            advance(at.epoch * self.steps + at.step)
            while not at.finished and at.epoch < self.epochs:
                order = generator(self.seed, "surrogate", "order", at.epoch).permutation(self.split.train)
                sums = torch.tensor(at.sums or [0.0] * (len(names) + 1), dtype=wide, device=self.device)
                while at.step < self.steps:
                    value = self._step(order)
                    sums += torch.stack([value.loss.detach(), *(value.metrics[name] for name in names)]).to(sums)
                    at.step += 1
                    advance(1)
                    if at.step < self.steps and time.monotonic() - saved >= self.seconds:
                        at.sums = sums.tolist()
                        self.save()
                        saved = time.monotonic()
                self._end_epoch(dict(zip(("loss", *names), (sums / self.steps).tolist(), strict=True)))
                if callback is not None:
                    callback(at.history[-1])
                if at.finished or time.monotonic() - saved >= self.seconds:
                    self.save()
                    saved = time.monotonic()

    def _step(self, order: np.ndarray) -> LossValue:
        epoch, step = self.position.epoch, self.position.step
        rows = order[step * self.batch_size : (step + 1) * self.batch_size]
        u = generator(self.seed, "surrogate", "caption", epoch, step).random(len(rows))
        dtype, device = self.batches.dtype, self.device
        return training_step(
            self.model,
            self.loss,
            self.optimizer,
            self.batches.drawn(rows, epoch, step),
            torch.as_tensor(self.teacher.image_rows(rows), dtype=dtype, device=device),
            torch.as_tensor(self.teacher.text_rows(rows, u), dtype=dtype, device=device),
            torch.as_tensor(rows, device=device),
            None if self.autocast is None else torch.autocast(device.type, dtype=self.autocast),
        )

    def _end_epoch(self, means: dict[str, float]) -> None:
        """Close an epoch: check, validate, remember the best weights, decide whether to stop."""
        at = self.position
        at.epoch, at.step, at.sums = at.epoch + 1, 0, []
        if not all(np.isfinite(value) for value in means.values()):
            raise ValueError(f"Got a loss that is not finite in epoch {at.epoch}, expected a lower learning rate")
        row: dict[str, Any] = {"epoch": at.epoch, "step": at.epoch * self.steps, **means}
        last = at.epoch == self.epochs
        if at.epoch % self.validate_every == 0 or last:
            scores = self.compare(self.split.validation)
            row |= {f"val_{name}": value for name, value in scores.items()}
            key = "kl" if self.monitor == "kl" else "agreement" if "agreement" in scores else "retrieval_agreement"
            value = scores[key] if key == "kl" else -scores[key]
            if at.best is None or value < at.best:
                at.best, at.best_epoch, at.waited = value, at.epoch, 0
                self.best = {name: p.detach().clone() for name, p in self.model.named_parameters()}
            else:
                at.waited += 1
            row["best"] = at.best_epoch == at.epoch
        at.history.append(row)
        at.finished = last or (self.patience is not None and at.waited >= self.patience)

    def compare(self, rows: np.ndarray) -> dict[str, float]:
        """Scores of the present weights on some images."""
        return compare(
            self.model,
            self.batches,
            self.teacher,
            rows,
            # A KL depends on the number of captions to choose from: the same for training and held-out images.
            gallery=min(self.batch_size, len(self.split.validation)),
            temp_student=self.loss.temp_student,
            temp_teacher=self.loss.temp_teacher,
            class_embeddings=self.classes,
        )

    def take_best(self) -> None:
        """Put the best validated weights into the model."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(self.best[name])


def _difference(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Names of what differs between two identities."""
    names = [key for key in mine if theirs.get(key) != mine[key]]
    if "parameters" in names and isinstance(theirs.get("parameters"), Mapping):
        names.remove("parameters")
        names += [key for key, value in mine["parameters"].items() if theirs["parameters"].get(key) != value]
    return "different: " + ", ".join(names)
