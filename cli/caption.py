"""``rdx caption``: sentences about the images of a data set."""

from pathlib import Path
from typing import Annotated

import typer

from .options import SAMPLES_FAILED, DatasetOption, LimitOption, SampleOption, Session, SplitOption, command

DECODING, RUN = "How captions are drawn", "How to run"


@command(
    "caption",
    examples=[
        "rdx caption --dataset images:photos --captions-per-image 5",
        "rdx caption --dataset coco --split val --model human",
        "rdx caption --dataset imagenet --from captions.json",
        "rdx caption --dataset images:photos --model openai:Qwen3-VL-4B --base-url http://localhost:8000/v1",
    ],
)
def caption(
    session: Session,
    dataset: DatasetOption = None,
    split: SplitOption = None,
    limit: LimitOption = None,
    sample: SampleOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="blip2-opt-2.7b-coco (default), hf:REPO_OR_FOLDER, openai:NAME (a server), human: the data set's.",
        ),
    ] = None,
    base_url: Annotated[
        str | None, typer.Option("--base-url", help="Address of the server, up to and with /v1.", rich_help_panel=RUN)
    ] = None,
    parallel: Annotated[
        int, typer.Option("--parallel", min=1, help="Requests to a server at a time.", rich_help_panel=RUN)
    ] = 8,
    attributes: Annotated[
        bool,
        typer.Option("--attributes", help="Ask for objects, attributes and relations.", rich_help_panel=DECODING),
    ] = False,
    source: Annotated[
        Path | None, typer.Option("--from", help="Take the captions of this file (.json, .jsonl) instead.")
    ] = None,
    captions: Annotated[
        int, typer.Option("--captions-per-image", "-n", min=1, help="Captions per image.", rich_help_panel=DECODING)
    ] = 10,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", help="What captions continue (default: a photo of).", rich_help_panel=DECODING),
    ] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0, help="0 takes the likeliest words.", rich_help_panel=DECODING)
    ] = 1.0,
    top_p: Annotated[
        float, typer.Option("--top-p", help="Share of the probability drawn from.", rich_help_panel=DECODING)
    ] = 0.9,
    top_k: Annotated[
        int, typer.Option("--top-k", min=0, help="Most tokens drawn from; 0 for all.", rich_help_panel=DECODING)
    ] = 50,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, help="Most tokens of a caption.", rich_help_panel=DECODING)
    ] = 100,
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", help="float32, float16, bfloat16 (default: half on a GPU).", rich_help_panel=RUN),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Images at once.", rich_help_panel=RUN)
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Threads that decode.", rich_help_panel=RUN)
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first image that cannot be read.", rich_help_panel=RUN)
    ] = False,
    max_errors: Annotated[
        int | None, typer.Option("--max-errors", min=0, help="Stop when more images fail.", rich_help_panel=RUN)
    ] = None,
) -> None:
    """Describe every image in sentences: by a model, by the people who made the data set, or from a file.

    An interrupted run continues where it stopped. A caption depends on the image and the seed, not on the batch.
    """
    from rdxcli.datasets.selection import SelectionOptions
    from rdxcli.services import caption as service

    options = service.CaptionOptions(
        model=model,
        source=source,
        selection=SelectionOptions(dataset=dataset, split=split, limit=limit, sample=sample, seed=session.seed),
        captions=captions,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        max_tokens=max_tokens,
        prompt=service.ATTRIBUTES if attributes and prompt is None else prompt,
        base_url=base_url,
        parallel=parallel,
        dtype=dtype,
        batch_size=batch_size,
        workers=workers,
        strict=strict,
        max_errors=max_errors,
        outputs=session.outputs,
        run=session.run,
        seed=session.seed,
        device=session.device,
        force=session.force,
    )
    if session.dry_run:
        session.plan("caption images", service.plan(options))
        return
    outcome = service.caption(options)
    found = outcome.document
    rows = [(row["sample_id"], (row["captions"] or ["-"])[0]) for row in found["examples"]]
    session.sink.table(f"{found['captions']} captions of {found['images']} images", ("image", "caption"), rows)
    session.sink.result(str(outcome.artifact.path), found)
    if found["failed"]:
        session.sink.warning(f"{len(found['failed'])} images failed; samples.parquet lists them with their errors")
        for entry in found["failed"][:10]:
            session.sink.warning(f"{entry['sample_id']}: {entry['error']}")
        session.exit(SAMPLES_FAILED)
