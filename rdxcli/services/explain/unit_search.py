"""``rdx explain --method find-units``: which units of a layer respond to a word, a class or an image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rdxcli.artifacts import Draft, fingerprint_array
from rdxcli.concepts.explanations import TABLE
from rdxcli.concepts.gather import gather
from rdxcli.concepts.image_text import embeddings_of
from rdxcli.concepts.labels import Concepts
from rdxcli.concepts.options import check_files
from rdxcli.concepts.scorer import EMBEDDINGS, missing_downloads, open_scorer, wanted, with_downloads
from rdxcli.errors import InputError, MissingDataError, UnknownNameError, UsageError
from rdxcli.methods.neurons.concepts import LazyCosines
from rdxcli.methods.neurons.search import UnitSearch
from rdxcli.methods.neurons.tables import Explanation, ExplanationTable, format_table
from rdxcli.numerics.moments import read_columns
from rdxcli.parameters import Parameter, by_name, estimator_parameters
from rdxcli.progress import human_count
from rdxcli.records import NeuronExplanations, Representation
from rdxcli.representations.layer import representation
from rdxcli.representations.unit_pictures import add_masks, strongest
from rdxcli.services.explain.base import ExplainAnalysis
from rdxcli.services.explain.neurons import CHANCE_STATUS, result, unit_entries
from rdxcli.services.explain.options import ExplainOptions

OWN = by_name(
    Parameter("query", str | None, None, "Word or class that units are searched for."),
    Parameter("template", str, "{}", "Sentence around the word."),
)


class SearchAnalysis(ExplainAnalysis):
    """Units of a layer by how they respond to one query, the strongest response first."""

    kind = "explanations"
    version = "1"

    def check(self) -> Mapping[str, Any]:
        options = self.options
        check_files(options.method, options.files, ("image", *sorted(EMBEDDINGS)))
        given, own = estimator_parameters(options.method, UnitSearch, options.parameters, OWN)
        if (own["query"] is None) == ("image" not in options.files):
            raise UsageError("what are units searched for?", "give --param query=WORD, or --file image=FILE with --vlm")
        if "image" in options.files:
            if wanted(options) is None:
                raise UsageError("--file image= needs a model that compares images", "give --vlm NAME")
            _opened(options.files["image"])
        self.estimator = UnitSearch(**given, random_state=options.seed)
        kept = {name: value for name, value in self.estimator.get_params().items() if name != "random_state"}
        return {"method": options.method, **kept, **own}

    def gather(self) -> Mapping[str, Any]:
        options = self.options
        try:
            source = representation(options)
            concepts = _query(options, source, self.settings["query"])
        except MissingDataError as error:
            raise with_downloads(error, options) from None
        return {"representation": source, "concepts": concepts}

    def compute(self, draft: Draft) -> NeuronExplanations:
        source, concepts = self.source, self.records["concepts"]
        column = read_columns(concepts.values, np.arange(source.n), np.array([0]), "concepts")[:, 0]
        found = self.estimator.fit(column, source.values)
        chance, rows = found.chance_, []
        for unit in found.order_.tolist():
            known = bool(np.isfinite(found.scores_[unit]))
            status = "explained" if chance.better[unit] else CHANCE_STATUS if known else "constant"
            words = (concepts.names[0],) if known else ()
            row = Explanation(unit, words, (1.0,) * len(words), 0.0, source.layer or "", {}, status)
            rows.append(
                row.with_scores(
                    test_correlation=found.scores_[unit],
                    test_low=found.interval_.low[unit],
                    test_high=found.interval_.high[unit],
                    auc=found.auc_[unit],
                    chance=chance.high[unit],
                    p_value=chance.p_values[unit],
                    q_value=chance.adjusted[unit],
                )
            )
        table = ExplanationTable("description", tuple(rows), 1)
        pictures = {row.unit: strongest(source, row.unit) for row in rows}
        entries = unit_entries(table, source, self.options.seed, pictures)
        add_masks(entries, self.options, source)
        (draft.path / TABLE).write_text(format_table(table), "utf-8")
        draft.manifest.rows = len(rows)
        said = (
            f"{int(chance.better.sum())} of {human_count(len(rows), 'unit')} respond to "
            f"`{concepts.names[0]}` more than chance; "
            "nothing was fitted, so `test correlation` is over all images"
        )
        return result(self, table, entries, [*concepts.notes, said])

    def cost(self) -> Mapping[str, Any]:
        return {**self.read, "missing": missing_downloads(self.options) or self.read.get("missing") or "nothing"}

    def sizes(self) -> Mapping[str, float]:
        return {**super().sizes(), "c": 1}


def _query(options: ExplainOptions, source: Representation, query: str | None) -> Concepts:
    """One column: how much each image shows what is asked for."""
    scorer = open_scorer(options, [query or "an image"])
    if query is None:
        assert scorer is not None  # checked first
        picture = _opened(options.files["image"])
        images, fingerprint = embeddings_of(source, scorer.model, options.selection, options.outputs)
        wanted_image = scorer.model.encode_images([picture])
        prints = {"model": scorer.model.name, "weights": scorer.model.weights_sha256, "images": fingerprint}
        name = Path(options.files["image"]).name
        return Concepts(
            LazyCosines(images, wanted_image), [name], {**prints, "image": fingerprint_array(wanted_image)}, []
        )
    concepts = gather(options, source, labels=True, scorer=scorer)
    if scorer is not None:
        return concepts
    if query not in concepts.names:
        raise UnknownNameError("concept", query, concepts.names)
    column = concepts.names.index(query)
    values = read_columns(concepts.values, np.arange(source.n), np.array([column]), "concepts")
    return Concepts(values, [query], {**concepts.source, "column": column}, concepts.notes)


def _opened(path: str) -> Image.Image:
    try:
        with Image.open(Path(path).expanduser()) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise MissingDataError(f"no such image: {path}") from None
    except OSError as error:
        raise InputError(f"cannot read the image {path}: {error}") from None


ANALYSIS = SearchAnalysis
