"""Counts of concepts of some images in a file, so that an interrupted ``rdx encode-concepts`` goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rdxcli.progress import log

if TYPE_CHECKING:
    from rdxcli.methods.surrogate.vocabulary import ConceptCounts


def save_counts(path: Path, counts: ConceptCounts) -> None:
    """Write counts in one step: a reader sees the whole file or none."""
    import numpy as np

    names = json.dumps([list(counts.ids), [list(concept) for concept in counts.concepts]], ensure_ascii=False)
    fresh = path.with_suffix(".writing")
    with open(fresh, "wb") as stream:
        np.savez(
            stream,
            indptr=counts.matrix.indptr,
            indices=counts.matrix.indices,
            data=counts.matrix.data,
            num_captions=counts.num_captions,
            names=np.frombuffer(names.encode(), np.uint8),
        )
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(fresh, path)


def load_counts(path: Path) -> ConceptCounts | None:
    """What `save_counts` wrote; None when it is not there or cannot be read."""
    import zipfile

    import numpy as np
    from scipy.sparse import csr_array

    from rdxcli.methods.surrogate.extraction import Concept
    from rdxcli.methods.surrogate.vocabulary import ConceptCounts

    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            ids, concepts = json.loads(file["names"].tobytes())
            shape = (len(ids), len(concepts))
            matrix = csr_array((file["data"], file["indices"], file["indptr"]), shape=shape)
            return ConceptCounts(ids, [Concept(*concept) for concept in concepts], matrix, file["num_captions"])
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        log.warning("%s is damaged and made again: %s", path, error)
        return None
