"""Which samples of a data set, and what belongs to the rows of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rdxcli.datasets.base import Dataset
from rdxcli.datasets.registry import open_dataset
from rdxcli.errors import UsageError


@dataclass(frozen=True)
class SelectionOptions:
    """Which samples: ``--dataset``, ``--split``, ``--classes``, ``--per-class``, ``--sample``, ``--limit``.

    Parameters
    ----------
    dataset : str, optional
        Name or scheme; None means the model's own default data set.
    seed : int
        Of ``sample`` and ``per_class``.
    root : Path, optional
        Where downloads are.
    """

    dataset: str | None = None
    split: str | None = None
    classes: str | Sequence[str] | None = None
    per_class: int | None = None
    sample: int | None = None
    limit: int | None = None
    seed: int = 0
    root: Path | None = None

    @property
    def narrows(self) -> bool:
        """Whether anything is left out of the data set."""
        return any(v is not None for v in (self.split, self.classes, self.per_class, self.sample, self.limit))

    def open(self, default: str | None = None) -> Dataset:
        """The selected samples of ``dataset``, or of ``default`` when none is named.

        Raises
        ------
        UsageError
            Neither is given.
        """

        spec = self.dataset or default
        if spec is None:
            raise UsageError(
                "which images? this model has no default data set",
                "give --dataset NAME, --dataset folder:PATH or --dataset images:PATH",
            )
        return open_dataset(spec, root=self.root).select(
            split=self.split,
            classes=self.classes,
            per_class=self.per_class,
            sample=self.sample,
            limit=self.limit,
            seed=self.seed,
        )


@dataclass(frozen=True)
class ArrayOptions:
    """What belongs to the rows of arrays: ``--labels``, ``--sample-ids``, ``--images``."""

    labels: Path | None = None
    sample_ids: Path | None = None
    images: Path | None = None
