"""Artifacts: atomic, reused, refused, resumed, locked."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdxcli.artifacts import (
    Artifact,
    Draft,
    Request,
    check_reuse,
    complete,
    create,
    find_artifacts,
    fingerprint_array,
    resolve_artifact,
)
from rdxcli.errors import ArtifactError, without_passwords
from rdxcli.progress import log

REQUEST = Request(kind="comparison", parameters={"k": 3, "gamma": 0.1}, inputs={"a": "1f"}, seed=0)


def _make(folder: Path, request: Request = REQUEST, text: str = "{}", **options: bool) -> Artifact:
    with create(folder, request, **options) as draft:
        if not draft.reused:
            (draft.path / "concepts.json").write_text(text)
            draft.manifest.rows = 4
    return draft.result


def test_made_then_reused(tmp_path: Path) -> None:
    first = _make(tmp_path / "x" / "run")
    assert first.manifest.rows == 4
    assert first.manifest.files == {"concepts.json": 2}
    again = _make(tmp_path / "x" / "run", text="never written")
    assert again.path == first.path
    assert again.document() == {}
    assert not [p for p in (tmp_path / "x").iterdir() if p.name.endswith((".partial", ".retired"))]


def test_other_parameters_are_refused_and_listed(tmp_path: Path) -> None:
    _make(tmp_path / "run")
    other = REQUEST.model_copy(update={"parameters": {"k": 5, "gamma": 0.1}})
    with pytest.raises(ArtifactError) as caught:
        _make(tmp_path / "run", other)
    assert "parameters.k: 3 -> 5" in caught.value.message
    assert "gamma" not in caught.value.message
    assert "--run" in str(caught.value.hint)
    assert _make(tmp_path / "run", other, force=True).manifest.request == other


def test_failure_leaves_nothing_and_keeps_the_old(tmp_path: Path) -> None:
    _make(tmp_path / "run")

    def fail(folder: Path, **options: bool) -> None:
        with create(folder, REQUEST, **options) as draft:
            (draft.path / "half").write_text("half")
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fail(tmp_path / "run", force=True)
    assert Artifact.open(tmp_path / "run").document() == {}
    with pytest.raises(RuntimeError, match="broken"):
        fail(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "new.partial").exists()


def test_resumable_work_is_kept_for_the_same_request_only(tmp_path: Path) -> None:
    def interrupted(request: Request) -> bool:
        with create(tmp_path / "run", request, resume=True) as draft:
            seen = (draft.path / "shard-0").exists()
            (draft.path / "shard-0").write_text("done")
            if not seen:
                raise KeyboardInterrupt
            draft.discard_at_end("shard-0")
            (draft.path / "activations.npy").write_text("all")
        assert draft.result.manifest.files == {"activations.npy": 3}
        return seen

    with pytest.raises(KeyboardInterrupt):
        interrupted(REQUEST)
    with pytest.raises(ArtifactError, match="not finished"):
        Artifact.open(tmp_path / "run")
    other = REQUEST.model_copy(update={"seed": 1})
    with pytest.raises(ArtifactError, match="unfinished work of another request") as caught:
        interrupted(other)
    assert "seed: 0 -> 1" in caught.value.message
    assert f"process {os.getpid()}" in caught.value.message
    assert "--force" in str(caught.value.hint)
    assert (tmp_path / "run.partial" / "shard-0").exists()
    assert interrupted(REQUEST)


def test_unfinished_work_goes_with_force_and_when_there_is_none(tmp_path: Path) -> None:
    def interrupted(request: Request, work: bool, **options: bool) -> bool:
        seen = True
        with suppress(KeyboardInterrupt), create(tmp_path / "run", request, resume=True, **options) as draft:
            seen = (draft.path / "work").exists()
            if work:
                (draft.path / "work").write_text("done")
            raise KeyboardInterrupt
        return seen

    other = REQUEST.model_copy(update={"seed": 1})
    assert not interrupted(REQUEST, work=False)
    assert not (tmp_path / "run.partial").exists()
    assert not interrupted(REQUEST, work=True)
    assert not interrupted(other, work=True, force=True)
    assert interrupted(other, work=True)
    (tmp_path / "run.partial" / "request.json").write_text("{}")
    with pytest.raises(ArtifactError, match="cannot be read"):
        interrupted(other, work=True)


def test_damage_is_noticed(tmp_path: Path) -> None:
    artifact = _make(tmp_path / "run")
    (artifact.path / "concepts.json").write_text("{ }")
    with pytest.raises(ArtifactError, match="damaged"):
        check_reuse(artifact.path, REQUEST)
    (artifact.path / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match="cannot be read"):
        Artifact.open(artifact.path)


def test_newer_schema_is_refused(tmp_path: Path) -> None:
    artifact = _make(tmp_path / "run")
    manifest = json.loads((artifact.path / "manifest.json").read_text())
    manifest["schema_version"] = 99
    (artifact.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="newer rdx"):
        Artifact.open(artifact.path)


def test_a_folder_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("precious")
    with pytest.raises(ArtifactError, match="not an artifact"):
        _make(tmp_path / "run")
    with pytest.raises(ArtifactError, match="not an artifact"):
        _make(tmp_path / "run", force=True)
    assert (tmp_path / "run" / "thesis.tex").read_text() == "precious"


def test_two_processes_make_it_once(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from rdxcli.artifacts import Request, create
        with create(Path(sys.argv[1]), Request(kind="comparison"), wait_seconds=20) as draft:
            if not draft.reused:
                time.sleep(0.5)
                (draft.path / "concepts.json").write_text("{}")
        print("reused" if draft.reused else "made")
    """)
    runs = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = sorted(run.communicate(timeout=60)[0].strip() for run in runs)
    assert said == ["made", "reused"]


def test_the_holder_is_named(tmp_path: Path) -> None:
    with create(tmp_path / "run", REQUEST):
        code = (
            "import sys; from pathlib import Path; from rdxcli.artifacts import Request, create\n"
            "with create(Path(sys.argv[1]), Request(kind='comparison'), wait_seconds=0.2): pass"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True, check=False
        )
    assert done.returncode != 0
    assert f"process {os.getpid()}" in done.stderr


def test_read_only_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)  # works for root too, who may write everywhere
    with pytest.raises(ArtifactError, match=r"cannot write.*Permission denied"):
        _make(tmp_path / "deep" / "run")


def test_death_between_the_two_renames(tmp_path: Path) -> None:
    _make(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "run.retired")
    assert _make(tmp_path / "run", text="never written").document() == {}
    assert not (tmp_path / "run.retired").exists()


def test_place_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match="cannot write"):
        _make(tmp_path / "file" / "run")


def test_found_and_named(tmp_path: Path) -> None:
    _make(tmp_path / "digits" / "comparisons" / "a--b" / "rdx")
    _make(tmp_path / "digits" / "comparisons" / "a--c" / "rdx")
    assert len(find_artifacts(tmp_path)) == 2
    assert resolve_artifact("a--b/rdx", tmp_path).path.parent.name == "a--b"
    assert resolve_artifact("digits/comparisons/a--b/rdx/concepts.json", tmp_path).path.name == "rdx"
    with pytest.raises(ArtifactError, match="fits 2"):
        resolve_artifact("rdx", tmp_path)
    with pytest.raises(ArtifactError) as caught:
        resolve_artifact("digits/comparisons/a--d/rdx", tmp_path)
    assert "a--" in str(caught.value.hint)


def test_array_fingerprint_ignores_memory_layout() -> None:
    array = np.arange(12.0).reshape(3, 4)
    assert fingerprint_array(array) == fingerprint_array(np.asfortranarray(array))
    assert fingerprint_array(array) != fingerprint_array(array.astype(np.float32))
    assert fingerprint_array(array) != fingerprint_array(array.reshape(4, 3))
    assert fingerprint_array(np.array(["a", "bc"])) != fingerprint_array(np.array(["ab", "c"]))


def test_the_folder_one_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _make(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    for nameless in (".", "/", ""):
        with pytest.raises(ArtifactError, match="no artifact"):
            Artifact.open(nameless)
    monkeypatch.chdir(tmp_path / "run")
    assert resolve_artifact(".", tmp_path).path == tmp_path / "run"


def _edit(path: Path, place: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


class TestContent:
    @pytest.fixture
    def artifact(self, tmp_path: Path) -> Artifact:
        with create(tmp_path / "run", REQUEST) as draft:
            np.save(draft.path / "a.npy", np.arange(100.0))
            (draft.path / "deep").mkdir()
            (draft.path / "deep" / "concepts.json").write_text("{}")
        return draft.result

    def test_a_flipped_byte_is_noticed_whatever_the_times_say(self, artifact: Artifact) -> None:
        for name in ("a.npy", "deep/concepts.json"):
            path = artifact.path / name
            stat, content = path.stat(), path.read_bytes()
            _edit(path)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            with pytest.raises(ArtifactError, match="not the ones that were written"):
                Artifact.open(artifact.path)
            path.write_bytes(content)
            assert Artifact.open(artifact.path).manifest == artifact.manifest

    def test_files_are_read_once(self, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from rdxcli.artifacts import contents

        read: list[str] = []
        plain = contents.digest_file
        monkeypatch.setattr(contents, "digest_file", lambda path: read.append(path.name) or plain(path))
        Artifact.open(artifact.path)
        assert not read  # who wrote it has read it
        shutil.copytree(artifact.path, tmp_path / "copy")
        Artifact.open(tmp_path / "copy")
        assert sorted(read) == ["a.npy", "concepts.json"]
        Artifact.open(tmp_path / "copy")
        assert len(read) == 2
        Artifact.open(tmp_path / "copy", full=True)
        assert len(read) == 4
        Artifact.open(tmp_path / "copy", full=False)
        assert len(read) == 4

    def test_a_manifest_edited_by_hand(self, artifact: Artifact) -> None:
        path = artifact.path / "manifest.json"
        whole = json.loads(path.read_text())
        for change in (
            {"rows": 7},
            {"hashes": {}},
            {"fingerprint": "0" * 64},
            {"extra": 1},
            {"request": {**whole["request"], "seed": 1}},
            {"digest": None},
        ):
            path.write_text(json.dumps(whole | change))
            with pytest.raises(ArtifactError, match="edited or damaged"):
                Artifact.open(artifact.path)
        for text in ("", "[]", "7", '"x"', "[" * 100_000, path.read_text()[:-40], "\x00\x01"):
            path.write_text(text)
            with pytest.raises(ArtifactError, match="cannot be read"):
                Artifact.open(artifact.path)

    def test_artifacts_of_older_versions_have_no_hashes(self, artifact: Artifact) -> None:
        path = artifact.path / "manifest.json"
        old = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("hashes", "digest")}
        path.write_text(json.dumps(old))
        assert Artifact.open(artifact.path).manifest.files == artifact.manifest.files


def test_names_that_are_no_utf8_are_kept(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    request = Request(kind="comparison", parameters={"file": name})
    assert _make(tmp_path / "run", request).manifest.request == request
    assert _make(tmp_path / "run", request, text="never written").document() == {}


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(122, "Disk quota exceeded"),
        RuntimeError("SafetensorError: Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_said_in_one_line(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(ArtifactError, match="no space left") as caught, create(tmp_path / "run", REQUEST):
        raise error
    assert "--outputs" in str(caught.value.hint)
    assert not list(tmp_path.glob("run*"))


def test_passwords_are_not_written_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["rdx", "extract", "--dataset", "https://user:secret@host/a.tar"])
    artifact = _make(tmp_path / "run")
    assert "https://host/a.tar" in artifact.manifest.command
    assert "secret" not in str(ArtifactError("cannot read s3://me:secret@host/x", "see http://me:secret@host"))


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("see http://me:se/cr@et@host/x", "see http://host/x"),
        ("http://me:se?cret@host/x, https://me:se#cret@host/y", "http://host/x, https://host/y"),
        ("http:/me:secret@host/x", "http:/host/x"),  # a path has lost a slash
        ("zip://a.png::https://me:secret@host/x.zip", "zip://a.png::https://host/x.zip"),
        ("https://h/a?X-Amz-Signature=secret&n=3 failed", "https://h/a?X-Amz-Signature=...&n=3 failed"),
        ("'https://h/a?n=3&sig=secret'", "'https://h/a?n=3&sig=...'"),
        ("https://host:8080/npm/@scope/x", "https://host:8080/npm/@scope/x"),
        ("images:/photos@home/a", "images:/photos@home/a"),
        ("net.py:make?input_size=32", "net.py:make?input_size=32"),
    ],
)
def test_what_is_secret_in_an_address(given: str, shown: str, caplog: pytest.LogCaptureFixture) -> None:
    assert without_passwords(given) == shown
    with caplog.at_level("INFO", "rdxcli"):
        log.info("read %s", given)
    assert caplog.messages[-1] == f"read {shown}"


@pytest.mark.parametrize("step", ["rename", "rmtree"])
def test_death_between_the_end_of_the_work_and_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Nothing is lost and nothing is done twice, wherever the end is cut."""

    class Death(BaseException):
        pass

    def die(*args: object, **options: object) -> None:
        raise Death

    with monkeypatch.context() as patch, suppress(Death), create(tmp_path / "run", REQUEST, resume=True) as draft:
        (draft.path / "shards").mkdir()
        (draft.path / "shards" / "0.done").write_text("{}")
        (draft.path / "concepts.json").write_text("{}")
        draft.discard_at_end("shards")
        patch.setattr(os if step == "rename" else shutil, step, die)
    assert not (tmp_path / "run").exists()
    if step == "rename":
        with create(tmp_path / "run", REQUEST, resume=True) as again:
            assert again.reused
    else:  # one who worked beside it
        draft.artifact = None
        with complete(tmp_path / "run", draft) as again:
            assert again.reused
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        *(".verified.json", "concepts.json", "manifest.json")
    ]
    assert Artifact.open(tmp_path / "run", full=True).manifest.files == {"concepts.json": 2}
    assert not (tmp_path / "run.partial").exists()


def test_a_folder_that_somebody_removes(tmp_path: Path) -> None:
    """Said in one line, whatever the library that wrote into it makes of it."""

    def work(error: Exception, remove: bool) -> None:
        with create(tmp_path / "run", REQUEST) as draft:
            if remove:
                shutil.rmtree(draft.path)
            raise error

    for error in (FileNotFoundError(2, "No such file"), RuntimeError("I/O error: No such file or directory")):
        with pytest.raises(ArtifactError, match="somebody removed it"):
            work(error, remove=True)
    with pytest.raises(RuntimeError, match="other"):
        work(RuntimeError("other"), remove=False)
    # the removal has come as far as what is written into, and not yet to the folder itself
    path = tmp_path / "run.partial" / "checkpoints" / ".tmpq"
    with pytest.raises(ArtifactError, match="somebody removed it"):
        work(RuntimeError(f'I/O error: No such file or directory (os error 2) at path "{path}"'), remove=False)


def test_what_a_dead_process_was_writing_is_no_part_of_the_artifact(tmp_path: Path) -> None:
    with suppress(KeyboardInterrupt), create(tmp_path / "run", REQUEST, resume=True) as draft:
        (draft.path / "work").write_text("done")
        (draft.path / "concepts.json.4711.tmp").write_text("{")
        raise KeyboardInterrupt
    with create(tmp_path / "run", REQUEST, resume=True) as draft:
        (draft.path / "concepts.json").write_text("{}")
    assert sorted(draft.result.manifest.files) == ["concepts.json", "work"]
    assert not list((tmp_path / "run").glob("*.4711.tmp"))


def test_as_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders cannot be opened, what may not write cannot be flushed, and a folder with an open file keeps its name."""
    real_open, real_fsync, real_rename = os.open, os.fsync, os.rename
    mapped: list[Path] = []

    def opening(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if "dir_fd" not in options and os.path.isdir(path):
            raise PermissionError(13, "Permission denied", path)
        return real_open(path, flags, *more, **options)

    def flushing(descriptor: int) -> None:
        mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        if mode == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")
        real_fsync(descriptor)

    def renaming(source: Any, target: Any) -> None:
        if any(place.is_relative_to(Path(source)) for place in mapped):
            raise PermissionError(13, "The process cannot access the file")
        real_rename(source, target)

    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(os, "fsync", flushing)
    monkeypatch.setattr(os, "rename", renaming)
    place = tmp_path / "run"

    def make(text: str, force: bool = False) -> Draft:
        with create(place, REQUEST, force=force) as draft:
            if not draft.reused:
                (draft.path / "concepts.json").write_text(text)
        return draft

    make("1")
    mapped.append(place / "concepts.json")
    with pytest.raises(ArtifactError, match="another program may have its files open"):
        make("2", force=True)
    assert (Artifact.open(place).path / "concepts.json").read_text() == "1"
    mapped.clear()
    shutil.rmtree(place)
    assert make("3").reused  # the one that was finished and had no place
    assert (place / "concepts.json").read_text() == "2"
