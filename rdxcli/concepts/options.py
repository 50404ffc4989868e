"""Where concepts, and names for groups, come from: the options that the gates of this room read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rdxcli.errors import UsageError, did_you_mean
from rdxcli.options import option
from rdxcli.representations.options import INPUTS, LayerOptions

NAMES = "Names for concepts"
FILES = ("image_embeddings", "text_embeddings")
"""Of `NamingOptions`, in place of a model."""


@dataclass(frozen=True)
class ConceptOptions(LayerOptions):
    """Where concepts come from, for the layer that is read; the model's data set names the default concept set."""

    concepts: str | None = option("File of an (n, concepts) matrix.", panel=INPUTS)
    concept_names: Path | None = option("Its column names, one a line.", panel=INPUTS)
    concept_set: str | None = option("Concept words: a text file or a published set.", panel=INPUTS)
    vlm: str | None = option("Vision-language model.", panel=INPUTS)
    splits: Path | None = option(".npz with train, val and test row numbers.", panel=INPUTS)
    files: Mapping[str, str] = option(
        "NAME=PATH of a further input of the method; may be repeated.",
        "--file",
        factory=dict,
        read="pairs",
        panel=INPUTS,
    )


def check_files(method: str, given: Mapping[str, str], known: Sequence[str]) -> None:
    """Refuse ``--file NAME=PATH`` that a method does not read, naming near ones. Raises `UsageError`."""
    for name in given:
        if name not in known:
            reads = f"it reads {', '.join(known)}" if known else "it reads none"
            hint = did_you_mean(name, known, reads)
            raise UsageError(f"--file {name}=...: `{method}` reads no such file", hint)


@dataclass(frozen=True)
class NamingOptions:
    """Where names come from. `describe`: see `rdxcli.concepts.describing`."""

    model: str | None = option(
        "Vision-language model that finds the words which fit a concept's images more than the rest.",
        "--name-concepts",
        panel=NAMES,
    )
    concept_set: str | None = option(
        "Words to choose from: a text file or a published set (default: the data set's).", panel=NAMES
    )
    captions: str | None = option(
        "Captions to choose from: a file or an artifact (default: the data set's, when it has any).", panel=NAMES
    )
    describe: str | None = option(
        "Captioner of `rdx caption` (also openai:NAME) that proposes sentences for each group; --name-concepts MODEL "
        "tests them on held-out images, and those that hold are shown.",
        panel=NAMES,
    )
    base_url: str | None = option("Address of the server of --describe openai:NAME.", panel=NAMES)
    files: Mapping[str, str] = option(
        "image_embeddings=PATH and text_embeddings=PATH instead of a model; both are needed.",
        "--file",
        factory=dict,
        read="pairs",
        panel=NAMES,
    )

    @property
    def wanted(self) -> bool:
        """Whether names are asked for. Raises `UsageError` (options that contradict each other or mean nothing)."""
        if self.describe is not None and self.model is None:
            raise UsageError(
                "--describe: which model shall test the sentences?", "give --name-concepts MODEL, a CLIP or SigLIP"
            )
        if self.base_url is not None and self.describe is None:
            raise UsageError("--base-url is of a server that describes", "give --describe openai:NAME")
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
