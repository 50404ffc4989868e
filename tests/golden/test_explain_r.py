"""Every case of the EXPLAIN-R golden vectors, compared as their manifest says.

One function per case of the manifest; a case without a function fails, and so does an array or parameter of the files
that no function has looked at. Sizes, seeds and names are read from the files.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from rdxcli.methods.surrogate import attribution, evaluation, losses, noise, segments
from rdxcli.methods.surrogate.encoding import Encodings, encode, from_matrix
from rdxcli.methods.surrogate.extraction import Concept, ConceptExtractor
from rdxcli.methods.surrogate.lexicon import TableLexicon, WordNetLexicon, suffix_forms
from rdxcli.methods.surrogate.loop import training_step
from rdxcli.methods.surrogate.model import Rows, Surrogate
from rdxcli.methods.surrogate.nltk_data import find
from rdxcli.methods.surrogate.prompts import prompts
from rdxcli.methods.surrogate.splice import SpLiCE
from rdxcli.methods.surrogate.tokenising import PerceptronTagger, tokenise
from rdxcli.methods.surrogate.training import make_optimizer
from rdxcli.methods.surrogate.vocabulary import count_concepts, fit_vocabulary, given_vocabulary

USED: dict[str, set[str]] = {}


def root() -> Path:
    given = os.environ.get("RDX_GOLDEN")
    return (Path(given) if given else Path(__file__).resolve().parent / "data") / "explain_r"


@cache
def manifest() -> dict[str, Any]:
    return json.loads((root() / "manifest.json").read_text("utf-8"))


CASES: dict[str, dict[str, Any]] = {entry["id"]: entry for entry in manifest()["cases"]}


class Watched(Mapping[str, Any]):
    """A mapping that remembers which entries were read."""

    def __init__(self, name: str, content: Mapping[str, Any]) -> None:
        self._content, self._used = content, USED.setdefault(name, set())

    def __getitem__(self, key: str) -> Any:
        value = self._content[key]
        self._used.add(key)
        return value

    def __contains__(self, key: object) -> bool:
        return key in self._content

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)

    def starting(self, prefix: str) -> list[str]:
        return [key for key in self if key.startswith(prefix)]


@cache
def content(name: str) -> Watched:
    """A file of the set: the arrays of an npz, or a JSON document."""
    path = root() / name
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as data:
            return Watched(name, {key: data[key] for key in data.files})
    return Watched(name, json.loads(path.read_text("utf-8")))


def files(case: str) -> tuple[Watched, Watched]:
    """Main file and parameters of a case."""
    entry = CASES[case]
    return content(entry["file"]), content(entry.get("params", entry["file"]))


def close(actual: Any, expected: Any, case: str, rule: str = "") -> None:
    """Compare with the tolerance of the manifest's rule; a tighter one where our own promise is tighter."""
    compare = CASES[case]["compare"]
    how = compare[rule] if rule else compare.get("default", compare)
    if how["kind"] == "exact":
        assert_array_equal(actual, expected)
    else:
        assert how["kind"] == "allclose", how
        assert_allclose(np.asarray(actual), expected, rtol=how["rtol"], atol=how["atol"])


# ---------------------------------------------------------------- captions, concepts, vocabularies, encodings


@cache
def captions() -> dict[str, list[str]]:
    found = content(CASES["captions"]["file"])
    return {name: found[name] for name in found}


class StoredTags:
    """The tags of the golden file, by words."""

    def __init__(self) -> None:
        stages = content(CASES["concept_stages"]["file"])["stages"]
        self._tags = {tuple(one["tokens"]): one["tags"] for image in stages.values() for one in image}

    def tag(self, words: list[str]) -> list[str]:
        return self._tags[tuple(words)]

    def describe(self) -> dict[str, Any]:
        return {}


class StoredWords(ConceptExtractor):
    """Starts from stored words where NLTK releases differ in a caption's tokens."""

    def concepts(self, caption: str) -> list[Concept]:
        stages = content(CASES["concept_stages"]["file"])["stages"]
        for name, texts in captions().items():
            if caption in texts:
                one = stages[name][texts.index(caption)]
                return self.from_tags(one["tokens"], one["tags"])
        raise AssertionError(f"no such caption: {caption}")


@cache
def extractor() -> ConceptExtractor:
    table = content(CASES["concept_stages"]["file"])["lemma_table"]
    return StoredWords(StoredTags(), TableLexicon([tuple(row) for row in table]))


def ragged() -> dict[str, list[str]]:
    return {name: texts[: 1 + i % len(texts)] for i, (name, texts) in enumerate(captions().items())}


def check_captions() -> None:
    assert captions()
    assert all(texts and all(isinstance(text, str) for text in texts) for texts in captions().values())


def _lists(value: Any) -> Iterator[list[Any]]:
    if isinstance(value, list):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _lists(part)


def check_concept_stages() -> None:
    data, _ = files("concept_stages")
    alternatives = list(_lists(data["version_dependent"]))
    assert list(data["stages"]) == list(captions())
    folder = find()
    tagger = PerceptronTagger.from_folder(folder) if folder else None
    for name, texts in captions().items():
        assert len(texts) == len(data["stages"][name])
        for text, stage in zip(texts, data["stages"][name], strict=True):
            words = tokenise(text)
            assert words == stage["tokens"] or words in alternatives, text
            if tagger is not None:
                assert tagger.tag(stage["tokens"]) == stage["tags"]
            got = extractor().from_tags(stage["tokens"], stage["tags"])
            assert [list(concept) for concept in got] == stage["concepts"]
    rows = [tuple(row) for row in data["lemma_table"]]
    lexicon = WordNetLexicon.from_folder(folder) if folder else _lexicon_of(rows)
    for word, pos, lemma, accepted in rows:
        assert lexicon.lemma(word, pos) == lemma
        assert lexicon.accepts(lemma, pos) == accepted
    for key in ("nltk_version", "wordnet", "tagger"):
        assert data[key]


def _lexicon_of(rows: list[tuple[str, str, str, bool]]) -> WordNetLexicon:
    """A WordNet index that holds what the table shows, so that the rules are run without the download.

    A lemma that no suffix rule gives is irregular. An accepted lemma is in the index, in lower case.
    """
    index: dict[str, set[str]] = {"n": set(), "a": set(), "v": set()}
    irregular: dict[str, dict[str, list[str]]] = {"n": {}, "a": {}, "v": {}}
    for word, pos, lemma, accepted in rows:
        if lemma not in [word, *suffix_forms(word, pos)]:
            irregular[pos][word] = [lemma]
        if accepted and lemma.islower():
            index[pos].add(lemma)
    for _, pos, lemma, accepted in rows:
        # Upper-case words are accepted through their lower-case form's lemma.
        low = lemma.lower()
        if accepted and lemma != low and low not in index[pos] and not set(suffix_forms(low, pos)) & index[pos]:
            known = irregular[pos].get(low)
            index[pos] |= set(known) if known else {low}
    return WordNetLexicon(index, irregular)


def check_vocab_fits() -> None:
    data, _ = files("vocab_fits")
    for kind in data:
        given = {"full": captions, "ragged": ragged}[kind]()
        counts = count_concepts(given, extractor())
        expected = data[kind]
        assert len(given) == expected["num_images"]
        assert [len(texts) for texts in given.values()] == expected["captions_per_image"]
        got = [[*concept, int(df)] for concept, df in zip(counts.concepts, counts.image_counts, strict=True)]
        assert sorted(got) == sorted(expected["image_counts"])
        for fit in expected["fits"]:
            options = {"min_count": fit["min_threshold"], "max_threshold": fit["max_threshold"]}
            if not fit["vocab"]:
                with pytest.raises(ValueError, match="Got no concept"):
                    fit_vocabulary(counts, **options)
                continue
            vocabulary = fit_vocabulary(counts, **options)
            found = [[*c, int(df)] for c, df in zip(vocabulary.concepts, vocabulary.image_counts, strict=True)]
            assert found == sorted(fit["vocab"])


def golden_encodings(kind: str) -> Encodings:
    data, _ = files("encodings_json")
    counts = count_concepts({"full": captions, "ragged": ragged}[kind](), extractor())
    options = {"min_count": data[kind]["min_threshold"], "max_threshold": data[kind]["max_threshold"]}
    return encode(counts, fit_vocabulary(counts, **options))


def _rows_of(found: Encodings) -> list[list[list[Any]]]:
    """Entries of each row: lemma, pos, k, m, and the reduced fraction."""
    assert found.count is not None
    assert found.num_captions is not None
    out = []
    for i in range(len(found.ids)):
        row = []
        for e in range(found.indptr[i], found.indptr[i + 1]):
            k, m = int(found.count[e]), int(found.num_captions[i])
            row.append([*found.concepts[found.indices[e]], k, m, *(int(x) for x in noise.reduced(k, m))])
        out.append(row)
    return out


def check_encodings_json() -> None:
    data, _ = files("encodings_json")
    for kind in data:
        expected = data[kind]
        if kind == "provided_vocab":
            counts = count_concepts(captions(), extractor())
            found = encode(counts, given_vocabulary(counts, [Concept(*entry) for entry in expected["vocab"]]))
            assert [list(concept) for concept in found.concepts] == expected["vocab"]
            got = [[[*entry[:2], *entry[4:]] for entry in row] for row in _rows_of(found)]
            assert [sorted(row) for row in got] == [sorted(row) for row in expected["rows"]]
            continue
        found = golden_encodings(kind)
        assert found.ids == expected["image_ids"]
        assert [list(concept) for concept in found.concepts] == [list(entry[:2]) for entry in expected["vocab"]]
        assert _rows_of(found) == expected["rows"]
        assert list(found.shape) == list(expected["shape"])
        assert len(found.indices) == expected["nnz"]
        assert found.l0.mean() == pytest.approx(expected["avg_nnz"])
        assert found.l0.min() == expected["min_concepts"]


def check_encodings_npz() -> None:
    data, _ = files("encodings_npz")
    for kind in ("full", "ragged"):
        found = golden_encodings(kind)
        assert found.count is not None
        assert found.num_captions is not None
        total = found.num_captions[found.row_of_entry]
        k, m = noise.reduced(found.count, total)
        arrays = {
            "coo_rows": found.row_of_entry,
            "coo_cols": found.indices,
            "count": found.count,
            "num_reduced": k,
            "den_reduced": m,
            "num_captions": found.num_captions,
            "dense_float16": found.dense(np.float16),
        }
        assert set(data.starting(f"{kind}__")) == {f"{kind}__{name}" for name in arrays}
        for name, value in arrays.items():
            close(value, data[f"{kind}__{name}"], "encodings_npz")
    low, high = noise.wilson_interval(data["wilson__k"], data["wilson__n"], data["wilson__conf"])
    close(low, data["wilson__low"], "encodings_npz", "wilson__low/high")
    close(high, data["wilson__high"], "encodings_npz", "wilson__low/high")
    _check_sampler(data)
    for k, m, mean, std, least, largest in data["moments__k_n_mean_std_min_max_40000draws"]:
        stream = torch.Generator().manual_seed(0)
        k_, m_ = torch.full((200_000,), k), torch.full((200_000,), m)
        drawn = noise.draw(k_, m_, 0.8, stream).numpy()
        assert drawn.mean() == pytest.approx(mean, abs=0.005)
        assert drawn.std() == pytest.approx(std, abs=0.005)
        bounds = noise.wilson_interval(k, m, 0.8)
        assert bounds[0] - 1e-6 <= drawn.min() <= drawn.max() <= bounds[1] + 1e-6
        assert bounds[0] - 1e-9 <= least <= largest <= bounds[1] + 1e-9


def _check_sampler(data: Watched) -> None:
    u, coin = data["sample__u"], data["sample__coin"]
    found = next(one for one in (golden_encodings("full"), golden_encodings("ragged")) if len(one.indices) == len(u))
    assert found.count is not None
    assert found.num_captions is not None
    true = (found.count, found.num_captions[found.row_of_entry])
    names = [name for name in data.starting("sample__") if name.endswith("_dense")]
    assert names
    for name in names:
        match = re.fullmatch(r"sample__m(\d+)_(reduced|unreduced)_dense", name)
        assert match, name
        k, m = noise.reduced(*true) if match[2] == "reduced" else true
        side = np.where(coin == 1, 1.0, -1.0)
        values = noise.perturb(k, m, 0.5 + side * u * int(match[1]) / 200.0)
        dense = np.zeros(found.shape)
        dense[found.row_of_entry, found.indices] = values
        close(dense, data[name], "encodings_npz", "sample__*_dense")


# ---------------------------------------------------------------- losses


def check_losses() -> None:
    data, params = files("losses")
    for name in params:
        if "cls" in params[name]:
            _check_loss(name, params[name], data)
        else:
            {"hard_ce": _check_predecessor, "combined": _check_predecessor, "uniform_baseline": _check_uniform}[name](
                name, params, data
            )
    for name in data.starting("scaled_sim__out_t"):
        temperature = float(name.rpartition("_t")[2])
        got = losses.scaled_similarity(
            _tensor(data, "scaled_sim__queries"), _tensor(data, "scaled_sim__keys"), temperature
        )
        exact(got, data[name])
    keys = _tensor(data, "gamma1_equals_kl__keys")
    teacher = _tensor(data, "gamma1_equals_kl__queries_teacher")
    for loss_name, gradient in (("moving-kl", "grad_kd"), ("kl", "grad_kl")):
        student = _tensor(data, "gamma1_equals_kl__queries_student", True)
        loss = losses.make_loss(loss_name, len(student), gamma1=1.0, gamma2=1.0, **_temperatures(data, params))
        loss(student, keys, teacher, keys, torch.arange(len(student))).loss.backward()
        exact(student.grad, data[f"gamma1_equals_kl__{gradient}"])


def _temperatures(data: Watched, params: Watched) -> dict[str, float]:
    """Temperatures of the property case, which states none: the ones of the moving-average case with gamma 1."""
    case = params["gamma1_equals_kl"] if "gamma1_equals_kl" in params else params["kd_gamma1"]
    return {"temp_student": case["temp_student"], "temp_teacher": case["temp_teacher"]}


def exact(actual: Any, expected: Any) -> None:
    """Losses and gradients: our promise is 1e-12, tighter than the manifest's tolerance."""
    value = actual.detach().numpy() if isinstance(actual, torch.Tensor) else actual
    assert_allclose(value, expected, rtol=1e-12, atol=1e-13)


def _tensor(data: Watched, key: str, grad: bool = False) -> torch.Tensor:
    return torch.tensor(data[key], requires_grad=grad)


def _check_loss(name: str, case: Mapping[str, Any], data: Watched) -> None:
    temperatures = {"temp_student": case["temp_student"], "temp_teacher": case["temp_teacher"]}
    if case.get("variant") == "ce":
        loss = losses.DistillationLoss(**temperatures, symmetric=False, cross_entropy=True)
    else:
        loss = losses.make_loss(
            case["cls"],
            case.get("data_size", 1),
            gamma1=case.get("gamma1", 1.0),
            gamma2=case.get("gamma2", 1.0),
            first_visit="batch",
            weights=_tensor(data, f"{name}__weights") if case.get("weighted") else None,
            **temperatures,
        )
    steps = [f"{name}__step{i}_" for i in range(len(case.get("batches", [])))] or [f"{name}__"]
    for i, prefix in enumerate(steps):
        q, k = (_tensor(data, f"{prefix}{side}_student", True) for side in ("queries", "keys"))
        teacher = [_tensor(data, f"{prefix}{side}_teacher") for side in ("queries", "keys")]
        index = _tensor(data, f"{prefix}index") if f"{prefix}index" in data else None
        if index is not None:
            assert index.tolist() == case["batches"][i]
        value = loss(q, k, *teacher, index)
        value.loss.backward()
        metrics = value.metrics
        got = {
            "out_loss": value.loss,
            "out_accuracy": metrics["accuracy"],
            "out_kl_loss": metrics["kl"],
            "out_i2t_accuracy": metrics.get("i2t_accuracy"),
            "out_i2t_kl_loss": metrics.get("i2t_kl"),
            "out_i2t_loss": metrics.get("i2t_kl"),
            "grad_queries_student": q.grad,
            "grad_keys_student": k.grad,
        }
        for direction, average in zip(("i2t", "t2i"), loss.averages or (), strict=False):
            if average is not None:
                states = {"u_after": average.u, "v_after": average.v}
                got |= {f"{direction}_{key}": state for key, state in states.items()}
                got |= states if direction == "i2t" else {}
        inputs = {"queries_student", "keys_student", "queries_teacher", "keys_teacher", "index", "weights"}
        for key in data.starting(prefix):
            short = key.removeprefix(prefix)
            if short in inputs or (len(steps) > 1 and not short):
                continue
            expected = data[key]
            if short.endswith("accuracy"):
                # Stored as float32, the mean of two directions even computed in it: equal up to its last bit.
                assert float(got[short]) == pytest.approx(float(expected), abs=1.2e-7), key
            else:
                exact(got[short], expected)


def _check_predecessor(name: str, params: Watched, data: Watched) -> None:
    case = params[name]
    q = _tensor(data, "hard_ce__queries_student", True)
    S = losses.scaled_similarity(q, _tensor(data, "hard_ce__keys_student"), case["temp_student"])
    teacher = [_tensor(data, f"hard_ce__{side}_teacher") for side in ("queries", "keys")]
    T = losses.scaled_similarity(*teacher, case["temp_teacher"])
    if name == "hard_ce":
        value = losses.hard_cross_entropy(S, T)
    else:
        value = losses.combined(S, T, case["lambda_"], cross_entropy=case["soft_variant"] == "ce")
        exact(value.metrics["soft"], data["combined__out_kl_loss"])
        exact(value.metrics["hard"], data["combined__out_ce_loss"])
    value.loss.backward()
    exact(value.loss, data[f"{name}__out_loss"])
    exact(q.grad, data[f"{name}__grad_queries_student"])
    assert np.float32(value.metrics["accuracy"]) == data[f"{name}__out_accuracy"]


def _check_uniform(name: str, params: Watched, data: Watched) -> None:
    T = _tensor(data, f"{name}__sim") / params[name]["temp_teacher"]
    exact(losses.uniform_kl(T), data[f"{name}__out"])


# ---------------------------------------------------------------- surrogate and training


def check_surrogate_train() -> None:
    data, params = files("surrogate_train")
    x, k = data["surrogate__x"], _tensor(data, "surrogate__k")
    for name in params:
        if name.startswith("surrogate_"):
            state = {key.partition("__param__")[2]: data[key] for key in data.starting(f"{name}__param__")}
            model = Surrogate.from_published_state(state, temperature=params[name]["kwargs"]["temperature"])
            assert [[key, list(value.shape)] for key, value in model.published_state().items()] == params[name][
                "state_dict"
            ]
            for key, value in model.published_state().items():
                assert_array_equal(value.numpy(), state[key])
            with torch.no_grad():
                got = model(Rows.from_dense(x, dtype=torch.float64)), model.keys(k)
            close(got[0], data[f"{name}__out_query"], "surrogate_train", "surrogate_*")
            close(got[1], data[f"{name}__out_key"], "surrogate_train", "surrogate_*")
        elif name != "data":
            _check_replay(name, params, data)
    sizes = params["data"]
    assert data["data__counts"].shape == (sizes["N"], sizes["C"])


def replay(
    W: np.ndarray,
    b: np.ndarray,
    case: Mapping[str, Any],
    optimizer: Mapping[str, Any],
    batches: np.ndarray,
    rows: Callable[[int], Any],
    images: np.ndarray,
    texts: np.ndarray,
    after: Callable[[int, Surrogate], None],
) -> tuple[Surrogate, np.ndarray, losses.DistillationLoss]:
    """Train on given batches; returns the surrogate, one row (loss, accuracy, kl, i2t accuracy, i2t kl) a step."""
    dtype = torch.float64 if W.dtype == np.float64 else torch.float32
    model = Surrogate.from_published_state({"query_encoder.weight": W, "query_encoder.bias": b})
    settings = dict(case["loss"])
    loss = losses.make_loss(settings.pop("name"), len(images), first_visit="batch", **settings)
    stepper = make_optimizer(
        optimizer.get("name", "AdamW"),
        model.parameters(),
        lr=case["scaled_lr"],
        weight_decay=optimizer["weight_decay"],
        amsgrad=optimizer["amsgrad"],
    )
    log = []
    for i, batch in enumerate(batches):
        value = training_step(
            model,
            loss,
            stepper,
            Rows.from_dense(rows(i), dtype=dtype),
            torch.as_tensor(images[batch], dtype=dtype),
            torch.as_tensor(texts[batch], dtype=dtype),
            torch.as_tensor(batch),
        )
        m = value.metrics
        log.append([float(x) for x in (value.loss.detach(), m["accuracy"], m["kl"], m["i2t_accuracy"], m["i2t_kl"])])
        after(i, model)
    return model, np.array(log), loss


def _check_replay(name: str, params: Watched, data: Watched) -> None:
    case = params[name]
    dtype = data[f"{name}__W0"].dtype
    shares = data["data__counts"] / params["data"]["num_captions"]
    # The original's loop stores encodings as float16.
    encodings = shares if dtype == np.float64 else shares.astype(np.float16).astype(dtype)
    batches = data[f"{name}__batch_indices"]
    images, texts, classes = (data[f"data__{key}_embeds"] for key in ("image", "text", "class_text"))
    sampled = data.get(f"{name}__batch_encodings")
    assert (sampled is not None) == case.get("sampling", False)
    rows = (lambda i: encodings[batches[i]]) if sampled is None else (lambda i: sampled[i])
    assert case["scaled_lr"] == pytest.approx(
        case["optimizer"]["lr"] * case["loss"]["temp_student"] * case["batch_size"] / 256
    )
    steps_per_epoch = len(images) // case["batch_size"]
    first: list[np.ndarray] = []
    per_epoch: list[float] = []

    def z(model: Surrogate) -> np.ndarray:
        with torch.no_grad():
            return model(Rows.from_dense(encodings, dtype=model.bias.dtype)).numpy()

    def similarities(model: Surrogate) -> tuple[np.ndarray, np.ndarray]:
        return evaluation.cosine_matrix(z(model), classes), evaluation.cosine_matrix(images, classes)

    def after(i: int, model: Surrogate) -> None:
        if i == 0:
            first.extend(value.numpy().copy() for value in model.published_state().values())
        if "val_batch_size" in case and (i + 1) % steps_per_epoch == 0:
            per_epoch.append(evaluation.agreement(*similarities(model), batch_size=case["val_batch_size"]))

    model, log, loss = replay(
        data[f"{name}__W0"], data[f"{name}__b0"], case, case["optimizer"], batches, rows, images, texts, after
    )
    exact64 = name.startswith("trace64")
    weights_rule = "trace64__*" if exact64 else "loop32_*__W_final,b_final"
    final = model.published_state()
    close(final["query_encoder.weight"], data[f"{name}__W_final"], "surrogate_train", weights_rule)
    close(final["query_encoder.bias"], data[f"{name}__b_final"], "surrogate_train", weights_rule)
    if exact64:
        close(log, data[f"{name}__log_loss_acc_kl_i2tacc_i2tkl"], "surrogate_train", "trace64__*")
        close(first[0], data[f"{name}__W1"], "surrogate_train", "trace64__*")
        close(first[1], data[f"{name}__b1"], "surrogate_train", "trace64__*")
        assert loss.averages is not None
        close(loss.averages[0].u, data[f"{name}__u_i2t_final"], "surrogate_train", "trace64__*")
        close(loss.averages[0].v, data[f"{name}__v_i2t_final"], "surrogate_train", "trace64__*")
        got = evaluation.classification(z(model), images, classes)
        close(got["agreement"], data[f"{name}__final_agreement"], "surrogate_train", "val_accuracy_per_epoch")
        close(got["cosine"], data[f"{name}__final_mean_cosine"], "surrogate_train", "trace64__*")
    else:
        close(log, data[f"{name}__train_log_loss_acc_kl_i2tacc_i2tkl"], "surrogate_train", "loop32_*__log")
        expected = data[f"{name}__val_accuracy_per_epoch"]
        assert len(per_epoch) == case["epochs"] == len(expected)
        close(per_epoch, expected, "surrogate_train", "val_accuracy_per_epoch")


# ---------------------------------------------------------------- attribution, evaluation, SpLiCE


def _named(matrix: np.ndarray, letter: str = "c") -> Encodings:
    return from_matrix(
        matrix, [str(i) for i in range(len(matrix))], [Concept(f"{letter}{j}", "n") for j in range(matrix.shape[1])]
    )


def _affine() -> attribution.Affine:
    data, _ = files("attribution")
    return attribution.Affine(data["attr__W"].T, data["attr__b"])


def check_attribution() -> None:
    data, params = files("attribution")
    found = attribution.image_scores(_affine(), _named(data["attr__encodings"]))
    scores = found.csr().toarray()
    close(scores, data["attr_embed__out"], "attribution")
    close(scores.sum(axis=1), data["attr_embed__row_sums"], "attribution")
    nothing = np.zeros((1, scores.shape[1]))
    empty = attribution.image_scores(_affine(), _named(nothing))
    assert not empty.has_concepts.any()
    assert_array_equal(empty.csr().toarray(), nothing)
    assert empty.csr().shape == data["attr_embed_zero__out"].shape  # NaN or 0 in the original: not compared
    for key in data.starting("attr_top__"):
        match = re.fullmatch(r"attr_top__(?:dim(\d)|1d)_k(\d+)_(values|indices)", key)
        assert match, key
        if match[3] == "indices":
            continue
        given = data["attr_embed__out"]
        source, axis = (given, int(match[1])) if match[1] else (given[_row_of(data[key], given)], 0)
        values, positions = attribution.largest(source, int(match[2]), axis)
        close(values, data[key], "attribution")
        # Zeros fill up where fewer concepts are present; their order means nothing.
        real = data[key] != 0
        close(positions[real], data[key.replace("_values", "_indices")][real], "attribution", "indices")
    texts, encodings = data["attr_class__texts"], _named(data["attr__encodings"])
    classes = attribution.class_scores(_affine(), encodings, texts, bias="rescaled")
    close(classes.similarity, data["attr_class__similarity"], "attribution")
    close(classes.factor, data["attr_class__lambda"], "attribution")
    close(classes.dense(), data["attr_class__out"], "attribution")
    assert int((classes.factor < 0).sum()) == params["attr"]["negative_lambda_pairs"]
    assert classes.factor.size == params["attr"]["total_pairs"]
    safe = attribution.class_scores(_affine(), encodings, texts)
    assert_allclose(safe.dense().sum(axis=2) + safe.bias, safe.similarity, atol=1e-12)
    assert (safe.factor > 0).all()


def _row_of(top: np.ndarray, scores: np.ndarray) -> int:
    """The row of the scores whose largest entries these are."""
    best = [np.abs(np.sort(-np.abs(row))[: len(top)] + np.abs(top)).max() for row in scores]
    return int(np.argmin(best))


def _percent(tables: Any, expected: Any) -> None:
    assert set(tables) == set(expected)
    for key, value in expected.items():
        if isinstance(value, dict):
            _percent(tables[key], value)
        else:
            close(tables[key], value, "evaluation")


def check_evaluation() -> None:
    data, params = files("evaluation")
    student, teacher, baseline = (data[f"eval__{who}_sim"] for who in ("student", "target", "baseline"))
    _percent(evaluation.retrieval_metrics(student), params["eval_retrieval_identity"])
    _percent(evaluation.retrieval_metrics(student, data["eval__perm_targets"]), params["eval_retrieval_perm"])
    _percent(evaluation.retrieval_both_ways(student), params["eval_retrieval_symmetric"])
    _percent(evaluation.retrieval(student, teacher), params["eval_explain_retrieval"])
    _percent(evaluation.retrieval_both_ways(data["eval__big_sim"]), params["eval_retrieval_big"])
    close(evaluation.agreement(student, teacher), data["eval_classify__out"], "evaluation")
    batches = [
        (teacher, student, baseline),
        tuple(data[f"eval__{who}_sim_2"] for who in ("target", "student", "baseline")),
    ]
    table: dict[str, list[dict[str, float]]] = {}
    for t, s, b in batches:
        for who, sim in (("Ours", s), ("Baseline", b), ("Target", t)):
            for kind, result in evaluation.retrieval(sim, t).items():
                table.setdefault(f"{who} {kind}", []).append(result)
    table.pop("Target faithfulness")
    averaged = {name: evaluation.average_tables(parts) for name, parts in table.items()}
    _percent(averaged, params["eval_running_summary"])
    _check_classification(data, params)


def _check_classification(data: Watched, params: Watched) -> None:
    encodings = _named(data["attr__encodings"])
    images, classes, labels = (data[f"cls__{key}"] for key in ("image_embeds", "label_embeddings", "labels"))
    z = _affine().embed(encodings)
    ours = evaluation.classification(z, images, classes, labels=labels, l0=encodings.l0)
    model = SpLiCE(0.25).fit(data["splice__dictionary"], data["splice__image_mean"], centred=True)
    weights = model.transform(images)
    l0 = np.diff(weights.indptr)
    splice = evaluation.classification(model.reconstruct(weights), images, classes, labels=labels, l0=l0)
    expected = params["cls_eval"]
    for who, got in (("ours", ours), ("splice", splice)):
        assert evaluation.published_line(got) == expected[who]["text"]
        close(100 * got["accuracy"], expected[who]["accuracy"], "evaluation")
        close(100 * got["agreement"], expected[who]["faithfulness"], "evaluation")
        close(got["l0"], expected[who]["sparsity"], "evaluation")
        close(got["cosine"], expected[who]["cosine"], "evaluation")
    assert len(images) == expected["ours"]["total"]
    close(100 * ours["teacher_accuracy"], expected["clip_accuracy"], "evaluation")
    loop = params["classify_loop"]
    similarity = (evaluation.cosine_matrix(x, classes) for x in (z, images))
    close(evaluation.agreement(*similarity, batch_size=loop["batch_size"]), loop["val_accuracy"], "evaluation")
    running = params["retrieval_running"]
    close(ours["l0"], running["sparsity"], "evaluation")
    close(ours["cosine"], running["cosine"], "evaluation")
    assert f"(S/C): ({ours['l0']:.2f}/{ours['cosine']:.2f})" == running["text"]


def check_splice_baseline() -> None:
    data, params = files("splice_baseline")
    names = data.starting("splice__weights_l1_")
    assert names
    Q, mu, images = (data[f"splice__{key}"] for key in ("dictionary", "image_mean", "image_embeds"))
    for name in names:
        l1 = name.rpartition("_")[2]
        model = SpLiCE(float(l1)).fit(Q, mu, centred=True)
        weights = model.transform(images)
        close(weights.toarray(), data[name], "splice_baseline")
        # The optimality conditions, derived again: q_j.(v - wQ) = l1/2 on the support, at most that elsewhere.
        w = weights.toarray()
        slack = (model.centre(images) - w @ Q) @ Q.T - float(l1) / 2
        assert slack.max() < 3e-6
        assert np.abs(slack[w > 0]).max() < 3e-6
        close(model.reconstruct(weights), data[f"splice__recon_l1_{l1}"], "splice_baseline")
        changed = model.intervene(weights, params[f"splice_l1_{l1}"]["intervened_indices"])
        close(changed.toarray(), data[f"splice__intervened_l1_{l1}"], "splice_baseline")
        close(np.diff(weights.indptr).mean(), params[f"splice_l1_{l1}"]["l0"], "splice_baseline")
    for name in data.starting("splice__admm_weights_l1_"):
        weights = SpLiCE(float(name.rpartition("_")[2])).fit(Q, mu, centred=True).transform(images)
        close(weights.toarray(), data[name], "splice_baseline")
    assert params["splice_admm"]["max_abs_diff_vs_lasso"] < 1e-3


def check_comparative() -> None:
    data, params = files("comparative")
    case = params["comparative_concepts"]
    encodings = _named(data["attr__encodings"])
    images, classes = data["cls__image_embeds"], data["cls__label_embeddings"]
    model = SpLiCE(case["l1_penalty"]).fit(data["splice__dictionary"], data["splice__image_mean"], centred=True)
    weights = model.transform(images)
    ours = attribution.image_scores(_affine(), encodings).top(case["k"])
    spans = zip(weights.indptr[:-1], weights.indptr[1:], strict=True)
    theirs = [attribution.top_entries(weights.indices[a:b], weights.data[a:b], case["k"]) for a, b in spans]
    for got, expected, letter in ((ours, case["ours"], "c"), (theirs, case["splice"], "s")):
        assert len(got) == len(expected)
        for mine, wanted in zip(got, expected, strict=True):
            # Fewer concepts than k: the original fills the list with absent ones of score 0.
            present = [(score, name) for score, name in wanted if score != 0]
            assert [f"{letter}{column}" for column, _ in mine] == [name for _, name in present]
            assert_allclose([score for _, score in mine], [score for score, _ in present], rtol=1e-4, atol=1e-4)
    for name in [key for key in params if key.startswith("comparative_predictions_")]:
        expected = params[name]
        mask = {int(column): value for column, value in (expected["mask"] or {}).items()}
        changed = encodings.with_values(mask) if mask else encodings
        got = {
            "ours": evaluation.predict(_affine().embed(changed), classes),
            "clip": evaluation.predict(images, classes),
            "splice": evaluation.predict(model.reconstruct(weights), classes),
        }
        for who, predictions in got.items():
            assert predictions.tolist() == expected[who]


# ---------------------------------------------------------------- pictures, prompts, segments, pieces


def check_preprocessing() -> None:
    from PIL import Image

    from rdxcli.models.preprocessing import Preprocessing

    data, params = files("preprocessing")
    size = params["prep"]["size"]
    clip = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
    pictures = [key for key in data.starting("prep_") if key.endswith("__image")]
    assert pictures
    for key in pictures:
        picture = Image.fromarray(data[key])
        for name, interpolation in ((f"out_size{size}", "bilinear"), ("openai_clip_reference", "bicubic")):
            transform = Preprocessing((size, size), "shortest", (size, size), interpolation, **clip)
            close(transform(picture), data[key.replace("__image", f"__{name}")], "preprocessing")


def check_tokenizer_prompts() -> None:
    import open_clip

    data, params = files("tokenizer_prompts")
    length = params["tokens"]["context_length"]
    assert params["tokens"]["truncate"]
    got = open_clip.tokenize(params["tokens"]["texts"], context_length=length)
    close(got, data["tokens__out"], "tokenizer_prompts")
    sentences = prompts(params["prompts"]["names"], cleaned=False)
    assert sentences == params["prompts"]["prompts"]
    close(open_clip.tokenize(sentences, context_length=length), data["prompts__tokens"], "tokenizer_prompts")


def check_clusters_masks() -> None:
    data, params = files("clusters_masks")
    case = params["cluster"]
    tree = segments.cluster(data["cluster__X"])
    assert_array_equal(tree.children, data["cluster__children"])
    assert_allclose(tree.distances, data["cluster__distances"], rtol=1e-12)
    assert tree.cut(case["p"]) == case["leaves"] == case["inner_clusters"]
    assert_array_equal(tree.labels(case["p"]), data["cluster__leaf_labels"])
    assert [tree.members(node) for node in range(tree.n, 2 * tree.n - 1)] == case["subtrees"]
    images, expected = data["cluster__crop_to_image"], data["cluster__local_encoding"]
    got, columns = segments.membership(
        tree.labels(case["p"]), images, num_images=len(expected), min_images=case["min_cluster_size"]
    )
    assert_array_equal(got, expected)
    assert columns.tolist() == case["local_encoding_columns"]
    nms = params["mask_nms"]
    kept = segments.thin_masks(data["mask_nms__masks"], min_area=nms["min_area_ratio"], max_iou=nms["mask_iou_thresh"])
    assert kept == nms["kept"]


def check_misc() -> None:
    data, params = files("misc")
    got = evaluation.cosine_matrix(data["pairwise_cos__x"], data["pairwise_cos__y"])
    close(got, data["pairwise_cos__out"], "misc")
    averaged = evaluation.average_tables(params["dict_avg"]["inputs"])
    assert averaged.keys() == params["dict_avg"]["out"].keys()
    for key, value in params["dict_avg"]["out"].items():
        close(averaged[key], value, "misc")


def check_pipeline() -> None:
    data, params = files("pipeline")
    counts = count_concepts(captions(), extractor())
    vocabulary = fit_vocabulary(counts, min_count=params["min_threshold"], max_threshold=params["max_threshold"])
    assert [list(concept) for concept in vocabulary.concepts] == params["vocab"]
    encodings = encode(counts, vocabulary)
    assert encodings.ids == params["image_ids"]
    half = encodings.dense(np.float16)
    assert_array_equal(half, data["encodings_float16"])
    config, batches = params["config"], data["batch_indices"]
    case = {**config, "scaled_lr": params["scaled_lr"]}
    dense = half.astype(np.float32)
    images, texts, classes = (data[f"{key}_embeds"] for key in ("image", "text", "class_text"))
    model, log, _ = replay(
        data["W0"], data["b0"], case, config, batches, lambda i: dense[batches[i]], images, texts, lambda i, m: None
    )
    final = model.published_state()
    close(final["query_encoder.weight"], data["W_final"], "pipeline", "W_final,b_final")
    close(final["query_encoder.bias"], data["b_final"], "pipeline", "W_final,b_final")
    close(log[:, [0, 2]], data["log_loss_kl_acc"][:, :2], "pipeline", "log_loss_kl_acc (columns loss, kl)")
    given = from_matrix(dense, encodings.ids, encodings.concepts)
    scores = attribution.image_scores(model, given)
    close(scores.csr().toarray(), data["attributions"], "pipeline", "attributions")
    by_class = attribution.class_scores(model, given, classes, bias="rescaled")
    close(by_class.dense(), data["class_attributions"], "pipeline", "class_attributions")
    close(by_class.similarity, data["class_similarity"], "pipeline", "class_attributions")
    for name, top in zip(encodings.ids, scores.top(len(next(iter(params["top5"].values())))), strict=True):
        wanted = params["top5"][name]
        assert_allclose([abs(score) for _, score in top], [abs(entry[2]) for entry in wanted], atol=1e-3)
        sizes = np.abs([entry[2] for entry in wanted])
        for i, (column, _) in enumerate(top[:-1]):
            if (i == 0 or sizes[i - 1] - sizes[i] > 1e-4) and sizes[i] - sizes[i + 1] > 1e-4:
                assert list(encodings.concepts[column]) == wanted[i][:2]
    got = evaluation.classification(_embed(model, given), images, classes, l0=given.l0)
    assert got["agreement"] == pytest.approx(params["agreement"], abs=1e-5)
    assert got["cosine"] == pytest.approx(params["mean_cosine"], abs=1e-4)
    assert got["l0"] == pytest.approx(params["mean_l0"], abs=1e-5)


def _embed(model: Surrogate, encodings: Encodings) -> np.ndarray:
    return attribution.Affine.of(model).embed(encodings)


CHECKS: dict[str, Callable[[], None]] = {
    name.removeprefix("check_"): function for name, function in dict(globals()).items() if name.startswith("check_")
}


@pytest.mark.parametrize("case", list(CASES))
def test_golden(case: str) -> None:
    assert case in CHECKS, f"no check for the golden case {case}"
    CHECKS[case]()


def test_everything_is_looked_at() -> None:
    for case in CASES:
        CHECKS[case]()
    for name, used in USED.items():
        assert set(content(name)) == used, name
    assert {entry["file"] for entry in CASES.values()} <= set(USED)
