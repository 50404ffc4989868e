"""Recipes: what there is to download, from where, how large, with which hash and under which licence.

One YAML file each below ``recipes/``. Reading them needs neither torch nor a network. Other packages add recipes
through the entry point group ``rdx.recipes`` (a package whose folder holds YAML files); a person does so with the
environment variable ``RDX_RECIPES``, a folder of YAML files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rdxcli.errors import RdxError, UnknownNameError
from rdxcli.progress import human_count

from .converters import KINDS as CONVERSIONS
from .expected import Expected

RECIPES = Path(__file__).parent / "recipes"
ENTRY_POINTS = "rdx.recipes"
UNKNOWN = "unknown"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.\-]*")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Extract(_Strict):
    """How an archive is unpacked.

    Attributes
    ----------
    format : str
        ``zip``, ``tar``, ``tgz`` (any tar that gzip, bzip2 or xz compressed), or ``gz`` (one compressed file).
    strip : int
        Leading folders of each name that are dropped.
    only : tuple of str
        Glob patterns; other members are left in the archive. Empty means all.
    unpacked : int
        About how many bytes the members unpack to. Twice that and 64 MiB, or four times the archive, is accepted.
    """

    format: Literal["zip", "tar", "tgz", "gz"]
    strip: int = Field(default=0, ge=0)
    only: tuple[str, ...] = ()
    unpacked: int = Field(gt=0)

    @property
    def limit(self) -> int:
        """Bytes that may be unpacked whatever the size of the archive."""
        return 2 * self.unpacked + (64 << 20)


class Convert(_Strict):
    """Published pickles (and tables of encoded images) that are rewritten once, in a safe format.

    Attributes
    ----------
    files : str
        Glob pattern below the place of the item.
    kind : str
        One of `rdxcli.download.converters.KINDS`.
    """

    files: str
    kind: str

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in CONVERSIONS:
            raise ValueError(f"got {value!r}, expected one of {', '.join(CONVERSIONS)}")
        return value


class RecipeFile(_Strict):
    """One file to fetch.

    Attributes
    ----------
    urls : tuple of str
        Where it is; the first that works is taken.
    name : str
        File name, unique in the recipe.
    size : int or "unknown"
        Bytes.
    sha256, md5 : str
        Hex digests, or ``unknown``. Of an unknown SHA-256 the one seen on first download is recorded and expected from
        then on.
    sha256_prefix : str, optional
        First digits of the SHA-256, where the publisher writes them into the file name.
    part : str, optional
        Name of the part it belongs to; parts can be chosen with ``--only``. Items without a part are always fetched.
    into : str
        Folder below the recipe's own folder.
    extract, convert
        What happens to it afterwards.
    """

    urls: tuple[str, ...] = Field(min_length=1)
    name: str
    size: int | Literal["unknown"] = "unknown"
    sha256: str = UNKNOWN
    sha256_prefix: str | None = None
    md5: str = UNKNOWN
    part: str | None = None
    into: str = "."
    extract: Extract | None = None
    convert: tuple[Convert, ...] = ()

    @field_validator("urls")
    @classmethod
    def _web(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            parts = urlsplit(url)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ValueError(f"got {url!r}, expected an http or https address")
        return value

    @field_validator("name")
    @classmethod
    def _file_name(cls, value: str) -> str:
        if not value or value in {".", ".."} or set(value) & set('/\\\0:*?"<>|'):
            raise ValueError(f"got {value!r}, expected a plain file name")
        return value

    @field_validator("into")
    @classmethod
    def _inside(cls, value: str) -> str:
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts or "\\" in value:
            raise ValueError(f"got {value!r}, expected a folder inside the recipe's own")
        return path.as_posix()

    @field_validator("size")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value <= 0:
            raise ValueError(f"got a size of {value} bytes")
        return value

    @model_validator(mode="after")
    def _digests(self) -> RecipeFile:
        for label, text, length in (("sha256", self.sha256, 64), ("md5", self.md5, 32)):
            if text != UNKNOWN and not re.fullmatch(rf"[0-9a-f]{{{length}}}", text):
                raise ValueError(
                    f"got the {label} {text!r}, expected {human_count(length, 'hex digit')} or `{UNKNOWN}`"
                )
        if self.sha256_prefix is not None and not re.fullmatch(r"[0-9a-f]{8,64}", self.sha256_prefix):
            raise ValueError(f"got the prefix {self.sha256_prefix!r}, expected 8 or more hex digits")
        return self

    @property
    def bytes(self) -> int | None:
        """Size, None when it is unknown."""
        return self.size if isinstance(self.size, int) else None

    @property
    def expected(self) -> Expected:
        """What a fetched file must be."""
        return Expected(
            self.bytes,
            None if self.sha256 == UNKNOWN else self.sha256,
            self.sha256_prefix,
            None if self.md5 == UNKNOWN else self.md5,
        )


class Hub(_Strict):
    """Weights that a library keeps in its own cache.

    Attributes
    ----------
    library : str
        ``timm``, ``open_clip`` or ``transformers`` (a repository of the Hugging Face hub), or ``torchvision``.
    repo : str
        ``OWNER/NAME``; for torchvision the address of the file, which ends in ``-<first digits of the SHA-256>.pth``.
    files : tuple of str
        Glob patterns of the files that the library reads; by default the usual ones of that library.
    """

    library: Literal["timm", "open_clip", "transformers", "torchvision"]
    repo: str
    files: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _form(self) -> Hub:
        pattern = r"https://\S+-[0-9a-f]{8,}\.pth" if self.library == "torchvision" else r"[\w.\-]+/[\w.\-]+"
        if not re.fullmatch(pattern, self.repo):
            raise ValueError(f"got {self.repo!r} for {self.library}, expected {pattern}")
        return self


class AccessGate(_Strict):
    """Why something cannot be downloaded by a program, and what a person does instead.

    Attributes
    ----------
    how : str
        Steps, one a line.
    url : str
        Where the request form is.
    """

    how: str
    url: str


def _addressed(entry: dict[Any, Any], base: Any) -> dict[Any, Any]:
    """An item with addresses and a name, as far as what is given are texts; the fields refuse the rest."""
    entry = dict(entry)
    if "url" in entry and isinstance(entry.get("urls", ()), list | tuple):
        entry["urls"] = [entry.pop("url"), *entry.get("urls", ())]
    if "urls" not in entry and isinstance(base, str) and isinstance(entry.get("name"), str):
        entry["urls"] = [base + entry["name"]]
    listed = entry.get("urls")
    first = listed[0] if isinstance(listed, list | tuple) and listed else None
    if "name" not in entry and isinstance(first, str):
        entry["name"] = unquote(PurePosixPath(urlsplit(first).path).name)
    return entry


class Recipe(_Strict):
    """Everything about one data set, checkpoint, set of concepts, or set of hub weights.

    Attributes
    ----------
    kind : str
        ``dataset``, ``checkpoint``, ``concepts`` or ``hub``.
    papers : tuple of str
        Methods of rdx that use it.
    licence : str
        One line. ``terms`` are conditions that must be accepted (``--yes``) before anything is fetched.
    aliases : tuple of str
        Other names, for example of the models inside.
    base : str, optional
        Address that items without one of their own start with.
    default : tuple of str
        Parts that are fetched when none are named; empty for all.
    layout : tuple of str
        Glob patterns, each of which must match something in a finished folder; a pattern ``a|b`` accepts either.
    reader : str, optional
        Reader of `rdxcli.datasets.published`.
    splits : mapping of str to int
        Published numbers of images.
    class_names : tuple of str
        When the files carry numbers only.
    models : mapping of str to str
        Model name to file, for checkpoints.
    """

    name: str
    title: str
    kind: Literal["dataset", "checkpoint", "concepts", "hub"]
    papers: tuple[str, ...] = Field(min_length=1)
    homepage: str
    licence: str = Field(min_length=3)
    terms: str | None = None
    aliases: tuple[str, ...] = ()
    items: tuple[RecipeFile, ...] = ()
    hub: tuple[Hub, ...] = ()
    gate: AccessGate | None = None
    default: tuple[str, ...] = ()
    layout: tuple[str, ...] = ()
    reader: str | None = None
    splits: dict[str, int] = Field(default_factory=dict)
    classes: int | None = None
    class_names: tuple[str, ...] = ()
    models: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _fill_addresses(cls, data: Any) -> Any:
        """``base`` + ``name`` gives the address of an item; an address gives the name of its file."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        base = data.pop("base", None)
        if not isinstance(data.get("items"), list | tuple):
            return data  # the fields say what is wrong with it
        data["items"] = [_addressed(entry, base) if isinstance(entry, dict) else entry for entry in data["items"]]
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        for name in (self.name, *self.aliases):
            if not _NAME.fullmatch(name):
                raise ValueError(f"got the name {name!r}, expected lower-case letters, digits, `-`, `_` and `.`")
        names = [item.name for item in self.items]
        if len(set(names)) != len(names):
            raise ValueError(f"{self.name}: two items have the same name")
        if bool(self.items) + bool(self.hub) + bool(self.gate) != 1:
            raise ValueError(f"{self.name}: expected one of `items`, `hub` and `gate`")
        if (self.kind == "hub") != bool(self.hub):
            raise ValueError(f"{self.name}: kind `hub` and `hub:` belong together")
        if (self.kind == "dataset") != (self.reader is not None):
            raise ValueError(f"{self.name}: a data set has a reader, and nothing else has")
        if self.kind != "hub" and not self.layout:
            raise ValueError(f"{self.name}: expected a layout")
        if set(self.default) - set(self.parts):
            raise ValueError(f"{self.name}: `default` names a part that no item has")
        if self.class_names and self.classes not in (None, len(self.class_names)):
            raise ValueError(
                f"{self.name}: got {human_count(len(self.class_names), 'class name')} for "
                f"{human_count(self.classes, 'class')}"
            )
        return self

    @property
    def parts(self) -> list[str]:
        """Names of the optional parts, in order."""
        return list(dict.fromkeys(item.part for item in self.items if item.part is not None))

    @property
    def bytes(self) -> int | None:
        """Bytes to fetch by default; None when the size of an item is unknown."""
        sizes = [item.bytes for item in self.chosen()]
        return None if None in sizes or not sizes else sum(size for size in sizes if size is not None)

    def chosen(self, parts: Sequence[str] | None = None) -> list[RecipeFile]:
        """Items of the given parts (by default the recipe's) and those without a part.

        Raises `UnknownNameError` (no such part).
        """
        for part in parts or ():
            if part not in self.parts:
                raise UnknownNameError(f"part of {self.name}", part, self.parts)
        wanted = parts or self.default or self.parts
        return [item for item in self.items if item.part is None or item.part in wanted]


def load_recipe(path: Path) -> Recipe:
    """Read and check one recipe.

    Raises `RdxError` (unreadable, malformed, or against the schema; the message names the field).
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RdxError(f"the recipe {path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise RdxError(f"the recipe {path} is not valid YAML: {' '.join(str(error).split())}") from None
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "recipe"
        raise RdxError(f"the recipe {path.name} is wrong at `{place}`: {first['msg']}") from None


def catalogue() -> dict[str, Recipe]:
    """Every recipe by its name, built-in ones first.

    Raises `RdxError` (a recipe is malformed, or two claim one name).
    """
    return dict(_catalogue(tuple(map(str, _folders()))))


def names() -> list[str]:
    """Names and aliases of all recipes."""
    return [name for recipe in catalogue().values() for name in (recipe.name, *recipe.aliases)]


def find(name: str) -> Recipe | None:
    """The recipe of that name or alias, None when there is none."""
    recipes = catalogue()
    if name in recipes:
        return recipes[name]
    return next((recipe for recipe in recipes.values() if name in recipe.aliases), None)


def get(name: str) -> Recipe:
    """The recipe of that name or alias. Raises `UnknownNameError` with near matches."""
    recipe = find(name)
    if recipe is None:
        raise UnknownNameError("download", name, names(), "rdx download --list")
    return recipe


def _folders() -> Iterable[Path]:
    yield RECIPES
    for point in metadata.entry_points(group=ENTRY_POINTS):
        module = point.load()
        yield from (Path(folder) for folder in getattr(module, "__path__", ()))
    if given := os.environ.get("RDX_RECIPES"):
        yield Path(given)


@lru_cache(maxsize=4)
def _catalogue(folders: tuple[str, ...]) -> dict[str, Recipe]:
    recipes: dict[str, Recipe] = {}
    taken: dict[str, str] = {}
    for folder in folders:
        for path in sorted(Path(folder).rglob("*.yaml")):
            recipe = load_recipe(path)
            for name in (recipe.name, *recipe.aliases):
                if name in taken:
                    raise RdxError(f"the recipes {taken[name]} and {path.name} both claim the name `{name}`")
                taken[name] = path.name
            recipes[recipe.name] = recipe
    return recipes
