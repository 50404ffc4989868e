"""What ``rdx download`` does: recipes, hub weights, folders that a person has already, and checks of all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rdxcli.datasets.copies import content_of, use_in_place
from rdxcli.download import checking
from rdxcli.download.catalogue import Recipe, find, names
from rdxcli.download.expected import Policy
from rdxcli.download.hub import cached, warm
from rdxcli.download.install import install
from rdxcli.download.planning import Plan, Settings, make_plan
from rdxcli.download.store import free_bytes
from rdxcli.errors import RdxError, UnknownNameError, UsageError
from rdxcli.models.kept import recipe_of
from rdxcli.places import data_root
from rdxcli.progress import human_bytes, human_count, log
from rdxcli.records import SCHEMA_VERSION

Ask = Callable[[str], bool]
"""Puts a question to a person; False for no. Absent where nobody can answer."""

LARGE = 500_000_000
"""Bytes above which a person who sits at a terminal is asked."""


@dataclass(frozen=True)
class DownloadOptions:
    """What was asked for.

    Attributes
    ----------
    names : sequence of str
        Recipes, their aliases, or models whose weights a library keeps.
    root : Path, optional
        The data root; default ``RDX_DATA`` or ``./data``.
    mirror : str, optional
        Address that is asked instead of the publishers'.
    parts : sequence of str
        Only these parts of a data set.
    folder : Path, optional
        A copy that is on this machine already; then there is one name.
    yes : bool
        Accept terms and sizes without a question.
    force : bool
        Fetch again what is there.
    jobs : int
        Files at once.
    timeout : float
        Seconds without a byte after which a line counts as cut.
    """

    names: Sequence[str]
    root: Path | None = None
    mirror: str | None = None
    parts: Sequence[str] = ()
    folder: Path | None = None
    yes: bool = False
    force: bool = False
    jobs: int = 4
    timeout: float = 30.0


@dataclass
class Downloaded:
    """What was done, name by name, and what failed."""

    root: Path
    downloads: list[dict[str, Any]] = field(default_factory=list)
    failures: list[tuple[str, RdxError]] = field(default_factory=list)

    @property
    def folders(self) -> list[str]:
        return [entry["folder"] for entry in self.downloads]

    def document(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "download",
            "root": str(self.root),
            "downloads": self.downloads,
            "failures": [{"name": name, "error": error.message, "hint": error.hint} for name, error in self.failures],
        }


def download(options: DownloadOptions, ask: Ask | None = None) -> Downloaded:
    """Bring everything that was asked for onto this machine.

    Raises `UnknownNameError` (no such recipe or model; nothing has been fetched then) or `RdxError`.

    Parameters
    ----------
    ask : callable, optional
        Asked about terms and sizes unless ``yes``; without it, terms are not accepted and sizes are.

    Returns
    -------
    Downloaded
        With several names, the failure of one does not stop the others; with one it is raised.
    """
    settings, recipes = _resolve(options)
    outcome = Downloaded(settings.root)
    for recipe in recipes:
        try:
            outcome.downloads.append(_one(recipe, settings, options, ask))
        except RdxError as error:
            if len(recipes) == 1:
                raise
            outcome.failures.append((recipe.name, error))
    return outcome


def plan(options: DownloadOptions) -> dict[str, Any]:
    """What `download` would do, judged without the network: one entry per name."""
    settings, recipes = _resolve(options)
    entries: dict[str, Any] = {"root": str(settings.root), "free": human_bytes(free_bytes(settings.root))}
    for recipe in recipes:
        if recipe.hub:
            where = cached(recipe)
            repos = ", ".join(hub.repo for hub in recipe.hub)
            entries[recipe.name] = f"present: {where}" if where else f"fetch {repos} ({recipe.licence})"
            continue
        if options.folder is not None:
            entries[recipe.name] = f"check {options.folder} and use it in place"
            continue
        made = make_plan(recipe, settings)
        if not made.todo:
            entries[recipe.name] = f"{made.status}: {made.folder}"
            continue
        size = "unknown size" if made.fetch_bytes is None else human_bytes(made.fetch_bytes)
        files = ", ".join(item.name for item in made.todo[:6]) + (", ..." if len(made.todo) > 6 else "")
        entries[recipe.name] = (
            f"{made.status} {human_count(len(made.todo), 'file')}, {size}, into {made.folder}, with "
            f"{human_bytes(made.need_bytes)} of "
            f"free disk: {files} ({recipe.licence})"
        )
    return entries


def check(names: Sequence[str], root: Path | None = None) -> dict[str, Any]:
    """Read every file of what is on this machine, see `rdxcli.download.checking.check`; of all of it without names."""
    return checking.check([_find(name) for name in names], root)


def _check_mirror(mirror: str) -> None:
    if not mirror.startswith(("http://", "https://")):
        raise UsageError(f"--mirror: got `{mirror}`, expected an http or https address")
    try:
        whole = bool(urlsplit(mirror).hostname) and urlsplit(mirror).port != 0
    except ValueError:  # what stands there may be the beginning of a password, so it is not said
        whole = False
    if not whole:
        raise UsageError(
            "--mirror: expected an address such as https://HOST:PORT/FOLDER",
            "in a password `/`, `?`, `#` and `@` are written %2F, %3F, %23 and %40",
        )


def _resolve(options: DownloadOptions) -> tuple[Settings, list[Recipe]]:
    if not options.names:
        raise UsageError("which data? give a name", "`rdx download --list` lists them")
    if options.mirror is not None:
        _check_mirror(options.mirror)
    recipes = list({recipe.name: recipe for recipe in map(_find, options.names)}.values())
    if options.folder is not None and len(recipes) != 1:
        raise UsageError("--from takes one name", "give one command per folder")
    for recipe in recipes:
        recipe.chosen(options.parts)
    settings = Settings(
        root=data_root(options.root),
        mirror=options.mirror,
        parts=tuple(options.parts),
        force=options.force,
        jobs=options.jobs,
        policy=Policy(stall=options.timeout, connect=min(options.timeout, Policy.connect)),
    )
    return settings, recipes


def _find(name: str) -> Recipe:
    recipe = find(name) or recipe_of(name)
    if recipe is None:
        raise UnknownNameError("download", name, names(), "rdx download --list")
    return recipe


def _one(recipe: Recipe, settings: Settings, options: DownloadOptions, ask: Ask | None) -> dict[str, Any]:
    """Fetch, warm or link what a recipe names; its entry of the document."""
    started = time.monotonic()
    if recipe.hub:
        if options.folder is not None:
            message = f"--from: {recipe.name} lies in the cache of its library"
            raise UsageError(message, "give the folder as `hf:FOLDER`")
        warmed = warm(recipe, settings)
        return _entry(
            recipe, warmed.status, warmed.folder, warmed.fetched_bytes, warmed.seconds, sources=warmed.sources
        )
    if options.folder is not None:
        place = use_in_place(recipe, settings.root, options.folder)
        entry = _entry(recipe, "linked", place, 0, time.monotonic() - started, items=[])
    else:
        done = install(recipe, settings, lambda made: _confirm(made, options, ask))
        certain = {item.name for item in recipe.items if item.expected.certain}
        known = done.receipt.items if done.receipt else {}
        items = [{"name": name, "verified": name in certain, **facts} for name, facts in known.items()]
        entry = _entry(recipe, done.status, done.folder, done.fetched_bytes, done.seconds, items=items)
    return {**entry, "content": content_of(recipe, settings.root)} if recipe.kind == "dataset" else entry


def _entry(
    recipe: Recipe, status: str, folder: Path, fetched_bytes: int, seconds: float, **more: Any
) -> dict[str, Any]:
    _say(recipe, status, folder)
    return {
        "name": recipe.name,
        "kind": recipe.kind,
        "status": status,
        "folder": str(folder),
        "licence": recipe.licence,
        "fetched_bytes": fetched_bytes,
        "seconds": round(seconds, 3),
        **more,
    }


def _confirm(made: Plan, options: DownloadOptions, ask: Ask | None) -> None:
    recipe = made.recipe
    for problem in made.problems:
        log.warning("%s: %s; fetching it again", recipe.name, problem)
    size = "of unknown size" if made.fetch_bytes is None else human_bytes(made.fetch_bytes)
    log.info("%s: %s, %s; licence: %s", recipe.name, human_count(len(made.todo), "file"), size, recipe.licence)
    unknown = [item.name for item in made.todo if not item.expected.certain]
    if unknown:
        log.warning(
            "%s: not verified, because no hash of the published files is known: %s; what comes is expected later",
            recipe.name,
            ", ".join(unknown[:4]) + (f" and {len(unknown) - 4} more" if len(unknown) > 4 else ""),
        )
    if options.yes:
        return
    if recipe.terms:
        terms = " ".join(recipe.terms.split())
        if ask is None:
            raise UsageError(f"{recipe.name}: {terms}", "--yes accepts this")
        if not ask(f"{terms}. Accept and download {size}?"):
            raise UsageError(f"{recipe.name}: the terms were not accepted; nothing was fetched")
    elif ask is not None and (made.fetch_bytes or 0) > LARGE and not ask(f"Download {size} into {made.folder}?"):
        raise UsageError(f"{recipe.name}: nothing was fetched")


def _say(recipe: Recipe, status: str, folder: Path) -> None:
    words = {
        "downloaded": f"{recipe.name} is in {folder}",
        "repaired": f"{recipe.name} was damaged and is repaired, in {folder}",
        "present": f"{recipe.name} is already in {folder}, intact",
        "own copy": f"{recipe.name} is in {folder}; it is your own copy, used as it is",
        "linked": f"{recipe.name} is read from {folder}",
    }
    log.info("%s", words[status])
