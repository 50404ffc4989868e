"""``rdx caption --model openai:NAME``: a real local server that speaks the protocol, with its bad days."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from caption_server import Handler, Server, serving
from helpers import captions_of, random_pictures, rdx_here

N, KEY = 6, "sk-only-in-the-environment"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_pictures(tmp_path_factory.mktemp("pictures"), N)


def asked(server: Server, pictures: Path, outputs: Path, *more: str) -> list[str]:
    return [
        *("caption", "--dataset", f"images:{pictures}", "--model", "openai:tiny", "--base-url", server.url),
        *("--captions-per-image", "2", "--max-tokens", "6", "--outputs", str(outputs), *more),
    ]


def test_captions_of_a_server(server: Server, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    planned = json.loads(rdx_here(*asked(server, pictures, tmp_path, "--dry-run", "--json")).stdout)
    assert (planned["requests"], planned["tokens_at_most"]) == (2 * N, 2 * N * 6)
    assert planned["estimated_seconds"] is None
    done = rdx_here(*asked(server, pictures, tmp_path))
    assert done.returncode == 0, done.stderr
    assert "12 requests, at most 72 tokens" in " ".join(done.stderr.split())
    found = captions_of(Path(done.stdout.strip()))
    assert len(found) == N
    assert all(len(set(texts)) == 2 for texts in found.values())
    assert all(text.startswith("a picture of 40 by 30 number") for texts in found.values() for text in texts)
    body = server.asked[0]
    assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == ("tiny", 1.0, 0.9, 6)
    assert len({request["seed"] for request in server.asked}) == 2 * N
    assert server.keys == {f"Bearer {KEY}"}
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes()
    assert KEY not in done.stderr
    again = rdx_here(*asked(server, pictures, tmp_path))
    assert again.stdout == done.stdout
    assert len(server.asked) == 2 * N  # found, not made again


def test_requests_run_side_by_side(server: Server, pictures: Path, tmp_path: Path) -> None:
    server.meeting = threading.Barrier(4)  # passes only when four requests are there at once
    done = rdx_here(*asked(server, pictures, tmp_path, "--parallel", "4", "--batch-size", "2"))
    assert done.returncode == 0, done.stderr
    assert server.most_at_once == 4


def test_bad_moments_are_waited_for(
    server: Server, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rdxcli.models.caption_server._FIRST_WAIT", 0.01)
    monkeypatch.setattr("rdxcli.models.caption_server._LONGEST_WAIT", 0.02)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server.moods = [(429, {"error": "busy"}), (503, {"error": {"message": "loading"}}), (500, {})]
    done = rdx_here(*asked(server, pictures, tmp_path, "--parallel", "1"))
    assert done.returncode == 0, done.stderr
    assert len(server.asked) == 2 * N
    assert server.keys == {None}


def test_a_run_goes_on_where_it_stopped(server: Server, pictures: Path, tmp_path: Path) -> None:
    whole = rdx_here(*asked(server, pictures, tmp_path / "whole", "--batch-size", "1", "--parallel", "1"))
    first = len(server.asked)
    # six requests, three images, then the server refuses
    given = asked(server, pictures, tmp_path / "broken", "--batch-size", "1", "--parallel", "1")
    served = Handler.words
    count = {"left": 6}

    def words(body: dict) -> dict:
        count["left"] -= 1
        return served(body) if count["left"] >= 0 else {"choices": []}

    Handler.words = staticmethod(words)  # type: ignore[method-assign]
    try:
        broken = rdx_here(*given)
    finally:
        Handler.words = staticmethod(served)  # type: ignore[method-assign]
    assert broken.returncode == 1
    assert "something else than a chat completion" in broken.stderr
    before = len(server.asked)
    done = rdx_here(*given)
    assert done.returncode == 0, done.stderr
    assert len(server.asked) - before < first  # what was done is not asked again
    assert captions_of(Path(done.stdout.strip())) == captions_of(Path(whole.stdout.strip()))


def test_attributes_become_words_without_headings(server: Server, pictures: Path, tmp_path: Path) -> None:
    """Objects, attributes and relations of an answer, in two of the layouts that models use, as concepts."""
    texts = [
        "objects: dog, tree; attributes: brown dog, tall tree; relations: dog, under, tree",
        "**Objects:** dog, tree\n**Attributes:** (brown dog)\n**Relations:** dog lies under tree",
    ]
    server.moods = [(200, {"choices": [{"message": {"content": texts[i % 2]}}]}) for i in range(2 * N)]
    done = rdx_here(*asked(server, pictures, tmp_path, "--attributes", "--parallel", "1"))
    assert done.returncode == 0, done.stderr
    found = captions_of(Path(done.stdout.strip()))
    assert found["00.png"][0] == "dog, tree; brown dog, tall tree; dog, under, tree"
    assert found["00.png"][1] == "dog, tree; brown dog ; dog lies under tree"
    encoded = rdx_here(
        *("encode-concepts", "--captions", done.stdout.strip(), "--max-threshold", "1", "--outputs", tmp_path, "--json")
    )
    words = {f"{row['lemma']}/{row['pos']}" for row in json.loads(encoded.stdout)["most_frequent"]}
    assert words == {"dog/n", "tree/n", "brown/a", "tall/a", "lie/v"}


@pytest.mark.parametrize(
    ("mood", "said"),
    [
        ((401, {"error": {"message": "who are you"}}), "set OPENAI_API_KEY"),
        ((404, {"error": "no such model"}), "knows no model `tiny`"),
        ((400, {"error": {"message": "no images please"}}), "no images please"),
        ((200, {"text": "hello"}), "something else than a chat completion"),
    ],
)
def test_refusals_are_said_in_a_line(
    server: Server, pictures: Path, tmp_path: Path, mood: tuple[int, dict], said: str
) -> None:
    server.moods = [mood] * 20
    done = rdx_here(*asked(server, pictures, tmp_path))
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--base-url", "localhost:8000"), "for example http://localhost"),
        (("--base-url", "http://me:secret@localhost/v1"), "keys are read from OPENAI_API_KEY only"),
        (("--model", "openai:"), "which model of the server"),
        (("--model", "blip-base"), "--base-url is of a server"),
    ],
)
def test_mistakes(server: Server, pictures: Path, tmp_path: Path, more: tuple[str, ...], said: str) -> None:
    done = rdx_here(*asked(server, pictures, tmp_path, *more))
    assert done.returncode == 2
    assert said in done.stderr
    assert "secret" not in done.stderr
