"""``rdx download`` as people meet it: killed, twice at once, without a network, on the command line."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from download_server import Site, serve
from helpers import rdx_here
from miniatures import tarred
from processes import Forked

from rdxcli.listing import downloads as listing
from rdxcli.services.download import DownloadOptions, download


def made(count: int, size: int) -> dict[str, bytes]:
    return {f"many/part{i % 7}/{i:04d}.bin": random.Random(i).randbytes(size) for i in range(count)}


FILES = made(150, 10_000)
ARCHIVE = tarred(FILES, True)


@pytest.fixture
def site() -> Iterator[Site]:
    with serve(Site(files={"/many/many.tgz": ARCHIVE, "/many/readme.txt": b"read me\n"})) as running:
        yield running


def write_recipe(folder: Path, archive: bytes) -> None:
    recipe = {
        "name": "many",
        "title": "Many files",
        "kind": "concepts",
        "papers": ["rdx"],
        "homepage": "https://example.org",
        "licence": "CC0",
        "base": "http://nowhere.invalid/",
        "items": [
            {
                "name": "many.tgz",
                "size": len(archive),
                "sha256": hashlib.sha256(archive).hexdigest(),
                "extract": {"format": "tgz", "unpacked": len(archive)},
            },
            {"name": "readme.txt"},
        ],
        "layout": ["many", "readme.txt"],
    }
    folder.mkdir(exist_ok=True)
    (folder / "many.yaml").write_text(yaml.safe_dump(recipe), "utf-8")


@pytest.fixture
def run(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Forked]:
    folder = tmp_path / "recipes"
    write_recipe(folder, ARCHIVE)
    monkeypatch.setenv("RDX_RECIPES", str(folder))

    def start(*arguments: str, **options: str) -> Forked:
        command = ("download", "many", "--root", tmp_path / "data", "--mirror", site.url)
        return Forked(*command, *arguments, **options)

    return start


def finish(process: Forked) -> tuple[int, str, str]:
    out, err = process.communicate()
    return process.wait(), out, err


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".rdx" not in path.parts
    }


WHOLE = {**FILES, "readme.txt": b"read me\n"}


def size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def test_killed_while_downloading(site: Site, run: Callable[..., Any], tmp_path: Path) -> None:
    data = tmp_path / "data"
    part = data / ".rdx-download" / "many" / "files" / "many.tgz.part"
    site.chunk = 30_000
    kept = 0
    for goal in (100_000, 600_000, 1_200_000):
        site.stop = goal + 200_000  # what the client reads ahead of what it writes is less
        process = run()
        process.until(lambda goal=goal: size(part) > goal)
        process.kill()
        assert not (data / "many").exists()
        assert size(part) > kept  # nothing is lost
        kept = size(part)
    site.stop = None
    site.log.clear()
    code, out, err = finish(run())
    assert (code, out.strip()) == (0, str(data / "many")), err
    assert site.requests("/many/many.tgz") == [f"bytes={kept}-"]
    assert tree(data / "many") == WHOLE


HELD = """
import os, time
from pathlib import Path
from rdxcli.download.archives import _Unpacking

plain, left = _Unpacking._file, int(os.environ["COUNT"])

def held(*arguments):
    global left
    if left == 0:
        Path(os.environ["HELD"]).touch()
        time.sleep(600)
    left -= 1
    return plain(*arguments)

_Unpacking._file = held
"""


def test_killed_while_unpacking(site: Site, run: Callable[..., Any], tmp_path: Path) -> None:
    data = tmp_path / "data"
    many = made(300, 500)
    site.files["/many/many.tgz"] = tarred(many, True)
    write_recipe(tmp_path / "recipes", site.files["/many/many.tgz"])
    unpacked = data / ".rdx-download" / "many" / "trees" / "many.tgz" / "many"
    for count in (20, 200):
        process = run(code=HELD, COUNT=str(count), HELD=str(tmp_path / "held"))
        process.until((tmp_path / "held").exists)
        process.kill()
        (tmp_path / "held").unlink()
        assert sum(len(files) for _, _, files in os.walk(unpacked)) == count
        assert not (data / "many").exists()
    # what was fetched is enough: the server has the small file only
    del site.files["/many/many.tgz"]
    code, _, err = finish(run())
    assert code == 0, err
    assert tree(data / "many") == {**many, "readme.txt": b"read me\n"}


def test_interrupted_by_hand(site: Site, run: Callable[..., Any], tmp_path: Path) -> None:
    data = tmp_path / "data"
    part = data / ".rdx-download" / "many" / "files" / "many.tgz.part"
    site.chunk, site.stop = 30_000, 400_000
    process = run()
    process.until(lambda: size(part) > 50_000)
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert code == 130
    assert out == ""
    assert "continues where it stopped" in err
    assert "Traceback" not in err
    assert size(part) > 0
    assert not (data / "many").exists()


def test_two_processes_at_once(site: Site, run: Callable[..., Any], tmp_path: Path) -> None:
    site.chunk = 50_000
    site.gate.clear()  # the first one stands still until the second one has said that it waits
    first = run()
    part = tmp_path / "data" / ".rdx-download" / "many" / "files" / "many.tgz.part"
    first.until(lambda: size(part) > 0)
    second = run("--json")
    second.until(lambda: b"\n" in second.err.read_bytes())
    said = second.err.read_text("utf-8")
    site.gate.set()
    results = [finish(first), finish(second)]
    assert [code for code, _, _ in results] == [0, 0], results
    assert "another process is downloading many; waiting for it" in said
    assert json.loads(results[1][1])["downloads"][0]["status"] == "present"
    assert site.requests("/many/many.tgz") == [None]
    assert tree(tmp_path / "data" / "many") == WHOLE


@pytest.mark.parametrize(
    "arguments", [["--mirror", "http://nowhere.invalid"], []], ids=["no such server", "no way to the network"]
)
def test_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    if not arguments:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens on the discard port
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
    done = rdx_here("download", "cub", "--root", tmp_path / "data", *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    message, hint = done.stderr.strip().splitlines()
    assert message.startswith("error: cub: cannot fetch ")
    assert hint.startswith("hint: check the network")
    assert not (tmp_path / "data" / "cub").exists()


def test_command_line(site: Site, run: Callable[..., Any], tmp_path: Path) -> None:
    data = tmp_path / "data"
    code, out, err = finish(run("--dry-run"))
    assert (code, data.exists()) == (0, False)
    assert "download 2 files" in out
    code, out, err = finish(run("--json"))
    document = json.loads(out)
    assert code == 0, err
    assert document["kind"] == "download"
    assert document["downloads"][0]["items"][0]["sha256"] == hashlib.sha256(ARCHIVE).hexdigest()
    assert "licence: CC0" in err
    done = rdx_here("download", "--check", "many", "--root", data, "--json")
    assert (done.returncode, json.loads(done.stdout)["intact"]) == (0, True)
    victim = data / "many" / "many" / "part3" / "0010.bin"
    time_before = victim.stat()
    victim.write_bytes(b"x" * 10_000)
    os.utime(victim, ns=(time_before.st_atime_ns, time_before.st_mtime_ns))
    done = rdx_here("download", "--check", "--root", data)
    assert done.returncode == 1
    assert "0010.bin" in done.stdout
    assert "has changed" in done.stdout
    assert "rdx download many" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["cubb"], 2, "did you mean `cub`"),
        ([], 2, "rdx download --list"),
        (["cub", "--mirror", "ftp://x"], 2, "expected an http or https address"),
        (["coco", "--only", "vall"], 2, "did you mean `val`"),
        (["imagenet"], 1, "rdx download imagenet --from FOLDER"),
        (["cub", "coco", "--from", "."], 2, "--from takes one name"),
        (["dinov2", "--from", "."], 2, "lies in the cache of its library"),
    ],
)
def test_wrong_usage(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    done = rdx_here("download", *arguments, "--root", tmp_path / "data")
    assert done.returncode == code
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    assert "Traceback" not in done.stderr


def test_list() -> None:
    done = rdx_here("download", "--list", "--json")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["imagenet"]["kind"] == "gated"
    assert all(row["licence"] for row in rows.values())
    assert "flowers102" in rdx_here("download", "--list").stdout


def test_what_is_not_verified_is_said(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_recipe(tmp_path / "recipes", ARCHIVE)
    monkeypatch.setenv("RDX_RECIPES", str(tmp_path / "recipes"))
    done = download(DownloadOptions(["many"], root=tmp_path / "data", mirror=site.url, yes=True))
    said = [record.getMessage() for record in caplog.records if "not verified" in record.getMessage()]
    assert ["readme.txt" in line and "many.tgz" not in line for line in said] == [True]
    assert {item["name"]: item["verified"] for item in done.downloads[0]["items"]} == {
        "many.tgz": True,
        "readme.txt": False,
    }
    rows = {row[0]: row[5] for row in listing(tmp_path / "data").rows}
    assert (rows["many"], rows["mnist"], rows["rdx-checkpoints"], rows["dino"]) == (
        "1 of 2 files",
        "yes",
        "no",
        "by its hub",
    )
