"""Words and tags: our tagger is NLTK's, sentence splitting, casing, the packaged tagger's rules."""

from __future__ import annotations

import json
import random
import zipfile
from pathlib import Path

import pytest
from nltk.tag.perceptron import PerceptronTagger as NltkTagger

from rdxcli.methods.surrogate import nltk_data
from rdxcli.methods.surrogate.lexicon import PackagedLexicon
from rdxcli.methods.surrogate.tokenising import LexiconTagger, PerceptronTagger, recase, split_sentences, tokenise

TRAINING = [
    "the/DT dog/NN chases/VBZ a/DT ball/NN over/IN the/DT lawn/NN ./.",
    "Two/CD birds/NNS are/VBP perched/VBN on/IN a/DT thin/JJ branch/NN",
    "a/DT man/NN holds/VBZ a/DT red-hot/JJ iron/NN in/IN 1999/CD",
    "3rd/JJ place/NN runners/NNS run/VBP past/IN 12/CD houses/NNS",
    "the/DT run/NN was/VBD long/JJ and/CC the/DT dogs/NNS run/VBP home/NN",
    "children/NNS watch/VBP a/DT watch/NN on/IN the/DT wall/NN",
]
UNSEEN = ["the dogs watch two long houses", "a thin man run past 2001 red birds on-top", "", "Perched runs the"]


@pytest.fixture(scope="module")
def trained() -> NltkTagger:
    tagger = NltkTagger(load=False)
    tagger.train([[tuple(word.rsplit("/", 1)) for word in line.split()] for line in TRAINING] * 3, nr_iter=3)
    return tagger


@pytest.fixture
def folder(trained: NltkTagger, tmp_path: Path) -> Path:
    place = tmp_path / nltk_data.TAGGER
    place.mkdir(parents=True)
    for name, content in zip(nltk_data.TAGGER_FILES, trained.encode_json_obj(), strict=True):
        (place / name).write_text(json.dumps(content), "utf-8")
    return tmp_path


def test_the_tagger_is_nltks(trained: NltkTagger, folder: Path) -> None:
    ours = PerceptronTagger.from_folder(folder)
    # Without the table of fixed words every word is scored.
    scored = PerceptronTagger(trained.model.weights, {}, sorted(trained.classes))
    for text in [*UNSEEN, *(" ".join(word.rsplit("/", 1)[0] for word in line.split()) for line in TRAINING)]:
        words = text.split()
        assert ours.tag(words) == [tag for _, tag in trained.tag(words)]
        assert scored.tag(words) == [tag for _, tag in trained.tag(words, use_tagdict=False)]
    assert len(ours.describe()["weights_sha256"]) == 64


def test_ties_go_to_the_last_tag_of_the_alphabet() -> None:
    assert PerceptronTagger({}, {}, ["NN", "VB", "JJ"]).tag(["word"]) == ["VB"]
    with pytest.raises(ValueError, match="tag set"):
        PerceptronTagger({}, {}, [])
    with pytest.raises(ValueError, match="XX"):
        PerceptronTagger({"bias": {"XX": 1.0}}, {}, ["NN"])


def test_data_is_read_from_folders_and_archives(folder: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    (packed / "taggers").mkdir(parents=True)
    with zipfile.ZipFile(packed / f"{nltk_data.TAGGER}.zip", "w") as archive:
        for name in nltk_data.TAGGER_FILES:
            archive.write(folder / nltk_data.TAGGER / name, f"averaged_perceptron_tagger_eng/{name}")
    words = TRAINING[0].replace("/", " ").split()
    assert PerceptronTagger.from_folder(packed).tag(words) == PerceptronTagger.from_folder(folder).tag(words)
    assert nltk_data.find(packed) is None  # WordNet is missing
    (packed / "corpora").mkdir()
    with zipfile.ZipFile(packed / f"{nltk_data.WORDNET}.zip", "w") as archive:
        for name in nltk_data.WORDNET_FILES:
            archive.writestr(f"wordnet/{name}", "")
    assert nltk_data.find(packed) == packed
    (packed / f"{nltk_data.WORDNET}.zip").write_bytes(b"no archive")
    assert nltk_data.find(packed) is None
    with pytest.raises(FileNotFoundError, match="expected the NLTK data"):
        nltk_data.read(tmp_path / "nowhere", nltk_data.TAGGER, "x")


def test_words_of_a_caption() -> None:
    assert tokenise("a dog on grass. It can't stop.") == ["a", "dog", "on", "grass.", "It", "ca", "n't", "stop", "."]
    assert tokenise("") == []
    with pytest.raises(ValueError, match="expected str"):
        tokenise(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("a dog. a cat! who? me", ["a dog.", "a cat!", "who?", "me"]),
        ("Mr. Smith and J. Doe walk. They talk", ["Mr. Smith and J. Doe walk.", "They talk"]),
        ('he said "stop." then left', ['he said "stop."', "then left"]),
        ("", []),
        ("...", ["..."]),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


def test_casing() -> None:
    assert recase(["Two", "dogs", "in", "Paris"]) == ["two", "dogs", "in", "Paris"]
    assert recase(["THE", "BIG", "RED", "bus"]) == ["the", "big", "red", "bus"]
    assert recase(["I", "run"]) == ["I", "run"]
    assert recase(["``", "Dogs", "bark"]) == ["``", "dogs", "bark"]
    assert recase([]) == []


@pytest.mark.parametrize(
    ("text", "word", "tag"),
    [
        ("a mirror above the bathroom sink", "sink", "NN"),
        ("a dog chases a ball", "chases", "VBZ"),
        ("men plant a tree", "plant", "VBP"),
        ("geese fly over the lake", "fly", "VB"),
        ("a boy tries to catch the ball", "catch", "VB"),
        ("a man in a living room", "living", "NN"),
        ("a striped awning", "awning", "NN"),
    ],
)
def test_rules_of_the_packaged_tagger(text: str, word: str, tag: str) -> None:
    words = text.split()
    assert LexiconTagger(PackagedLexicon().possible).tag(words)[words.index(word)] == tag


def test_the_packaged_tagger_without_words() -> None:
    tagger = LexiconTagger()
    assert tagger.tag([]) == []
    assert len(tagger.tag(["a", "(", "qzxv", "-", "12"])) == 5
    assert tagger.describe()["tagger"] == "brill-lexicon"


def test_downloaded_data_is_found_by_the_command(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ``rdx download nltk`` puts it; without it the published way says how to get it."""
    from helpers import rdx_here

    (tmp_path / "caps.json").write_text(json.dumps({str(i): ["the dogs watch two houses"] for i in range(4)}))
    given = ("encode-concepts", "--captions", tmp_path / "caps.json", "--tagger", "published", "--max-threshold", "1")
    given = (*given, "--outputs", tmp_path / "outputs", "--json")
    monkeypatch.setattr("nltk.data.path", [])
    monkeypatch.setenv("RDX_DATA", str(tmp_path / "data"))
    missing = rdx_here(*given)
    assert missing.returncode == 1
    assert "rdx download nltk" in missing.stderr
    (tmp_path / "data").mkdir()
    place = tmp_path / "data" / "nltk"
    place.mkdir()
    (folder / "taggers").rename(place / "taggers")
    wordnet = place / nltk_data.WORDNET
    wordnet.mkdir(parents=True)
    for name in nltk_data.WORDNET_FILES:
        (wordnet / name).write_text("dog n 1 0 1 0 00001740  \nhouse n 1 0 1 0 00001740  \n" if "index" in name else "")
    done = rdx_here(*given)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert {"dog", "house"} <= {row["lemma"] for row in document["most_frequent"]}
    assert document["parameters"]["extractor"]["tagger"] == "averaged_perceptron_tagger_eng"
    improved = rdx_here(*given, "--normalisation", "improved", "--run", "improved")
    assert json.loads(improved.stdout)["parameters"]["extractor"]["normalisation"] == "improved"


def test_plain_captions_skip_the_patterns_and_get_the_same_words() -> None:
    """Captions of words and commas are cut without NLTK's patterns: the result is NLTK's, contractions included."""
    from rdxcli.methods.surrogate.tokenising import _PLAIN, _treebank

    rng = random.Random(0)
    pool = ["a", "dog", ",", "cannot", "Gimme", "wanna.", ".", "dog.", "d", "more", "n", "tis", "It", "U.S.", "t-shirt",
            "a-cannot", "12", "3-D", "2010.", "--", "dog,"]  # fmt: skip
    texts = [" ".join(rng.choice(pool) for _ in range(rng.randint(1, 5))) for _ in range(2000)]
    assert 200 < sum(bool(_PLAIN.fullmatch(text)) for text in texts) < 1800
    assert [tokenise(text) for text in texts] == [_treebank().tokenize(text) for text in texts]
