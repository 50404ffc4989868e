"""Training: learns a planted map, honest validation, every option, resume without a trace."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import Forked
from unit.surrogate.made_up import SETTINGS, teacher

from rdxcli.methods.surrogate import checkpoints
from rdxcli.methods.surrogate.attribution import Affine
from rdxcli.methods.surrogate.evaluation import agreement, cosine_matrix
from rdxcli.methods.surrogate.training import SurrogateTrainer, make_optimizer


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """These problems are too small for more; results are the same bit for bit for the same number of threads only."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(**options: Any) -> SurrogateTrainer:
    encodings, arrays = teacher()
    fit = {key: options.pop(key) for key in ("checkpoint", "checkpoint_seconds", "callback") if key in options}
    return SurrogateTrainer(**{**SETTINGS, **options}).fit(encodings, **arrays, **fit)


@pytest.fixture(scope="module")
def unbroken() -> SurrogateTrainer:
    return train()


def same(a: SurrogateTrainer, b: SurrogateTrainer) -> bool:
    states = (a.surrogate_.published_state(), b.surrogate_.published_state())
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0]) and a.history_ == b.history_


def test_a_planted_map_is_found() -> None:
    trained = train(epochs=80)
    score, train_score = trained.scores_["validation"], trained.scores_["train"]
    assert score["kl"] < 0.05 * score["uniform_kl"]
    assert score["cosine"] > 0.9
    assert score["agreement"] > 0.7
    assert score["kl"] == pytest.approx(train_score["kl"], rel=1.0)  # a planted map: nothing to overfit
    assert trained.history_[-1]["epoch"] == 80
    assert any("have no concepts" in note for note in trained.notes_)
    assert not any("explains nothing" in note for note in trained.notes_)


def test_scores_are_what_they_say(unbroken: SurrogateTrainer) -> None:
    encodings, arrays = teacher()
    rows = unbroken.split_.validation
    z = Affine.of(unbroken.surrogate_).embed(encodings)[rows]
    images, texts = arrays["image_embeddings"][rows], arrays["text_embeddings"][arrays["text_offsets"][rows]]
    classes = arrays["class_embeddings"]
    score = unbroken.scores_["validation"]
    assert score["agreement"] == pytest.approx(agreement(cosine_matrix(z, classes), cosine_matrix(images, classes)))
    assert score["cosine"] == pytest.approx(np.diag(cosine_matrix(z, images)).mean(), abs=1e-5)
    S, T = (torch.tensor(cosine_matrix(x, texts) / 0.1) for x in (z, images))
    kl = [float((t.softmax(1) * (t.log_softmax(1) - s.log_softmax(1))).sum(1).mean()) for s, t in ((S, T), (S.T, T.T))]
    assert score["kl"] == pytest.approx(np.mean(kl), rel=1e-4)
    assert score["i2t_kl"] == pytest.approx(kl[0], rel=1e-4)
    assert score["l0"] == encodings.l0[rows].mean()
    best = unbroken.history_[unbroken.best_epoch_ - 1]
    assert best["best"]
    assert best["val_kl"] == pytest.approx(score["kl"], rel=1e-6)
    assert min(row["val_kl"] for row in unbroken.history_) == best["val_kl"]


def test_held_out_images_do_not_matter(unbroken: SurrogateTrainer) -> None:
    encodings, arrays = teacher()
    held = unbroken.split_.validation
    assert not set(held) & set(unbroken.split_.train)
    assert len(held) == 16
    arrays["image_embeddings"][held] = np.random.default_rng(5).normal(size=(len(held), 12))
    other = SurrogateTrainer(**SETTINGS).fit(encodings, **arrays)
    for a, b in zip(unbroken.history_, other.history_, strict=True):
        assert a["kl"] == b["kl"]
    assert unbroken.scores_["validation"] != other.scores_["validation"]


def test_reported_images_neither_train_nor_choose(unbroken: SurrogateTrainer) -> None:
    encodings, arrays = teacher()
    split = unbroken.split_
    parts = [set(rows.tolist()) for rows in (split.train, split.validation, split.test)]
    assert sorted(map(len, parts)) == [16, 16, 128]
    assert len(set.union(*parts)) == 160
    starts = arrays["text_offsets"]
    noise = np.random.default_rng(6)
    arrays["image_embeddings"][split.test] = noise.normal(size=(16, 12))
    for row in split.test:
        arrays["text_embeddings"][starts[row] : starts[row + 1]] = noise.normal(size=(2, 12))
    other = SurrogateTrainer(**SETTINGS).fit(encodings, **arrays)
    assert same(other, unbroken)  # weights and the choice of the epoch
    assert other.scores_["validation"] == unbroken.scores_["validation"]
    assert other.scores_["test"]["kl"] > unbroken.scores_["test"]["kl"]


def test_a_test_share_of_zero_says_so() -> None:
    encodings, arrays = teacher()
    found = SurrogateTrainer(**{**SETTINGS, "epochs": 1}, test=0.0).fit(encodings, **arrays)
    assert found.scores_["test"] == found.scores_["validation"]
    assert any("flatter" in note for note in found.notes_)
    with pytest.raises(ValueError, match="choose the epoch"):
        SurrogateTrainer(**SETTINGS, validation=0.0, test=0.1).fit(encodings, **arrays)


def test_seeds_and_global_state(unbroken: SurrogateTrainer) -> None:
    torch.manual_seed(123)
    np.random.seed(7)  # noqa: NPY002
    assert same(train(), unbroken)
    assert not same(train(random_state=1), unbroken)


def test_rows_are_aligned_by_id(unbroken: SurrogateTrainer) -> None:
    encodings, arrays = teacher()
    order = np.random.default_rng(0).permutation(len(encodings.ids))
    turned = SurrogateTrainer(**SETTINGS).fit(encodings.take(order), sample_ids=encodings.ids, **arrays)
    assert same(turned, unbroken)


class Stop(Exception):
    """Stands for the end of the process."""


def test_resume_leaves_no_trace(unbroken: SurrogateTrainer, tmp_path: Path) -> None:
    rows: list[Any] = []
    for last in (2, 5, 9, None):
        rows = []

        def callback(row: Any, last: int | None = last, rows: list[Any] = rows) -> None:
            rows.append(row)
            if last is not None and row["epoch"] >= last:
                raise Stop

        try:
            resumed = train(checkpoint=tmp_path, checkpoint_seconds=0.0, callback=callback)
        except Stop:
            continue
    assert resumed.resumed_at_ is not None
    assert resumed.resumed_at_[0] >= 8
    assert same(resumed, unbroken)
    assert rows == unbroken.history_
    assert resumed.scores_ == unbroken.scores_
    again = train(checkpoint=tmp_path)
    assert again.resumed_at_ == (12, 0)
    assert same(again, unbroken)


KILLED = """
import os, random, signal, sys, time
import torch
torch.set_num_threads(1)
sys.path.insert(0, {here!r})
from unit.surrogate.made_up import SETTINGS, teacher
from rdxcli.methods.surrogate.training import SurrogateTrainer
from safetensors.torch import save_file

def go(folder):
    encodings, arrays = teacher()
    trainer = SurrogateTrainer(**SETTINGS | {options!r})
    trained = trainer.fit(encodings, **arrays, checkpoint=folder, checkpoint_seconds=0.02)
    save_file(trained.surrogate_.published_state(), folder + "/final.safetensors")

kills, folder = 0, {folder!r}
draw = random.Random(0)
wait = 0.05
while True:
    child = os.fork()
    if child == 0:
        try:
            go(folder)
        finally:
            os._exit(0 if os.path.exists(folder + "/final.safetensors") else 1)
    if kills < 10:
        time.sleep(wait + draw.random() * 0.15)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        kills += 1
        continue
    assert os.WEXITSTATUS(status) == 0, "the child failed"
    break
print("kills", kills)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_ten_kills_leave_no_trace(tmp_path: Path) -> None:
    options = {"mlp_dim": 5, "use_key_encoder": True, "epochs": 60}
    (tmp_path / "run").mkdir()
    script = KILLED.format(here=str(Path(__file__).parents[2]), options=options, folder=str(tmp_path / "run"))
    process = Forked(code=script)
    said = process.communicate()
    assert process.returncode == 0, said[1]
    # Kills that come after the end do not count; at this length most fall into the run.
    assert int(said[0].split()[-1]) >= 3
    from safetensors.torch import load_file

    expected = train(**options).surrogate_.published_state()
    found = load_file(tmp_path / "run" / "final.safetensors")
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_checkpoints_of_other_runs_are_refused(tmp_path: Path) -> None:
    train(checkpoint=tmp_path, epochs=1)
    with pytest.raises(ValueError, match="different: learning_rate"):
        train(checkpoint=tmp_path, epochs=1, learning_rate=0.5)
    encodings, arrays = teacher(seed=1)
    with pytest.raises(ValueError, match="encodings, teacher, classes"):
        SurrogateTrainer(**{**SETTINGS, "epochs": 1}).fit(encodings, **arrays, checkpoint=tmp_path)
    (tmp_path / checkpoints.FILE).write_bytes(b"damaged")
    with pytest.raises(ValueError, match="cannot be read"):
        train(checkpoint=tmp_path, epochs=1)


def test_a_checkpoint_is_replaced_whole(tmp_path: Path) -> None:
    assert checkpoints.load(tmp_path) is None
    checkpoints.save(tmp_path / "a", {"x": torch.arange(3).expand(2, 3)}, {"number": 0.1 + 0.2})
    (tmp_path / "a" / "training.writing").write_bytes(b"half a file of a run that was killed")
    checkpoints.save(tmp_path / "a", {"x": torch.ones(1)}, {"number": 0.1 + 0.2})
    found = checkpoints.load(tmp_path / "a")
    assert found is not None
    assert found[0]["x"].tolist() == [1.0]
    assert found[1] == {"number": 0.1 + 0.2}
    assert [path.name for path in (tmp_path / "a").iterdir()] == [checkpoints.FILE]


def test_early_stopping_keeps_the_best() -> None:
    trained = train(epochs=400, patience=4, learning_rate=6.0)
    stopped = len(trained.history_)
    assert stopped < 400
    assert stopped == trained.best_epoch_ + 4
    assert trained.history_[trained.best_epoch_ - 1]["val_kl"] == min(row["val_kl"] for row in trained.history_)
    by_agreement = train(epochs=6, monitor="agreement")
    assert by_agreement.history_[by_agreement.best_epoch_ - 1]["val_agreement"] == max(
        row["val_agreement"] for row in by_agreement.history_
    )


@pytest.mark.parametrize(
    ("options", "note"),
    [
        ({"loss": "kl"}, None),
        ({"loss": "SymmetricKDNaiveLoss"}, None),
        ({"loss": "moving-kl", "first_visit": "batch"}, None),
        ({"optimizer": "SGD", "scale_learning_rate": False}, None),
        ({"drop_last": False, "batch_size": 50}, None),
        ({"batch_size": 4096}, "fewer than batch_size"),
        ({"validation": 0.0}, "training images"),
        ({"mlp_dim": 4}, "hidden layer"),
        ({"use_key_encoder": True}, None),
        ({"noise_mass": 0.0}, None),
        ({"legacy_reduced": True}, None),
        ({"validate_every": 2, "patience": 1}, None),
        ({"precision": "bfloat16"}, None),
        ({"precision": "float64"}, None),
    ],
)
def test_options(options: dict[str, Any], note: str | None) -> None:
    trained = train(epochs=3, **options)
    assert all(np.isfinite(row["kl"]) for row in trained.history_)
    assert any(note in found for found in trained.notes_) if note else True
    assert json.loads(json.dumps(trained.get_params()))["random_state"] == 0
    assert trained.surrogate_.table.dtype == (torch.float64 if options.get("precision") == "float64" else torch.float32)
    if options.get("batch_size") == 50:
        assert trained.history_[0]["step"] == 3  # 144 images: 50, 50, 44


def test_learning_rate_scaling() -> None:
    assert train(epochs=1, learning_rate=2.0).learning_rate_ == pytest.approx(2.0 * 0.1 * 32 / 256)
    assert train(epochs=1, scale_learning_rate=False, learning_rate=0.01).learning_rate_ == 0.01


def test_noise_needs_counts() -> None:
    encodings, arrays = teacher()
    plain = encodings.with_values({})
    trained = SurrogateTrainer(**{**SETTINGS, "epochs": 1}).fit(plain, **arrays)
    assert any("without caption counts" in note for note in trained.notes_)


def test_a_surrogate_of_noise_says_so() -> None:
    encodings, arrays = teacher()
    rng = np.random.default_rng(0)
    arrays["image_embeddings"] = rng.normal(size=(160, 12))
    arrays["text_embeddings"] = rng.normal(size=(320, 12))
    trained = SurrogateTrainer(**SETTINGS).fit(encodings, **arrays)
    assert any("explains nothing" in note for note in trained.notes_)


def test_memory_maps_are_read(unbroken: SurrogateTrainer, tmp_path: Path) -> None:
    encodings, arrays = teacher()
    for name in ("image_embeddings", "text_embeddings"):
        np.save(tmp_path / f"{name}.npy", arrays[name])
        arrays[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    assert same(SurrogateTrainer(**SETTINGS).fit(encodings, **arrays), unbroken)


def test_going_on_from_given_weights(unbroken: SurrogateTrainer) -> None:
    encodings, arrays = teacher()
    state = unbroken.surrogate_.published_state()
    trained = SurrogateTrainer(**{**SETTINGS, "epochs": 1, "learning_rate": 1e-9}).fit(
        encodings, **arrays, initial=state
    )
    torch.testing.assert_close(
        trained.surrogate_.published_state()["query_encoder.weight"], state["query_encoder.weight"]
    )
    with pytest.raises(ValueError, match="initial weights"):
        SurrogateTrainer(**SETTINGS).fit(teacher(c=9)[0], **arrays, initial=state)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"image_embeddings": lambda a: a * np.nan}, "NaN"),
        ({"image_embeddings": lambda a: a * (np.arange(len(a)) != 3)[:, None]}, "row of zeros"),
        ({"image_embeddings": lambda a: a[:-1]}, "text offsets|as many"),
        ({"text_embeddings": lambda a: a[:, :-1]}, "equal ones"),
        ({"text_embeddings": lambda a: a[:-1]}, "expected \\(320, d\\)"),
        ({"text_offsets": lambda a: np.r_[0, 0, a[2:]]}, "without a caption"),
        ({"class_embeddings": lambda a: a[:, :-1]}, "class embeddings"),
        ({"class_embeddings": lambda a: a[0]}, "class embeddings"),
    ],
)
def test_unusable_inputs(change: dict[str, Any], match: str) -> None:
    encodings, arrays = teacher()
    arrays |= {key: function(arrays[key]) for key, function in change.items()}
    with pytest.raises(ValueError, match=match):
        SurrogateTrainer(**SETTINGS).fit(encodings, **arrays)


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "x"},
        {"optimizer": "x"},
        {"precision": "int8"},
        {"monitor": "x"},
        {"batch_size": 1},
        {"epochs": 0},
        {"patience": 0},
        {"validate_every": 0},
        {"learning_rate": 0.0},
        {"weight_decay": -1.0},
        {"noise_mass": 1.0},
        {"validation": 1.0},
        {"validation": 0.999},
        {"temp_student": 0.0},
        {"gamma1": 2.0},
    ],
)
def test_impossible_options(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Got"):
        train(**options)


def test_a_run_that_blows_up_says_so() -> None:
    with pytest.raises(ValueError, match="not finite"):
        train(optimizer="SGD", learning_rate=1e38, scale_learning_rate=False, weight_decay=1e10)


def test_optimizers_by_name() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    assert isinstance(make_optimizer("Adam", [parameter], lr=0.1, weight_decay=0, amsgrad=True), torch.optim.Adam)
    with pytest.raises(ValueError, match="optimizer"):
        make_optimizer("load", [parameter], lr=0.1, weight_decay=0, amsgrad=True)
