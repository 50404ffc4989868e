"""Whether what was downloaded is still what was fetched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rdxcli import SCHEMA_VERSION
from rdxcli.download import hub
from rdxcli.download.catalogue import Recipe, catalogue
from rdxcli.download.store import Home, damaged, missing_layout
from rdxcli.places import data_root
from rdxcli.progress import track


def check(chosen: Sequence[Recipe], root: Path | None = None) -> dict[str, Any]:
    """Read every file of what is on this machine and compare it with what was fetched.

    `chosen`: empty for everything that is there.

    Returns
    -------
    dict
        ``{root, intact, checked: [{name, folder, status, problems}]}``; status ``intact``, ``damaged``, ``missing`` or
        ``unverified`` (a person's own copy, whose layout alone can be checked).
    """
    place = data_root(root)
    if not chosen:
        chosen = [
            recipe
            for recipe in catalogue().values()
            if (hub.cached(recipe) is not None if recipe.hub else Home(place, recipe).path.exists())
        ]
    checked = []
    for recipe in chosen:
        home = Home(place, recipe)
        folder = hub.cached(recipe) if recipe.hub else home.content()
        problems: list[str] = []
        status = "unverified"
        if folder is None:
            status, problems = "missing", [f"rdx download {recipe.name} fetches it"]
        elif not recipe.hub:
            receipt = home.receipt()
            problems = [f"there is no {pattern}" for pattern in missing_layout(recipe, folder)]
            if receipt is not None and not receipt.folder:
                size = sum(int(facts.get("bytes", 0)) for facts in receipt.items.values())
                with track(f"check {recipe.name}", size, "B") as advance:
                    for item in receipt.items:
                        problems += damaged(folder, item, deep=True, advance=advance)
                status = "damaged" if problems else "intact"
            elif problems:
                status = "damaged"
        checked.append({"name": recipe.name, "folder": folder, "status": status, "problems": problems})
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "download-check",
        "root": str(place),
        "intact": all(entry["status"] in {"intact", "unverified"} for entry in checked),
        "checked": [
            {**entry, "folder": str(entry["folder"]) if entry["folder"] is not None else None} for entry in checked
        ],
    }
