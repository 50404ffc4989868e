"""Folders of this machine that rdx keeps things in."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path

import platformdirs


def cache_root() -> Path:
    """Where rdx keeps what it makes itself: ``RDX_CACHE``, else the user's cache folder, else `temporary_cache`."""
    given = os.environ.get("RDX_CACHE")
    if given:
        return Path(given)
    try:
        return Path(platformdirs.user_cache_dir("rdx", appauthor=False))
    except RuntimeError:  # no HOME, and no entry for the user
        return temporary_cache()


@cache
def temporary_cache() -> Path:
    """A folder for a user without a home directory, below the system's temporary one: the user's own, or a new one."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    place = Path(tempfile.gettempdir()) / f"rdx-{user}"
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        if place.is_dir() and not place.is_symlink() and place.stat().st_uid == user and os.access(place, os.W_OK):
            return place
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="rdx-"))


def is_temporary(place: Path) -> bool:
    """Whether a cache folder is `temporary_cache`'s: its user has no home directory."""
    return (
        not os.environ.get("RDX_CACHE")
        and place.name.startswith("rdx-")
        and place.parent == Path(tempfile.gettempdir())
    )


def data_root(given: Path | str | None = None) -> Path:
    """Where downloads are: the given folder, else ``RDX_DATA``, else ``./data``."""
    return Path(given or os.environ.get("RDX_DATA") or "data")
