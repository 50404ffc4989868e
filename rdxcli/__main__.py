"""``rdx`` and ``python -m rdxcli`` begin here: where rdx cannot start, a line says why and what repairs it."""

import sys


def main() -> None:
    """Run `rdxcli.cli.app.main`, with a Python and with packages that it can run with."""
    if sys.version_info < (3, 11):  # noqa: UP036 - from a source tree, which pip did not check
        sys.exit(f"error: rdx needs Python 3.11 or newer, got {sys.version.split()[0]} ({sys.executable})")
    try:
        from rdxcli.cli.app import main as run
    except ImportError as error:
        if (error.name or "").startswith("rdxcli.") and error.name != "rdxcli.cli":
            raise
        # of a source tree only the half that is not mapped by the installation is found
        package = "--editable ." if error.name == "rdxcli.cli" else (error.name or "rdx-vision").partition(".")[0]
        again = "" if package.startswith("-") else "--force-reinstall "
        sys.exit(f"error: rdx cannot start: {error}\nhint: {sys.executable} -m pip install {again}{package}")
    run()


if __name__ == "__main__":
    main()
