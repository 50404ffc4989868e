"""``rdx explain --method eddp | uibe | sae | pca | nmf | ica | kmeans | natural``: directions of a layer."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from rdxcli.artifacts import Artifact, Draft, write_json
from rdxcli.concepts import direction_record as record
from rdxcli.concepts import given_images
from rdxcli.concepts.labels import named_classes
from rdxcli.concepts.predictions import target_rows
from rdxcli.errors import ArtifactError, InputError, RdxError, UsageError
from rdxcli.methods.dictionaries.sae import SparseAutoencoder
from rdxcli.methods.directions.base import Directions
from rdxcli.methods.directions.health import stability
from rdxcli.methods.directions.number import how_many
from rdxcli.methods.directions.synthetic import generate, named
from rdxcli.methods.directions.tcav import FEWEST
from rdxcli.methods.directions.uibe import search_work
from rdxcli.methods.registry import get
from rdxcli.models import load
from rdxcli.models.dictionaries import read_dictionary
from rdxcli.parameters import Parameter, by_name, estimator_parameters
from rdxcli.progress import awaited, human_count, log
from rdxcli.records import DirectionExplanations, Representation, plain
from rdxcli.representations.crops import crop_features
from rdxcli.representations.heads import read_with_output, rest_of
from rdxcli.representations.layer import representation
from rdxcli.representations.units import BOUNDED, fitting_directions
from rdxcli.services.explain import steering
from rdxcli.services.explain.base import ExplainAnalysis
from rdxcli.services.explain.options import ExplainOptions
from rdxcli.services.explain.stored import check_layer, same_place, stored_artifact

SYNTHETIC = "synthetic:"
LEARNING = ("eddp", "uibe")
"""Methods that use the network above the layer to find directions."""

DICTIONARY = "dictionary"
"""``--file dictionary=FILE``: a sparse autoencoder that others learned, in place of learning one."""

STATE = "learning.safetensors"
"""Where learning a dictionary has got to; not part of the finished artifact."""

SEARCHING = ("uibe", "eddp")
"""Methods that search from random starts."""

MEMORY = 8 * 2**30
"""Bytes that responses of all directions at all positions may take."""

LEARNED = "learned.json"
"""Marks directions that were found before the rest of the work; not part of the finished artifact."""

OWN = by_name(
    Parameter("head", bool, True, "Use the network above the layer."),
    *steering.PARAMETERS,
    *record.PARAMETERS,
)


class DirectionAnalysis(ExplainAnalysis):
    """Directions of one layer: found, or stored ones applied; what they respond to, are called and move."""

    kind = "directions"
    version = "4"
    resumes = True
    parameters = OWN

    def check(self) -> Mapping[str, Any]:
        options, method = self.options, get("explain", self.options.method)
        self.steps = steering.parse(options.steer)
        given = dict(options.parameters)
        kind = method.load()
        estimator, self.own = estimator_parameters(method.name, kind, given, OWN, method.parameters)
        self.applied = None if options.apply is None else stored_artifact(options, "directions")
        settings: dict[str, Any] = {"method": options.method}
        if self.applied is not None:
            if set(given) - set(OWN):
                raise UsageError("--param and --num-directions are about finding directions, --apply takes stored ones")
            steering.check(self.steps, len(self.applied.document()["directions"]))
            self.options = _on_stored_features(options, self.applied)
        elif options.target is None and "rows" in inspect.signature(kind.fit).parameters:
            raise UsageError(
                f"`{method.name}` explains one class", "give --target class:NAME, predicted:NAME or the ids of images"
            )
        elif bool(options.concept_images) != ("concepts" in inspect.signature(kind.fit).parameters):
            raise _about_images(options)
        elif DICTIONARY in options.files:
            if options.method != "sae":
                raise UsageError("--file dictionary=FILE is a sparse autoencoder", "give --method sae")
            self.arrays, self.config = read_dictionary(options.files[DICTIONARY])
            if set(estimator) - {"k"}:
                raise UsageError(
                    "--param is about learning a dictionary, --file dictionary=FILE brings one", "leave it out"
                )
            settings |= {**self.config, **{name: estimator[name] for name in ("k",) if name in estimator}}
            self.k = estimator.get("k")
        else:
            self.estimator = kind(**estimator, **_reserved(kind, options))
            self.numbers = _numbers(self.own["numbers"], method.name, self.estimator, given)
            self.chosen = "n_directions" in given
            kept = self.estimator.get_params()
            settings |= {name: value for name, value in kept.items() if name not in ("random_state", "device")}
            shown = given_images.check(options.concept_images, options.random_images, FEWEST, options.selection.root)
            if shown:
                settings |= {"concept_images": list(options.concept_images), "random_images": options.random_images}
            if shown or isinstance(kept.get("n_directions"), int):
                steering.check(self.steps, len(shown) or kept["n_directions"])  # before minutes of learning
        if self.steps and not (_is_synthetic(self.options) or (self.own["head"] and self.options.model is not None)):
            raise UsageError("--steer needs the network above the layer", "give --model, and not --param head=false")
        return {**settings, **self.own, "steer": list(options.steer), "target": options.target}

    def gather(self) -> Mapping[str, Any]:
        options = self.options
        self.case = _case(options, self.own["head"], strict=bool(self.steps))
        source = self.case.source
        self.notes: list[str] = [] if self.applied is None else check_layer(self.applied, source)
        self.stored = None if self.applied is None else _stored(self.applied, source.d)
        if self.applied is None and DICTIONARY in options.files:
            try:
                self.stored = SparseAutoencoder.published(self.arrays, source.values, self.k, self.config)
            except ValueError as error:
                raise InputError(f"{options.files[DICTIONARY]}: {error}") from None
        if self.stored is None and self.numbers is None and options.method in BOUNDED:
            fitted = fitting_directions(self.estimator.get_params()["n_directions"], self.chosen, source)
            self.estimator.set_params(n_directions=fitted)
            self.settings = {**self.settings, "n_directions": fitted}
        self._refuse_too_much(source)
        self.shown = None
        if options.concept_images and self.applied is None:
            self.shown = given_images.read(
                options.concept_images,
                options.random_images,
                source,
                model=options.model,
                pool=options.unpooled,
                seed=options.seed,
                root=options.selection.root,
                outputs=options.outputs,
                device=options.device,
            )
        self.rows = None if options.target is None else target_rows(options, options.target, source)
        self.names = record.open_names(options, source)
        self.classes = self.case.outputs(options)
        return {
            "representation": source,
            "head": self.case.head is not None,
            "directions": self.applied,
            "targets": self.rows,
            "classes": self.classes,
            "names": self.names.identity(),
            **({} if self.shown is None else {"images of concepts": self.shown}),
        }

    def folder(self) -> Path:
        folder = super().folder()
        if self.applied is not None and folder.resolve() == self.applied.path.resolve():
            raise UsageError(
                f"this would replace the directions in {folder}", "give the result another name with --run NAME"
            )
        return folder

    def compute(self, draft: Draft) -> DirectionExplanations:
        features = np.array(self.source.values, dtype=np.float32)  # a copy: networks write into what they are given
        directions, extra = self._directions(draft, features)
        steering.check(self.steps, len(directions.bias_))
        view = record.View(self.options, self.case, self.names, self.classes, self.own, self.settings)
        found = record.describe(view, directions, features, extra)
        found = steering.add(draft.path, view, found, directions, features, self.steps, self.rows)
        draft.manifest.rows = len(directions.bias_)
        return replace(found, notes=[*self.notes, *found.notes])

    def _refuse_too_much(self, source: Representation) -> None:
        """Directions are described from their responses at all positions."""
        n_directions = len(self.stored.bias_) if self.stored is not None else self.settings.get("n_directions", 0)
        positions = source.n * int(np.prod(source.values.shape[2:], dtype=int))
        if 4 * positions * n_directions > MEMORY:
            raise InputError(
                f"responses of {human_count(n_directions, 'direction')} at "
                f"{human_count(positions, 'position', 'take')} "
                f"{4 * positions * n_directions / 2**30:.0f} GiB, more than the {MEMORY // 2**30} that are used",
                "take fewer samples (--sample N), a pooled layer (--pool avg) or fewer directions",
            )

    def cost(self) -> Mapping[str, Any]:
        return {"apply": self.options.apply} if self.options.apply else {}

    def sizes(self) -> Mapping[str, float]:
        found = super().sizes() if self.records or not _is_synthetic(self.options) else {}
        if not found:
            return {}
        own, options = self.settings, self.options
        if options.method in SEARCHING and options.apply is None:
            images = min(found["n"], own["search_images"] or found["n"])
            seen = images * found["p"] / found["n"]
            # every step of eddp goes through the network above the layer, of which nothing is known here
            deep = options.method == "eddp" and self.own["head"] and options.model is not None
            search = {} if deep else search_work(self.estimator, seen, found["u"])
            return {"n": found["p"], "d": found["u"], "k": own["n_directions"], "b": seen, **search}
        steps, batch = own.get("steps"), own.get("batch") or found["p"]
        more = {"e": steps, "b": min(batch, found["p"])} if isinstance(steps, int) else {}
        return {"n": found["p"], "d": found["u"], "k": own.get("n_directions") or 16, **more}

    def _directions(self, draft: Draft, features: np.ndarray) -> tuple[Directions, dict[str, Any]]:
        """The directions, found or stored, and what is known of how they were found; kept before they are described."""
        path, mark = draft.path / "directions.safetensors", draft.path / LEARNED
        draft.discard_at_end(LEARNED)
        if self.stored is not None:
            _save(path, self.stored)
            return self.stored, {}
        if mark.is_file():
            log.info("the directions were found by the interrupted run")
            found, kept = _read(path), json.loads(mark.read_text("utf-8"))
            found.notes_ = kept["notes"]
            return found, kept["extra"]
        given, extra = self._given(), dict[str, Any]()
        head = self.case.head if self.options.method in LEARNING or "rows" in given else None
        draft.discard_at_end(STATE)
        if self.numbers is not None:
            extra["numbers"] = self._how_many(features, head)
        if isinstance(self.estimator, SparseAutoencoder):
            self._learn_dictionary(self.estimator, draft.path / STATE)
        else:
            cost = self.expected()
            with awaited(f"directions with {self.options.method}", None if cost is None else cost.seconds):
                self.estimator.fit(features, head, **given)
        extra["about"] = self.estimator.about()
        again = self.own["stability"]
        # a dictionary takes as long again to be learned on two halves, what else is given is no sample
        if again if again is not None else not (isinstance(self.estimator, SparseAutoencoder) or given):
            extra["stability"] = stability(self.estimator, features, head, self.options.seed)
        _save(path, self.estimator)
        write_json(mark, plain({"notes": self.estimator.notes_, "extra": extra}))
        return self.estimator, extra

    def _how_many(self, features: np.ndarray, head: Any) -> dict[str, Any]:
        """Compare numbers of directions, and take the recommended one."""
        try:
            found = how_many(
                self.estimator,
                features,
                head,
                numbers=self.numbers or None,
                labels=self.source.labels,
                random_state=self.options.seed,
            )
        except ValueError as error:
            raise InputError(f"--param numbers={self.own['numbers']}: {error}", "choose other numbers") from None
        self.estimator.set_params(n_directions=found.recommended)
        self.settings = {**self.settings, "n_directions": found.recommended}
        return asdict(found)

    def _given(self) -> dict[str, Any]:
        """What the method takes besides features and head: images of concepts, images of a class and their crops."""
        if self.shown is not None:
            return {"concepts": self.shown.concepts, "random": self.shown.random}
        if "rows" not in inspect.signature(self.estimator.fit).parameters:
            return {}
        rows, share, source = self.rows, getattr(self.estimator, "crop", None), self.source
        assert rows is not None  # `check` refuses methods of one class without a target
        if share is None:
            return {"rows": rows}
        if self.options.model is None or source.dataset is None or source.layer is None:
            raise UsageError("crops are of images and need a model", "use --method ice, which takes the features")
        dataset = self.options.selection.open(source.dataset)
        places = dataset.locate(source.names_of(rows))
        model = load(self.options.model, device=self.options.device)
        return {"rows": rows, "crops": crop_features(model, source.layer, dataset, places.tolist(), share)}

    def _learn_dictionary(self, estimator: SparseAutoencoder, path: Path) -> None:
        """Learn from the stored activations, from where an interrupted run stopped."""
        state = None
        if path.is_file():
            state = load_file(path)
            log.info("learning goes on from step %d", int(state["counters"][0]))

        def keep(found: Mapping[str, np.ndarray]) -> None:
            part = path.with_suffix(".part")
            save_file({name: np.ascontiguousarray(value) for name, value in found.items()}, part)
            part.replace(path)

        estimator.fit(self.source.values, state=state, keep=keep)


def _numbers(asked: str | None, method: str, estimator: Any, given: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Numbers of directions to compare; none of them for ``auto``, None where only one number is used."""
    if asked is None:
        return None
    if "n_directions" in given or not isinstance(estimator.get_params().get("n_directions"), int):
        raise UsageError(
            f"--param numbers={asked} looks for the number of directions",
            "leave out --n-directions" if "n_directions" in given else f"`{method}` takes its number from its concepts",
        )
    try:
        found = () if asked == "auto" else tuple(int(part) for part in asked.split(","))
    except ValueError:
        found = (0,)
    if asked != "auto" and (len(set(found)) < 2 or min(found) < 2):
        raise UsageError(f"--param numbers={asked}: expected auto, or two or more numbers from 2 on, like 4,8,16")
    return found


def _about_images(options: ExplainOptions) -> UsageError:
    """Images of concepts for a method that takes none, or none for one that needs them."""
    if options.concept_images or options.random_images:
        return UsageError(f"--concept-images: `{options.method}` takes no images of concepts", "give --method tcav")
    return UsageError(
        f"`{options.method}` needs images of concepts",
        "give --concept-images folder:PATH, whose sub-folders are concepts (stripes, dots ...), or images:PATH for one",
    )


def _reserved(kind: Any, options: ExplainOptions) -> dict[str, Any]:
    """What every front sets itself, where the estimator takes it."""
    device = "cpu" if options.device == "auto" else options.device
    taken = inspect.signature(kind).parameters
    return {name: value for name, value in (("random_state", options.seed), ("device", device)) if name in taken}


def _on_stored_features(options: ExplainOptions, applied: Artifact) -> ExplainOptions:
    """The options with the data set, model and layer of stored directions where none is given."""
    synthetic = (applied.manifest.request.inputs.get("representation") or {}).get("synthetic")
    if synthetic and options.model is None and options.activations is None and options.selection.dataset is None:
        return replace(options, selection=replace(options.selection, dataset=f"{SYNTHETIC}{synthetic}"))
    return options if _is_synthetic(options) else same_place(options, applied, "representation")


_ARRAYS = ("encoding", "decoding", "bias", "margin", "mean", "gain", "stand_ins")


def _save(path: Path, directions: Directions) -> None:
    found = {name: getattr(directions, f"{name}_", None) for name in _ARRAYS}
    save_file({name: np.ascontiguousarray(array) for name, array in found.items() if array is not None}, path)


def _read(path: Path) -> Directions:
    try:
        arrays = load_file(path)
        needed = [arrays[name] for name in ("encoding", "decoding", "bias", "margin", "mean")]
        found = Directions.of(needed[0], needed[1], needed[2], needed[3], needed[4], arrays.get("gain"))
        if "stand_ins" in arrays:
            found.stand_ins_ = arrays["stand_ins"]  # type: ignore[attr-defined]
        return found
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise ArtifactError(f"cannot read {path}: {error}", "find the directions again with --force") from None


def _stored(applied: Artifact, channels: int) -> Directions:
    found = _read(applied.path / "directions.safetensors")
    if found.n_features_in_ != channels:
        raise InputError(
            f"{applied.path} has directions of {human_count(found.n_features_in_, 'channel')}, got "
            f"features of {channels}",
            "use the layer that the directions were found in",
        )
    return found


def _is_synthetic(options: ExplainOptions) -> bool:
    return (options.selection.dataset or "").startswith(SYNTHETIC)


def _case(options: ExplainOptions, use_head: bool, strict: bool) -> record.Case:
    """Features and the network above them; ``strict`` refuses to go on without that network."""
    if _is_synthetic(options):
        return _synthetic(options, use_head)
    if use_head:
        read_with_output(options, options.unpooled, lambda count: named_classes(options, count))
    source = representation(options, spatial=True, pool=options.unpooled)
    head = None
    if use_head and options.model is not None:
        try:
            head = rest_of(options, source)
        except RdxError as error:
            if strict:
                raise
            log.warning("without the network above the layer: %s", error.message)
    return record.Case(source, head)


def _synthetic(options: ExplainOptions, use_head: bool) -> record.Case:
    """A made-up case with known directions."""
    if options.model is not None or options.activations is not None:
        raise UsageError("a synthetic data set brings its own features", "leave out --model and --activations")
    name = str(options.selection.dataset).removeprefix(SYNTHETIC)
    case = generate(named(name))
    source = Representation(
        case.X,
        np.arange(len(case.X)).astype(str),
        f"synthetic-{name}",
        labels=np.array([f"class {k}" for k in case.y]),
        source={"synthetic": name, "dataset": f"synthetic-{name}"},
    )
    return record.Case(source, case.head if use_head else None, case)


ANALYSIS = DirectionAnalysis
