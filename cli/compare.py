"""``rdx compare``: what two models see differently."""

from typing import Annotated, Any

import typer

from .options import (
    SAMPLES_FAILED,
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

METHOD_PANEL = "Method"
NAMES_PANEL = "Names for concepts"


@command(
    "compare",
    examples=[
        "rdx compare digits-cnn-m35 digits-cnn --k 3",
        "rdx compare a.npy b.npy --k 3 --labels y.npy --json",
        "rdx compare digits-cnn-m35 digits-cnn --method all",
        "rdx compare dino dinov2 --dataset folder:photos --fail-above 0.5",
        "rdx compare dino dinov2 --dataset folder:photos --name-concepts siglip --concept-set words.txt",
    ],
)
def compare(
    session: Session,
    a: Annotated[
        str,
        typer.Argument(help="First model, array file or artifact.", autocompletion=complete_models, show_default=False),
    ],
    b: Annotated[str, typer.Argument(help="Second one.", autocompletion=complete_models, show_default=False)],
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Concepts per direction.")] = 3,
    dataset: DatasetOption = None,
    split: SplitOption = None,
    classes: ClassesOption = None,
    per_class: Annotated[
        int | None, typer.Option("--per-class", min=1, help="Only N samples of each class, drawn with the seed.")
    ] = None,
    limit: LimitOption = None,
    sample: SampleOption = None,
    layer_a: Annotated[
        str | None, typer.Option("--layer-a", help="Layer of the first model.", autocompletion=complete_layers)
    ] = None,
    layer_b: Annotated[
        str | None, typer.Option("--layer-b", help="Layer of the second model.", autocompletion=complete_layers)
    ] = None,
    drop_a: Annotated[
        str | None, typer.Option("--drop-a", help="Columns of the first representation to leave out, like 0-63,70.")
    ] = None,
    drop_b: Annotated[str | None, typer.Option("--drop-b", help="The same for the second one.")] = None,
    pool: PoolOption = "auto",
    labels: LabelsOption = None,
    sample_ids: SampleIdsOption = None,
    images: ImagesOption = None,
    reference: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--reference", help="A second pair, for example one model under two seeds: is A B more different?"
        ),
    ] = None,
    test: Annotated[bool, typer.Option("--test/--no-test", help="Test whether there is a difference at all.")] = True,
    bootstraps: Annotated[
        int, typer.Option("--bootstraps", min=0, help="Resamplings for the stability of each concept.")
    ] = 20,
    fail_above: Annotated[
        float | None, typer.Option("--fail-above", help="Exit with 3 when the difference score is above this.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="See `rdx list methods`; `all`, or names with commas, for a scoreboard.",
            autocompletion=complete_methods("compare"),
            rich_help_panel=METHOD_PANEL,
        ),
    ] = "rdx",
    gamma: Annotated[
        float | None,
        typer.Option("--gamma", help="Slope of the difference (default: 0.1).", rich_help_panel=METHOD_PANEL),
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option("--beta", help="Sharpness of the affinity (default: 5).", rich_help_panel=METHOD_PANEL),
    ] = None,
    guidance: Annotated[
        str,
        typer.Option(
            "--guidance",
            help="none, labels, classifier or outcome: pairs with different labels (of the data set, predicted by a "
            "linear classifier, or predicted and right or wrong) count as far.",
            rich_help_panel=METHOD_PANEL,
        ),
    ] = "none",
    align: Annotated[
        bool,
        typer.Option("--align", help="First take away what a linear map can explain.", rich_help_panel=METHOD_PANEL),
    ] = False,
    approximate: Annotated[
        str | None,
        typer.Option(
            "--approximate",
            help="auto (above 20,000 images), never or always: landmarks are grouped exactly, the others join them; "
            "the agreement with the exact method is measured and printed.",
            rich_help_panel=METHOD_PANEL,
        ),
    ] = None,
    planted: Annotated[
        str | None,
        typer.Option(
            "--planted",
            help="Labels that a model is known to merge, for scores: 3,5 (the first) or b:3,5.",
            rich_help_panel=METHOD_PANEL,
        ),
    ] = None,
    name_concepts: Annotated[
        str | None,
        typer.Option(
            "--name-concepts",
            help="Vision-language model that finds the words which fit a concept's images more than the rest.",
            rich_help_panel=NAMES_PANEL,
        ),
    ] = None,
    concept_set: Annotated[
        str | None,
        typer.Option(
            "--concept-set",
            help="Words to choose from: a text file or a published set (default: the data set's).",
            rich_help_panel=NAMES_PANEL,
        ),
    ] = None,
    captions: Annotated[
        str | None,
        typer.Option(
            "--captions",
            help="Captions to choose from: a file or an artifact (default: the data set's, when it has any).",
            rich_help_panel=NAMES_PANEL,
        ),
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option(
            "--file",
            help="image_embeddings=PATH and text_embeddings=PATH instead of a model; both are needed.",
            rich_help_panel=NAMES_PANEL,
        ),
    ] = None,
    param: ParamOption = None,
) -> None:
    """Show what two models see differently: groups of images that one holds together and the other keeps apart.

    Each side is a model, an array of shape (n, d) or the artifact of `rdx extract`. Says whether there is a difference
    at all before it explains one.
    """
    from rdxcli.datasets.selection import ArrayOptions, SelectionOptions
    from rdxcli.services.compare import compare as service
    from rdxcli.services.compare.options import CompareOptions, NamingOptions

    parameters: dict[str, Any] = {"n_clusters": k, **method_parameters(param)}
    given = (("gamma", gamma), ("beta", beta), ("approximate", approximate))
    parameters |= {name: value for name, value in given if value is not None}
    options = CompareOptions(
        a=read_stdin(a),
        b=b,
        layer_a=layer_a,
        layer_b=layer_b,
        drop_a=drop_a,
        drop_b=drop_b,
        pool=pool,
        method=method,
        parameters=parameters,
        selection=SelectionOptions(
            dataset=dataset,
            split=split,
            classes=classes,
            per_class=per_class,
            limit=limit,
            sample=sample,
            seed=session.seed,
        ),
        arrays=ArrayOptions(labels=labels, sample_ids=sample_ids, images=images),
        reference=reference,
        test=test,
        bootstraps=bootstraps,
        guidance=guidance,
        align=align,
        planted=planted,
        fail_above=fail_above,
        naming=NamingOptions(name_concepts, concept_set, captions, file_pairs(files)),
        outputs=session.outputs,
        run=session.run,
        seed=session.seed,
        device=session.device,
        force=session.force,
    )
    if session.dry_run:
        session.plan("compare", service.plan(options))
        return
    outcome = service.compare(options)
    _show(session, outcome)
    session.sink.result(str(outcome.artifact.path), outcome.document)
    service.check_gate(outcome.document, fail_above)
    if outcome.document["samples"].get("failed"):
        session.exit(SAMPLES_FAILED)


def _show(session: Session, outcome: Any) -> None:
    from rdxcli.report.comparison import shown_name, verdict_lines

    document = outcome.document
    a, b = document["a"]["name"], document["b"]["name"]
    if "methods" in document:
        from rdxcli.services.compare.scoreboard import table

        session.sink.table(f"scoreboard: {a} (a) and {b} (b), n = {document['n']:,}", *table(document))
    named = any(concept["words"] for concept in document["concepts"])
    rows = [
        (
            f"{concept['closer_in']}{concept['index']}",
            a if concept["closer_in"] == "a" else b,
            concept["size"],
            concept["affinity"],
            concept["stability"],
            concept["p_value"],
            ", ".join(f"{name} {share:.0%}" for name, share in list(concept["labels"].items())[:4]) or "-",
            *([shown_name(concept["words"]) or "-"] if named else []),
        )
        for concept in document["concepts"]
    ]
    columns = ("concept", "closer in", "size", "affinity", "stability", "p", "labels", *(["name"] if named else []))
    session.sink.table(f"what {a} (a) and {b} (b) see differently", columns, rows)
    for line in [f"verdict: {document['difference'].get('verdict', 'not tested')}", *verdict_lines(document)]:
        session.sink.message(line)
    for note in [*document["notes"], *document["difference"].get("notes", [])]:
        session.sink.message(f"note: {note}")
