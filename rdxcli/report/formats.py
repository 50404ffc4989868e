"""What a report may be written as."""

from __future__ import annotations

from pathlib import Path

from rdxcli.errors import UsageError

FIGURES = ("png", "pdf", "svg")
FORMATS = ("html", "md", "csv", "json", "parquet", *FIGURES)
ENDINGS = {"htm": "html", "markdown": "md"}


def target(to: Path | None, form: str | None, force: bool = False) -> str:
    """The format of a report: what is asked for, else what the ending of ``to`` says, else html.

    Raises `UsageError` (the ending of ``to`` is that of no format, or of another than ``form``; or the file exists and
    may not be replaced).
    """
    if to is None:
        return form or "html"
    ending = to.suffix[1:].lower()
    ending = ENDINGS.get(ending, ending)
    if ending not in FORMATS:
        raise UsageError(
            f"`{to}` ends in the name of no format", f"end it in {', '.join(f'.{known}' for known in FORMATS)}"
        )
    if form is not None and form != ending:
        raise UsageError(f"`--format {form}` and the file `{to}` contradict each other", "leave one of them out")
    if to.exists() and not force:
        raise UsageError(f"{to} exists already", "replace it with --force, or choose another place")
    return ending
