"""UMAP of values as an artifact of its own: whoever shows them again finds it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from rdxcli.artifacts import Request, create, fingerprint_array
from rdxcli.artifacts.layout import dataset_folder, slug
from rdxcli.numerics.seeding import integer_seed
from rdxcli.numerics.umap_axes import MIN_DIST, NEIGHBOURS, require_umap, umap_axes, umap_seconds
from rdxcli.progress import human_seconds, log, track


def umap_map(
    values: np.ndarray, ids: Sequence[str], outputs: Path, dataset: str, name: str, seed: int = 0
) -> np.ndarray:
    """Where UMAP places the rows: (n, 2) float32, made once for the same values and version of the library.

    Raises `DependencyError` (the extra ``umap`` is not installed).

    Parameters
    ----------
    values : (n, d) float
    dataset : str
        The map goes to its folder.
    name : str
        Of the values, for people and for the folder.
    """
    require_umap()
    request = Request(
        kind="map",
        parameters={
            "method": "umap",
            "neighbours": NEIGHBOURS,
            "min_dist": MIN_DIST,
            "library": metadata.version("umap-learn"),
        },
        inputs={"values": fingerprint_array(np.asarray(values)), "ids": fingerprint_array(np.asarray(ids, np.str_))},
        seed=seed,
    )
    folder = dataset_folder(outputs, dataset) / "maps" / f"{slug(name)}-umap-{request.fingerprint()[:8]}"
    with create(folder, request) as draft:
        if not draft.reused:
            n, d = values.shape
            about = human_seconds(umap_seconds(n))
            log.info("UMAP of %s: %s rows of %s take about %s", name, f"{n:,}", d, about)
            with track(f"UMAP of {name}", None, "maps"):
                points = umap_axes(np.asarray(values), integer_seed(seed, "map"))
            np.save(draft.path / "points.npy", points.astype(np.float32))
            draft.manifest.rows = n
    return np.load(folder / "points.npy", allow_pickle=False)
