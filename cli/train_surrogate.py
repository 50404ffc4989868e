"""``rdx train-surrogate``: a concept surrogate of a vision-language embedding."""

from typing import Annotated, Any

import typer

from rdxcli.errors import UsageError

from .options import (
    DatasetOption,
    LimitOption,
    ParamOption,
    SampleOption,
    Session,
    SplitOption,
    command,
    method_parameters,
    read_stdin,
)


@command(
    "train-surrogate",
    examples=[
        "rdx train-surrogate --encodings enc.npz --image-embeddings i.npy --text-embeddings t.npy",
        "rdx train-surrogate --config configs/surrogate-coco.yaml --epochs 50",
        "rdx encode-concepts --captions c.json -q | "
        "rdx train-surrogate --encodings - --dataset images:photos --teacher clip_vit_b_32",
    ],
)
def train_surrogate(
    session: Session,
    encodings: Annotated[
        str | None, typer.Option("--encodings", help="Artifact of encode-concepts, matrix file, or - for stdin.")
    ] = None,
    image_embeddings: Annotated[str | None, typer.Option("--image-embeddings", help="Teacher: array (n, d).")] = None,
    text_embeddings: Annotated[str | None, typer.Option("--text-embeddings", help="Teacher: array (t, d).")] = None,
    text_offsets: Annotated[
        str | None, typer.Option("--text-offsets", help="Array (n + 1,): where each image's captions begin.")
    ] = None,
    class_embeddings: Annotated[
        str | None, typer.Option("--class-embeddings", help="Text embeddings of classes, for agreement.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option("--teacher", help="CLIP or SigLIP that embeds --dataset, once, in place of arrays.")
    ] = None,
    captions: Annotated[
        str | None,
        typer.Option("--captions", help="What the teacher reads: file or artifact (default: of the encodings)."),
    ] = None,
    dataset: DatasetOption = None,
    split: SplitOption = None,
    limit: LimitOption = None,
    sample: SampleOption = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Folder in the outputs (default: of data set or array).")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Most epochs (default: 150).")] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=2, help="Images a step (default: 1024).")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Before scaling (default: 0.0025).")
    ] = None,
    loss: Annotated[str | None, typer.Option("--loss", help="Loss (default: symmetric-moving-kl).")] = None,
    checkpoint_seconds: Annotated[
        float, typer.Option("--checkpoint-seconds", min=0, help="Least time between checkpoints.")
    ] = 60.0,
    class_prompt: Annotated[
        list[str] | None,
        typer.Option("--class-prompt", help="Sentence for a class, with {} for its name; the mean of several."),
    ] = None,
    tensorboard: Annotated[
        bool | None,
        typer.Option("--tensorboard/--no-tensorboard", help="Metrics for TensorBoard too (default: if installed)."),
    ] = None,
    param: ParamOption = None,
) -> None:
    """Train a map from concepts to the embedding, so that every image's embedding is explained in words.

    An interrupted training continues with the same command and ends with the same weights.
    """
    from rdxcli.datasets.selection import SelectionOptions
    from rdxcli.services import train_surrogate as service

    given: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "loss": loss,
    }
    required = {"--encodings": encodings}
    if teacher is None:
        required |= {"--image-embeddings": image_embeddings, "--text-embeddings": text_embeddings}
    for option, value in required.items():
        if value is None:
            raise UsageError(f"{option} is missing", "give it on the command line or in --config")
    parameters = {**method_parameters(param), **{name: value for name, value in given.items() if value is not None}}
    options = service.TrainOptions(
        encodings=read_stdin(str(encodings)),
        image_embeddings=image_embeddings,
        text_embeddings=text_embeddings,
        text_offsets=text_offsets,
        class_embeddings=class_embeddings,
        class_prompts=tuple(class_prompt or ()),
        tensorboard=tensorboard,
        parameters=parameters,
        checkpoint_seconds=checkpoint_seconds,
        teacher=teacher,
        captions=captions,
        selection=SelectionOptions(dataset=dataset, split=split, limit=limit, sample=sample, seed=session.seed),
        name=name,
        outputs=session.outputs,
        run=session.run,
        seed=session.seed,
        device=session.device,
        force=session.force,
    )
    if session.dry_run:
        session.plan("train a surrogate", service.plan(options))
        return
    outcome = service.train_surrogate(options)
    session.sink.table(outcome.title, outcome.columns, outcome.rows)
    for line in outcome.lines:
        session.sink.message(line)
    session.sink.result(str(outcome.artifact.path), outcome.document)
