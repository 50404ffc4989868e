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

import errno
import glob
import json
import math
import os
import shlex
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rdxcli.artifacts.contents import STAMPS, check_files, digest_files, is_intact, sealed, write_stamps
from rdxcli.artifacts.leases import WORKERS, Watch, say_workers
from rdxcli.artifacts.manifest import MANIFEST, Manifest, Request, command_line
from rdxcli.errors import ArtifactError, RdxError, did_you_mean
from rdxcli.progress import human_count, log

PARTIAL = ".partial"
PLAN = "plan.json"  # how work is cut into pieces; see `rdxcli.engines.shards`
_REQUEST = "request.json"
_RETIRED = ".retired"
DOCUMENTS = {
    "comparison": "concepts.json",
    "similarities": "similarities.json",
    "explanations": "explanations.json",
    "regions": "regions.json",
    "directions": "directions.json",
    "simulation": "summary.json",
    "surrogate": "surrogate.json",
    "attributions": "attributions.json",
    "encodings": "encodings.json",
    "captions": "captions.json",
}


@dataclass(frozen=True)
class Artifact:
    """A finished artifact on disk."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path | str, full: bool | None = None) -> Artifact:
        """The artifact in ``folder``; also accepts the path of one of its files.

        `full`: read every file and compare its hash (True), look at sizes only (False), or read what may have changed
        since it was last read (default). Raises `ArtifactError` when there is no finished artifact, or its files are
        not the ones that were written.
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
        check_files(path, manifest.files, manifest.hashes, manifest.digest, full)
        return cls(path, manifest)

    @property
    def kind(self) -> str:
        return self.manifest.request.kind

    def document(self) -> dict[str, Any]:
        """The artifact's JSON document (the one ``--json`` prints)."""
        name = DOCUMENTS.get(self.kind)
        if name is None:
            raise ArtifactError(f"{self.path} holds {self.kind}, which has no JSON document")
        try:
            return json.loads((self.path / name).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{self.path / name} cannot be read: {error}", "make it again with --force") from None


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
    _drop: list[str] = field(default_factory=lambda: [_REQUEST, WORKERS])
    _start: float = field(default_factory=time.monotonic)

    def discard_at_end(self, *names: str) -> None:
        """Remove these scratch files or folders of `path` before the artifact is put in place."""
        self._drop.extend(names)

    @property
    def result(self) -> Artifact:
        """The finished artifact."""
        if self.artifact is None:
            raise ArtifactError(f"{self.path} is not finished")
        return self.artifact


_waiting: dict[str, float] = {}


def set_wait(seconds: float) -> None:
    """How long commands of this process wait for others that make the same artifact; ``inf`` waits for ever."""
    _waiting["seconds"] = seconds


def wait_time(given: float | None = None, default: float = 600.0) -> float:
    """Seconds to wait for other processes: the given ones, else what `set_wait` said, else ``default``."""
    return _waiting.get("seconds", default) if given is None else given


@contextmanager
def create(
    folder: Path,
    request: Request,
    *,
    force: bool = False,
    resume: bool = False,
    wait_seconds: float | None = None,
) -> Iterator[Draft]:
    """Make the artifact of ``request`` in ``folder``, or find it there.

    Raises `ArtifactError` (another process holds the artifact; the folder holds something made with other parameters,
    finished or not (the message lists the differences); the place cannot be written to, or its disk is full).

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
    wait_seconds : float, optional
        How long to wait for another process that is making the same artifact; see `wait_time`.
    """
    folder = Path(folder)
    with _held(folder, wait_seconds):
        draft = _open(folder, request, force, resume)
        if draft.reused:
            yield draft
            return
        try:
            yield draft
            draft.artifact = _commit(draft, folder)
        except BaseException as error:
            trouble = disk_trouble(error, folder.parent) or _gone(error, draft.path)
            # what only lacks its name is placed by the next run
            if not (resume and has_work(draft.path)) and not (draft.path / MANIFEST).is_file():
                shutil.rmtree(draft.path, ignore_errors=True)
            if trouble is not None:
                raise trouble from None
            raise


def join(folder: Path, request: Request, *, force: bool = False, wait_seconds: float | None = None) -> Draft:
    """Begin the artifact of ``request`` in ``folder``, or join those who are making it, or find it there.

    Unlike `create` this lets go of the artifact at once: several processes work in `Draft.path` at the same time, under
    the leases of a `rdxcli.artifacts.leases.Worker`, and whoever sees that everything is there uses `complete`. Raises
    `ArtifactError` as for `create`.

    Parameters
    ----------
    folder, request, force, wait_seconds
        As for `create`. Work that others are doing right now is not thrown away, not even with ``force``.
    """
    folder = Path(folder)
    with _held(folder, wait_seconds):
        return _open(folder, request, force, resume=True)


@contextmanager
def complete(folder: Path, draft: Draft, *, wait_seconds: float | None = None) -> Iterator[Draft]:
    """Put together what was made under `join`, alone. When the context ends the artifact is put in place.

    Raises `ArtifactError` (the work is no longer there).

    Yields
    ------
    Draft
        The same; `Draft.reused` when another process was faster: then there is nothing to do.
    """
    folder = Path(folder)
    with _held(folder, wait_seconds):
        request = draft.manifest.request
        found = _ended(draft.path, folder, request)
        if found is not None or _stored_fingerprint(draft.path) != draft.manifest.fingerprint:
            found = found or check_reuse(folder, request)
            if found is None:
                raise _gone(FileNotFoundError(), draft.path) or ArtifactError(f"{draft.path} is not what it was")
            draft.path, draft.manifest, draft.artifact, draft.reused = found.path, found.manifest, found, True
            yield draft
            return
        try:
            yield draft
            draft.artifact = _commit(draft, folder)
        except BaseException as error:
            trouble = disk_trouble(error, folder.parent) or _gone(error, draft.path)
            if trouble is not None:
                raise trouble from None
            raise


def abandon(folder: Path, draft: Draft, worth: bool | None = None) -> None:
    """After a failure under `join`: remove the partial folder when nobody is at work in it and nothing in it is worth
    keeping (by default: when there is nothing in it).
    """
    with suppress(ArtifactError), _held(Path(folder), 0.0):
        keep = has_work(draft.path) if worth is None else worth
        if not draft.reused and not keep and not Watch().living(draft.path):
            shutil.rmtree(draft.path, ignore_errors=True)


def has_work(partial: Path) -> bool:
    """Whether a partial folder holds anything but what every run begins with and leaves behind when it is killed."""
    for path in partial.rglob("*"):
        inside = path.relative_to(partial)
        scratch = (
            path.suffix in (".tmp", ".lease", ".old") or path.name in (_REQUEST, PLAN) or path.name.startswith(".")
        )
        if inside.parts[0] != WORKERS and not scratch and path.is_file():
            return True
    return False


def check_reuse(folder: Path, request: Request) -> Artifact | None:
    """The finished artifact in ``folder`` if it was made from ``request``; None if there is none.

    Raises `ArtifactError` when it was made from another request, or is damaged.
    """
    if not (folder / MANIFEST).is_file():
        return None
    artifact = Artifact.open(folder)
    if artifact.manifest.fingerprint == request.fingerprint():
        return artifact
    changed = request.differences(artifact.manifest.request)
    raise ArtifactError(
        f"{folder} was made with other parameters or inputs{_told(changed)}",
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


def _open(folder: Path, request: Request, force: bool, resume: bool) -> Draft:
    """What `create` and `join` do once they hold the artifact."""
    _recover(folder)
    _refuse_foreign(folder)
    existing = None if force else check_reuse(folder, request)
    if existing is not None:
        log.info("reusing %s", folder)
        return Draft(existing.path, existing.manifest, reused=True, artifact=existing)
    partial = folder.with_name(folder.name + PARTIAL)
    existing = None if force else _ended(partial, folder, request)
    if existing is not None:
        return Draft(existing.path, existing.manifest, reused=True, artifact=existing)
    try:
        resumed = partial.is_dir() and _continues(partial, request, force, resume)
        if not resumed:
            if partial.is_dir():
                shutil.rmtree(partial)
            partial.mkdir()
            write_json(partial / _REQUEST, _opening(request, resume))
    except OSError as error:
        raise disk_trouble(error, folder.parent) or _unwritable(folder.parent, error) from None
    if resumed and has_work(partial):
        log.info("continuing the interrupted run in %s", partial)
    return Draft(partial, Manifest.of(request), resumed=resumed)


def unfinished_state(partial: Path) -> str:
    """Who works on what lies in a partial folder, or who began it, for people."""
    working = Watch().living(partial)
    if working:
        return f"worked on by {say_workers(working)}"
    begun = (_stored(partial) or {}).get("begun")
    return f"begun by {say_workers([begun])}" if isinstance(begun, dict) else "of unknown origin"


def _opening(request: Request, resume: bool) -> dict[str, Any]:
    return sealed(
        {
            "fingerprint": request.fingerprint(),
            "request": request.normalised(),
            "kept": resume,
            "begun": {**_myself(), "time": datetime.now(UTC).isoformat(timespec="seconds")},
        }
    )


def _continues(partial: Path, request: Request, force: bool, resume: bool) -> bool:
    """Whether the work in a partial folder is to be continued (True) or may be thrown away (False).

    Raises `ArtifactError` (it is somebody else's).
    """
    stored = _stored(partial)
    same = resume and stored is not None and stored.get("fingerprint") == request.fingerprint()
    if same and not force:
        return True
    working = Watch().living(partial)
    if working and (force or not same):
        what = "is being made" if same else "is being made from another request"
        raise ArtifactError(
            f"{partial} {what}, by {say_workers(working)}{_listing(stored, request)}",
            "wait for it to end or stop it, or give this one another name with --run NAME",
        )
    if force or not has_work(partial) or (stored is not None and not stored.get("kept", True)):
        return False
    if stored is None:
        raise ArtifactError(
            f"{partial} holds unfinished work, and what it belongs to cannot be read from {_REQUEST}",
            "throw it away with --force, or give this one another name with --run NAME",
        )
    raise ArtifactError(
        f"{partial} holds the unfinished work of another request, {unfinished_state(partial)}"
        f"{_listing(stored, request)}",
        "finish it with its own command, give this one another name with --run NAME, or throw it away with --force",
    )


def _listing(stored: dict[str, Any] | None, request: Request) -> str:
    """What differs, in lines of their own."""
    try:
        theirs = Request.model_validate((stored or {})["request"])
    except (KeyError, ValueError):
        return ""
    return _told(request.differences(theirs))


def _told(changed: list[str]) -> str:
    if not changed:
        return ""
    more = f"\n  and {len(changed) - 12} more" if len(changed) > 12 else ""
    listing = "\n".join(f"  {line}" for line in changed[:12])
    return f" (stored -> asked for):\n{listing}{more}"


def _commit(draft: Draft, folder: Path) -> Artifact:
    scratch = {*draft._drop, STAMPS}
    names = sorted(
        path.relative_to(draft.path).as_posix()
        for path in draft.path.rglob("*")
        if path.is_file() and path.suffix != ".tmp" and path.relative_to(draft.path).parts[0] not in scratch
    )
    for name in names:
        _flush(draft.path / name)
    manifest = draft.manifest
    manifest.seconds = round(time.monotonic() - draft._start, 3)
    manifest.files = {name: (draft.path / name).stat().st_size for name in names}
    manifest.hashes = digest_files(draft.path, names)
    document = manifest.document()
    manifest.digest = document["digest"]
    write_json(draft.path / MANIFEST, document)
    write_stamps(draft.path, names, manifest.digest)
    return _place(draft.path, folder, manifest)


def _place(partial: Path, folder: Path, manifest: Manifest) -> Artifact:
    """Give a complete partial folder its final name. What cuts this short is made up for by `_ended`."""
    keep = {Path(name).parts[0] for name in manifest.files} | {MANIFEST, STAMPS, _REQUEST}
    for path in partial.iterdir():
        if path.name not in keep:
            _drop(path)
    _drop(partial / _REQUEST)
    retired = folder.with_name(folder.name + _RETIRED)
    shutil.rmtree(retired, ignore_errors=True)
    try:
        if folder.exists():
            os.rename(folder, retired)
        os.rename(partial, folder)
    except PermissionError as error:  # Windows renames no folder of which a file is open or mapped
        _recover(folder)
        raise ArtifactError(
            f"{folder} cannot be replaced: {error.strerror or error}; another program may have its files open",
            "close what reads it and run the same command again: the new one is finished and only lacks its place",
        ) from None
    _flush(folder.parent)
    shutil.rmtree(retired, ignore_errors=True)
    return Artifact(folder, manifest)


def _ended(partial: Path, folder: Path, request: Request) -> Artifact | None:
    """Place a partial folder that only lacks its final name: a process died after its work and before the rename."""
    if not (partial / MANIFEST).is_file():
        return None
    try:
        manifest = Artifact.open(partial).manifest
    except ArtifactError:
        return None
    return _place(partial, folder, manifest) if manifest.fingerprint == request.fingerprint() else None


def _drop(target: Path) -> None:
    """Remove scratch; a process that was thought dead may still write into it."""
    if not target.is_dir():
        target.unlink(missing_ok=True)
        return
    shutil.rmtree(target, ignore_errors=True)
    if target.exists():
        shutil.rmtree(target)


def _stored(partial: Path) -> dict[str, Any] | None:
    """What stands in the request file of a partial folder; None when it cannot be trusted."""
    try:
        document = json.loads((partial / _REQUEST).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) and is_intact(document) else None


def _stored_fingerprint(partial: Path) -> str | None:
    return (_stored(partial) or {}).get("fingerprint")


@contextmanager
def _held(folder: Path, wait_seconds: float | None) -> Iterator[None]:
    """Hold the artifact alone."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder.parent, error) from None
    seconds = wait_time(wait_seconds)
    holder = folder.with_name(f".{folder.name}.holder")
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if seconds > 0:
                log.warning("waiting for %s, which makes %s", _holder(holder), folder)
            lock.acquire(timeout=-1 if math.isinf(seconds) else seconds)
    except Timeout:
        raise ArtifactError(
            f"{folder} is being made by {_holder(holder)}",
            "wait for it to end (--wait SECONDS or forever), or choose another name with --run",
        ) from None
    except OSError as error:
        raise _unwritable(folder.parent, error) from None
    try:
        for left in holder.parent.glob(f"{glob.escape(holder.name)}.*.tmp"):  # by one that died with the lock
            with suppress(OSError):
                left.unlink()
        try:
            write_json(holder, _myself())
        except OSError as error:
            raise disk_trouble(error, folder.parent) or _unwritable(folder.parent, error) from None
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()


def _myself() -> dict[str, Any]:
    return {"process": os.getpid(), "host": socket.gethostname(), "command": command_line()}


def _holder(path: Path) -> str:
    try:
        entry = json.loads(path.read_text("utf-8"))
        return f"process {entry['process']} on {entry['host']} (`{entry['command']}`)"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


_FULL = {errno.ENOSPC, errno.EDQUOT}
_MISSING_WORDS = ("no such file or directory", "os error 2)")
_FULL_WORDS = ("no space left on device", "disk quota exceeded", "os error 28", "os error 122")


def disk_trouble(error: BaseException, folder: Path) -> ArtifactError | None:
    """What to say when ``error`` means that the disk of ``folder`` is full or was made read-only; else None.

    Libraries that write files wrap such errors into exceptions of their own, whose text is all that is left.
    """
    number = error.errno if isinstance(error, OSError) else None
    text = str(error).lower()
    if number in _FULL or (not isinstance(error, RdxError) and any(words in text for words in _FULL_WORDS)):
        return ArtifactError(
            f"cannot write to {folder}: no space left on the disk",
            "free some space and run the same command again, or choose another place with --outputs or RDX_OUTPUTS",
        )
    if number == errno.EROFS:
        return _unwritable(folder, OSError(number, "the disk is read-only"))
    return None


def _gone(error: BaseException, partial: Path) -> ArtifactError | None:
    """What to say when ``error`` came because somebody removed the folder that was written into; else None."""
    if isinstance(error, RdxError) or not isinstance(error, Exception):
        return None
    # a folder goes file by file, and itself last
    within = any(str(place) in str(error) for place in (partial, partial.resolve()))
    if partial.exists() and not (within and any(words in str(error).lower() for words in _MISSING_WORDS)):
        return None
    return ArtifactError(f"{partial} has gone: somebody removed it", "run the same command again")


def _unwritable(folder: Path, error: OSError) -> ArtifactError:
    reason = error.strerror or str(error)
    if isinstance(error, NotADirectoryError | FileExistsError):
        file = next((place for place in (folder, *folder.parents) if place.exists() and not place.is_dir()), None)
        reason = reason if file is None else f"{file} is a file, expected a folder"
    return ArtifactError(f"cannot write to {folder}: {reason}", "choose another place with --outputs or RDX_OUTPUTS")


def _flush(path: Path) -> None:
    # folders cannot be opened or flushed on every system, and some flush no descriptor that may not write
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, document: Any, indent: int | None = 2) -> None:
    """Write ``document`` as UTF-8 JSON, atomically: a sibling file is renamed over ``path``.

    Bytes of a file name that are no UTF-8 are written as JSON writes them and come back as they were.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", errors="backslashreplace") as stream:
            json.dump(document, stream, indent=indent, ensure_ascii=False, allow_nan=False)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def look_through(outputs: Path) -> tuple[list[Path], list[Path], list[dict[str, str]]]:
    """Folders of finished and of unfinished artifacts below ``outputs``, and the folders that cannot be looked into."""
    folders: list[Path] = []
    partials: list[Path] = []
    refused: list[dict[str, str]] = []

    def note(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # not there yet, or removed just now
            where = str(error.filename)
            problem = f"{where} cannot be read: {error.strerror or error}"
            repair = f"chmod -R u+rwX {shlex.quote(where)}   # or ask whoever owns it"
            if isinstance(error, NotADirectoryError):
                repair = "export RDX_OUTPUTS=FOLDER"
            refused.append({"artifact": where, "problem": problem, "repair": repair})

    for place, inside, files in os.walk(outputs, onerror=note):
        if MANIFEST in files:
            folders.append(Path(place))
        partials.extend(Path(place) / name for name in inside if name.endswith(PARTIAL))
        inside[:] = [name for name in inside if not name.endswith((PARTIAL, _RETIRED))]
    return sorted(folders), sorted(partials), refused


def find_artifacts(root: Path, kind: str | None = None) -> list[Artifact]:
    """Every finished artifact below ``root``, oldest first; damaged ones are logged and left out."""
    found = []
    folders, _, refused = look_through(root)
    for entry in refused:
        log.warning("%s", entry["problem"])
    for folder in folders:
        try:
            artifact = Artifact.open(folder, full=False)
        except ArtifactError as error:
            log.warning("%s", error.message)
            continue
        if kind is None or artifact.kind == kind:
            found.append(artifact)
    return sorted(found, key=lambda artifact: artifact.manifest.created)


def resolve_artifact(text: str, root: Path, kind: str | None = None) -> Artifact:
    """The artifact that ``text`` names: a path, a path below ``root``, or the end of exactly one such path.

    Raises `ArtifactError` when nothing, or more than one artifact, fits, or what fits is of another kind.
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
        raise ArtifactError(f"`{text}` fits {human_count(len(fitting), 'artifact')}: {names}", "give more of the path")
    known = [a.path.relative_to(root).as_posix() for a in find_artifacts(root, kind)]
    hint = did_you_mean(text, known, "`rdx list artifacts` shows what there is")
    file = f", and no file {text}" if Path(text).suffix else ""
    raise ArtifactError(f"no artifact `{text}` in {root}{file}", hint)
