"""Write docs/cli.md from the commands themselves. A test checks that the page is up to date."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rdxcli.cli.group import COMMANDS, entry, loaded

PAGE = Path(__file__).parent / "cli.md"

HEAD = """# Command reference

Generated from the commands by `make docs`; do not edit.

stdout carries the result only: a path, or with `--json` one JSON document. Everything else goes to stderr. `-` reads a
path from standard input, so commands pipe.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | failed; `rdx doctor` found something to repair |
| 2 | wrong usage |
| 3 | a gate (`--fail-above`) was not met |
| 4 | done, but some samples failed; they are listed with their errors |
| 5 | of several processes that share the work, one that stopped early while others still work |
| 130, 143 | interrupted, asked to end |
"""


def page() -> str:
    """The whole page as Markdown."""
    parts = [HEAD]
    for name in COMMANDS:
        described, command = entry(name), loaded(name)
        arguments = [param for param in command.params if param.param_type_name == "argument"]
        options = [param for param in command.params if param.param_type_name == "option" and param.name != "help"]
        usage = " ".join(["rdx", name, *(_argument(param) for param in arguments), "[OPTIONS]"])
        parts.append(f"## `rdx {name}`\n\n{described.help}\n\n```\n{usage}\n```\n")
        if arguments:
            parts.append(_table("argument", [(str(param.name), param) for param in arguments]))
        own = [param for param in options if getattr(param, "rich_help_panel", None) != "Common"]
        common = [param for param in options if getattr(param, "rich_help_panel", None) == "Common"]
        if own:
            parts.append(_table("option", [(_spelling(param), param) for param in own]))
        if common:
            parts.append(_table("common option", [(_spelling(param), param) for param in common]))
        parts.append("```\n" + "\n".join(described.examples) + "\n```\n")
    return "\n".join(parts)


def _argument(param: Any) -> str:
    name = str(param.name).upper() + ("..." if param.nargs != 1 else "")
    return name if param.required else f"[{name}]"


def _spelling(param: Any) -> str:
    return ", ".join([*param.opts, *param.secondary_opts])


def _table(head: str, rows: list[tuple[str, Any]]) -> str:
    lines = [f"| {head} | default | meaning |", "|---|---|---|"]
    for spelling, param in rows:
        default = "" if param.default is None or param.default is False or param.required else f"`{param.default}`"
        text = re.sub(r"\s+", " ", param.help or "").replace("|", "\\|")
        lines.append(f"| `{spelling}` | {'required' if param.required else default} | {text} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
