"""The embedded networks: what they train on, how well, the same everywhere, once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import rdx_here
from PIL import Image
from processes import Forked

from rdxcli.errors import UsageError
from rdxcli.models import digits, load
from rdxcli.models.digits import RECIPES, obtain, train, training_set

SHORT = replace(RECIPES[""], stop=12)


def test_images_are_the_digits():
    images, labels = digits.digit_arrays()
    assert (images.shape, images.dtype, labels.shape) == ((1797, 8, 8), np.uint8, (1797,))
    assert (images.min(), images.max()) == (0, 255)


def test_training_sets_differ_as_their_names_say():
    images, labels = training_set(RECIPES[""])
    for variant, old, new in (("m35", 5, 3), ("m49", 9, 4)):
        same, changed = training_set(RECIPES[variant])
        np.testing.assert_array_equal(same, images)
        np.testing.assert_array_equal(labels[changed != labels], old)
        np.testing.assert_array_equal(changed[labels == old], new)
    for flip, axis in (("hflip", 2), ("vflip", 1)):
        doubled, kept = training_set(RECIPES[flip])
        np.testing.assert_array_equal(doubled[1797:], np.flip(images, axis))
        np.testing.assert_array_equal(kept, np.tile(labels, 2))
        np.testing.assert_array_equal(training_set(RECIPES[f"{flip}-nl"])[1], np.concatenate([labels, labels + 10]))


def test_same_weights_for_any_number_of_threads_and_other_weights_for_other_seeds():
    before = torch.get_num_threads()
    one, facts = train(SHORT, 0)
    assert torch.get_num_threads() == before
    state = torch.random.get_rng_state()
    again, _ = train(SHORT, 0)
    assert torch.equal(state, torch.random.get_rng_state())
    other, _ = train(SHORT, 1)
    m35, _ = train(replace(RECIPES["m35"], stop=12), 0)
    assert facts["steps"] == 12
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert all(value.dtype in (torch.float32, torch.int64) for value in one.values())
    assert not torch.equal(one["conv1.0.weight"], other["conv1.0.weight"])
    assert not torch.equal(one["conv1.0.weight"], m35["conv1.0.weight"])


def test_the_early_one_is_a_point_of_the_plain_training():
    early, _ = train(replace(RECIPES["early"], stop=12), 0)
    plain, _ = train(SHORT, 0)
    assert all(torch.equal(early[key], plain[key]) for key in plain)


SCRIPT = """
import logging, os, sys
from dataclasses import replace
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
import torch
torch.set_num_threads(int(os.environ["THREADS"]))
from rdxcli.models import load
from rdxcli.models.digits import RECIPES
RECIPES["early"] = replace(RECIPES["early"], stop=12)
print(load("digits-cnn-early", "cpu").weights_sha256)
"""


def run_two(caches, threads=(1, 2)):
    """The same request in two processes at once; what each printed."""
    both = [
        Forked(code=SCRIPT, RDX_CACHE=str(cache), THREADS=str(count))
        for cache, count in zip(caches, threads, strict=True)
    ]
    texts = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    return texts


def test_two_processes_at_once_train_once(tmp_path):
    texts = run_two([tmp_path / "shared", tmp_path / "shared"])
    assert "".join(texts).count("trained digits-cnn-early") == 1
    assert texts[0].splitlines()[-1] == texts[1].splitlines()[-1]
    assert len(list((tmp_path / "shared" / "models").glob("*.safetensors"))) == 1
    assert not list((tmp_path / "shared" / "models").glob("*.partial"))


def test_two_processes_on_their_own_get_the_same_weights(tmp_path):
    texts = run_two([tmp_path / "one", tmp_path / "two"])
    assert all("trained digits-cnn-early" in text for text in texts)
    assert texts[0].splitlines()[-1] == texts[1].splitlines()[-1]
    files = [next((tmp_path / name / "models").glob("*.safetensors")) for name in ("one", "two")]
    assert files[0].name == files[1].name


def test_cached_damaged_and_unwritable(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(RECIPES, "early", replace(RECIPES["early"], stop=3))
    first = obtain("early")
    assert first.path is not None
    assert first.path.parent == tmp_path / "cache" / "models"
    monkeypatch.setattr(digits, "train", lambda *_: pytest.fail("trained again"))
    again = obtain("early")
    assert all(torch.equal(first.state[key], again.state[key]) for key in first.state)
    assert again.facts == first.facts
    monkeypatch.undo()
    monkeypatch.setenv("RDX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(RECIPES, "early", replace(RECIPES["early"], stop=3))
    first.path.write_bytes(first.path.read_bytes()[:500])
    repaired = obtain("early")
    assert "damaged" in caplog.text
    assert all(torch.equal(first.state[key], repaired.state[key]) for key in first.state)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RDX_CACHE", str(tmp_path / "file"))
    assert obtain("early").path is None
    assert "cannot be written" in caplog.text


def test_a_changed_recipe_is_another_file(monkeypatch):
    monkeypatch.setitem(RECIPES, "early", replace(RECIPES["early"], stop=2))
    one = obtain("early").path
    monkeypatch.setitem(RECIPES, "early", replace(RECIPES["early"], stop=3))
    assert obtain("early").path != one
    assert obtain("early", seed=4).path.name.startswith("digits-cnn-early@4-")


def test_loaded_like_any_other_model(monkeypatch):
    monkeypatch.setitem(RECIPES, "hflip-nl", replace(RECIPES["hflip-nl"], stop=2))
    model = load("digits-cnn-hflip-nl@3", "cpu")
    assert (model.name, model.default_layer, model.input_size) == ("digits-cnn-hflip-nl@3", "conv2", (1, 8, 8))
    images, _ = digits.digit_arrays()
    x = torch.stack([model.transform(Image.fromarray(image)) for image in images[:4]])
    torch.testing.assert_close(x[:, 0], torch.from_numpy(images[:4] / np.float32(127.5) - 1), rtol=1e-5, atol=1e-6)
    with model.tap() as tap:
        values = tap(x)["conv2"]
    assert values.shape == (4, 32)
    torch.testing.assert_close(model.module.fc(values), model.module(x))
    assert model.module(x).shape == (4, 20)
    described = model.description()
    assert described["provenance"]["recipe"]["flip"] == "h"
    assert "seconds" not in described["provenance"]
    with pytest.raises(UsageError, match="no option `width`"):
        load("digits-cnn?width=3", "cpu")


def test_an_unknown_layer_is_refused_before_the_training(monkeypatch, tmp_path):
    monkeypatch.setenv("RDX_CACHE", str(tmp_path / "cache"))
    for command in (
        ["extract", "--model", "digits-cnn-vflip", "--layer", "conv2,conv9"],
        ["explain", "--method", "eddp", "--model", "digits-cnn-vflip", "--layer", "conv9"],
        ["compare", "digits-cnn-hflip", "digits-cnn-vflip", "--layer-b", "conv9"],
        ["compare", "digits-cnn-vflip", "--layers", "conv1,conv9"],
    ):
        done = rdx_here(*command, "--limit", "30", cwd=tmp_path)
        assert done.returncode == 2
        assert "unknown layer" in done.stderr
        assert "digits-cnn-vflip" in done.stderr
    assert not (tmp_path / "cache" / "models").exists()


def test_untrained_does_not_train(monkeypatch):
    monkeypatch.setattr(digits, "train", lambda *_: pytest.fail("trained"))
    assert load("digits-cnn", "cpu", untrained=True).untrained


def linear_cka(x, y):
    """Debiased linear CKA, from the SPEC's formula (section 3)."""

    def centred(x):
        gram = x @ x.T
        np.fill_diagonal(gram, 0)
        n = len(gram)
        mean = gram.sum(0) / (n - 2)
        mean -= mean.sum() / (2 * (n - 1))
        gram = gram - mean[:, None] - mean
        np.fill_diagonal(gram, 0)
        return gram

    k, l = centred(x.astype(np.float64)), centred(y.astype(np.float64))  # noqa: E741
    return (k * l).sum() / np.sqrt((k * k).sum() * (l * l).sum())


def test_trained_networks_are_what_the_paper_compares(monkeypatch):
    monkeypatch.undo()  # trained once, for all tests

    images, labels = digits.digit_arrays()
    found = {}
    for name in ("digits-cnn", "digits-cnn-m35", "digits-cnn-early"):
        model = load(name, "cpu")
        x = torch.stack([model.transform(Image.fromarray(image)) for image in images])
        with model.tap(["conv2", "last"]) as tap:
            values = tap(x)
        found[name] = values["conv2"].numpy(), values["output"].argmax(1).numpy(), model.provenance["train_accuracy"]
    assert found["digits-cnn"][2] == found["digits-cnn-m35"][2] == 1.0
    np.testing.assert_array_equal(found["digits-cnn"][1], labels)
    np.testing.assert_array_equal(found["digits-cnn-m35"][1], np.where(labels == 5, 3, labels))
    assert 0.93 < found["digits-cnn-early"][2] < 0.97
    assert 0.80 < linear_cka(found["digits-cnn"][0], found["digits-cnn-m35"][0]) < 0.90
