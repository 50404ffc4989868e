"""Sentences for groups of images: a captioner proposes them, an image-text model verifies them on held-out images."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdxcli.artifacts import fingerprint_json, write_json
from rdxcli.methods.difference.describing import Description, Halves, describe_groups, halve
from rdxcli.methods.neurons.descriptions import shared_phrases
from rdxcli.models.captioners import Sampling
from rdxcli.progress import human_count, log, track

if TYPE_CHECKING:
    from rdxcli.datasets.base import Dataset
    from rdxcli.models.caption_server import CaptionServer
    from rdxcli.models.captioners import Captioner
    from rdxcli.models.vision_language import VisionLanguageModel

SHOWN = 16  # images of a group that are captioned
PER_IMAGE = 2
BATCH = 4
PHRASES = 100
QUESTION = (
    "Captions of the images of group A:\n{inside}\n\nCaptions of the images of group B:\n{outside}\n\n"
    "What is true of more images of A than of B? Write up to ten short phrases of at most eight words that could "
    "caption an image of A, the most general first, one a line and nothing else."
)


class Proposals:
    """What a captioner said, each answer in a file named by what was asked, so that a failed run goes on.

    Parameters
    ----------
    folder : Path
        Made at the first answer.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def known(self, asked: Mapping[str, Any]) -> list[str] | None:
        """The answer to what was asked before; None for what was not, or cannot be read."""
        try:
            found = json.loads(self._path(asked).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, list) and all(isinstance(text, str) for text in found) else None

    def keep(self, asked: Mapping[str, Any], texts: list[str]) -> None:
        """Store an answer."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self._path(asked), texts)

    def _path(self, asked: Mapping[str, Any]) -> Path:
        return self.folder / f"{fingerprint_json(asked)[:32]}.json"


@dataclass(frozen=True)
class Describer:
    """A captioner that proposes, and the model that verifies.

    Attributes
    ----------
    captioner : Captioner or CaptionServer
        A server is also asked what sets the captions of a group apart, as VisDiff does.
    """

    captioner: Captioner | CaptionServer
    model: VisionLanguageModel

    def identity(self) -> dict[str, Any]:
        """The captioner, for a request."""
        return self.captioner.description()

    def describe(
        self,
        images: np.ndarray,
        dataset: Dataset,
        places: np.ndarray,
        groups: Mapping[str, np.ndarray],
        proposals: Proposals,
        seed: int,
    ) -> tuple[dict[str, list[Description]], list[str]]:
        """The sentences that hold for each group, and remarks.

        Parameters
        ----------
        images : (n, d) array
            Embeddings by ``model``.
        places : (n,) int64
            Where the images are in it.
        proposals : Proposals
            What the captioner said before, and where its new answers go.
        """
        halves = {key: halve(rows, len(images), key, seed) for key, rows in groups.items()}
        known = {key: parts for key, parts in halves.items() if parts is not None}
        notes = [f"{key} has too few images to verify a sentence on" for key in halves if key not in known]
        sentences = {}
        with track("describe groups", len(known), "groups") as advance:
            for key, parts in known.items():
                sentences[key] = self._proposed(dataset, places, parts, proposals, seed)
                advance(1)
        texts = {key: self.model.encode_text(said) if said else np.zeros((0, 1)) for key, said in sentences.items()}
        found, tested = describe_groups(images, known, sentences, texts)
        proposed = sum(map(len, sentences.values()))
        log.debug("descriptions: %s proposed, %d tested", human_count(proposed, "sentence"), tested)
        notes.append(
            f"descriptions: {human_count(proposed, 'sentence')} of {self.captioner.name} proposed from "
            "half of the images, the best "
            f"{tested} tested on the other half by {self.model.name}, {sum(map(len, found.values()))} hold"
        )
        return {key: found.get(key, []) for key in groups}, notes

    def _proposed(
        self, dataset: Dataset, places: np.ndarray, parts: Halves, proposals: Proposals, seed: int
    ) -> list[str]:
        """Distinct sentences and phrases from the proposing half of a group."""
        inside = self._captions(dataset, places[parts.proposing[:SHOWN]], proposals, seed)
        said = [*(text for texts in inside for text in texts), *shared_phrases(inside, PHRASES)]
        if hasattr(self.captioner, "ask"):
            outside = self._captions(dataset, places[parts.others[:SHOWN]], proposals, seed)
            question = QUESTION.format(inside=_listed(inside), outside=_listed(outside))
            asked = {"captioner": self.identity(), "question": question, "seed": seed}
            answer = proposals.known(asked)
            if answer is None:
                answer = [self.captioner.ask(question, seed)]
                proposals.keep(asked, answer)
            said = [*_lines(answer[0]), *said]
        distinct = {text.strip().strip(".").casefold(): text.strip() for text in reversed(said) if text.strip(" .")}
        return list(reversed(distinct.values()))

    def _captions(self, dataset: Dataset, places: np.ndarray, proposals: Proposals, seed: int) -> list[list[str]]:
        """Captions of some images; those that are not known yet are asked for in small batches."""
        how = Sampling(captions=PER_IMAGE, max_tokens=40, seed=seed)
        captioner = self.identity()
        found: dict[int, list[str]] = {}
        missing = []
        for row in map(int, places):
            image = dataset.image(row)
            pixels = sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).hexdigest()
            asked = {"captioner": captioner, "how": vars(how), "sample": dataset.sample_ids[row], "pixels": pixels}
            texts = proposals.known(asked)
            if texts is None:
                missing.append((row, self.captioner.prepare(image), asked))
            else:
                found[row] = texts
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            items, ids = [item for _, item, _ in batch], [dataset.sample_ids[row] for row, _, _ in batch]
            said = self.captioner.caption(items, ids, how)
            for (row, _, asked), texts in zip(batch, said, strict=True):
                proposals.keep(asked, texts)
                found[row] = texts
        return [found[int(row)] for row in places]


def _listed(captions: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"- {texts[0]}" for texts in captions if texts)


def _lines(answer: str) -> list[str]:
    """Phrases of an answer, without numbers, bullets and quotes; long ones are no phrases but talk."""
    found = [re.sub(r"^\s*(?:[-*•]|\d+[.):])\s*", "", line).strip().strip("\"'“”") for line in answer.splitlines()]
    return [line for line in found if line and len(line.split()) <= 12][:10]
