"""Weights that live in the caches of their own libraries.

timm, open_clip and transformers share the cache of the Hugging Face hub, torchvision keeps files in the folder of
torch hub. Fetching fills these caches; loading needs no network then.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock

from rdxcli.errors import RdxError
from rdxcli.lazy import huggingface_hub
from rdxcli.progress import track

from .catalogue import Hub, Recipe
from .expected import Expected, TransferError, digests
from .planning import Settings
from .responses import describe
from .transfer import client, fetch, probe, proxies_of_the_environment

# what each library reads besides the weights, and the weights, best form first
_SMALL = {
    "timm": ("config.json",),
    "open_clip": ("open_clip_config.json", "tokenizer*.json", "special_tokens_map.json", "vocab.*", "merges.txt"),
    "transformers": ("*.json", "*.txt", "*.model"),
}
_WEIGHTS = {
    "timm": ("model.safetensors", "pytorch_model.bin"),
    "open_clip": ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
    "transformers": ("model*.safetensors", "pytorch_model*.bin"),
}


@dataclass(frozen=True)
class Warmed:
    """What is in the cache now.

    Attributes
    ----------
    folder : Path
        Of the snapshot, or of the file.
    status : str
        ``downloaded`` or ``present``.
    sources : list of dict
        ``{library, repo, revision, files}``.
    """

    folder: Path
    status: str
    fetched_bytes: int
    sources: list[dict[str, Any]]
    seconds: float = 0.0


def warm(recipe: Recipe, settings: Settings) -> Warmed:
    """Bring the weights of a hub recipe into the cache of their library.

    Raises `TransferError` (not reachable, gone, or gated; the hint says what to do).
    """
    started = time.monotonic()
    parts = [
        _torchvision(recipe, hub, settings) if hub.library == "torchvision" else _hugging_face(recipe, hub, settings)
        for hub in recipe.hub
    ]
    return Warmed(
        parts[0].folder,
        "downloaded" if any(part.status == "downloaded" for part in parts) else "present",
        sum(part.fetched_bytes for part in parts),
        [source for part in parts for source in part.sources],
        time.monotonic() - started,
    )


def cached(recipe: Recipe) -> Path | None:
    """Where the weights of a hub recipe are on this machine; None when something is missing. Asks no server."""
    found = [_cached_file(hub) if hub.library == "torchvision" else _cached_snapshot(hub) for hub in recipe.hub]
    return None if None in found else found[0]


def torch_checkpoints() -> Path:
    """The folder of torch's hub, found without importing torch."""
    home = os.environ.get("TORCH_HOME")
    if not home:
        home = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def _cached_file(hub: Hub) -> Path | None:
    path = torch_checkpoints() / urlsplit(hub.repo).path.rpartition("/")[2]
    return path if path.is_file() else None


def _torchvision(recipe: Recipe, hub: Hub, settings: Settings) -> Warmed:
    name = urlsplit(hub.repo).path.rpartition("/")[2]
    prefix = re.fullmatch(r".*-([0-9a-f]{8,})\.pth", name)
    assert prefix is not None  # the schema says so
    folder = torch_checkpoints()
    target = folder / name
    urls = [hub.repo] if settings.mirror is None else [f"{settings.mirror.rstrip('/')}/{name}"]
    expected = Expected(sha256_prefix=prefix[1])
    source = {"library": hub.library, "repo": hub.repo, "revision": prefix[1], "files": [name]}
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{name}.lock"):
        if target.is_file() and not settings.force:
            size = target.stat().st_size
            if expected.problem(size, *digests(target)) is None:
                return Warmed(target, "present", 0, [source])
        try:
            with client(settings.policy) as http:
                remote = probe(http, urls, expected, settings.policy)
                with track(f"download {recipe.name}", remote.size, "B") as advance:
                    done = fetch(http, urls, target, expected, settings.policy, threading.Event(), advance)
        except TransferError as error:
            raise TransferError(f"{recipe.name}: {error.message}", _HINT) from None
    return Warmed(target, "downloaded", done.size - done.resumed, [source])


_HINT = "check the network, or ask another server with --mirror URL"


def _cached_snapshot(hub: Hub) -> Path | None:
    """Folder of the snapshot, when its weights (or the files that the recipe names) are complete."""

    def here(name: str) -> Path | None:
        found = huggingface_hub.try_to_load_from_cache(hub.repo, name)
        return Path(found) if isinstance(found, str) else None

    if hub.files:
        plain = [name for name in hub.files if not any(character in name for character in "*?[")]
        paths = [here(name) for name in plain]
        return None if not paths or None in paths else paths[0].parent if paths[0] else None
    if here(_SMALL[hub.library][0] if hub.library != "transformers" else "config.json") is None:
        return None
    for pattern in _WEIGHTS[hub.library]:
        name = pattern.replace("*", "")
        if (path := here(name)) is not None:
            return path.parent
        if (index := here(f"{name}.index.json")) is not None:
            shards = set(json.loads(index.read_text("utf-8")).get("weight_map", {}).values())
            if shards and all(here(str(shard)) for shard in shards):
                return index.parent
    return None


def _hugging_face(recipe: Recipe, hub: Hub, settings: Settings) -> Warmed:
    present = _cached_snapshot(hub)
    source = {"library": hub.library, "repo": hub.repo}
    if present is not None and not settings.force:
        return Warmed(present, "present", 0, [{**source, "revision": present.name, "files": []}])

    endpoint = settings.mirror.rstrip("/") if settings.mirror else None
    if endpoint is None and huggingface_hub.constants.HF_HUB_OFFLINE:
        raise TransferError(
            f"{recipe.name}: HF_HUB_OFFLINE is set, and {hub.repo} is not in the cache", "unset it to download"
        )
    try:
        with proxies_of_the_environment():
            info = huggingface_hub.HfApi(endpoint=endpoint).model_info(
                hub.repo, files_metadata=True, timeout=settings.policy.connect
            )
            sizes = {sibling.rfilename: int(sibling.size or 0) for sibling in info.siblings or []}
            chosen = choose_files(hub, list(sizes))
            with track(f"download {recipe.name}", sum(sizes[name] for name in chosen), "B") as advance:
                counted = 0

                def count(steps: int) -> None:
                    nonlocal counted
                    counted += steps
                    advance(steps)

                for name in chosen:
                    extra = _reporting(huggingface_hub.hf_hub_download, count)
                    path = huggingface_hub.hf_hub_download(
                        hub.repo, name, endpoint=endpoint, force_download=settings.force, **extra
                    )
    except huggingface_hub.errors.GatedRepoError:
        raise TransferError(
            f"{recipe.name}: {hub.repo} asks for an agreement with its owner",
            "accept it on the repository's page, then log in with `hf auth login`",
        ) from None
    except RdxError:
        raise
    except huggingface_hub.errors.OfflineModeIsEnabled as error:
        raise TransferError(f"{recipe.name}: {_first_line(error)}", "unset HF_HUB_OFFLINE to download") from None
    except huggingface_hub.errors.HfHubHTTPError as error:
        raise TransferError(f"{recipe.name}: {hub.repo}: {_first_line(error)}", _HINT) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise TransferError(f"{recipe.name}: cannot fetch {hub.repo}: {_first_line(error)}", _HINT) from None
    except Exception as error:  # the library passes on those of its HTTP client, which differ between versions
        if not type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3")):
            raise
        raise TransferError(f"{recipe.name}: cannot fetch {hub.repo}: {describe(error)}", _HINT) from None
    folder = Path(path).parent
    for _ in range(chosen[-1].count("/")):
        folder = folder.parent
    return Warmed(folder, "downloaded", counted, [{**source, "revision": folder.name, "files": chosen}])


def choose_files(hub: Hub, names: Sequence[str]) -> list[str]:
    """The files of a repository that its library reads: small ones, then weights, safetensors before others.

    Raises `RdxError` (there are no such files).
    """
    if hub.files:
        chosen = [name for name in names if any(fnmatchcase(name, pattern) for pattern in hub.files)]
        if not chosen:
            raise RdxError(f"{hub.repo} has no {' or '.join(hub.files)}")
        return chosen
    small = [name for name in names if any(fnmatchcase(name, pattern) for pattern in _SMALL[hub.library])]
    for pattern in _WEIGHTS[hub.library]:
        weights = [name for name in names if fnmatchcase(name, pattern)]
        if weights:
            return [*(name for name in small if name not in weights), *weights]
    raise RdxError(f"{hub.repo} has no weights that {hub.library} could read", f"looked for {_WEIGHTS[hub.library]}")


def _reporting(function: Any, count: Callable[[int], None]) -> dict[str, Any]:
    """Keyword that sends the progress of ``hf_hub_download`` here, in the versions that have it."""
    if "tqdm_class" not in inspect.signature(function).parameters:
        return {}
    from tqdm.auto import tqdm

    class Reporter(tqdm):  # type: ignore[type-arg, misc]
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **{**keywords, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            count(int(n or 0))
            return None

    return {"tqdm_class": Reporter}


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200]


__all__ = ["Warmed", "cached", "choose_files", "torch_checkpoints", "warm"]
