"""``rdx explain``: what units, directions, regions or words of a representation mean."""

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    ClassesOption,
    DatasetOption,
    ImagesOption,
    LabelsOption,
    LimitOption,
    ParamOption,
    PoolOption,
    SampleIdsOption,
    SampleOption,
    Session,
    SplitOption,
    command,
    complete_layers,
    complete_methods,
    complete_models,
    file_pairs,
    method_parameters,
    read_stdin,
)

INPUTS = "Inputs of single methods"


@command(
    "explain",
    examples=[
        "rdx explain --method rdr --model digits-cnn --target class:3",
        "rdx explain --method rdr --activations acts.npy --target 17",
        "rdx explain --method surrogate --surrogate outputs/coco@train/surrogates/surrogate --dataset coco",
        "rdx list methods",
    ],
)
def explain(
    session: Session,
    method: Annotated[
        str, typer.Option("--method", help="See `rdx list methods`.", autocompletion=complete_methods("explain"))
    ],
    model: Annotated[str | None, typer.Option("--model", help="Model.", autocompletion=complete_models)] = None,
    layer: Annotated[
        str | None,
        typer.Option("--layer", help="Layer (default: the penultimate one).", autocompletion=complete_layers),
    ] = None,
    activations: Annotated[
        str | None, typer.Option("--activations", help="Array file or extract artifact in place of a model.")
    ] = None,
    pool: PoolOption = "auto",
    dataset: DatasetOption = None,
    split: SplitOption = None,
    classes: ClassesOption = None,
    limit: LimitOption = None,
    sample: SampleOption = None,
    labels: LabelsOption = None,
    sample_ids: SampleIdsOption = None,
    images: ImagesOption = None,
    units: Annotated[str | None, typer.Option("--units", help="Units, like 0-63,70.", rich_help_panel=INPUTS)] = None,
    concepts: Annotated[
        str | None, typer.Option("--concepts", help="File of an (n, concepts) matrix.", rich_help_panel=INPUTS)
    ] = None,
    concept_names: Annotated[
        Path | None, typer.Option("--concept-names", help="Its column names, one a line.", rich_help_panel=INPUTS)
    ] = None,
    concept_set: Annotated[
        str | None,
        typer.Option("--concept-set", help="Concept words: a text file or a published set.", rich_help_panel=INPUTS),
    ] = None,
    splits: Annotated[
        Path | None,
        typer.Option("--splits", help=".npz with train, val and test row numbers.", rich_help_panel=INPUTS),
    ] = None,
    vlm: Annotated[str | None, typer.Option("--vlm", help="Vision-language model.", rich_help_panel=INPUTS)] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", help="Sample id, row, class:NAME, misclassified or all.", rich_help_panel=INPUTS),
    ] = None,
    apply: Annotated[
        str | None,
        typer.Option(
            "--apply", help="Stored regions or directions to look for in these samples.", rich_help_panel=INPUTS
        ),
    ] = None,
    steer: Annotated[
        list[str] | None,
        typer.Option(
            "--steer",
            help="DIRECTION=AMOUNT[,AMOUNT]: what if it were stronger? May be repeated.",
            rich_help_panel=INPUTS,
        ),
    ] = None,
    num_directions: Annotated[
        int | None, typer.Option("--num-directions", min=1, help="Directions to look for.", rich_help_panel=INPUTS)
    ] = None,
    surrogate: Annotated[
        str | None, typer.Option("--surrogate", help="Trained surrogate: artifact or file.", rich_help_panel=INPUTS)
    ] = None,
    encodings: Annotated[
        str | None,
        typer.Option("--encodings", help="Concept encodings (default: the surrogate's).", rich_help_panel=INPUTS),
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option(
            "--file", help="NAME=PATH of a further input of the method; may be repeated.", rich_help_panel=INPUTS
        ),
    ] = None,
    param: ParamOption = None,
) -> None:
    """Say what a unit, a direction, a region or an embedding responds to, and how far that can be trusted."""
    from rdxcli.datasets.selection import ArrayOptions, SelectionOptions
    from rdxcli.services.explain import dispatch as service
    from rdxcli.services.explain.base import ExplainOptions

    parameters = method_parameters(param)
    if num_directions is not None:
        parameters["num_directions"] = num_directions
    options = ExplainOptions(
        method=method,
        model=model,
        layer=layer,
        pool=pool,
        activations=read_stdin(activations) if activations else None,
        units=units,
        concepts=concepts,
        concept_names=concept_names,
        concept_set=concept_set,
        target=target,
        apply=apply,
        steer=tuple(steer or ()),
        vlm=vlm,
        splits=splits,
        surrogate=read_stdin(surrogate) if surrogate else None,
        encodings=read_stdin(encodings) if encodings else None,
        files=file_pairs(files),
        selection=SelectionOptions(
            dataset=dataset, split=split, classes=classes, limit=limit, sample=sample, seed=session.seed
        ),
        arrays=ArrayOptions(labels=labels, sample_ids=sample_ids, images=images),
        parameters=parameters,
        outputs=session.outputs,
        run=session.run,
        seed=session.seed,
        device=session.device,
        force=session.force,
    )
    if session.dry_run:
        session.plan(f"explain with {method}", service.plan(options))
        return
    outcome = service.explain(options)
    session.sink.table(outcome.title, outcome.columns, outcome.rows)
    for line in outcome.lines:
        session.sink.message(line)
    session.sink.result(str(outcome.artifact.path), outcome.document)
