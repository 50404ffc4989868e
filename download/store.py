"""The data root: where finished downloads are, what is known about them, and whether they are still intact.

Layout::

    <root>/<recipe>/...                    the files, as the recipe says
    <root>/<recipe>/.rdx/receipt.json      what was fetched, from where, with which hashes
    <root>/<recipe>/.rdx/<item>.tsv        every file of an item: bytes, time, SHA-256, path
    <root>/.rdx-download/hashes.json       hashes seen on first download, kept when the data are deleted
    <root>/.rdx-download/<recipe>/         work in progress, never read by anything else
    <root>/.rdx-download/<recipe>.lock

Nothing half-made is ever below ``<root>/<recipe>``: folders are filled in the work area and renamed.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rdxcli.artifacts.store import write_json
from rdxcli.errors import RdxError
from rdxcli.places import data_root
from rdxcli.progress import log

from .archives import Entry
from .catalogue import UNKNOWN, Recipe, RecipeFile, find
from .expected import digests

WORK = ".rdx-download"
NOTES = ".rdx"
SCHEMA = 1


@dataclass
class Receipt:
    """What is known about a finished download.

    Attributes
    ----------
    name : str
        Of the recipe.
    items : dict
        RecipeFile name to ``{url, size, sha256, md5, fetched, into, files, bytes, converted}``.
    folder : str, optional
        For data that a person has elsewhere: that folder; then there are no items.
    created : str
        ISO 8601, UTC.
    """

    name: str
    licence: str = ""
    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    folder: str | None = None
    created: str = ""

    def document(self) -> dict[str, Any]:
        """As it stands in ``receipt.json``."""
        return {
            "schema_version": SCHEMA,
            "name": self.name,
            "licence": self.licence,
            "created": self.created or now(),
            "folder": self.folder,
            "items": self.items,
        }


class Home:
    """The folder of one recipe.

    Parameters
    ----------
    root : Path
        The data root.
    """

    def __init__(self, root: Path, recipe: Recipe) -> None:
        self.root, self.recipe = root, recipe
        self.path = root / recipe.name
        self.work = root / WORK / recipe.name
        self.draft = self.work / "home"

    @property
    def current(self) -> Path:
        """Where items are placed now: the finished folder if there is one, else the one in the work area."""
        return self.path if self.path.exists() else self.draft

    def file(self, name: str) -> Path:
        """Where an item is fetched to."""
        return self.work / "files" / name

    def tidy(self) -> None:
        """Clear the work area, save for files that are only partly fetched."""
        remove(self.work / "trees")
        for notes in (self.work / "files").glob("*.part.json"):
            if not notes.with_suffix("").exists():
                notes.unlink()  # of a file that was finished when the process died
        for folder in (self.work / "files", self.work):
            try:
                folder.rmdir()
            except OSError:
                return  # parts of other items are in it

    def receipt(self, folder: Path | None = None) -> Receipt | None:
        """The receipt of the finished folder (or of ``folder``); None without one."""
        return read_receipt(folder or self.path)

    def write(self, receipt: Receipt, folder: Path) -> None:
        """Replace the receipt in ``folder``."""
        (folder / NOTES).mkdir(parents=True, exist_ok=True)
        write_json(folder / NOTES / "receipt.json", receipt.document())

    def content(self) -> Path | None:
        """Folder with the data: the recipe's own, or the one a person pointed at; None when there is nothing."""
        receipt = self.receipt()
        if receipt is not None and receipt.folder:
            return Path(receipt.folder)
        return self.path if self.path.is_dir() else None

    def installed(self) -> list[str]:
        """Names of the finished items."""
        receipt = self.receipt()
        return [item.name for item in self.recipe.items if receipt is not None and item.name in receipt.items]

    def ready(self, parts: Sequence[str] | None = None) -> bool:
        """Whether everything that is needed is here, judged by the receipt and the layout, without reading data.

        Of a recipe with parts, one part is enough unless ``parts`` names some. A folder that a person filled by hand
        counts when its layout is right.
        """
        content = self.content()
        if content is None or not content.is_dir():
            return False
        receipt = self.receipt()
        if receipt is not None and not receipt.folder and not self._complete(set(receipt.items), parts):
            return False
        return not missing_layout(self.recipe, content)

    def _complete(self, have: set[str], parts: Sequence[str] | None) -> bool:
        wanted = self.recipe.chosen(parts)
        if parts or not self.recipe.parts:
            return all(item.name in have for item in wanted)
        items = self.recipe.items
        whole = [all(item.name in have for item in items if item.part == part) for part in self.recipe.parts]
        return any(whole) and all(item.name in have for item in items if item.part is None)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold this recipe alone; waits for another process and says so. The system frees it when a process dies."""
        folder = self.root / WORK
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RdxError(f"cannot write to the data root {self.root}: {error.strerror or error}") from None
        held = FileLock(folder / f"{self.recipe.name}.lock")
        try:
            held.acquire(timeout=0)
        except Timeout:
            log.info("another process is downloading %s; waiting for it", self.recipe.name)
            held.acquire()
        try:
            yield
        finally:
            held.release()


def read_receipt(folder: Path) -> Receipt | None:
    """The receipt in ``folder``; None when there is none or it is damaged."""
    try:
        content = json.loads((folder / NOTES / "receipt.json").read_text("utf-8"))
        items = {str(key): dict(value) for key, value in content["items"].items()}
        return Receipt(
            str(content["name"]), str(content["licence"]), items, content.get("folder"), str(content["created"])
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def missing_layout(recipe: Recipe, folder: Path) -> list[str]:
    """Patterns of the layout that match nothing in ``folder``; alternatives are written ``a|b``."""
    missing = []
    for pattern in recipe.layout:
        alternatives = pattern.split("|")
        if not any(_matches(folder, alternative) for alternative in alternatives):
            missing.append(" or ".join(alternatives))
    return missing


def _matches(folder: Path, pattern: str) -> bool:
    if not any(character in pattern for character in "*?["):
        return (folder / pattern).exists()
    return next(folder.glob(pattern), None) is not None


@dataclass(frozen=True)
class Listed:
    """A file of an item as it was placed."""

    path: str
    size: int
    mtime: int
    sha256: str


def write_listing(folder: Path, item: RecipeFile, entries: Iterable[Entry]) -> tuple[int, int]:
    """Write down the files of an item that lie in ``folder``; returns their number and bytes."""
    lines, total = [], 0
    for entry in entries:
        stat = os.stat(folder / entry.path)
        lines.append(f"{entry.size}\t{stat.st_mtime_ns}\t{entry.sha256}\t{entry.path}\n")
        total += entry.size
    target = folder / NOTES / f"{item.name}.tsv"
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(target.name + ".tmp")
    draft.write_bytes("".join(lines).encode("utf-8", "surrogateescape"))
    os.replace(draft, target)
    return len(lines), total


def read_listing(folder: Path, name: str) -> list[Listed] | None:
    """The files of an item; None when the list is missing or damaged."""
    try:
        text = (folder / NOTES / f"{name}.tsv").read_bytes().decode("utf-8", "surrogateescape")
        rows = [line.split("\t", 3) for line in text.splitlines()]
        return [Listed(path, int(size), int(mtime), sha256) for size, mtime, sha256, path in rows]
    except (OSError, ValueError):
        return None


def damaged(
    folder: Path,
    name: str,
    deep: bool = False,
    advance: Callable[[int], None] = lambda steps: None,
    most: int = 5,
) -> list[str]:
    """What is wrong with the files of an item: missing, of another size, of another content.

    Parameters
    ----------
    name : str
        Of the item.
    deep : bool
        Read every file. Otherwise only those whose time has changed are read.
    advance : callable
        Told the bytes that were checked.
    most : int
        Stop after so many problems.
    """
    listing = read_listing(folder, name)
    if listing is None:
        return [f"the list of the files of {name} is missing"]
    problems: list[str] = []
    for entry in listing:
        if len(problems) >= most:
            break
        path = folder / entry.path
        advance(entry.size)
        try:
            stat = path.stat()
        except OSError:
            problems.append(f"{entry.path} is missing")
            continue
        if stat.st_size != entry.size:
            problems.append(f"{entry.path} has {stat.st_size} bytes, expected {entry.size}")
        elif deep or stat.st_mtime_ns != entry.mtime:
            try:
                changed = digests(path)[0] != entry.sha256
            except OSError as error:
                problems.append(f"{entry.path} cannot be read: {error.strerror}")
                continue
            if changed:
                problems.append(f"{entry.path} has changed")
    return problems


def place(tree: Path, folder: Path) -> None:
    """Move everything in ``tree`` into ``folder``: whole folders by one rename, files over files.

    Raises `RdxError` (a folder stands where a file should go, or the other way round).
    """
    folder.mkdir(parents=True, exist_ok=True)
    for entry in sorted(os.scandir(tree), key=lambda e: e.name):
        source, target = Path(entry.path), folder / entry.name
        if entry.is_dir(follow_symlinks=False):
            if target.is_dir():
                place(source, target)
                continue
            if target.exists():
                raise RdxError(f"{target} is a file, expected a folder", "move it away")
        elif target.is_dir():
            raise RdxError(f"{target} is a folder, expected a file", "move it away")
        rename(source, target)
    shutil.rmtree(tree)


def rename(source: Path, target: Path) -> None:
    """``os.replace``, also where the target lies on another disk (a data folder that is a link)."""
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        draft = target.with_name(f".{target.name}.rdx-partial")
        if source.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
            shutil.copytree(source, draft)
        else:
            shutil.copy2(source, draft)
        os.replace(draft, target)
        remove(source)


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def free_bytes(path: Path) -> int:
    """Free bytes on the disk where ``path`` is or will be."""
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free


def seen_hashes(root: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Recipe to item to ``{sha256, size, url, seen}``, from first downloads."""
    try:
        content = json.loads((root / WORK / "hashes.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def remember_hash(root: Path, recipe: Recipe, item: RecipeFile, facts: Mapping[str, Any]) -> None:
    """Write down the SHA-256 of an item whose recipe does not know it."""
    if item.sha256 != UNKNOWN:
        return
    with FileLock(root / WORK / "hashes.lock"):
        seen = seen_hashes(root)
        seen.setdefault(recipe.name, {})[item.name] = {**facts, "seen": now()}
        write_json(root / WORK / "hashes.json", seen)


def now() -> str:
    """This second, ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def content_folder(name: str, root: Path | str | None = None) -> Path | None:
    """Folder with the finished data of a recipe; None when it is not complete on this machine."""
    recipe = find(name)
    if recipe is None:
        return None
    home = Home(data_root(root), recipe)
    return home.content() if home.ready() else None


def checkpoint_file(model: str, root: Path | str | None = None) -> Path | None:
    """The safetensors file of a model whose checkpoint was downloaded; None when it was not.

    `model`: name of a model (``resnet18_places365``, ``mnist-cnn-m35``); `root`: the data root.
    """
    recipe = find(model)
    if recipe is None or model not in recipe.models:
        return None
    folder = content_folder(recipe.name, root)
    found = sorted(folder.glob(recipe.models[model])) if folder is not None else []
    return found[0] if found and found[0].is_file() else None
