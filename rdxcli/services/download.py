"""What ``rdx download`` does: recipes, hub weights, folders that a person has already, and checks of all of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdxcli.datasets.published import NAMES, read
from rdxcli.datasets.registry import open_dataset
from rdxcli.download.catalogue import Recipe, catalogue, find, names
from rdxcli.download.expected import Policy
from rdxcli.download.planning import Settings, link, make_plan
from rdxcli.download.store import Home, damaged, data_root, free_bytes, missing_layout
from rdxcli.errors import MissingDataError, RdxError, UnknownNameError, UsageError
from rdxcli.models.registry import resolve
from rdxcli.progress import human_bytes, log, track
from rdxcli.records import SCHEMA_VERSION
from rdxcli.services.listing import Listing

if TYPE_CHECKING:
    from rdxcli.download.catalogue import Recipe
    from rdxcli.download.planning import Plan, Settings

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

    Parameters
    ----------
    options : DownloadOptions
    ask : callable, optional
        Asked about terms and sizes unless ``yes``; without it, terms are not accepted and sizes are.

    Returns
    -------
    Downloaded
        With several names, the failure of one does not stop the others; with one it is raised.

    Raises
    ------
    UnknownNameError
        No such recipe or model; nothing has been fetched then.
    RdxError
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
    from rdxcli.download.hub import cached

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
            f"{made.status} {len(made.todo)} files, {size}, into {made.folder}, with {human_bytes(made.need_bytes)} of "
            f"free disk: {files} ({recipe.licence})"
        )
    return entries


def listing(root: Path | None = None) -> Listing:
    """Every recipe: size, whether it is on this machine, licence."""
    from rdxcli.download.hub import cached

    place = data_root(root)
    rows: list[tuple[Any, ...]] = []
    for recipe in catalogue().values():
        here = cached(recipe) is not None if recipe.hub else Home(place, recipe).ready()
        known = sum(item.bytes or 0 for item in recipe.chosen())
        size = None if not known else human_bytes(known) + ("" if recipe.bytes is not None else " or more")
        kind = "gated" if recipe.gate else recipe.kind
        rows.append((recipe.name, kind, size, here, recipe.licence, _verified(recipe), recipe.title))
    order = {kind: i for i, kind in enumerate(("dataset", "gated", "checkpoint", "concepts", "hub"))}
    rows.sort(key=lambda row: (order[row[1]], row[0]))
    return Listing("downloads", ("name", "kind", "size", "here", "licence", "verified", "title"), rows)


def _verified(recipe: Recipe) -> str:
    """Whether a hash of what is fetched was known before: of all files, of some, of none; of weights by their hub."""
    if recipe.hub:
        return "by its hub"
    items = recipe.chosen()
    known = sum(item.expected.certain for item in items)
    return "-" if not items else "yes" if known == len(items) else f"{known} of {len(items)} files" if known else "no"


def check(names: Sequence[str], root: Path | None = None) -> dict[str, Any]:
    """Read every file of what is on this machine and compare it with what was fetched.

    Parameters
    ----------
    names : sequence of str
        Empty for everything that is there.
    root : Path, optional

    Returns
    -------
    dict
        ``{root, intact, checked: [{name, folder, status, problems}]}``; status ``intact``, ``damaged``, ``missing`` or
        ``unverified`` (a person's own copy, whose layout alone can be checked).
    """
    from rdxcli.download import hub

    place = data_root(root)
    chosen = [_find(name) for name in names]
    if not names:
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


def _resolve(options: DownloadOptions) -> tuple[Settings, list[Recipe]]:
    if not options.names:
        raise UsageError("which data? give a name", "`rdx download --list` lists them")
    if options.mirror is not None and not options.mirror.startswith(("http://", "https://")):
        raise UsageError(f"--mirror: got `{options.mirror}`, expected an http or https address")
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
    recipe = find(name) or _of_model(name)
    if recipe is None:
        raise UnknownNameError("download", name, names(), "rdx download --list")
    return recipe


def _of_model(name: str) -> Recipe | None:
    """A recipe for a model that has none but whose weights a library keeps: ``timm:resnet18``, ``hf:OWNER/NAME``."""
    try:
        spec = resolve(name)
    except UsageError:
        return None
    scheme, _, target = spec.source.partition(":")
    source = {"timm": _timm, "open_clip": _open_clip, "hf": _transformers, "torchvision": _torchvision}.get(scheme)
    repo = source(target) if source is not None else None
    if repo is None:
        return None

    content = {
        "name": "".join(c if c.isalnum() or c in "._-" else "-" for c in name.lower()).strip("-._"),
        "title": spec.description or name,
        "kind": "hub",
        "papers": ["none"],
        "homepage": "see the library",
        "licence": spec.licence or "see the model's card",
        "hub": [{"library": {"hf": "transformers"}.get(scheme, scheme), "repo": repo}],
    }
    try:
        return Recipe.model_validate(content)
    except ValueError:
        return None


def _timm(target: str) -> str | None:
    if target.startswith("hf-hub:"):
        return target.removeprefix("hf-hub:")
    import timm

    try:
        config = timm.get_pretrained_cfg(target)
    except RuntimeError:
        return None
    return config.hf_hub_id if config is not None else None


def _open_clip(target: str) -> str | None:
    import open_clip

    arch, _, tag = target.partition("/")
    if arch.startswith("hf-hub:"):
        return target.removeprefix("hf-hub:")
    repo = open_clip.get_pretrained_cfg(arch, tag).get("hf_hub", "")
    return repo.rstrip("/") or None


def _transformers(target: str) -> str | None:
    return None if Path(target).expanduser().exists() else target


def _torchvision(target: str) -> str | None:
    from torchvision.models import get_model_weights

    name, _, tag = target.partition("@")
    try:
        weights = get_model_weights(name)
        return str(weights[tag or "DEFAULT"].url)
    except (ValueError, KeyError):
        return None


def _one(recipe: Recipe, settings: Settings, options: DownloadOptions, ask: Ask | None) -> dict[str, Any]:
    if recipe.hub:
        return _hub(recipe, settings, options)
    if options.folder is not None:
        return _link(recipe, settings, options.folder)
    from rdxcli.download.install import install

    done = install(recipe, settings, lambda made: _confirm(made, options, ask))
    _say(recipe, done.status, done.folder)
    receipt = done.receipt
    certain = {item.name for item in recipe.items if item.expected.certain}
    entry: dict[str, Any] = {
        "name": recipe.name,
        "kind": recipe.kind,
        "status": done.status,
        "folder": str(done.folder),
        "licence": recipe.licence,
        "fetched_bytes": done.fetched_bytes,
        "seconds": round(done.seconds, 3),
        "items": [
            {"name": name, "verified": name in certain, **facts}
            for name, facts in (receipt.items if receipt else {}).items()
        ],
    }
    if recipe.kind == "dataset":
        entry["content"] = _content(recipe, settings.root)
    return entry


def _hub(recipe: Recipe, settings: Settings, options: DownloadOptions) -> dict[str, Any]:
    from rdxcli.download.hub import warm

    if options.folder is not None:
        raise UsageError(f"--from: {recipe.name} lies in the cache of its library", "give the folder as `hf:FOLDER`")
    done = warm(recipe, settings)
    _say(recipe, done.status, done.folder)
    return {
        "name": recipe.name,
        "kind": recipe.kind,
        "status": done.status,
        "folder": str(done.folder),
        "licence": recipe.licence,
        "fetched_bytes": done.fetched_bytes,
        "seconds": round(done.seconds, 3),
        "sources": done.sources,
    }


def _link(recipe: Recipe, settings: Settings, folder: Path) -> dict[str, Any]:
    """Check a folder that a person has, index it, and use it in place."""
    from rdxcli.datasets.imagenet import INDEX, write_index

    started = time.monotonic()
    given = folder.expanduser()
    if not given.is_dir():
        raise MissingDataError(f"no such folder: {folder}")
    missing = missing_layout(recipe, given)
    if not missing and recipe.name in NAMES:
        # before it is linked: what cannot be read must not count as there
        read(recipe, given)
    place = link(recipe, settings.root, given)
    if recipe.reader == "imagenet":
        write_index(place, Home(settings.root, recipe).path / ".rdx" / INDEX)
    _say(recipe, "linked", place)
    entry: dict[str, Any] = {
        "name": recipe.name,
        "kind": recipe.kind,
        "status": "linked",
        "folder": str(place),
        "licence": recipe.licence,
        "fetched_bytes": 0,
        "seconds": round(time.monotonic() - started, 3),
        "items": [],
    }
    if recipe.kind == "dataset":
        entry["content"] = _content(recipe, settings.root)
    return entry


def _content(recipe: Recipe, root: Path) -> dict[str, Any]:
    """Open the data set as every other command will, and compare it with what was published."""
    dataset = open_dataset(recipe.name, root=root)
    counts = Counter(dataset.splits or [])
    for split, published in recipe.splits.items():
        if split in counts and counts[split] != published:
            log.warning("%s: split %s has %d images, %d were published", recipe.name, split, counts[split], published)
    classes = len(dataset.class_names) if dataset.class_names is not None else None
    parts = ", ".join(f"{split} {count}" for split, count in counts.items())
    log.info("%s: %d images%s", recipe.name, len(dataset), f" ({parts})" if parts else "")
    return {"images": len(dataset), "classes": classes, "splits": dict(counts)}


def _confirm(made: Plan, options: DownloadOptions, ask: Ask | None) -> None:
    recipe = made.recipe
    for problem in made.problems:
        log.warning("%s: %s; fetching it again", recipe.name, problem)
    size = "of unknown size" if made.fetch_bytes is None else human_bytes(made.fetch_bytes)
    log.info("%s: %d files, %s; licence: %s", recipe.name, len(made.todo), size, recipe.licence)
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


__all__ = ["DownloadOptions", "Downloaded", "check", "download", "listing", "plan"]
