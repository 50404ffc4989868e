"""The manifest of an artifact: what it is, what made it, from what, and how to tell whether it is still right."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from rdxcli import __version__
from rdxcli.artifacts.contents import is_intact, sealed
from rdxcli.errors import ArtifactError, without_passwords
from rdxcli.records import SCHEMA_VERSION, plain

MANIFEST = "manifest.json"
_PACKAGES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "torchvision",
    "timm",
    "open_clip_torch",
    "transformers",
    "hdbscan",
)


class Request(BaseModel):
    """What an artifact is made from. Two requests that are equal give the same artifact.

    Parameters
    ----------
    kind : str
        ``activations``, ``comparison``, ``explanations`` ...
    parameters : dict
        Everything that changes the result; nothing that does not (worker counts, verbosity).
    inputs : dict
        Fingerprints of what is read: weights, images, arrays, other artifacts.
    code : str
        Version of the code that computes this kind; raised when its results change.
    """

    model_config = ConfigDict(extra="forbid")

    kind: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    inputs: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0
    code: str = "1"

    def normalised(self) -> dict[str, Any]:
        """The request as JSON would give it back, for comparing with a stored one."""
        return json.loads(json.dumps(plain(self.model_dump()), sort_keys=True))

    def fingerprint(self) -> str:
        """SHA-256 of the request."""
        return fingerprint_json(self.normalised())

    def differences(self, other: Request) -> list[str]:
        """Lines ``field: theirs -> ours`` for every field that differs from ``other``, the stored request."""
        return list(_differences(other.normalised(), self.normalised()))


class Manifest(BaseModel):
    """Contents of ``manifest.json``.

    Attributes
    ----------
    files, hashes : mapping of str to int, and of str to str
        Size in bytes and BLAKE2b of every file, by its path below the artifact's folder. Artifacts of older versions
        have no hashes.
    digest : str, optional
        BLAKE2b of everything else in the manifest: it cannot be edited unnoticed.
    """

    model_config = ConfigDict(extra="allow")

    schema_version: int = SCHEMA_VERSION
    request: Request
    fingerprint: str
    command: str = ""
    created: str = ""
    rdx_version: str = __version__
    python: str = ""
    platform: str = ""
    packages: dict[str, str] = Field(default_factory=dict)
    device: str | None = None
    rows: int | None = None
    seconds: float | None = None
    files: dict[str, int] = Field(default_factory=dict)
    hashes: dict[str, str] = Field(default_factory=dict)
    digest: str | None = None
    details: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def of(cls, request: Request, **fields: Any) -> Manifest:
        """Manifest of ``request`` with the surroundings of this process filled in."""
        return cls(
            request=request,
            fingerprint=request.fingerprint(),
            command=command_line(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            python=platform.python_version(),
            platform=platform.platform(),
            packages=package_versions(),
            **fields,
        )

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Manifest of the artifact in ``folder``.

        Raises `ArtifactError` when there is none, or it is damaged, or a newer rdx wrote it.
        """
        path = folder / MANIFEST
        try:
            document = json.loads(path.read_text("utf-8"))
            manifest = cls.model_validate(document)
        except FileNotFoundError:
            raise ArtifactError(f"no artifact at {folder}", "`rdx list artifacts` shows what there is") from None
        except (ValueError, RecursionError, OSError) as error:  # ValidationError among them
            raise ArtifactError(
                f"the manifest {path} cannot be read: {str(error).splitlines()[0]}",
                "make the artifact again with --force",
            ) from None
        if manifest.schema_version > SCHEMA_VERSION:
            raise ArtifactError(
                f"{folder} was written by a newer rdx: schema {manifest.schema_version}, expected {SCHEMA_VERSION}",
                "upgrade rdx-vision",
            )
        if (manifest.digest is not None or manifest.hashes) and not is_intact(document):
            raise ArtifactError(
                f"the manifest {path} is not what rdx wrote: it was edited or damaged",
                "make the artifact again with --force",
            )
        return manifest

    def document(self) -> dict[str, Any]:
        """What is written to ``manifest.json``."""
        return sealed(self.model_dump(mode="json", exclude={"digest"}))


def command_line() -> str:
    """The command that is running, as a shell would take it, without the passwords in its addresses."""
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    return shlex.join(map(without_passwords, [program, *sys.argv[1:]]))


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that can change a number."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def fingerprint_json(value: Any) -> str:
    """SHA-256 of the canonical JSON form of ``value``."""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def fingerprint_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint_array(array: Any) -> str:
    """SHA-256 of an array's dtype, shape and values, whatever its memory layout; reads memory maps in blocks."""
    digest = hashlib.sha256(f"{array.dtype.str}{tuple(array.shape)}".encode())
    if array.dtype.kind in "OU":
        digest.update("\x1f".join(map(str, array.ravel())).encode())
        return digest.hexdigest()
    step = max(1, (1 << 24) // max(1, array.nbytes // max(1, len(array)))) if array.ndim else 1
    for start in range(0, len(array) if array.ndim else 1, step):
        block = array[start : start + step] if array.ndim else array
        digest.update(np.ascontiguousarray(block).data)
    return digest.hexdigest()


def _differences(theirs: Any, ours: Any, path: str = "") -> Any:
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        for key in sorted({*theirs, *ours}):
            yield from _differences(theirs.get(key), ours.get(key), f"{path}.{key}" if path else str(key))
    elif theirs != ours:
        yield f"{path}: {_short(theirs)} -> {_short(ours)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
