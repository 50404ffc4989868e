"""From a template to a page that needs no network and runs no foreign code."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from rdxcli import __version__
from rdxcli.records import plain

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("rdxcli.report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["percent"] = lambda value: "-" if value is None else f"{100 * value:.0f} %"
    environment.filters["script_json"] = script_json
    return environment


def number(value: Any) -> str:
    """A number as people read it: three significant digits, ``-`` for a missing one."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)


def script_json(value: Any) -> Any:
    """JSON that may stand inside a ``script`` element: nothing in it can end the element."""
    from markupsafe import Markup

    text = json.dumps(plain(value), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def render(template: str, **values: Any) -> str:
    """The page of ``template``, with style sheet and scripts inside."""
    from markupsafe import Markup

    static = resources.files("rdxcli.report") / "static"
    style = Markup((static / "style.css").read_text("utf-8"))
    script = Markup((static / "maps.js").read_text("utf-8"))
    page = _environment().get_template(template)
    return page.render(style=style, script=script, version=__version__, **values)
