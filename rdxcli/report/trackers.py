"""Results handed to trackers of experiments (MLflow, Weights & Biases, Trackio) through one small interface.

``--log mlflow:http://host:5000`` logs parameters, the numbers of the document, and the files of the artifact as one
run that is called like the artifact. Each tracker reads its own environment variables: addresses, accounts, offline
modes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from rdxcli.errors import DependencyError, RdxError, UnknownNameError, installed

PROJECT = "rdx"
"""The experiment or project of runs whose target names none."""

SECTIONS = ("difference", "scores", "predictions", "summary")
"""Parts of documents whose numbers are logged."""


@dataclass(frozen=True)
class Run:
    """What is logged.

    Attributes
    ----------
    numbers : dict of str to float
        Finite, named by their place in the document: ``difference.score``.
    folder : Path
        Its files.
    """

    name: str
    parameters: dict[str, str]
    numbers: dict[str, float]
    folder: Path = field(repr=False)


def run_of(folder: Path, document: Mapping[str, Any]) -> Run:
    """The run of the artifact in a folder."""
    said = {name: document[name] for name in ("kind", "method", "n", "k", "seed") if document.get(name) is not None}
    said |= {side: document[side].get("name") for side in ("a", "b") if isinstance(document.get(side), Mapping)}
    said |= {f"parameters.{name}": value for name, value in dict(document.get("parameters") or {}).items()}
    numbers = dict(_numbers({name: document[name] for name in SECTIONS if name in document}))
    for method in document.get("methods", []):
        numbers |= dict(_numbers({part: method[part] for part in SECTIONS if part in method}, f"{method['method']}."))
    name = document.get("artifact", folder.as_posix())
    return Run(str(name), {key: str(value) for key, value in said.items()}, numbers, folder)


def _numbers(part: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, float]]:
    for name, value in part.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{place}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield f"{place}{name}", float(value)


def _mlflow(target: str, run: Run) -> None:
    client = import_module("mlflow.tracking").MlflowClient(tracking_uri=target or None)
    experiment = client.get_experiment_by_name(PROJECT)
    number = experiment.experiment_id if experiment else client.create_experiment(PROJECT)
    made = client.create_run(number, run_name=run.name).info.run_id
    state = "FAILED"
    try:
        for name, value in run.parameters.items():
            client.log_param(made, name, value)
        for name, number in run.numbers.items():
            client.log_metric(made, name, number)
        client.log_artifacts(made, str(run.folder))
        state = "FINISHED"
    finally:
        client.set_terminated(made, state)


def _wandb(target: str, run: Run) -> None:
    wandb = import_module("wandb")
    with wandb.init(project=target or PROJECT, name=run.name, config=run.parameters) as made:
        made.log(run.numbers)
        files = wandb.Artifact("result", type="rdx")
        files.add_dir(str(run.folder))
        made.log_artifact(files)


def _trackio(target: str, run: Run) -> None:
    trackio = import_module("trackio")
    trackio.init(project=target or PROJECT, name=run.name.replace("/", "-"), config=run.parameters)
    trackio.log(run.numbers)
    trackio.finish()


TRACKERS: Mapping[str, Callable[[str, Run], None]] = {"mlflow": _mlflow, "wandb": _wandb, "trackio": _trackio}
"""By the word before the colon of ``--log``; what follows it is theirs: an address, or a project."""


def tracker(target: str | None) -> Callable[[Path, Mapping[str, Any]], None]:
    """What logs a finished artifact to ``mlflow:http://host:5000`` or ``wandb:PROJECT``; asked for before the work.

    Raises `UnknownNameError` (no such tracker) or `DependencyError` (its package is not installed).
    """
    if target is None:
        return lambda folder, document: None
    name, _, rest = target.partition(":")
    if name not in TRACKERS:
        raise UnknownNameError("tracker", name, TRACKERS)
    if not installed(name):
        raise DependencyError(name, name)

    def log(folder: Path, document: Mapping[str, Any]) -> None:
        try:
            TRACKERS[name](rest, run_of(folder, document))
        except Exception as error:  # they raise their own kinds, which must not hide a finished result
            text = " ".join(str(error).split())[:300]
            hint = "the result itself is stored; the same command logs it again"
            raise RdxError(f"--log {target}: {text}", hint) from None

    return log
