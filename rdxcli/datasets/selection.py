"""Which samples of a data set, and what belongs to the rows of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rdxcli.datasets.registry import open_dataset
from rdxcli.errors import UsageError
from rdxcli.options import option

if TYPE_CHECKING:
    from rdxcli.datasets.base import Dataset


@dataclass(frozen=True)
class SelectionOptions:
    """Which samples, of a data set (None: the model's own); `seed` is that of `sample` and `per_class`."""

    dataset: str | None = option("Data set: a name, folder:PATH or images:PATH.", complete="datasets")
    split: str | None = option("Split of the data set.")
    include: str | None = option("Only samples whose id fits a pattern (cats/*, *_7.png), comma-separated, or @FILE.")
    exclude: str | None = option("All samples but those whose id fits a pattern, comma-separated, or @FILE.")
    classes: str | Sequence[str] | None = option("Only these classes, comma-separated; #5 is the sixth.", type=str)
    per_class: int | None = option("Only N samples of each class, drawn with the seed.", low=1)
    sample: int | None = option("Only N samples, drawn with the seed.", low=1)
    limit: int | None = option("Only the first N samples.", low=1)
    seed: int = 0
    root: Path | None = None

    @property
    def narrows(self) -> bool:
        """Whether anything is left out of the data set."""
        chosen = (self.split, self.include, self.exclude, self.classes, self.per_class, self.sample, self.limit)
        return any(value is not None for value in chosen)

    def open(self, default: str | None = None) -> Dataset:
        """The selected samples of ``dataset``, or of ``default`` when none is named.

        Raises `UsageError` (neither is given).
        """
        spec = self.dataset or default
        if spec is None:
            raise UsageError(
                "which images? this model has no default data set",
                "give --dataset NAME, --dataset folder:PATH or --dataset images:PATH",
            )
        return open_dataset(spec, root=self.root).select(
            split=self.split,
            include=self.include,
            exclude=self.exclude,
            classes=self.classes,
            per_class=self.per_class,
            sample=self.sample,
            limit=self.limit,
            seed=self.seed,
        )


@dataclass(frozen=True)
class Choice:
    """What a person says about the columns: ``--feature-columns``, ``--id-column``, ``--label-column``.

    Parameters
    ----------
    features : str, optional
        Names or patterns separated by commas (``f*``), ``all`` for every number; ``!NAME`` leaves one out.
        Of arrays without names: positions, ``0-511``.
    ids, labels : str, optional
        A column, or several of which the first that a table has is taken.
    """

    features: str | None = None
    ids: str | None = None
    labels: str | None = None


@dataclass(frozen=True)
class ArrayOptions:
    """What belongs to the rows of arrays, and which columns of tables are what; see `Choice`."""

    labels: Path | None = option(
        "Labels of the rows of arrays: .npy, .txt, .csv or .json; where two models are compared, of their images."
    )
    sample_ids: Path | None = option("Ids of the rows of arrays.")
    images: Path | None = option("Folder with the images of the rows, by id or in order.")
    feature_columns: str | None = option(
        "Columns of tables that are features: names or patterns with commas (f*), !NAME to leave one out, `all`."
    )
    id_column: str | None = option("Column of tables that holds the sample ids.")
    label_column: str | None = option("Column of tables that holds the labels.")

    @property
    def choice(self) -> Choice:
        """Which columns are features, ids and labels."""
        return Choice(self.feature_columns, self.id_column, self.label_column)
