"""What there is to do for a recipe: judged by what is on disk and what servers say, before anything is fetched."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rdxcli.errors import MissingDataError, RdxError
from rdxcli.progress import human_bytes

from . import store
from .catalogue import UNKNOWN, Recipe, RecipeFile
from .expected import Expected, Policy
from .store import Home, Receipt

RESERVE = 64 << 20
"""Bytes of the disk that are left alone."""


@dataclass(frozen=True)
class Settings:
    """How to install.

    Attributes
    ----------
    root : Path
        The data root.
    mirror : str, optional
        Address that is asked instead of the recipe's: ``MIRROR/<recipe>/<file>``, then ``MIRROR/<file>``.
    parts : sequence of str
        Only these parts.
    force : bool
        Fetch again what is there, and accept a file that has changed since its first download.
    jobs : int
        Files at once.
    """

    root: Path
    mirror: str | None = None
    parts: Sequence[str] = ()
    force: bool = False
    jobs: int = 4
    policy: Policy = field(default_factory=Policy)


@dataclass
class Plan:
    """What an installation will do.

    Attributes
    ----------
    folder : Path
        Where the data will be.
    status : str
        ``download``, ``repair``, ``present``, ``own copy`` or ``linked``.
    problems : list of str
        What is wrong with the files that are there.
    fetch_bytes : int or None
        Bytes still to fetch, None when a size is unknown.
    need_bytes : int
        Free bytes needed at the worst moment, as far as sizes are known.
    """

    recipe: Recipe
    folder: Path
    status: str
    todo: list[RecipeFile] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    fetch_bytes: int | None = 0
    need_bytes: int = 0


def make_plan(recipe: Recipe, settings: Settings) -> Plan:
    """What there is to do, judged by what is on disk; asks no server.

    Raises `MissingDataError` (the recipe is gated and no folder was given yet, or the folder that was given has lost
    its data) or `RdxError` (a folder of that name is there which is neither rdx's nor complete).
    """
    home = Home(settings.root, recipe)
    receipt = home.receipt()
    if receipt is not None and receipt.folder:
        return _linked(home, Path(receipt.folder))
    if receipt is None and home.path.exists():
        return _own_copy(home)
    if recipe.gate is not None:
        raise gated(recipe)
    current = home.current
    done = home.receipt(current)
    todo, problems = [], []
    for item in recipe.chosen(settings.parts):
        if done is not None and item.name in done.items and not settings.force:
            wrong = store.damaged(current, item.name)
            if not wrong and _same(item, done.items[item.name]):
                continue
            problems += wrong
        todo.append(item)
    status = "present" if not todo else "repair" if problems and current == home.path else "download"
    made = Plan(recipe, home.path, status, todo, problems)
    made.fetch_bytes, made.need_bytes = needs(home, todo, {item.name: item.bytes for item in todo})
    return made


def _linked(home: Home, folder: Path) -> Plan:
    if home.ready():
        return Plan(home.recipe, folder, "linked")
    missing = store.missing_layout(home.recipe, folder)
    raise MissingDataError(
        f"{home.recipe.name} was linked to {folder}, where there is no {missing[0] if missing else 'folder'}",
        f"rdx download {home.recipe.name} --from FOLDER",
    )


def _own_copy(home: Home) -> Plan:
    if home.ready():
        return Plan(home.recipe, home.path, "own copy")
    missing = store.missing_layout(home.recipe, home.path)
    raise RdxError(
        f"{home.path} is there, but not from `rdx download`, and has no {missing[0] if missing else 'folder'}",
        f"move it away, or give the right folder: rdx download {home.recipe.name} --from FOLDER",
    )


def gated(recipe: Recipe) -> MissingDataError:
    """The explanation of a gated recipe."""
    assert recipe.gate is not None
    steps = " ".join(line.strip() for line in recipe.gate.how.strip().splitlines())
    return MissingDataError(
        f"{recipe.name} cannot be downloaded by a program ({recipe.licence})",
        f"{steps} ({recipe.gate.url}); then: rdx download {recipe.name} --from FOLDER",
    )


def link(recipe: Recipe, root: Path, folder: Path) -> Path:
    """Use data that a person has in ``folder``: nothing is copied, the data root gets a receipt that points there.

    Raises `MissingDataError` (the folder does not exist or has another layout) or `RdxError` (the data root already has
    the data itself).

    Returns
    -------
    Path
        The folder, absolute.
    """
    if not folder.is_dir():
        raise MissingDataError(f"no such folder: {folder}")
    missing = store.missing_layout(recipe, folder)
    if missing:
        raise MissingDataError(
            f"{folder} is not laid out as {recipe.name}: there is no {missing[0]}",
            f"expected: {', '.join(recipe.layout)}",
        )
    home = Home(root, recipe)
    with home.lock():
        receipt = home.receipt()
        if home.path.exists() and (receipt is None or not receipt.folder):
            raise RdxError(f"{home.path} already holds {recipe.name}", "move it away, or use it as it is")
        made = Receipt(recipe.name, recipe.licence, {}, str(folder.resolve()), store.now())
        if home.path.exists():
            home.write(made, home.path)
        else:
            draft = home.work / "link"
            store.remove(draft)
            home.write(made, draft)
            os.replace(draft, home.path)
    return folder.resolve()


def addresses(recipe: Recipe, item: RecipeFile, mirror: str | None) -> list[str]:
    """Where an item is looked for."""
    if mirror is None:
        return list(item.urls)
    base = mirror.rstrip("/")
    return [f"{base}/{recipe.name}/{item.name}", f"{base}/{item.name}"]


def expectation(home: Home, item: RecipeFile, force: bool) -> tuple[Expected, str | None]:
    """What the file must be; and, when its hash is known only from its first download, the day of that."""
    expected = item.expected
    seen = store.seen_hashes(home.root).get(home.recipe.name, {}).get(item.name)
    if expected.certain or force or not seen or not isinstance(seen.get("sha256"), str):
        return expected, None
    return replace(expected, sha256=seen["sha256"]), str(seen.get("seen", "an earlier day"))


def needs(home: Home, todo: Sequence[RecipeFile], sizes: Mapping[str, int | None]) -> tuple[int | None, int]:
    """Bytes to fetch (None when a size is unknown) and free bytes needed at the worst moment.

    All archives are fetched first; then one after the other is unpacked and removed.
    """
    left: list[int | None] = []
    for item in todo:
        size = sizes[item.name]
        left.append(None if size is None else max(0, size - _arrived(home, item)))
    archives = sum(size for size in left if size is not None)
    level = peak = archives
    for item in todo:
        size = sizes[item.name] or 0
        level += max(item.extract.unpacked, size) if item.extract else size if item.convert else 0
        peak = max(peak, level)
        level -= size if item.extract or item.convert else 0
    return (None if None in left else archives), peak


def check_disk(home: Home, plan: Plan) -> None:
    """Refuse before the start what would fill the disk. Raises `RdxError`."""
    free, need = store.free_bytes(home.root), human_bytes(plan.need_bytes)
    if plan.need_bytes + RESERVE > free:
        raise RdxError(
            f"{plan.recipe.name} needs {need} on the disk of {home.root}, which has {human_bytes(free)} free",
            "free some space, or choose another disk with --root",
        )


def _same(item: RecipeFile, facts: Mapping[str, Any]) -> bool:
    """Whether what was fetched is still what the recipe asks for."""
    return item.sha256 in (UNKNOWN, facts.get("sha256")) and item.md5 in (UNKNOWN, facts.get("md5"))


def _arrived(home: Home, item: RecipeFile) -> int:
    file = home.file(item.name)
    for path in (file, file.with_name(file.name + ".part")):
        if path.is_file():
            return path.stat().st_size
    return 0
