"""Atomic, resumable, locked writing of artifact folders, and their reuse.

The life of an artifact::

    request = Request(kind="comparison", parameters=..., inputs=..., seed=0)
    with create(folder, request, force=False) as draft:
        if not draft.reused:
            np.save(draft.path / "arrays.npy", ...)     # a sibling folder `<name>.partial`
            draft.manifest.rows = n
    draft.artifact                                       # renamed into place, manifest written last

The lock is held from before the check for reuse until after the rename, so two processes that want the same artifact
make it once. A reader sees the old folder or the new one, never a mixture.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rdxcli.artifacts.manifest import MANIFEST, Manifest, Request, command_line
from rdxcli.errors import ArtifactError
from rdxcli.progress import log

PARTIAL = ".partial"
_REQUEST = "request.json"
_RETIRED = ".retired"
DOCUMENTS = {
    "comparison": "concepts.json",
    "explanations": "explanations.json",
    "regions": "regions.json",
    "directions": "directions.json",
    "simulation": "summary.json",
    "surrogate": "surrogate.json",
    "attributions": "attributions.json",
}


@dataclass(frozen=True)
class Artifact:
    """A finished artifact on disk."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path | str) -> Artifact:
        """The artifact in ``folder``; also accepts the path of one of its files.

        Raises
        ------
        ArtifactError
            When there is no finished artifact, or files that the manifest lists are missing or have another size.
        """
        path = Path(folder)
        if path.is_file():
            path = path.parent
        if not path.name:  # "." or "/"
            path = path.resolve()
        partial = path.parent / (path.name + PARTIAL)
        if not (path / MANIFEST).is_file() and partial.is_dir():
            raise ArtifactError(
                f"{path} is not finished", "run the command that makes it again: it continues where it stopped"
            )
        manifest = Manifest.read(path)
        for name, size in manifest.files.items():
            file = path / name
            if not file.is_file() or file.stat().st_size != size:
                raise ArtifactError(
                    f"{file} is missing or damaged (expected {size} bytes)", "make the artifact again with --force"
                )
        return cls(path, manifest)

    @property
    def kind(self) -> str:
        return self.manifest.request.kind

    def document(self) -> dict[str, Any]:
        """The artifact's JSON document (the one ``--json`` prints)."""
        name = DOCUMENTS.get(self.kind)
        if name is None:
            raise ArtifactError(f"{self.path} holds {self.kind}, which has no JSON document")
        return json.loads((self.path / name).read_text("utf-8"))


@dataclass
class Draft:
    """An artifact that is being made.

    Attributes
    ----------
    path : Path
        Folder to write into. When `reused` is true it is the finished artifact and must not be written to.
    reused : bool
        The artifact existed already, made from the same request.
    resumed : bool
        `path` holds work of an interrupted run of the same request.
    manifest : Manifest
        Fill in ``rows``, ``device`` and ``details`` before the context ends.
    artifact : Artifact
        Set when the context has ended without an error.
    """

    path: Path
    manifest: Manifest
    reused: bool = False
    resumed: bool = False
    artifact: Artifact | None = None
    _drop: list[str] = field(default_factory=list)

    def discard_at_end(self, *names: str) -> None:
        """Remove these scratch files or folders of `path` before the artifact is put in place."""
        self._drop.extend(names)

    @property
    def result(self) -> Artifact:
        """The finished artifact."""
        if self.artifact is None:
            raise ArtifactError(f"{self.path} is not finished")
        return self.artifact


@contextmanager
def create(
    folder: Path,
    request: Request,
    *,
    force: bool = False,
    resume: bool = False,
    wait_seconds: float = 600.0,
) -> Iterator[Draft]:
    """Make the artifact of ``request`` in ``folder``, or find it there.

    Parameters
    ----------
    folder : Path
        Final place.
    request : Request
        What it is made from.
    force : bool
        Make it again and replace what is there; an interrupted run is thrown away too.
    resume : bool
        Keep the partial folder when the body raises, and continue in it next time. Without this a failed body leaves
        nothing behind.
    wait_seconds : float
        How long to wait for another process that is making the same artifact.

    Yields
    ------
    Draft

    Raises
    ------
    ArtifactError
        Another process holds the artifact; the folder holds something made with other parameters (the message lists the
        differences); the place cannot be written to.
    """
    folder = Path(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder.parent, error) from None
    with _lock(folder, wait_seconds):
        _recover(folder)
        _refuse_foreign(folder)
        existing = None if force else check_reuse(folder, request)
        if existing is not None:
            log.info("reusing %s", folder)
            yield Draft(existing.path, existing.manifest, reused=True, artifact=existing)
            return
        draft = _begin(folder, request, resume=resume and not force)
        start = time.monotonic()
        try:
            yield draft
        except BaseException:
            if not resume:
                shutil.rmtree(draft.path, ignore_errors=True)
            raise
        draft.manifest.seconds = round(time.monotonic() - start, 3)
        draft.artifact = _commit(draft, folder)


def check_reuse(folder: Path, request: Request) -> Artifact | None:
    """The finished artifact in ``folder`` if it was made from ``request``; None if there is none.

    Raises
    ------
    ArtifactError
        When it was made from another request, or is damaged.
    """
    if not (folder / MANIFEST).is_file():
        return None
    artifact = Artifact.open(folder)
    if artifact.manifest.fingerprint == request.fingerprint():
        return artifact
    changed = request.differences(artifact.manifest.request)
    listing = "\n".join(f"  {line}" for line in changed[:12])
    more = f"\n  and {len(changed) - 12} more" if len(changed) > 12 else ""
    raise ArtifactError(
        f"{folder} was made with other parameters or inputs (stored -> asked for):\n{listing}{more}",
        "give this one another name with --run NAME, or replace it with --force",
    )


def _recover(folder: Path) -> None:
    """Put the old artifact back when a process died between the two renames of `_commit`."""
    retired = folder.with_name(folder.name + _RETIRED)
    if retired.is_dir() and not folder.exists():
        os.rename(retired, folder)


def _refuse_foreign(folder: Path) -> None:
    """Never replace a folder that rdx did not make, not even with ``force``."""
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(
            f"{folder} exists and is not an artifact of rdx", "choose another place with --outputs or --run"
        )


def _begin(folder: Path, request: Request, resume: bool) -> Draft:
    partial = folder.with_name(folder.name + PARTIAL)
    resumed = False
    try:
        if partial.is_dir():
            resumed = resume and _stored_fingerprint(partial) == request.fingerprint()
            if not resumed:
                shutil.rmtree(partial)
        partial.mkdir(exist_ok=True)
        if not resumed:
            write_json(partial / _REQUEST, {"fingerprint": request.fingerprint(), "request": request.normalised()})
    except OSError as error:
        raise _unwritable(folder.parent, error) from None
    if resumed:
        log.info("continuing the interrupted run in %s", partial)
    return Draft(partial, Manifest.of(request), resumed=resumed)


def _commit(draft: Draft, folder: Path) -> Artifact:
    for name in [_REQUEST, *draft._drop]:
        target = draft.path / name
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
    files = sorted(path for path in draft.path.rglob("*") if path.is_file())
    draft.manifest.files = {path.relative_to(draft.path).as_posix(): path.stat().st_size for path in files}
    for path in files:
        _flush(path)
    write_json(draft.path / MANIFEST, draft.manifest.model_dump(mode="json"))
    retired = folder.with_name(folder.name + _RETIRED)
    shutil.rmtree(retired, ignore_errors=True)
    if folder.exists():
        os.rename(folder, retired)
    os.rename(draft.path, folder)
    _flush(folder.parent)
    shutil.rmtree(retired, ignore_errors=True)
    return Artifact(folder, draft.manifest)


def _stored_fingerprint(partial: Path) -> str | None:
    try:
        return json.loads((partial / _REQUEST).read_text("utf-8"))["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _lock(folder: Path, wait_seconds: float) -> Iterator[None]:
    path = folder.with_name(f".{folder.name}.lock")
    holder = folder.with_name(f".{folder.name}.holder")
    lock = FileLock(path)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("waiting for %s, which makes %s", _holder(holder), folder)
            lock.acquire(timeout=wait_seconds)
    except Timeout:
        raise ArtifactError(
            f"{folder} is being made by {_holder(holder)}", "wait for it to end, or choose another name with --run"
        ) from None
    except OSError as error:
        raise _unwritable(folder.parent, error) from None
    try:
        write_json(holder, {"process": os.getpid(), "host": socket.gethostname(), "command": command_line()})
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _holder(path: Path) -> str:
    try:
        entry = json.loads(path.read_text("utf-8"))
        return f"process {entry['process']} on {entry['host']} (`{entry['command']}`)"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _unwritable(folder: Path, error: OSError) -> ArtifactError:
    reason = error.strerror or str(error)
    return ArtifactError(f"cannot write to {folder}: {reason}", "choose another place with --outputs or RDX_OUTPUTS")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # folders cannot be flushed on every system
        pass
    finally:
        os.close(descriptor)


def write_json(path: Path, document: Any) -> None:
    """Write ``document`` as UTF-8 JSON, atomically: a sibling file is renamed over ``path``."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with open(temporary, "w", encoding="utf-8") as stream:
        json.dump(document, stream, indent=2, ensure_ascii=False, allow_nan=False)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def find_artifacts(root: Path, kind: str | None = None) -> list[Artifact]:
    """Every finished artifact below ``root``, oldest first; damaged ones are logged and left out."""
    found = []
    for path in sorted(root.rglob(MANIFEST)) if root.is_dir() else []:
        if any(part.endswith((PARTIAL, _RETIRED)) for part in path.relative_to(root).parts):
            continue
        try:
            artifact = Artifact.open(path.parent)
        except ArtifactError as error:
            log.warning("%s", error.message)
            continue
        if kind is None or artifact.kind == kind:
            found.append(artifact)
    return sorted(found, key=lambda artifact: artifact.manifest.created)


def resolve_artifact(text: str, root: Path, kind: str | None = None) -> Artifact:
    """The artifact that ``text`` names: a path, a path below ``root``, or the end of exactly one such path.

    Raises
    ------
    ArtifactError
        When nothing, or more than one artifact, fits, or what fits is of another kind.
    """
    for candidate in (Path(text), root / text):
        if candidate.exists():
            found = Artifact.open(candidate)
            if kind is not None and found.kind != kind:
                raise ArtifactError(
                    f"{found.path} holds {found.kind}, expected {kind}", "`rdx list artifacts` shows what there is"
                )
            return found
    fitting = [a for a in find_artifacts(root, kind) if f"/{a.path.relative_to(root).as_posix()}".endswith(f"/{text}")]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(a.path.relative_to(root).as_posix() for a in fitting[:4])
        raise ArtifactError(f"`{text}` fits {len(fitting)} artifacts: {names}", "give more of the path")
    from rdxcli.errors import near_matches

    known = [a.path.relative_to(root).as_posix() for a in find_artifacts(root, kind)]
    near = near_matches(text, known)
    hint = (
        f"did you mean {' or '.join(f'`{n}`' for n in near)}?" if near else "`rdx list artifacts` shows what there is"
    )
    raise ArtifactError(f"no artifact `{text}` in {root}", hint)
