"""``rdx simulate``: how far an explanation of a unit can be trusted."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import (
    ClassesOption,
    DatasetOption,
    FeatureColumnsOption,
    IdColumnOption,
    LabelColumnOption,
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
    complete_models,
    file_pairs,
    method_parameters,
)


@command(
    "simulate",
    examples=[
        "rdx simulate --method le-label --model digits-cnn --layer conv2",
        "rdx simulate --explanations e.csv --activations acts.npy --concepts c.npy --concept-names names.txt",
        "rdx simulate --method all --model digits-cnn --layer conv2 --scoring ablation --json",
    ],
)
def simulate(
    session: Session,
    explanations: Annotated[
        list[str] | None,
        typer.Option("--explanations", help="CSV file, NAME=FILE or artifact; may be repeated."),
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="Explanation run of this layer, or all.", show_default=False)
    ] = None,
    scoring: Annotated[str, typer.Option("--scoring", help="correlation, ablation or images.")] = "correlation",
    variant: Annotated[str, typer.Option("--variant", help="Of ablation: optim or norm.")] = "optim",
    model: Annotated[str | None, typer.Option("--model", help="Model.", autocompletion=complete_models)] = None,
    layer: Annotated[str | None, typer.Option("--layer", help="Layer.", autocompletion=complete_layers)] = None,
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
    feature_columns: FeatureColumnsOption = None,
    id_column: IdColumnOption = None,
    label_column: LabelColumnOption = None,
    units: Annotated[str | None, typer.Option("--units", help="Units, like 0-63,70.")] = None,
    concepts: Annotated[
        str | None, typer.Option("--concepts", help="The simulator's (n, concepts) matrix (default: the labels).")
    ] = None,
    concept_names: Annotated[Path | None, typer.Option("--concept-names", help="Its column names.")] = None,
    concept_set: Annotated[
        str | None, typer.Option("--concept-set", help="Words of the text embeddings, one a line.")
    ] = None,
    files: Annotated[
        list[str] | None, typer.Option("--file", help="NAME=PATH of a further input; may be repeated.")
    ] = None,
    vlm: Annotated[
        str | None, typer.Option("--vlm", help="Vision-language model that scores the concepts of the tables.")
    ] = None,
    splits: Annotated[Path | None, typer.Option("--splits", help=".npz with train, val and test row numbers.")] = None,
    part: Annotated[str, typer.Option("--part", help="Rows to score on: test, val, train or all.")] = "test",
    bootstraps: Annotated[int, typer.Option("--bootstraps", min=0, help="Resamplings for intervals.")] = 1000,
    param: ParamOption = None,
) -> None:
    """Score explanations of units by how well they predict the units' activations on held-out images."""
    from rdxcli.datasets.selection import ArrayOptions, SelectionOptions
    from rdxcli.services.explain.base import ExplainOptions
    from rdxcli.services.simulate import simulate as service

    source = ExplainOptions(
        method="simulate",
        model=model,
        layer=layer,
        pool=pool,
        activations=activations,
        units=units,
        concepts=concepts,
        concept_names=concept_names,
        concept_set=concept_set,
        vlm=vlm,
        parameters=method_parameters(param),
        splits=splits,
        files=file_pairs(files),
        selection=SelectionOptions(
            dataset=dataset, split=split, classes=classes, limit=limit, sample=sample, seed=session.seed
        ),
        arrays=ArrayOptions(
            labels=labels,
            sample_ids=sample_ids,
            feature_columns=feature_columns,
            id_column=id_column,
            label_column=label_column,
        ),
        outputs=session.outputs,
        run=session.run,
        seed=session.seed,
        device=session.device,
        force=session.force,
    )
    options = service.SimulateOptions(source, tuple(explanations or ()), method, part, bootstraps, scoring, variant)
    if session.dry_run:
        session.plan("simulate", service.plan(options))
        return
    outcome = service.run(options)
    session.sink.table(outcome.title, outcome.columns, outcome.rows)
    _show_more(session, outcome.document)
    for line in outcome.lines:
        session.sink.message(line)
    session.sink.result(str(outcome.artifact.path), outcome.document)


def _show_more(session: Session, document: Any) -> None:
    ends = document.get("ablation", {}).get("controls")
    if ends:
        session.sink.message(
            f"for orientation: the units' own activations score {ends['truth']['mean']:.2f}, in random order "
            f"{ends['shuffled']['mean']:.2f}"
        )
    if document["pairs"]:
        pairs = [
            (pair["first"], pair["second"], pair["difference"], pair["low"], pair["high"], pair["p_adjusted"])
            for pair in document["pairs"]
        ]
        session.sink.table("paired differences", ("first", "second", "difference", "low", "high", "p (Holm)"), pairs)
