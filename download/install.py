"""From a recipe to a finished folder in the data root: fetch, unpack, convert, place.

Every step can be cut short at any point. What is fetched stays in the work area and is continued; what is half unpacked
is thrown away and unpacked again; the finished folder appears by one rename with its receipt inside.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from rdxcli.errors import RdxError, without_passwords
from rdxcli.lazy import httpx
from rdxcli.progress import log, track

from . import store
from .archives import ArchiveError, Entry, unpack
from .catalogue import UNKNOWN, Recipe, RecipeFile
from .converters import convert
from .expected import Expected, Fetched, Remote, TransferError, digests
from .parallel import TaskError, TooSlow, gather
from .planning import Plan, Settings, addresses, check_disk, expectation, make_plan, needs
from .store import Home, Receipt
from .transfer import client, fetch, probe

_FULL = {errno.ENOSPC, errno.EDQUOT}

# what the file must be; the day of its first download when its hash is known only from that
_Wanted = Mapping[str, tuple[Expected, str | None]]


@dataclass(frozen=True)
class Installed:
    """What was done.

    Attributes
    ----------
    folder : Path
        Where the data are.
    status : str
        ``downloaded``, ``repaired``, ``present``, ``own copy`` or ``linked``.
    """

    recipe: Recipe
    folder: Path
    status: str
    receipt: Receipt | None
    fetched_bytes: int = 0
    seconds: float = 0.0


def install(recipe: Recipe, settings: Settings, confirm: Callable[[Plan], None] = lambda plan: None) -> Installed:
    """Bring the data of a recipe into the data root.

    Raises `TransferError`, `ArchiveError`, `InputError` or `RdxError` with what failed and what to do. Nothing
    half-made becomes visible, and fetched bytes are kept.

    Parameters
    ----------
    recipe : Recipe
        With items (hub recipes: `rdxcli.download.hub`).
    confirm : callable
        Told the plan, with sizes from the servers, before anything is fetched; raises to stop.
    """
    started = time.monotonic()
    home = Home(settings.root, recipe)
    try:
        with home.lock():
            plan = make_plan(recipe, settings)
            status, count = plan.status, 0
            if plan.todo:
                try:
                    count = _work(home, plan, settings, confirm)
                finally:
                    home.tidy()
                status = "repaired" if plan.status == "repair" else "downloaded"
            elif home.draft.exists() and not home.path.exists():
                # everything was placed when the last run died
                _reveal(home)
                status = "downloaded"
            return Installed(recipe, plan.folder, status, home.receipt(), count, time.monotonic() - started)
    except OSError as error:
        if error.errno in _FULL:
            raise RdxError(
                f"the disk of {settings.root} is full",
                "free some space and run the same command again: it continues where it stopped",
            ) from None
        raise


def _work(home: Home, plan: Plan, settings: Settings, confirm: Callable[[Plan], None]) -> int:
    """Fetch and place the items of the plan; returns the bytes that were fetched."""
    (home.work / "files").mkdir(parents=True, exist_ok=True)
    wanted = {item.name: expectation(home, item, settings.force) for item in plan.todo}
    waiting = [item for item in plan.todo if not _arrived(home, item, wanted[item.name][0])]
    fetched = {item.name: _facts(home, item) for item in plan.todo if item not in waiting}
    count = 0
    with client(settings.policy) as http:
        remotes = _probe_all(http, home.recipe, waiting, wanted, settings)
        sizes = {item.name: item.bytes for item in plan.todo}
        sizes |= {name: one.size for name, one in fetched.items()}
        sizes |= {name: remote.size for name, remote in remotes.items()}
        plan.fetch_bytes, plan.need_bytes = needs(home, plan.todo, sizes)
        check_disk(home, plan)
        confirm(plan)
        if waiting:
            arrived = _fetch_all(http, home, waiting, wanted, settings, sizes)
            count = sum(one.size - one.resumed for one in arrived.values())
            fetched |= arrived
    for item in plan.todo:
        _place_item(home, item, fetched[item.name], wanted[item.name][0].certain)
    missing = store.missing_layout(home.recipe, home.current)
    if missing:
        raise RdxError(
            f"{home.recipe.name}: the published files are laid out otherwise than the recipe says: no {missing[0]}",
            "please report this",
        )
    if home.current == home.draft:
        _reveal(home)
    return count


def _arrived(home: Home, item: RecipeFile, expected: Expected) -> bool:
    """Whether an earlier run fetched the file completely; a wrong one is removed."""
    path = home.file(item.name)
    if not path.is_file():
        return False
    if expected.problem(path.stat().st_size, *digests(path)) is None:
        return True
    path.unlink()
    return False


def _facts(home: Home, item: RecipeFile) -> Fetched:
    path = home.file(item.name)
    size = path.stat().st_size
    return Fetched(item.urls[0], size, *digests(path), resumed=size)


def _probe_all(
    http: httpx.Client, recipe: Recipe, items: Sequence[RecipeFile], wanted: _Wanted, settings: Settings
) -> dict[str, Remote]:
    """What the servers say about every file."""
    if not items:
        return {}
    policy = settings.policy
    tasks = {
        item.name: partial(probe, http, addresses(recipe, item, settings.mirror), wanted[item.name][0], policy)
        for item in items
    }
    most = max(len(item.urls) for item in items)
    patience = (policy.connect + policy.wait) * policy.connect_tries * most + policy.stall
    try:
        return gather(tasks, 8, threading.Event(), patience)
    except TooSlow:
        raise _offline(recipe, "no answer from the network") from None
    except TaskError as failed:
        if isinstance(failed.error, TransferError):
            raise _offline(recipe, failed.error.message) from None
        raise failed.error from None


def _offline(recipe: Recipe, message: str) -> TransferError:
    return TransferError(
        f"{recipe.name}: {message}",
        "check the network, ask another server with --mirror URL, or use a copy with --from FOLDER",
    )


def _fetch_all(
    http: httpx.Client,
    home: Home,
    items: Sequence[RecipeFile],
    wanted: _Wanted,
    settings: Settings,
    sizes: Mapping[str, int | None],
) -> dict[str, Fetched]:
    stop, guard = threading.Event(), threading.Lock()
    known = [sizes[item.name] for item in items]
    total = None if None in known else sum(size for size in known if size is not None)
    with track(f"download {home.recipe.name}", total, "B") as advance:

        def step(count: int) -> None:
            with guard:
                advance(count)

        tasks = {
            item.name: partial(
                fetch,
                http,
                addresses(home.recipe, item, settings.mirror),
                home.file(item.name),
                wanted[item.name][0],
                settings.policy,
                stop,
                step,
            )
            for item in items
        }
        try:
            return gather(tasks, settings.jobs, stop)
        except TaskError as failed:
            raise _explained(home, failed.error, wanted[failed.task][1]) from None


def _explained(home: Home, error: BaseException, seen: str | None) -> BaseException:
    if not isinstance(error, TransferError):
        return error
    hint = "run the same command again: it continues where it stopped"
    if seen is not None and "SHA-256" in error.message:
        hint = f"it has changed since it was first downloaded ({seen}); --force accepts the new file"
    elif "expected" in error.message or "the recipe says" in error.message:
        hint = "the server's file is damaged or is not the one that the recipe knows; --mirror URL asks another server"
    return TransferError(f"{home.recipe.name}: {error.message}", hint)


def _place_item(home: Home, item: RecipeFile, fetched: Fetched, certain: bool) -> None:
    """Unpack, convert and move one item into the current folder; then write its receipt."""
    file = home.file(item.name)
    tree = home.work / "trees" / item.name
    store.remove(tree)
    base = tree / item.into
    try:
        if item.extract is not None:
            with track(f"unpack {item.name}", fetched.size, "B") as advance:
                entries = unpack(
                    file,
                    base,
                    item.extract.format,
                    # an archive whose size the recipe does not know may be larger than its author thought
                    limit=max(item.extract.limit, 4 * fetched.size),
                    strip=item.extract.strip,
                    only=item.extract.only,
                    whole=certain,
                    advance=advance,
                )
        else:
            base.mkdir(parents=True)
            # a second name for the same bytes: the first stays until the item is placed
            try:
                os.link(file, base / item.name)
            except OSError:
                shutil.copyfile(file, base / item.name)
            entries = [Entry(item.name, fetched.size, fetched.sha256)]
        entries, originals = _convert_all(base, item, entries)
    except (ArchiveError, ValueError):
        # whatever the file is, it is not what was wanted: the next run must not trust it
        store.remove(file)
        store.remove(tree)
        raise
    prefix = "" if item.into == "." else f"{item.into}/"
    placed = [Entry(prefix + entry.path, entry.size, entry.sha256) for entry in entries]
    current = home.current
    receipt = home.receipt(current) or Receipt(home.recipe.name, home.recipe.licence, created=store.now())
    if item.name in receipt.items:
        # from here until the new receipt the item counts as missing
        del receipt.items[item.name]
        home.write(receipt, current)
    store.place(tree, current)
    count, size = store.write_listing(current, item, placed)
    facts = {"sha256": fetched.sha256, "size": fetched.size, "url": without_passwords(fetched.url)}
    if UNKNOWN == item.sha256 == item.md5 and urlsplit(fetched.url).scheme == "http":
        log.warning(
            "%s came over plain HTTP, and no hash of the published file is known: anybody on the way could have "
            "changed it (SHA-256 %s)",
            item.name,
            fetched.sha256,
        )
    receipt.items[item.name] = {
        **facts,
        "md5": fetched.md5,
        "fetched": store.now(),
        "into": item.into,
        "part": item.part,
        "files": count,
        "bytes": size,
        "converted": originals,
    }
    home.write(receipt, current)
    store.remember_hash(home.root, home.recipe, item, facts)
    store.remove(file)


def _convert_all(base: Path, item: RecipeFile, entries: list[Entry]) -> tuple[list[Entry], list[dict[str, str]]]:
    """Rewrite what the recipe says; the files there are now, and name and hash of the originals."""
    originals: list[dict[str, str]] = []
    for rule in item.convert:
        chosen = [entry for entry in entries if fnmatchcase(entry.path, rule.files)]
        if not chosen:
            raise ArchiveError(f"{item.name} holds no {rule.files}")
        with track(f"convert {item.name}", len(chosen), "files") as advance:
            for entry in chosen:
                log.debug("converting %s", entry.path)
                written = convert(rule.kind, base / entry.path)
                (base / entry.path).unlink()
                entries = [kept for kept in entries if kept.path != entry.path]
                entries += [
                    Entry(path.relative_to(base).as_posix(), path.stat().st_size, digests(path)[0]) for path in written
                ]
                originals.append({"file": entry.path, "sha256": entry.sha256})
                advance(1)
    return entries, originals


def _reveal(home: Home) -> None:
    """Make the finished folder visible."""
    if hasattr(os, "sync"):
        os.sync()  # its files must be on disk before its name is
    store.rename(home.draft, home.path)


__all__ = ["Installed", "install"]
