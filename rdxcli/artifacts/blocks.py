"""Finished parts of a long computation in a folder, each put in place whole, so that an interrupted run goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np

Block = TypeVar("Block")


class BlockStore(MutableMapping[str, Block]):
    """Blocks by name.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    kind : callable
        A dataclass of arrays.
    """

    def __init__(self, folder: Path, kind: Callable[..., Block]) -> None:
        self.folder, self.kind = folder, kind
        folder.mkdir(exist_ok=True)

    def __getitem__(self, name: str) -> Block:
        try:
            with np.load(self.folder / f"{name}.npz", allow_pickle=False) as archive:
                return self.kind(**{part: archive[part] for part in archive.files})
        except (OSError, ValueError, EOFError, BadZipFile):  # not there, or not what was written: made again
            raise KeyError(name) from None

    def __setitem__(self, name: str, block: Any) -> None:
        draft = self.folder / f"{name}.tmp.npz"
        np.savez(draft, **vars(block))
        draft.replace(self.folder / f"{name}.npz")

    def __delitem__(self, name: str) -> None:
        (self.folder / f"{name}.npz").unlink()

    def __iter__(self) -> Iterator[str]:
        return (path.stem for path in sorted(self.folder.glob("*.npz")) if not path.name.endswith(".tmp.npz"))

    def __len__(self) -> int:
        return sum(1 for _ in self)
