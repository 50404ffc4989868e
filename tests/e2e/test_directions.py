"""Directions as a user gets them: steering, stored directions, single images, words, baselines, bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import document_of, page_of, rdx_here
from safetensors.numpy import load_file
from tiny_models import save_clip

from rdxcli.methods.directions.base import Directions
from rdxcli.methods.directions.steering import own_strength


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def learned(outputs: Path) -> dict[str, Any]:
    """Ten directions of the embedded model."""
    return document_of(
        *("explain", "--method", "uibe", "--model", "digits-cnn", "--layer", "conv2", "--num-directions", 10),
        *("--sample", 600, "--param", "n_starts=1", "--param", "steps=100", "--param", "stability=false"),
        *("--outputs", outputs),
    )


def features_of(document: dict[str, Any]) -> np.ndarray:
    folder = Path(document["artifact"]).parents[1] / "activations" / "none"
    return np.load(folder / "activations.npy").astype(np.float32)


def logits_of(values: np.ndarray) -> np.ndarray:
    """What the embedded model makes of its last convolution, written out."""
    from rdxcli.models import load

    module = load("digits-cnn", "cpu").module
    fc = dict(module.named_modules())["fc"]
    with torch.no_grad():
        return fc(torch.as_tensor(values).mean(dim=(2, 3))).double().numpy()


def test_steering_is_what_the_network_says(learned: dict[str, Any], outputs: Path) -> None:
    steered = document_of(
        *("explain", "--method", "uibe", "--apply", learned["artifact"], "--outputs", outputs, "--run", "steered"),
        *("--sample", 600, "--steer", "2=-1,1.5", "--steer", "4=1x", "--param", "steer_clamp=false"),
    )
    steps = steered["steering"]["steps"]
    assert [(step["direction"], step["amount"]) for step in steps[:2]] == [(2, -1.0), (2, 1.5)]
    folder = Path(steered["artifact"])
    arrays, stored = np.load(folder / "steering.npz"), load_file(folder / "directions.safetensors")
    found = Directions.of(*(stored[name] for name in ("encoding", "decoding", "bias", "margin", "mean")))
    X = features_of(steered)
    assert steps[2]["amount"] == pytest.approx(own_strength(found, X)[4], rel=1e-6)
    assert len(set(arrays["sample_ids"].tolist())) == len(X)
    np.testing.assert_allclose(arrays["logits"], logits_of(X), atol=1e-4)
    for step, index, amount in zip(arrays["steered"], arrays["direction"], arrays["amount"], strict=True):
        moved = X + (amount * stored["encoding"][index])[:, None, None].astype(np.float32)
        np.testing.assert_allclose(step, logits_of(moved), atol=1e-3)
    with open(folder / "steering.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 * 10
    for row in rows[:10]:
        k = int(row["class"])
        assert float(row["change"]) == pytest.approx((arrays["steered"][0] - arrays["logits"]).mean(0)[k], abs=1e-4)
        assert int(row["predicted_after"]) == (arrays["steered"][0].argmax(1) == k).sum()
    changed = (arrays["steered"].argmax(2) != arrays["logits"].argmax(1)).mean(1)
    assert [step["changed"] for step in steps] == pytest.approx(changed.tolist())
    text = page_of(steered, outputs)
    assert "What if" in text
    assert "Direction 2 by -1" in text
    assert "change of the logits" in text  # the curve of a direction with two amounts


def test_steering_where_the_concept_is(learned: dict[str, Any], outputs: Path) -> None:
    base = ["explain", "--method", "uibe", "--apply", learned["artifact"], "--outputs", outputs, "--sample", 600]
    parts = {
        where: document_of(
            *(*base, "--steer", "2=1", "--param", f"steer_where={where}", "--param", "steer_clamp=false"),
            *("--run", where),
        )
        for where in ("all", "present", "absent")
    }
    change = {
        where: {one["class"]: one["change"] for one in found["steering"]["steps"][0]["classes"]}
        for where, found in parts.items()
    }
    # behind this layer the network is linear: what is done at some places and at the others adds up
    for name, value in change["all"].items():
        assert change["present"][name] + change["absent"][name] == pytest.approx(value, abs=1e-4)


def test_removing_a_concept_from_single_images(learned: dict[str, Any], outputs: Path) -> None:
    found = document_of(
        *("explain", "--method", "uibe", "--apply", learned["artifact"], "--outputs", outputs, "--sample", 600),
        *("--target", "5,17", "--run", "images"),
    )
    assert "steering" not in found
    X = features_of(found)
    stored = load_file(Path(found["artifact"]) / "directions.safetensors")
    read = Directions.of(*(stored[name] for name in ("encoding", "decoding", "bias", "margin", "mean")))
    for image, row in zip(found["images"], (5, 17), strict=True):
        logits = logits_of(X[[row]])[0]
        assert image["prediction"] == str(logits.argmax())
        assert image["logit"] == pytest.approx(logits.max(), abs=1e-3)
        assert image["concepts"]
        for one in image["concepts"]:
            i = one["direction"]
            active = read.detect(X[[row]])[:, [i]]
            amount = own_strength(read, X)[i] * active
            moved = np.maximum(X[[row]] - amount * stored["encoding"][i][:, None, None], 0).astype(np.float32)
            assert one["contribution"] == pytest.approx(logits.max() - logits_of(moved)[0, logits.argmax()], abs=1e-3)
            np.testing.assert_allclose(one["map"], read.concept_maps(X[[row]])[0, i], atol=1e-3)
    text = page_of(found, outputs)
    assert "Single images" in text
    assert f"<dd>{found['images'][0]['prediction']}</dd>" in text


def test_stored_directions_on_other_images(learned: dict[str, Any], outputs: Path) -> None:
    again = document_of(
        *("explain", "--method", "uibe", "--apply", learned["artifact"], "--outputs", outputs, "--sample", 600),
        *("--run", "again"),
    )
    for one, other in zip(learned["directions"], again["directions"], strict=True):
        assert one["sample_ids"] == other["sample_ids"]
        for mine, theirs in zip(one["influence"], other["influence"], strict=True):
            assert (mine["class"], mine["significant"]) == (theirs["class"], theirs["significant"])
            assert mine["effect"] == pytest.approx(theirs["effect"], rel=1e-6)
    whole = document_of(
        "explain", "--method", "uibe", "--apply", learned["artifact"], "--outputs", outputs, "--run", "whole"
    )
    assert whole["samples"]["n"] == 1797
    assert len(whole["directions"]) == 10


@pytest.mark.parametrize("method", ["pca", "nmf", "ica", "kmeans", "natural"])
def test_baselines_through_the_same_interface(method: str, outputs: Path) -> None:
    found = document_of(
        *("explain", "--method", method, "--model", "digits-cnn", "--layer", "conv2", "--num-directions", 4),
        *("--sample", 300, "--steer", "1=2", "--outputs", outputs),
    )
    assert len(found["directions"]) == 4
    assert all(len(entry["influence"]) == 6 for entry in found["directions"])
    assert found["scores"]["influence"]["how"] == "intervention"
    assert found["steering"]["clamp"]  # the layer ends in a ReLU
    assert found["steering"]["steps"][0]["classes"][0]["change"] != 0


def test_a_step_without_its_network_is_refused_before_work_begins(outputs: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "acts.npy", np.random.default_rng(0).normal(size=(60, 8)))
    base = ["explain", "--method", "pca"]
    model = ["--model", "digits-cnn", "--sample", 200, "--num-directions", 3]
    stored = document_of(*base, *model, "--outputs", outputs, "--run", "stored")
    cases: list[tuple[list[object], str]] = [
        ([*model, "--steer", "3=1"], "numbered 0 to 2"),
        ([*model, "--steer", "1"], "cannot read `1`"),
        ([*model, "--steer", "one=1"], "cannot read `one=1`"),
        ([*model, "--steer", "1=fast"], "`fast`"),
        ([*model, "--steer", "1=0"], "`0`"),
        ([*model, "--steer", "1=inf"], "`inf`"),
        ([*model, "--steer", "1=1,,2"], "is no amount"),
        ([*model, "--steer", "1=1", "--param", "steer_where=there"], "steer_where=there"),
        ([*model, "--steer", "1=1", "--param", "steer_clamp=3"], "steer_clamp=3"),
        ([*model, "--steer", "1=1", "--param", "head=false"], "needs the network above"),
        (["--activations", tmp_path / "acts.npy", "--steer", "1=1"], "needs the network above"),
        ([*model, "--target", "9999"], "no sample `9999`"),
        ([*model, "--target", "class:11"], "expected a label that occurs"),
        (["--apply", stored["artifact"], "--activations", tmp_path / "acts.npy"], "got features of 8"),
        (["--apply", stored["artifact"], "--layer", "conv1"], "is about layer `conv2`"),
        (["--apply", stored["artifact"], "--steer", "7=1"], "there is no direction 7"),
        (["--apply", stored["artifact"], "--num-directions", 5], "are about finding directions"),
        (["--apply", ""], "is no artifact"),
        ([*model, "--file", f"masks={tmp_path / 'nowhere'}"], "no such folder of masks"),
        ([*model, "--concepts", tmp_path / "nowhere.npy"], "nowhere.npy"),
    ]
    for arguments, words in cases:
        done = rdx_here(*base, *arguments, "--outputs", outputs, "--run", "bad")
        said = " ".join(done.stderr.split())
        assert done.returncode in (1, 2), arguments
        assert words in said, (arguments, said)
        assert "unexpected" not in said
    assert not list(outputs.rglob("bad/manifest.json"))
    assert not list(outputs.rglob("*.partial"))


def test_words_name_the_directions_they_follow(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    presence = (rng.random((240, 3)) < 0.3).astype(float)
    mixing = np.linalg.qr(rng.normal(size=(12, 12)))[0][:3]
    np.save(tmp_path / "acts.npy", 6 * presence @ mixing + 0.1 * rng.normal(size=(240, 12)))
    words = ["wheel", "leaf", "window", "cloud", "null"]
    scores = rng.normal(size=(240, 5))
    scores[:, :3] += 3 * presence
    np.save(tmp_path / "scores.npy", scores)
    (tmp_path / "words.txt").write_text("\n".join(words) + "\n")
    found = document_of(
        *("explain", "--method", "ica", "--activations", "acts.npy", "--num-directions", 3, "--outputs", "out"),
        *("--concepts", "scores.npy", "--concept-names", "words.txt"),
        cwd=tmp_path,
    )
    best = [entry["words"][0] for entry in found["directions"]]
    assert {one["word"] for one in best} == {"wheel", "leaf", "window"}
    assert all(one["p_value"] <= 0.01 and one["correlation"] > 0.5 for one in best)
    assert "words: " in page_of({"artifact": tmp_path / found["artifact"]}, tmp_path / "out")
    # words that have nothing to do with the images are not passed off as names
    np.save(tmp_path / "scores.npy", rng.normal(size=(240, 5)))
    noise = document_of(
        *("explain", "--method", "ica", "--activations", "acts.npy", "--num-directions", 3, "--outputs", "out"),
        *("--concepts", "scores.npy", "--concept-names", "words.txt", "--run", "noise"),
        cwd=tmp_path,
    )
    assert max(entry["words"][0]["p_value"] for entry in noise["directions"]) > 0.05


def test_words_of_a_vision_language_model(learned: dict[str, Any], outputs: Path, tmp_path: Path) -> None:
    folder = save_clip(tmp_path / "clip")
    (tmp_path / "words.txt").write_text("dog\ncat\ntree\ncar\n")
    found = document_of(
        *("explain", "--method", "uibe", "--apply", learned["artifact"], "--sample", 60, "--outputs", outputs),
        *("--vlm", f"hf:{folder}", "--concept-set", tmp_path / "words.txt", "--run", "vlm"),
    )
    for entry in found["directions"]:
        assert {one["word"] for one in entry["words"]} == {"dog", "cat", "tree", "car"}
        correlations = [one["correlation"] for one in entry["words"]]
        assert correlations == sorted(correlations, reverse=True)


def _street(folder: Path) -> None:
    """Maps with two concepts, masks with unlabelled pixels (255 and a label without a name), names and ids."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((40, 32, 6, 6)).astype(np.float32)
    (folder / "masks").mkdir()
    for n in range(40):
        mask = (np.arange(12)[:, None] * np.ones(12) >= rng.integers(3, 9)).astype(np.uint8)
        features[n, :2] += 4.0 * mask[::2, ::2]
        mask[rng.random(mask.shape) < 0.1] = 255
        mask[rng.random(mask.shape) < 0.1] = 2
        np.save(folder / "masks" / f"s{n:02d}.npy", mask)
    np.save(folder / "acts.npy", features)
    (folder / "ids.txt").write_text("\n".join(f"s{n:02d}" for n in range(40)))
    (folder / "names.txt").write_text("sky\nroad\n")


MASKED = (
    *("explain", "--method", "pca", "--activations", "acts.npy", "--sample-ids", "ids.txt", "--num-directions", 3),
    *("--file", "masks=masks", "--concept-names", "names.txt", "--outputs", "out"),
)


def test_masks_with_unlabelled_pixels_name_directions(tmp_path: Path) -> None:
    _street(tmp_path)
    found = document_of(*MASKED, cwd=tmp_path)
    best = max((entry["mask_label"] for entry in found["directions"]), key=lambda label: label["iou"])
    assert best["concept"] in ("sky", "road")
    assert best["interpretable"]
    assert best["iou"] > best["random_iou"]
    assert best["p_value"] <= 0.02
    assert any("no name and count as unlabelled" in note for note in found["notes"])
    # another mask is another question
    mask = np.load(tmp_path / "masks" / "s07.npy")
    np.save(tmp_path / "masks" / "s07.npy", 1 - np.minimum(mask, 1))
    changed = rdx_here(*MASKED, cwd=tmp_path)
    assert changed.returncode == 1
    assert "was made with other parameters or inputs" in changed.stderr


def test_what_was_learned_survives_a_failure_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rdxcli.concepts import direction_record as record
    from rdxcli.errors import InputError
    from rdxcli.methods.directions.baselines import PCADirections
    from rdxcli.services.explain.base import ExplainOptions
    from rdxcli.services.explain.directions import DirectionAnalysis

    np.save(tmp_path / "acts.npy", np.random.default_rng(0).standard_normal((80, 6)).astype(np.float32))
    options = ExplainOptions(
        method="pca", activations=str(tmp_path / "acts.npy"), parameters={"n_directions": 2}, outputs=tmp_path / "out"
    )
    fits: list[int] = []
    fit, describe = PCADirections.fit, record.describe

    def counted(self: PCADirections, *given: Any) -> PCADirections:
        fits.append(1)
        return fit(self, *given)

    def broken(*given: Any) -> Any:
        raise InputError("a mask is broken")

    monkeypatch.setattr(PCADirections, "fit", counted)
    monkeypatch.setattr(record, "describe", broken)
    with pytest.raises(InputError):
        DirectionAnalysis(options).run()
    once = len(fits)
    assert once == 3  # the samples, and each half of them
    monkeypatch.setattr(record, "describe", describe)
    document = DirectionAnalysis(options).run().document
    assert len(fits) == once
    assert document["scores"]["stability"]["mean"] > 0
    assert not list((tmp_path / "out").rglob("learned.json"))


def test_parameters_of_influence_and_their_bounds(outputs: Path) -> None:
    base = ["explain", "--method", "kmeans", "--model", "digits-cnn", "--sample", 300, "--num-directions", 4]
    found = document_of(
        *(*base, "--param", "influence_null=published", "--param", "influence_draws=20", "--outputs", outputs),
        *("--param", "influence_alpha=2", "--run", "published", "--param", "stability=false"),
    )
    assert found["scores"]["influence"]["null"] == "published"
    assert found["parameters"]["influence_alpha"] == 2
    assert "stability" not in found["scores"]
    assert all("sensitivity" in one for entry in found["directions"] for one in entry["influence"][:1])
    for bad in ("influence_null=luck", "influence_alpha=0", "influence_draws=0", "influence_level=2", "stability=3"):
        done = rdx_here(*base, "--param", bad, "--outputs", outputs, "--run", "bad")
        assert done.returncode == 2, bad
        assert bad.partition("=")[0] in done.stderr


SAE = (
    *("explain", "--method", "sae", "--model", "digits-cnn", "--layer", "conv2", "--sample", 400),
    *("--num-directions", 48, "--param", "k=3", "--param", "steps=120", "--param", "batch=256"),
)


def test_a_dictionary_behaves_as_directions_do(tmp_path: Path) -> None:
    learned = document_of(*SAE, "--steer", "3=-1x", "--target", "5", "--outputs", tmp_path)
    scores = learned["scores"]
    assert 0.2 < scores["dictionary"]["explained_variance"] < 1
    assert scores["dictionary"]["l0"] == pytest.approx(3, abs=0.1)
    losses = [point["loss"] for point in scores["dictionary"]["curve"]]
    assert losses[-1] < losses[0]
    assert "stability" not in scores
    assert len(learned["directions"]) == 48
    assert all(np.shape(entry["concept_maps"])[0] == 12 for entry in learned["directions"])
    assert learned["steering"]["steps"]
    assert learned["images"]
    again = document_of(
        *("explain", "--method", "sae", "--apply", learned["artifact"], "--sample", 400, "--run", "again"),
        *("--outputs", tmp_path),
    )
    for one, other in zip(learned["directions"], again["directions"], strict=True):
        assert one["sample_ids"] == other["sample_ids"]
        for mine, theirs in zip(one["influence"], other["influence"], strict=True):
            assert mine["effect"] == pytest.approx(theirs["effect"], rel=1e-5, abs=1e-6)
    assert "Direction 0" in page_of(learned, tmp_path)


def test_a_published_dictionary(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    learned = document_of(*SAE, "--outputs", tmp_path)
    stored = load_file(Path(learned["artifact"]) / "directions.safetensors")
    W = stored["decoding"].astype(np.float32)
    arrays = {
        "W_enc": np.ascontiguousarray(W.T),
        "W_dec": stored["encoding"].astype(np.float32) / stored["gain"][:, None].astype(np.float32),
        "b_enc": (W @ stored["mean"] - stored["bias"] + 1).astype(np.float32),
        "b_dec": stored["mean"].astype(np.float32),
        "threshold": np.ones(len(W), np.float32),
    }
    (tmp_path / "cfg.json").write_text('{"apply_b_dec_to_input": true}')
    save_file(arrays, tmp_path / "published.safetensors")
    base = ["explain", "--method", "sae", "--model", "digits-cnn", "--layer", "conv2", "--sample", 400]
    given = [*base, "--file", f"dictionary={tmp_path / 'published.safetensors'}", "--outputs", tmp_path]
    found = document_of(*given, "--run", "published")
    for one, other in zip(learned["directions"], found["directions"], strict=True):
        assert one["share"] == pytest.approx(other["share"], abs=2e-3)
        assert one["influence"][0]["class"] == other["influence"][0]["class"]
        assert one["influence"][0]["effect"] == pytest.approx(other["influence"][0]["effect"], rel=0.02, abs=1e-3)
    assert found["scores"]["dictionary"]["l0"] == pytest.approx(learned["scores"]["dictionary"]["l0"], abs=0.05)
    # another dictionary under the same name and path is another question
    save_file({**arrays, "b_enc": arrays["b_enc"] + 1}, tmp_path / "published.safetensors")
    changed = rdx_here(*given, "--run", "published")
    assert changed.returncode == 1
    assert "was made with other parameters or inputs" in changed.stderr
    save_file({"W_enc": W}, tmp_path / "half.safetensors")
    (tmp_path / "text.safetensors").write_text("no")
    for arguments, words in (
        ([*base, "--file", f"dictionary={tmp_path / 'half.safetensors'}"], "expected W_enc"),
        ([*base, "--file", f"dictionary={tmp_path / 'text.safetensors'}"], "no readable safetensors"),
        ([*base, "--file", f"dictionary={tmp_path / 'none.safetensors'}"], "no such file"),
        ([*given[:4], "digits-cnn", "--layer", "conv1", *given[7:]], "channels, expected 32"),
        ([*given, "--param", "steps=3"], "learning a dictionary"),
        (["explain", "--method", "pca", *given[3:]], "give --method sae"),
    ):
        done = rdx_here(*arguments, "--outputs", tmp_path, "--run", "bad")
        assert done.returncode in (1, 2), arguments
        assert words in " ".join(done.stderr.split()), (arguments, done.stderr)


def test_an_interrupted_dictionary_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rdxcli.methods.dictionaries.sae import _Learner

    whole = document_of(*SAE, "--param", "steps=1100", "--run", "whole", "--outputs", tmp_path)
    advance = _Learner.advance

    def stopped(self: _Learner) -> None:
        if self.step == 700:
            raise KeyboardInterrupt
        advance(self)

    parts = [*SAE, "--param", "steps=1100", "--run", "parts", "--outputs", tmp_path]
    monkeypatch.setattr(_Learner, "advance", stopped)
    assert rdx_here(*parts).returncode != 0
    monkeypatch.setattr(_Learner, "advance", advance)
    done = rdx_here(*parts, "--json")
    assert "goes on from step 500" in done.stderr
    assert json.loads(done.stdout)["scores"]["dictionary"] == whole["scores"]["dictionary"]
    assert not list(tmp_path.rglob("learning.safetensors"))


def test_layer_and_output_are_read_in_one_pass_and_names_of_classes_before_it(tmp_path: Path) -> None:
    base = ["explain", "--method", "pca", "--model", "digits-cnn", "--limit", 40, "--num-directions", 2]
    (tmp_path / "two.txt").write_text("a\nb\n")
    refused = rdx_here(*base, "--file", f"classes={tmp_path / 'two.txt'}", "--outputs", tmp_path / "out")
    assert refused.returncode == 1
    assert "two.txt has 2 lines, the model has 10 outputs" in refused.stderr
    assert not list(tmp_path.rglob("activations.npy"))
    done = rdx_here(*base, "--outputs", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("extracting")]
    assert len(said) == 1
    assert "conv2, output of digits-cnn" in said[0]
    again = rdx_here(*base, "--outputs", tmp_path / "out", "--run", "again")
    reused = [line for line in again.stderr.splitlines() if line.startswith("reusing")]
    assert len(reused) == len(set(reused)) == 2  # once for each layer


def test_weights_of_a_model_are_no_array_and_a_thousand_outputs_are_those_of_imagenet() -> None:
    from rdxcli.concepts.labels import class_names
    from rdxcli.datasets.arrays import is_array
    from rdxcli.records import Representation

    assert is_array("acts.safetensors:x")
    assert not is_array("file:weights.safetensors")
    assert not is_array("file:weights.safetensors?arch=timm:resnet18")
    source = Representation(np.zeros((4, 8)), None, "m", source={"model": "file:weights.safetensors"})
    assert class_names(source, 1000)[340] == "zebra"
    assert class_names(source, 10)[3] == "3"


def test_the_number_of_directions_is_looked_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    own = rng.integers(5, size=400)
    np.save(tmp_path / "x.npy", (25 * np.eye(12)[own] + rng.standard_normal((400, 12))).astype("f4"))
    asked = ("explain", "--method", "kmeans", "--activations", "x.npy", "--outputs", tmp_path / "out", "--param")
    found = document_of(*asked, "numbers=2,5,8", cwd=tmp_path)
    assert found["parameters"]["n_directions"] == len(found["directions"]) == 5
    table = found["scores"]["numbers"]
    assert [row["number"] for row in table["rows"]] == [2, 5, 8]
    assert table["rows"][1]["stability"] > 0.95 > table["rows"][1]["chance"]
    said = rdx_here(*asked, "numbers=2,5,8", cwd=tmp_path).stderr
    assert "5 directions are found again" in said
    page = page_of(found, tmp_path / "out")
    assert "How many directions?" in page
    for bad, why in (
        ("numbers=4", "two or more"),
        ("numbers=four,5", "two or more"),
        ("numbers=300,400", "half of the"),
    ):
        done = rdx_here(*asked, bad, "--force", cwd=tmp_path)
        assert done.returncode != 0
        assert why in done.stderr
        assert "Traceback" not in done.stderr
    done = rdx_here(*asked, "numbers=2,5", "--n-directions", "3", cwd=tmp_path)
    assert "leave out --n-directions" in done.stderr
