"""The outputs directory: layout, manifests, atomic writes, reuse, locks."""

from rdxcli.artifacts.layout import slug
from rdxcli.artifacts.manifest import (
    Manifest,
    Request,
    fingerprint_array,
    fingerprint_file,
    fingerprint_json,
)
from rdxcli.artifacts.store import (
    Artifact,
    Draft,
    abandon,
    check_reuse,
    complete,
    create,
    find_artifacts,
    join,
    resolve_artifact,
    set_wait,
    wait_time,
    write_json,
)

__all__ = [
    "Artifact",
    "Draft",
    "Manifest",
    "Request",
    "abandon",
    "check_reuse",
    "complete",
    "create",
    "find_artifacts",
    "fingerprint_array",
    "fingerprint_file",
    "fingerprint_json",
    "join",
    "resolve_artifact",
    "set_wait",
    "slug",
    "wait_time",
    "write_json",
]
