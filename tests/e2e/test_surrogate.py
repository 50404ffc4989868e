"""From captions to words for embeddings: ``encode-concepts``, ``train-surrogate``, ``explain --method surrogate``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import printed, rdx_here, whole_page
from safetensors.numpy import load_file
from scipy import sparse

WORDS = ["dog", "cat", "tree", "car", "house", "bird", "boat", "horse", "ball", "chair"]
N, DIMENSIONS = 240, 16
TRAINING = ("--epochs", "60", "--batch-size", "64", "--learning-rate", "0.5", "--param", "noise_mass=0")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose teacher embedding is the sum of the embeddings of the two things in their captions."""
    root = tmp_path_factory.mktemp("surrogate")
    rng = np.random.default_rng(0)
    things = rng.normal(size=(len(WORDS), DIMENSIONS))
    captions, images, texts = {}, [], []
    for i in range(N):
        one, two = rng.choice(len(WORDS), 2, replace=False)
        captions[f"im{i:03d}"] = [f"a {WORDS[one]} near a {WORDS[two]}", f"the {WORDS[one]}"]
        images.append(things[one] + 0.5 * things[two] + 0.05 * rng.normal(size=DIMENSIONS))
        texts += [things[one] + 0.5 * things[two], things[one]]
    (root / "caps.json").write_text(json.dumps(captions))
    np.savez(root / "img.npz", values=np.array(images), sample_ids=np.array(list(captions)))
    np.save(root / "txt.npy", np.array(texts))
    np.save(root / "offsets.npy", np.arange(0, 2 * N + 1, 2))
    np.save(root / "cls.npy", things)
    (root / "cls.txt").write_text("\n".join(WORDS))
    return root


def run(world: Path, *arguments: object, stdin: str = "") -> str:
    return printed(*arguments, cwd=world, stdin=stdin)


def encode(world: Path, *more: str) -> str:
    return run(
        world,
        *("encode-concepts", "--captions", "caps.json", "--tagger", "packaged", "--max-threshold", "1"),
        *("--outputs", world / "outputs", "-q", *more),
    ).strip()


def trained(world: Path, encodings: str, *more: str) -> str:
    return run(world, *training(world, encodings, *more, "-q")).strip()


def training(world: Path, encodings: str, *more: str) -> list[str]:
    return [
        *("train-surrogate", "--encodings", encodings, "--image-embeddings", "img.npz:values"),
        *("--text-embeddings", "txt.npy", "--text-offsets", "offsets.npy", "--class-embeddings", "cls.npy"),
        *("--outputs", str(world / "outputs"), "--device", "cpu", *TRAINING, *more),
    ]


@pytest.fixture(scope="module")
def encodings(world: Path) -> str:
    return encode(world)


@pytest.fixture(scope="module")
def surrogate(world: Path, encodings: str) -> str:
    return trained(world, encodings)


def test_the_vocabulary_is_what_the_captions_say(world: Path, encodings: str) -> None:
    document = json.loads((Path(encodings) / "encodings.json").read_text("utf-8"))
    lines = (Path(encodings) / "vocabulary.csv").read_text("utf-8").splitlines()
    found = {line.split(",")[1] for line in lines[1:]}
    assert set(WORDS) <= found
    assert document["n"] == N
    again = json.loads(run(world, "encode-concepts", "--captions", "caps.json", "--tagger", "packaged",
                           "--max-threshold", "1", "--outputs", world / "outputs", "--json"))  # fmt: skip
    assert again["concepts"] == len(lines) - 1


def test_an_interrupted_encoding_goes_on(world: Path, encodings: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the third of five chunks: the first two are found again, and the files are those of one run."""
    from rdxcli.concepts import counting
    from rdxcli.methods.surrogate import vocabulary

    count, seen = vocabulary.count_concepts, []

    def stops(captions: dict, extractor: object) -> vocabulary.ConceptCounts:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(captions))
        return count(captions, extractor)  # type: ignore[arg-type]

    monkeypatch.setattr(counting, "CHUNK", 50)
    monkeypatch.setattr(counting, "count_concepts", stops)
    given = ("encode-concepts", "--captions", "caps.json", "--tagger", "packaged", "--max-threshold", "1")
    given = (*given, "--outputs", world / "outputs", "--run", "stopped")
    stopped = rdx_here(*given, cwd=world)
    assert stopped.returncode == 130
    parts = sorted((world / "outputs" / "caps" / "concepts").glob("stopped.partial/parts/*.npz"))
    assert [path.name for path in parts] == ["000000000.npz", "000000050.npz"]
    parts[1].write_bytes(parts[1].read_bytes()[:100])
    monkeypatch.setattr(counting, "count_concepts", count)
    done = rdx_here(*given, cwd=world)
    assert done.returncode == 0, done.stderr
    assert "50 of 240 images were done before" in done.stderr
    assert "is damaged and made again" in done.stderr
    folder = Path(world, done.stdout.strip())
    assert not (folder / "parts").exists()
    assert (folder / "vocabulary.csv").read_bytes() == (Path(encodings) / "vocabulary.csv").read_bytes()
    one, other = np.load(folder / "encodings.npz"), np.load(Path(encodings) / "encodings.npz")
    for name in other.files:
        np.testing.assert_array_equal(one[name], other[name])


def test_the_surrogate_agrees_with_its_teacher(surrogate: str) -> None:
    document = json.loads((Path(surrogate) / "surrogate.json").read_text("utf-8"))
    held_out = document["scores"]["validation"]
    assert held_out["class_agreement" if "class_agreement" in held_out else "agreement"] > 0.85, held_out
    metrics = (Path(surrogate) / "metrics.csv").read_text("utf-8").splitlines()
    assert len(metrics) == document["epochs"] + 1
    assert not (Path(surrogate) / "checkpoints").exists()
    split = json.loads((Path(surrogate) / "samples.json").read_text("utf-8"))
    assert len(split["held_out"]) == N // 10
    assert not set(split["held_out"]) & set(split["train"])


def test_new_captions_are_encoded_over_a_known_vocabulary(world: Path, encodings: str, surrogate: str) -> None:
    """A vocabulary, however it is handed over, gives the same encodings; the surrogate explains new images with it."""
    whole = np.load(Path(encodings) / "encodings.npz")
    (world / "listed.txt").write_text("\n".join(f"{word}/n" for word in WORDS))
    for number, known in enumerate((encodings, f"{encodings}/vocabulary.csv", surrogate)):
        again = np.load(Path(encode(world, "--vocabulary", known, "--run", f"known-{number}")) / "encodings.npz")
        for name in whole.files:
            np.testing.assert_array_equal(again[name], whole[name])
    (world / "new.json").write_text(json.dumps({"new": ["a horse near a boat"], "none": ["the weather of tomorrow"]}))
    found = run(world, "encode-concepts", "--captions", "new.json", "--tagger", "packaged", "--vocabulary", surrogate,
                "--outputs", world / "outputs", "-q").strip()  # fmt: skip
    document = explain(world, found, surrogate, "--run", "new")
    assert {entry["concept"] for entry in document["images"][0]["concepts"]} == {"horse/n", "boat/n"}
    assert document["images"][1]["concepts"] == []
    assert "no concept" in document["images"][1]["remark"]
    assert "1 of 2 images have no concepts and therefore no scores" in document["notes"]
    other = encode(world, "--vocabulary", "listed.txt", "--run", "listed")
    wrong = rdx_here("explain", "--method", "surrogate", "--surrogate", surrogate, "--encodings", other, cwd=world)
    assert wrong.returncode == 1
    assert "concepts" in wrong.stderr


def explain(world: Path, encodings: str, surrogate: str, *more: object) -> dict:
    text = run(
        world,
        *("explain", "--method", "surrogate", "--surrogate", surrogate, "--encodings", encodings),
        *("--outputs", world / "outputs", "--json", *more),
    )
    return json.loads(text)


def test_words_explain_embeddings(world: Path, encodings: str, surrogate: str) -> None:
    document = explain(world, encodings, surrogate, "--run", "images")
    captions = json.loads((world / "caps.json").read_text("utf-8"))
    scores = sparse.load_npz(Path(world / document["artifact"]) / "attributions.npz")
    assert scores.shape[0] == N
    np.testing.assert_allclose(np.asarray(scores.sum(axis=1)).ravel(), 1.0, atol=1e-4)
    first = [image["concepts"][0]["concept"].partition("/")[0] for image in document["images"]]
    spoken = [captions[image["sample_id"]][1].split()[1] for image in document["images"]]
    assert np.mean([a == b for a, b in zip(first, spoken, strict=True)]) > 0.9


def test_words_explain_predictions_and_contrasts(world: Path, encodings: str, surrogate: str) -> None:
    document = explain(
        world, encodings, surrogate, *("--file", "text_embeddings=cls.npy", "--file", "class_names=cls.txt"),
        *("--param", "contrast=dog,cat", "--run", "classes"),
    )  # fmt: skip
    captions = json.loads((world / "caps.json").read_text("utf-8"))
    right = [image["prediction"] == captions[image["sample_id"]][1].split()[1] for image in document["images"]]
    assert np.mean(right) > 0.9
    assert document["classes"] == WORDS
    for image in document["images"]:
        words = captions[image["sample_id"]][0].split()
        contrast = {entry["concept"].partition("/")[0]: entry["score"] for entry in image["contrast"]}
        if "dog" in words and "cat" not in words:
            assert contrast["dog"] == max(contrast.values())
        if "cat" in words and "dog" not in words:
            assert contrast["cat"] < 0
    dogs = next(entry for entry in document["summary"]["classes"] if entry["class"] == "dog")
    assert dogs["concepts"][0]["concept"].partition("/")[0] == "dog"
    why = document["summary"]["contrast"]
    assert (why["class"], why["rival"], why["images"]) == ("dog", "cat", dogs["images"])
    assert why["concepts"][0]["concept"].partition("/")[0] == "dog"
    assert why["concepts"][0]["error"] > 0

    def sums(name: str) -> np.ndarray:
        scores = sparse.load_npz(Path(world / document["artifact"]) / f"{name}.npz")
        return np.asarray(scores.sum(axis=1)).ravel()

    images = document["images"]
    for name, whole, rest in (("for_prediction", "similarity", "bias"),
                              ("contrast", "contrast_difference", "contrast_bias")):  # fmt: skip
        wanted = [image[whole] - image[rest] for image in images]
        np.testing.assert_allclose(sums(name), wanted, atol=1e-9)
    weights = load_file(Path(surrogate) / "surrogate.safetensors")
    arrays = np.load(Path(encodings) / "encodings.npz")
    shares = arrays["count"] / arrays["num_captions"].repeat(np.diff(arrays["indptr"]))
    c = sparse.csr_array((shares, arrays["indices"], arrays["indptr"]), shape=(N, weights["weight"].shape[1]))
    z = c @ weights["weight"].T + weights["bias"]
    cosine = z @ np.load(world / "cls.npy").T
    cosine /= np.linalg.norm(z, axis=1)[:, None] * np.linalg.norm(np.load(world / "cls.npy"), axis=1)
    np.testing.assert_allclose([image["similarity"] for image in images], cosine.max(axis=1), atol=1e-5)
    one = explain(world, encodings, surrogate, "--target", "im007", "--run", "one")
    assert [image["sample_id"] for image in one["images"]] == ["im007"]


def test_what_if_a_concept_were_not_there(world: Path, encodings: str, surrogate: str) -> None:
    """Without its dog an image that was a dog is what else it shows; images without dogs stay."""
    classes = ("--file", "text_embeddings=cls.npy", "--file", "class_names=cls.txt")
    plain = explain(world, encodings, surrogate, *classes, "--run", "plain")
    edited = explain(world, encodings, surrogate, *classes, "--param", "edit=dog=0", "--run", "edited")
    captions = json.loads((world / "caps.json").read_text("utf-8"))
    changed = 0
    for before, after in zip(plain["images"], edited["images"], strict=True):
        assert after["before"] == before["prediction"]
        changed += after["prediction"] != before["prediction"]
        words = captions[after["sample_id"]][0].split()
        if "dog" in words:
            assert after["prediction"] != "dog"
            assert after["turned"] > 0.01
        else:
            assert after["turned"] == pytest.approx(0, abs=1e-9)
            assert after["prediction"] == before["prediction"]
    assert edited["edit"]["changed"] == changed > 0
    assert f"the prediction of {changed} of {N} images changes" in edited["notes"][0]
    page = run(world, "visualize", edited["artifact"], "-q").strip()
    assert "before the edit" in whole_page(world / page)


def test_the_training_has_a_page(world: Path, surrogate: str) -> None:
    page = Path(world / run(world, "visualize", surrogate, "--outputs", world / "outputs", "-q").strip())
    text = page.read_text("utf-8")
    assert text.count("<svg") == 3
    assert "untouched images" in text
    assert page.name == "surrogates--surrogate.html"  # the explanation has the other name


def test_commands_pipe(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "outputs"
    first = run(world, "encode-concepts", "--captions", "caps.json", "--tagger", "packaged", "--max-threshold", "1",
                "--outputs", out, "-q")  # fmt: skip
    second = run(
        world,
        *("train-surrogate", "--encodings", "-", "--image-embeddings", "img.npz:values", "--text-embeddings"),
        *("txt.npy", "--text-offsets", "offsets.npy", "--epochs", "2", "--batch-size", "64", "--outputs", out, "-q"),
        stdin=first,
    )
    assert (Path(second.strip()) / "surrogate.safetensors").is_file()


def test_bad_inputs_are_said_in_a_line(world: Path, encodings: str, surrogate: str, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "empty.json").write_text("{}")
    (tmp_path / "number.jsonl").write_text('{"id": 1, "captions": [3]}\n')
    np.save(tmp_path / "short.npy", np.ones((5, DIMENSIONS)))
    np.save(tmp_path / "nan.npy", np.full((2 * N, DIMENSIONS), np.nan))
    out = ("--outputs", tmp_path / "outputs")
    explaining = ("explain", "--method", "surrogate", "--surrogate", surrogate, "--encodings", encodings)
    arrays = ("train-surrogate", "--encodings", encodings, "--image-embeddings")
    cases = [
        (("encode-concepts",), "which captions"),
        (("encode-concepts", "--captions", tmp_path / "broken.json"), "not valid JSON"),
        (("encode-concepts", "--captions", tmp_path / "empty.json"), "no captions"),
        (("encode-concepts", "--captions", tmp_path / "number.jsonl"), "not text"),
        (("encode-concepts", "--captions", "caps.json", "--min-count", "9999"), "9999"),
        (("encode-concepts", "--captions", "nowhere.json"), "nowhere"),
        (("encode-concepts", "--captions", "caps.json", "--vocabulary", "img.npz"), "not UTF-8"),
        (("encode-concepts", "--captions", "caps.json", "--vocabulary", tmp_path), "no vocabulary"),
        (("encode-concepts", "--captions", "caps.json", "--normalisation", "none"), "original"),
        (("encode-concepts", "--captions", encodings), "holds encodings, expected captions"),
        (("train-surrogate", "--encodings", surrogate, *arrays[3:], "img.npz:values", "--text-embeddings", "txt.npy"),
         "holds surrogate, expected encodings"),
        (("train-surrogate", "--encodings", encodings), "--image-embeddings is missing"),
        ((*arrays, tmp_path / "short.npy", "--text-embeddings", "txt.npy"), "5"),
        ((*arrays, "img.npz:values", "--text-embeddings", tmp_path / "short.npy"), "5"),
        ((*arrays, "img.npz:values", "--text-embeddings", tmp_path / "nan.npy"), "NaN"),
        ((*arrays, "img.npz:values", "--text-embeddings", "txt.npy", "--param", "los=kl"), "no parameter `los`"),
        (("explain", "--method", "surrogate"), "--surrogate"),
        ((*explaining, "--param", "contrast=dog,cat"), "needs classes"),
        ((*explaining, "--target", "im9999"), "no such image"),
        ((*explaining, "--concept-set", "cls.txt"), "--file class_names=cls.txt"),
        ((*explaining, "--param", "edit=dog"), "CONCEPT=VALUE"),
        ((*explaining, "--param", "edit=dig=0"), "`dog`"),
        ((*explaining, "--file", "text_embedings=cls.npy"), "text_embeddings"),
        ((*explaining, "--file", "text_embeddings=cls.npy", "--file", "class_names=cls.txt",
          "--param", "contrast=dog,cow"), "cow"),
    ]  # fmt: skip
    for arguments, said in cases:
        done = rdx_here(*arguments, *out, cwd=world)
        assert done.returncode in (1, 2), (arguments, done.stdout)
        assert said in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr
        assert "unexpected" not in done.stderr, done.stderr


CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("surrogate-*.yaml"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_configurations_are_complete(config: Path, tmp_path: Path) -> None:
    """Every option is known and legal; what is missing are the encodings that the first lines say how to make."""
    import yaml

    from rdxcli.models.vision_language import resolve_vision_language

    content = yaml.safe_load(config.read_text("utf-8"))
    resolve_vision_language(content["teacher"])
    done = rdx_here("train-surrogate", "--config", config, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"missing: no artifact `{content['encodings']}`" in done.stdout
    done = rdx_here("train-surrogate", "--config", config, cwd=tmp_path)
    assert done.returncode == 1
    assert "`rdx encode-concepts --captions ...` makes it" in done.stderr


@pytest.mark.parametrize("outputs", [None, "elsewhere"])
def test_a_configuration_runs_as_its_first_lines_say(
    outputs: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """COCO in miniature and a tiny CLIP: the paths in the file are those that the commands write, wherever."""
    from PIL import Image
    from tiny_models import THINGS, save_clip

    rng = np.random.default_rng(0)
    base = tmp_path / "data" / "coco" / "2017"
    (base / "annotations").mkdir(parents=True)
    (base / "train2017").mkdir()
    listed: dict[str, list[dict]] = {"images": [], "annotations": []}
    for i in range(1, 41):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(base / "train2017" / f"{i:012d}.jpg")
        listed["images"].append({"id": i, "file_name": f"{i:012d}.jpg"})
        one, two = rng.choice(8, 2, replace=False)
        listed["annotations"] += [
            {"id": 10 * i + k, "image_id": i, "caption": f"a {THINGS[one]} near a {THINGS[two]}"} for k in range(5)
        ]
    (base / "annotations" / "captions_train2017.json").write_text(json.dumps(listed))
    monkeypatch.setenv("RDX_DATA", str(tmp_path / "data"))
    if outputs is not None:
        monkeypatch.setenv("RDX_OUTPUTS", str(tmp_path / outputs))
    config = next(path for path in CONFIGS if path.stem == "surrogate-coco")
    lines = [line.removeprefix("#").split() for line in config.read_text("utf-8").splitlines()[1:4]]
    commands = [words[1:] for words in lines]
    assert [words[0] for words in commands] == ["caption", "encode-concepts", "train-surrogate"]
    commands[1] += ["--max-threshold", "0.9", "--tagger", "packaged"]
    commands[2] = ["train-surrogate", "--config", str(config), "--teacher", f"hf:{save_clip(tmp_path / 'clip')}",
                   "--epochs", "2", "--batch-size", "16", "--device", "cpu"]  # fmt: skip
    for command in commands:
        done = rdx_here(*command, "-q", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / done.stdout.strip() / "surrogate.safetensors").is_file()
    manifest = json.loads((tmp_path / done.stdout.strip() / "manifest.json").read_text("utf-8"))
    assert "teacher_model" in json.dumps(manifest)


def test_metrics_for_tensorboard(world: Path, encodings: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written as the training goes where it is installed; asked for and missing, it is said before the work."""
    from importlib.util import find_spec

    out = ("--outputs", str(tmp_path), "--epochs", "2")
    if find_spec("tensorboard") is None:
        done = rdx_here(*training(world, encodings, "--tensorboard"), *out, cwd=world)
        assert done.returncode == 1
        assert "pip install 'rdx-vision[tensorboard]'" in done.stderr
        import sys
        import types

        rows: list[tuple] = []

        class SummaryWriter:
            """Stands in for the missing package's writer."""

            def __init__(self, folder: str) -> None:
                rows.append((folder,))

            def __enter__(self) -> SummaryWriter:
                return self

            def __exit__(self, *error: object) -> None:
                rows.append(("closed",))

            def add_scalar(self, name: str, value: float, step: int) -> None:
                rows.append((name, value, step))

        module = types.ModuleType("torch.utils.tensorboard")
        module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
        monkeypatch.setattr("rdxcli.services.train_surrogate.find_spec", lambda name: object())
        done = rdx_here(*training(world, encodings, "--tensorboard", "-q"), *out, cwd=world)
        assert done.returncode == 0, done.stderr
        kl = [row[2] for row in rows if row[0] == "val_kl"]
        assert kl == [1, 2]
        assert rows[-1] == ("closed",)
        return
    done = rdx_here(*training(world, encodings, "--tensorboard", "-q"), *out, cwd=world)
    assert done.returncode == 0, done.stderr
    assert list((Path(done.stdout.strip()) / "tensorboard").glob("events.*"))
