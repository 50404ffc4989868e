"""What to read of a model or array, as the command line, configurations and Python say it. Importing this is cheap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdxcli.datasets.selection import ArrayOptions, SelectionOptions
from rdxcli.options import REQUIRED, WithShortcuts, option, parameters_option

if TYPE_CHECKING:
    from rdxcli.records import Representation

RUN = "How to run"
INPUTS = "Inputs of single methods"


@dataclass(frozen=True)
class LayerOptions(WithShortcuts):
    """One layer of one model, or an array or record in its place, and the method that reads it. Without `units` all."""

    method: str = option("See `rdx list methods`.", default="", complete="methods:explain")
    model: str | None = option("Model.", complete="models")
    layer: str | None = option("Layer (default: the penultimate one).", complete="layers")
    pool: str = option("auto, avg, max, first, cls, mean or none.", default="auto")
    activations: str | Representation | None = option(
        "Array file or extract artifact in place of a model.", type=str, read="stdin"
    )
    units: str | None = option("Units, like 0-63,70.", panel=INPUTS)
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    arrays: ArrayOptions = field(default_factory=ArrayOptions)
    parameters: Mapping[str, Any] = parameters_option()
    outputs: Path = Path("outputs")
    seed: int = 0
    device: str = "auto"
    run: str | None = None
    force: bool = False

    @property
    def unpooled(self) -> str:
        """``pool`` for methods that read every position: without a choice nothing is pooled."""
        return "none" if self.pool == "auto" else self.pool


@dataclass(frozen=True)
class ExtractOptions:
    """What to extract and how.

    Parameters
    ----------
    model : str
        See `rdxcli.models.grammar`.
    layers : sequence of str or None
        Module paths, aliases, or patterns (``layer3.*``, ``block:*``, ``*``).
    dtype : str
        Of weights and computation. ``float16`` is stored as such, the others as float32.
    batch_size, workers : int, optional
        Neither changes the result beyond rounding.
    shard_rows : int, optional
        Rounded up to whole batches.
    engine : {"auto", "local", "ranks", "ray"}, optional
        ``auto`` is ``ranks`` when the environment gives a rank (see `rdxcli.engines.ranks`), else ``local``. By default
        what `rdxcli.engines.sharing.set_engine` said.
    address : str, optional
        Of a running Ray cluster.
    run : str, optional
        Name of the last folder instead of the pooling's.
    renew : bool
        Replace activations that were made from something else, such as older weights of the same name.
    """

    model: str = option("Model; may be repeated.", "--model", "-m", default=REQUIRED, complete="models", read="each")
    layers: Sequence[str | None] = option(
        "Layer; may be repeated: all are read in one pass (default: the penultimate one).",
        "--layer",
        "-l",
        default=(),
        complete="layers",
    )
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    pool: str = option("auto, avg, max, first, cls, mean or none.", default="auto")
    dtype: str = option("float32, float16 or bfloat16.", default="float32", panel=RUN)
    batch_size: int | None = option("Images at once (default: by input size).", low=1, panel=RUN)
    workers: int | None = option("Threads that decode (default: by device).", low=0, panel=RUN)
    shard_rows: int | None = option(
        "Images that are stored at once: what a kill may cost (default: 256 or more).", low=1, panel=RUN
    )
    strict: bool = option(
        "Stop at the first image that cannot be read; exit with 5 when other ranks still work.",
        default=False,
        panel=RUN,
    )
    max_errors: int | None = option("Stop when more images fail.", low=0, panel=RUN)
    untrained: bool = option("Accept random weights.", default=False, panel=RUN)
    allow_random: bool = option("Accept a network that gives other activations every time.", default=False, panel=RUN)
    device: str = "auto"
    engine: str | None = None
    address: str | None = None
    outputs: Path = Path("outputs")
    run: str | None = None
    force: bool = False
    renew: bool = False
