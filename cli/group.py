"""The commands of ``rdx``, each imported when it is called or completed and not before.

``rdx --help`` and the completion of a command's name need names and a sentence each. They stand in `COMMANDS`; a test
compares them with the commands themselves.
"""

import importlib
import textwrap
from collections.abc import Iterable
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

MOST_COLUMNS = 100  # of help, however wide the terminal
NAME_COLUMNS = 26  # for the names of options; longer ones stand in a line of their own


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
    """A command whose help cuts no name, and with ``--method X`` shows the parameters of that method too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta["given"] = list(args)
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            problems = getattr(error.__cause__, "errors", None)
            start, _, expected = error.message.partition(_EXPECTED)
            if problems is not None and not start and expected:  # Typer's message does not say what was given
                error.message = f"got `{problems()[0]['input']}`, expected {expected}"
            raise

    def format_help(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            kind = "Arguments" if param.param_type_name == "argument" else "Options"
            if record := param.get_help_record(ctx):
                title = getattr(param, "rich_help_panel", None) or kind
                sections.setdefault(title, []).append((_spelled(record[0]), record[1]))
        if method := _method(ctx.meta.get("given", [])):
            from rdxcli.listing import parameters

            found = parameters(method)
            fields = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
            mine = [row for row in fields if row["command"] == self.name] or fields
            sections[found.title] = [
                (str(row["name"]), f"{row['help']}  [default: {row['default']}; {row['expected']}]") for row in mine
            ]
        ordered = sorted(sections.items(), key=lambda section: section[0] == "Common")
        _show(self.get_usage(ctx), self.help, ordered, self.epilog)


_EXPECTED = "Input should be "

_TYPES = {
    **{"<str>": "TEXT", "<list[str]>": "TEXT", "<str,str>": "TEXT TEXT", "<int>": "N", "<int range>": "N"},
    **{"<float>": "X", "<float range>": "X", "<path>": "PATH", "<file>": "FILE", "<dir>": "FOLDER"},
}


def _spelled(name: str) -> str:
    """The spelling of an option as people read it."""
    for written, shown in _TYPES.items():
        name = name.replace(written, shown)
    return name


def _show(usage: str, text: str | None, sections: Iterable[tuple[str, list[tuple[str, str]]]], end: str | None) -> None:
    """Help in panels. A name is never cut: its text begins below it where both do not fit into a line."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.panel import Panel
    from rich.text import Text

    console = Console(highlight=False)
    width = min(console.width, MOST_COLUMNS)
    console.print(Padding(Text(usage, style="bold"), 1), width=width)
    console.print(Padding(Text(text or ""), (0, 1, 1, 1)), width=width)
    for title, rows in sections:
        left = min(max(len(name) for name, _ in rows), NAME_COLUMNS)
        body = Text()
        for name, words in rows:
            lines = textwrap.wrap(words, max(20, width - left - 6)) or [""]
            body.append(name.ljust(left), style="bold cyan")
            if len(name) > left:
                lines.insert(0, "")
            body.append("  " + f"\n{' ' * (left + 2)}".join(lines) + "\n")
        body.rstrip()
        console.print(Panel(body, title=title, title_align="left", border_style="dim", width=width))
    console.print(Padding(end or "", 1), width=width)


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
        """Without the readers of Markdown and of code that Typer's own way imports."""
        options = [record for param in self.get_params(ctx) if (record := param.get_help_record(ctx))]
        commands = [(name, named.help) for name, named in COMMANDS.items()]
        _show(self.get_usage(ctx), self.help, (("Options", options), ("Commands", commands)), self.epilog)
