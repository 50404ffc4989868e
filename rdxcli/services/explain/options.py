"""What to explain, and with what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rdxcli.concepts.options import INPUTS, ConceptOptions
from rdxcli.options import option


@dataclass(frozen=True)
class ExplainOptions(ConceptOptions):
    """What to explain and with what. Classes of `concept_images` are concepts of their own."""

    target: str | None = option("Sample id, row, class:NAME, misclassified or all.", panel=INPUTS)
    apply: str | None = option("Stored regions or directions to look for in these samples.", panel=INPUTS)
    steer: Sequence[str] = option(
        "DIRECTION=AMOUNT[,AMOUNT]: what if it were stronger? May be repeated.", default=(), panel=INPUTS
    )
    n_directions: int | None = option(
        "Directions to look for.",
        "--n-directions",
        "--num-directions",
        low=1,
        panel=INPUTS,
        parameter="n_directions",
    )
    concept_images: Sequence[str] = option(
        "Images that show a concept, for tcav: folder:PATH (sub-folders are concepts), images:PATH or an array. "
        "May be repeated.",
        default=(),
        panel=INPUTS,
    )
    random_images: str | None = option("Random images to tell concepts from (default: the samples).", panel=INPUTS)
    surrogate: str | None = option("Trained surrogate: artifact or file.", read="stdin", panel=INPUTS)
    encodings: str | None = option("Concept encodings (default: the surrogate's).", read="stdin", panel=INPUTS)
