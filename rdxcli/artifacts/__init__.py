"""The outputs directory: layout, manifests, atomic writes, reuse, locks."""

from rdxcli.artifacts.layout import outputs_root, slug
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
    check_reuse,
    create,
    find_artifacts,
    resolve_artifact,
    write_json,
)

__all__ = [
    "Artifact",
    "Draft",
    "Manifest",
    "Request",
    "check_reuse",
    "create",
    "find_artifacts",
    "fingerprint_array",
    "fingerprint_file",
    "fingerprint_json",
    "outputs_root",
    "resolve_artifact",
    "slug",
    "write_json",
]
