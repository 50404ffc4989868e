"""Whether what lies in the outputs directory is what was written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rdxcli.artifacts.manifest import Manifest
from rdxcli.artifacts.store import Artifact, look_through, unfinished_state
from rdxcli.errors import ArtifactError
from rdxcli.progress import track


@dataclass(frozen=True)
class Verified:
    """What `verify` found.

    Attributes
    ----------
    intact : int
        Artifacts of which every file is what was written.
    without_hashes : list of str
        Artifacts of older versions: only the sizes of their files could be compared.
    damaged : list of mapping
        ``artifact``, ``problem`` and ``repair``: the command that makes it again, where its manifest still tells.
    unfinished : list of mapping
        ``artifact`` and who began it or works on it.
    """

    intact: int
    without_hashes: list[str]
    damaged: list[dict[str, str]]
    unfinished: list[dict[str, str]]

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"intact": self.intact, **{name: getattr(self, name) for name in list(vars(self))[1:]}}


def verify(outputs: Path) -> Verified:
    """Read every file of every artifact below ``outputs`` and compare it with its hash."""
    folders, partials, refused = look_through(outputs)
    found = Verified(0, [], refused, [])
    intact = 0
    with track("verify", len(folders), "artifacts") as advance:
        for folder in folders:
            try:
                manifest = Artifact.open(folder, full=True).manifest
            except (ArtifactError, OSError) as error:
                problem = error.message if isinstance(error, ArtifactError) else f"{folder} cannot be read: {error}"
                found.damaged.append({"artifact": folder.as_posix(), "problem": problem, "repair": _repair(folder)})
            else:
                if manifest.hashes or not manifest.files:
                    intact += 1
                else:
                    found.without_hashes.append(folder.as_posix())
            advance(1)
    found.unfinished.extend({"artifact": path.as_posix(), "state": unfinished_state(path)} for path in partials)
    return replace(found, intact=intact)


def _repair(folder: Path) -> str:
    """The command that made an artifact, with ``--force``."""
    try:
        made_by = Manifest.read(folder).command
    except ArtifactError:
        made_by = ""
    if not made_by.startswith("rdx "):
        return "make it again with --force"
    return made_by if " --force" in made_by else f"{made_by} --force"
