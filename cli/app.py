"""The program ``rdx``: its commands in the order of its help."""

import gc
import sys
from typing import Annotated

import typer

from rdxcli import __version__
from rdxcli.errors import RdxError

from . import streams
from .group import LOOKS, Commands

# loading torch and scikit-learn makes so many objects that the defaults spend a tenth of it looking for dead ones
COLLECT = (20_000, 10, 10)


app = typer.Typer(
    name="rdx",
    cls=Commands,
    help="What your vision models have learned, and how two of them differ.",
    no_args_is_help=True,
    epilog="[bold]Start here[/bold]\n\n  rdx compare digits-cnn-m35 digits-cnn --k 3\n\n  rdx visualize",
    **LOOKS,
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


def main() -> None:
    """Entry point of the console script: errors raised while options are read become one line too."""
    gc.set_threshold(*COLLECT)
    streams.prepare()
    try:
        app(prog_name="rdx")  # also as `python -m rdxcli`, so that its completion is found
    except RdxError as error:
        from .console import Sink

        Sink().error(error.message, error.hint)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # before a command had begun
        sys.exit(streams.exit_code(streams.INTERRUPTED))
    except SystemExit as end:
        sys.exit(streams.exit_code(end.code))
    finally:
        failed = streams.close()
        if failed is not None:
            sys.exit(failed)


if __name__ == "__main__":
    main()
