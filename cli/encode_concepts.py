"""``rdx encode-concepts``: from captions to concepts."""

from pathlib import Path
from typing import Annotated

import typer

from .options import DatasetOption, LimitOption, SampleOption, Session, SplitOption, command, read_stdin


@command(
    "encode-concepts",
    examples=[
        "rdx encode-concepts --captions captions.json",
        "rdx encode-concepts --captions lines.txt --min-count 5 --max-threshold 0.05",
        "rdx caption --dataset images:photos -q | rdx encode-concepts --captions -",
    ],
    without=("device",),
)
def encode_concepts(
    session: Session,
    captions: Annotated[
        str | None,
        typer.Option("--captions", help="Captions: .json, .jsonl, .csv, .tsv, .token, .txt, artifact, -."),
    ] = None,
    dataset: DatasetOption = None,
    split: SplitOption = None,
    limit: LimitOption = None,
    sample: SampleOption = None,
    min_count: Annotated[int, typer.Option("--min-count", min=1, help="Images that must mention a concept.")] = 3,
    max_threshold: Annotated[
        float, typer.Option("--max-threshold", help="Largest share of images that may mention it.")
    ] = 0.1,
    method: Annotated[str, typer.Option("--method", help="average (share of captions) or union (0 or 1).")] = "average",
    pos: Annotated[
        str, typer.Option("--pos", help="Parts of speech: n, a, v, m (names), p (phrases), * (given terms).")
    ] = "navmp*",
    max_size: Annotated[int | None, typer.Option("--max-size", min=1, help="Keep the most frequent N.")] = None,
    phrases: Annotated[
        str | None,
        typer.Option("--phrases", help="Of several words: none, merged (hot dog), compounds or noun-phrases."),
    ] = None,
    keep: Annotated[
        Path | None, typer.Option("--keep", help="Concepts to take whatever the thresholds say, one a line.")
    ] = None,
    stop: Annotated[Path | None, typer.Option("--drop", "--stop", help="Concepts to leave out, one a line.")] = None,
    vocabulary: Annotated[
        Path | None,
        typer.Option(
            "--vocabulary", help="Your own concepts, one a line, or those of an artifact, in place of fitted ones."
        ),
    ] = None,
    tagger: Annotated[
        str, typer.Option("--tagger", help="auto (hanta), hanta, published (NLTK data) or packaged.")
    ] = "auto",
    language: Annotated[str, typer.Option("--language", help="en, de, nl; auto looks at the captions.")] = "auto",
    normalisation: Annotated[
        str | None,
        typer.Option("--normalisation", help="original (as published) or improved (default: of the tagger)."),
    ] = None,
) -> None:
    """Find the concepts in captions, choose a vocabulary, and encode every image over it."""
    from rdxcli.datasets.selection import SelectionOptions
    from rdxcli.services import encode_concepts as service

    options = service.EncodeOptions(
        captions=read_stdin(captions) if captions else None,
        selection=SelectionOptions(dataset=dataset, split=split, limit=limit, sample=sample, seed=session.seed),
        source=tagger,
        normalisation=normalisation,
        method=method,
        min_count=min_count,
        max_threshold=max_threshold,
        pos=pos,
        max_size=max_size,
        phrases=phrases,
        stop=stop,
        keep=keep,
        language=language,
        vocabulary=vocabulary,
        outputs=session.outputs,
        run=session.run,
        seed=session.seed,
        force=session.force,
    )
    if session.dry_run:
        session.plan("encode concepts", service.plan(options))
        return
    outcome = service.encode_concepts(options)
    session.sink.table(outcome.title, outcome.columns, outcome.rows)
    for line in outcome.lines:
        session.sink.message(line)
    session.sink.result(str(outcome.artifact.path), outcome.document)
