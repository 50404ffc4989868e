"""The commands of ``rdx``, each imported when it is called or completed and not before.

``rdx --help`` and the completion of a command's name need names and a sentence each. They stand in `COMMANDS`; a test
compares them with the commands themselves.
"""

import importlib
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup


class Named(NamedTuple):
    """The module that holds a command, and the first sentence of its help."""

    module: str
    help: str


COMMANDS = {
    "download": Named(
        "download",
        "Fetch data sets, checkpoints and concept sets: resumed, verified, unpacked safely, visible only "
        "when complete.",
    ),
    "extract": Named("extract", "Run images through a model and store what its layers make of them."),
    "caption": Named(
        "caption", "Describe every image in sentences: by a model, by the people who made the data set, or from a file."
    ),
    "encode-concepts": Named(
        "encode_concepts", "Find the concepts in captions, choose a vocabulary, and encode every image over it."
    ),
    "train-surrogate": Named(
        "train_surrogate",
        "Train a map from concepts to the embedding, so that every image's embedding is explained in words.",
    ),
    "explain": Named(
        "explain",
        "Say what a unit, a direction, a region or an embedding responds to, and how far that can be trusted.",
    ),
    "simulate": Named(
        "simulate", "Score explanations of units by how well they predict the units' activations on held-out images."
    ),
    "compare": Named(
        "compare",
        "Show what two models see differently: groups of images that one holds together and the other keeps apart.",
    ),
    "visualize": Named(
        "visualize", "Make a report that opens without a network: images, maps, numbers, and how they were made."
    ),
    "list": Named(
        "listing", "List models, data sets, methods, the layers of a model, or the artifacts in the outputs directory."
    ),
    "doctor": Named(
        "listing", "Check this machine: versions, devices, caches, free disk, and what is missing for which command."
    ),
    "help": Named("help", "Show a page of the documentation, which comes with the program."),
}
"""In the order of ``rdx --help``."""

LOOKS: dict[str, Any] = {
    "rich_markup_mode": "rich",
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
"""Of the program and of every command."""


def entry(name: str) -> Any:
    """A command as its module registers it (`rdxcli.cli.options.Registered`)."""
    importlib.import_module(f".{COMMANDS[name].module}", __package__)
    from .options import registered

    return registered()[name]


def loaded(name: str) -> Any:
    """A command with its options, for Typer."""
    found = entry(name)
    alone = typer.Typer(add_completion=False, **LOOKS)
    alone.command(name, help=found.help, epilog=found.epilog, cls=Command)(found.function)
    return typer.main.get_command(alone)


class Command(TyperCommand):
    """A command whose ``--method X --help`` shows the hyper-parameters of that method too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta["given"] = list(args)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        if method := _method(ctx.meta.get("given", [])):
            from rdxcli.listing import parameters

            from .console import Sink

            listing = parameters(method)
            rows = [row for row in listing.rows if row[0] == self.name] or listing.rows
            Sink().table(listing.title, listing.columns, rows, to_stdout=True)


def _method(given: list[str]) -> str | None:
    """What ``--method`` says; None for several at once."""
    for word, following in zip(given, [*given[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name == "--method":
            method = value if equals else following
            return None if method in ("", "all") or "," in method or method.startswith("-") else method
    return None


class Commands(TyperGroup):
    """A group whose commands are a name and a sentence until one of them is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, help=named.help) for name, named in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, loaded(name) if name in COMMANDS else command, rest

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """As Typer shows it, without the readers of Markdown and of code that its own way imports."""
        from rich.console import Console
        from rich.padding import Padding
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        console = Console(highlight=False)
        options = [record for param in self.get_params(ctx) if (record := param.get_help_record(ctx))]
        commands = [(name, named.help) for name, named in COMMANDS.items()]
        console.print(Padding(Text(self.get_usage(ctx), style="bold"), 1))
        console.print(Padding(self.help or "", (0, 1, 1, 1)))
        for title, rows in (("Options", options), ("Commands", commands)):
            table = Table.grid(padding=(0, 2))
            table.add_column(no_wrap=True, style="bold cyan")
            table.add_column()
            for name, text in rows:
                table.add_row(Text(name), Text(text))
            console.print(Panel(table, title=title, title_align="left", border_style="dim"))
        console.print(Padding(self.epilog or "", 1))
