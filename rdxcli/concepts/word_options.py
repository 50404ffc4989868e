"""What the commands of words are asked: `caption`, `encode-concepts` and `train-surrogate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rdxcli.datasets.selection import SelectionOptions
from rdxcli.options import WithShortcuts, option, parameters_option

DRAWING, RUNNING = "How captions are drawn", "How to run"


@dataclass(frozen=True)
class CaptionOptions:
    """What to caption and how.

    Without `model`: the captions that belong to the data set where there are any, else the default captioner. How it
    samples: `rdxcli.models.captioners.Sampling`; servers: `rdxcli.models.caption_server.CaptionServer`. Neither
    `batch_size` nor `workers` changes a caption.
    """

    selection: SelectionOptions = field(default_factory=SelectionOptions)
    model: str | None = option(
        "blip2-opt-2.7b-coco (default), hf:REPO_OR_FOLDER, openai:NAME (a server), human: the data set's.",
        "--model",
        "-m",
    )
    base_url: str | None = option("Address of the server, up to and with /v1.", panel=RUNNING)
    parallel: int = option("Requests to a server at a time.", default=8, low=1, panel=RUNNING)
    attributes: bool = option(
        "Ask for objects, attributes and relations.", "--attributes", default=False, panel=DRAWING
    )
    source: Path | None = option("Take the captions of this file (.json, .jsonl, .csv ...) instead.", "--from")
    captions: int = option("Captions per image.", "--captions-per-image", "-n", default=10, low=1, panel=DRAWING)
    prompt: str | None = option(
        "What captions continue (default: a photo of), or are asked for; a task of Florence-2.", panel=DRAWING
    )
    temperature: float = option("0 takes the likeliest words.", default=1.0, low=0, panel=DRAWING)
    top_p: float = option("Share of the probability drawn from.", default=0.9, panel=DRAWING)
    top_k: int = option("Most tokens drawn from; 0 for all.", default=50, low=0, panel=DRAWING)
    max_tokens: int = option("Most tokens of a caption.", default=100, low=1, panel=DRAWING)
    dtype: str | None = option("float32, float16, bfloat16 (default: half on a GPU).", panel=RUNNING)
    batch_size: int | None = option("Images at once.", low=1, panel=RUNNING)
    workers: int | None = option("Threads that decode.", low=0, panel=RUNNING)
    strict: bool = option("Stop at the first image that cannot be read.", "--strict", default=False, panel=RUNNING)
    max_errors: int | None = option("Stop when more images fail.", low=0, panel=RUNNING)
    outputs: Path = Path("outputs")
    run: str | None = None
    seed: int = 0
    device: str = "auto"
    force: bool = False


@dataclass(frozen=True)
class EncodeOptions:
    """What to encode and how.

    Without `captions` those of the data set are read (`rdxcli.concepts.captions`). `min_count`, `max_threshold`, `pos`,
    `max_size`: see `rdxcli.methods.surrogate.vocabulary.fit_vocabulary`; `normalisation` and `phrases` (by default of
    the tagger): `rdxcli.methods.surrogate.extraction.ConceptExtractor`.
    """

    captions: str | None = option("Captions: .json, .jsonl, .csv, .tsv, .token, .txt, artifact, -.", read="stdin")
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    min_count: int = option("Images that must mention a concept.", default=3, low=1)
    max_threshold: float = option("Largest share of images that may mention it.", default=0.1)
    method: str = option("average (share of captions) or union (0 or 1).", default="average")
    pos: str = option("Parts of speech: n, a, v, m (names), p (phrases), * (given terms).", default="navmp*")
    max_size: int | None = option("Keep the most frequent N.", low=1)
    phrases: str | None = option("Of several words: none, merged (hot dog), compounds or noun-phrases.")
    keep: Path | None = option("Concepts to take whatever the thresholds say, one a line.")
    stop: Path | None = option("Concepts to leave out, one a line.", "--drop", "--stop")
    synonyms: str | None = option(
        "Make one of words that mean the same: a file (dog, puppy: a group a line), or a CLIP or SigLIP that compares "
        "them; listed in vocabulary.csv.",
        "--merge-synonyms",
    )
    synonym_threshold: float = option("Least cosine of synonyms by a model.", default=0.95)
    vocabulary: Path | None = option("Your own concepts, one a line, or those of an artifact, in place of fitted ones.")
    source: str = option("auto (hanta), hanta, published (NLTK data) or packaged.", "--tagger", default="auto")
    language: str = option("en, de, nl; auto looks at the captions.", default="auto")
    normalisation: str | None = option("original (as published) or improved (default: of the tagger).")
    outputs: Path = Path("outputs")
    run: str | None = None
    seed: int = 0
    force: bool = False


@dataclass(frozen=True)
class TrainOptions(WithShortcuts):
    """What to train on and how; `parameters` are those of `rdxcli.methods.surrogate.training.SurrogateTrainer`.

    With as many rows of `text_embeddings` as images there is one caption per image. A `teacher` embeds the images of
    `selection`, their captions (those the encodings were made from, else the data set's) and the classes of a labelled
    data set.
    """

    encodings: str = option("Artifact of encode-concepts, matrix file, or - for stdin.", default="", read="stdin")
    image_embeddings: str | None = option("Teacher: array (n, d).")
    text_embeddings: str | None = option("Teacher: array (t, d).")
    text_offsets: str | None = option("Array (n + 1,): where each image's captions begin.")
    class_embeddings: str | None = option("Text embeddings of classes, for agreement.")
    teacher: str | None = option("CLIP or SigLIP that embeds --dataset, once, in place of arrays.")
    captions: str | None = option("What the teacher reads: file or artifact (default: of the encodings).")
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    name: str | None = option("Folder in the outputs (default: of data set or array).")
    epochs: int | None = option("Most epochs (default: 150).", low=1, parameter="epochs")
    batch_size: int | None = option("Images a step (default: 1024).", low=2, parameter="batch_size")
    learning_rate: float | None = option("Before scaling (default: 0.0025).", parameter="learning_rate")
    loss: str | None = option("Loss (default: symmetric-moving-kl).", parameter="loss")
    checkpoint_seconds: float = option("Least time between checkpoints.", default=60.0, low=0)
    class_prompts: Sequence[str] = option(
        "Sentence for a class, with {} for its name; the mean of several.", "--class-prompt", default=()
    )
    tensorboard: bool | None = option(
        "Metrics for TensorBoard too (default: if installed).", "--tensorboard/--no-tensorboard"
    )
    parameters: Mapping[str, Any] = parameters_option()
    outputs: Path = Path("outputs")
    run: str | None = None
    seed: int = 0
    device: str = "auto"
    force: bool = False
