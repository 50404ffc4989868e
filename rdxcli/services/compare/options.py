"""What to compare, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rdxcli.datasets.selection import ArrayOptions, SelectionOptions
from rdxcli.errors import UsageError

FILES = ("image_embeddings", "text_embeddings")


@dataclass(frozen=True)
class NamingOptions:
    """Where names come from.

    Parameters
    ----------
    model : str, optional
        Vision-language model.
    concept_set : str, optional
        Text file or published set; the published set of the data set when not given.
    captions : str, optional
        File or artifact; the captions of the data set when not given.
    files : mapping of str to str
        ``image_embeddings`` and ``text_embeddings``, instead of a model.
    """

    model: str | None = None
    concept_set: str | None = None
    captions: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def wanted(self) -> bool:
        """Whether names are asked for.

        Raises
        ------
        UsageError
            Options that contradict each other or mean nothing.
        """
        unknown = sorted(set(self.files) - set(FILES))
        if unknown:
            raise UsageError(f"unknown --file {unknown[0]}", f"`rdx compare` reads {' and '.join(FILES)}")
        if self.files and self.model is not None:
            raise UsageError("--name-concepts has nothing to do: embeddings are given", "leave one of them out")
        if self.files and self.captions is not None:
            raise UsageError("--captions needs a model that embeds them", "--name-concepts MODEL instead of --file")
        if self.files:
            for name in FILES:
                if name not in self.files:
                    raise UsageError(f"--file {name}=FILE is missing", "image and text embeddings are needed together")
            if self.concept_set is None:
                raise UsageError("which words are the text embeddings of?", "give --concept-set FILE, one word a line")
            return True
        if self.model is None and (self.concept_set or self.captions):
            raise UsageError(
                f"{'--concept-set' if self.concept_set else '--captions'} needs something that compares words with "
                "images",
                "give --name-concepts MODEL, or --file image_embeddings=FILE --file text_embeddings=FILE",
            )
        return self.model is not None


@dataclass(frozen=True)
class CompareOptions:
    """What to compare and how.

    Parameters
    ----------
    a, b : str
        Model, array file or artifact.
    drop_a, drop_b : str, optional
        Columns to leave out, like ``0-63,70``: what does the model lose without a concept?
    method : str
        Name in the registry of methods; ``all`` or several names with commas give a scoreboard.
    parameters : mapping
        Hyper-parameters of the method; those not given keep the method's defaults.
    reference : tuple of two str, optional
        A second pair: is (a, b) more different than that?
    test : bool
        Make the significance test.
    bootstraps : int
        Resamplings for the stability of concepts; 0 leaves it out.
    guidance : {"none", "labels", "classifier", "outcome"}
    align : bool
        Take away what a linear map can explain first.
    planted : str, optional
        Classes that a model is known to merge, see `rdxcli.services.compare.scores.planted_difference`.
    fail_above : float, optional
        Gate on the difference score.
    naming : NamingOptions
        Where names for concepts come from, if they are wanted.
    """

    a: str
    b: str
    layer_a: str | None = None
    layer_b: str | None = None
    drop_a: str | None = None
    drop_b: str | None = None
    pool: str = "auto"
    method: str = "rdx"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    arrays: ArrayOptions = field(default_factory=ArrayOptions)
    reference: tuple[str, str] | None = None
    test: bool = True
    bootstraps: int = 20
    guidance: str = "none"
    align: bool = False
    planted: str | None = None
    fail_above: float | None = None
    naming: NamingOptions = field(default_factory=NamingOptions)
    outputs: Path = Path("outputs")
    run: str | None = None
    seed: int = 0
    device: str = "auto"
    force: bool = False
