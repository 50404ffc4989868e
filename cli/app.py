"""The program ``rdx``: its commands in the order of its help."""

import importlib
import sys
from typing import Annotated

import typer

from rdxcli import __version__
from rdxcli.errors import RdxError

from . import streams
from .console import Sink
from .options import INTERRUPTED, registered

# The modules that hold the commands. A module registers its commands when it is imported.
_MODULES = (
    "download",
    "extract",
    "caption",
    "encode_concepts",
    "train_surrogate",
    "explain",
    "simulate",
    "compare",
    "visualize",
    "listing",
)

app = typer.Typer(
    name="rdx",
    help="What your vision models have learned, and how two of them differ.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="[bold]Start here[/bold]\n\n  rdx compare digits-cnn-m35 digits-cnn --k 3\n\n  rdx visualize",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"rdx {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def _register() -> None:
    for module in _MODULES:
        importlib.import_module(f".{module}", __package__)
    for entry in registered().values():
        app.command(entry.name, help=entry.help, epilog=entry.epilog)(entry.function)


_register()


def main() -> None:
    """Entry point of the console script: errors raised while options are read become one line too."""
    streams.prepare()
    try:
        app()
    except RdxError as error:
        Sink().error(error.message, error.hint)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # before a command had begun
        sys.exit(streams.exit_code(INTERRUPTED))
    except SystemExit as end:
        sys.exit(streams.exit_code(end.code))
    finally:
        failed = streams.close()
        if failed is not None:
            sys.exit(failed)


if __name__ == "__main__":
    main()
