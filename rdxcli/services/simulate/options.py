"""What to score, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rdxcli.concepts.options import ConceptOptions
from rdxcli.options import option


@dataclass(frozen=True)
class SimulateOptions(ConceptOptions):
    """What to score, besides the layer and the simulator's concepts.

    Intervals need no `bootstraps` any more; the name has stayed.
    """

    method: str = option("Explanation run of this layer, or all.", default="")
    explanations: Sequence[str] = option("CSV file, NAME=FILE or artifact; may be repeated.", default=())
    scoring: str = option("correlation, ablation or images.", default="correlation")
    variant: str = option("Of ablation: optim or norm.", default="optim")
    part: str = option("Rows to score on: test, val, train or all.", default="test")
    bootstraps: int = option("0 for no intervals.", default=1000, low=0)

    @property
    def simulator(self) -> SimulateOptions:
        """The same as the rooms of concepts read it: `method` says whose concepts they are."""
        return replace(self, method="simulate")
