"""What a transfer is asked for and what it brings: the words that need no network library."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path

from rdxcli.errors import RdxError


class TransferError(RdxError):
    """A file could not be fetched."""


class Stopped(Exception):  # noqa: N818  not an error: another transfer failed, or the user pressed Ctrl-C
    """The transfer was told to stop; what it has is kept."""


@dataclass(frozen=True)
class Policy:
    """How patient a transfer is.

    Attributes
    ----------
    tries : int
        Attempts in a row that bring no new byte before an address is given up.
    connect_tries : int
        The same while no connection has ever been made.
    wait, longest_wait : float
        Seconds before the first new attempt, doubled each time, and their limit.
    connect, stall : float
        Seconds to connect, and seconds without a byte after which the line counts as cut.
    """

    tries: int = 6
    connect_tries: int = 2
    wait: float = 0.5
    longest_wait: float = 30.0
    connect: float = 6.0
    stall: float = 30.0
    redirects: int = 8


@dataclass(frozen=True)
class Remote:
    """What a server says about a file before it is fetched."""

    url: str
    size: int | None
    ranges: bool


@dataclass(frozen=True)
class Fetched:
    """A finished transfer.

    Attributes
    ----------
    url : str
        The address that was asked (not the one it redirected to).
    size : int
        Bytes.
    resumed : int
        Bytes that were already there.
    """

    url: str
    size: int
    sha256: str
    md5: str
    resumed: int = 0


@dataclass(frozen=True)
class Expected:
    """What the recipe promises; None where it does not know."""

    size: int | None = None
    sha256: str | None = None
    sha256_prefix: str | None = None
    md5: str | None = None

    @property
    def certain(self) -> bool:
        """Whether a wrong file would be noticed by its hash."""
        return bool(self.sha256 or self.sha256_prefix or self.md5)

    def problem(self, size: int, sha256: str, md5: str) -> str | None:
        """How a file differs, None when it does not."""
        if self.size is not None and size != self.size:
            return f"got {size} bytes, expected {self.size}"
        if self.sha256 and sha256 != self.sha256:
            return f"got the SHA-256 {sha256[:16]}..., expected {self.sha256[:16]}..."
        if self.sha256_prefix and not sha256.startswith(self.sha256_prefix):
            return f"got the SHA-256 {sha256[:16]}..., expected {self.sha256_prefix}..."
        if self.md5 and md5 != self.md5:
            return f"got the MD5 {md5}, expected {self.md5}"
        return None


def digests(path: Path, stop: threading.Event | None = None) -> tuple[str, str]:
    """SHA-256 and MD5 of what is on disk, as hex digits."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    buffer = bytearray(1 << 20)
    view = memoryview(buffer)
    with open(path, "rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            if stop is not None and stop.is_set():
                raise Stopped
            sha256.update(view[:count])
            md5.update(view[:count])
    return sha256.hexdigest(), md5.hexdigest()
