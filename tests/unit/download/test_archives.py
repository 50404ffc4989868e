"""Archives: what is good is unpacked whole, what is hostile or damaged leaves no trace."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import stat
import tarfile
import threading
import zipfile
from pathlib import Path

import hostile_archives as bad
import pytest
from hostile_archives import SECRET, TAR, ZIP

from rdxcli.download import archives
from rdxcli.download.archives import ArchiveError, unpack
from rdxcli.download.expected import Stopped

LIMIT = 1 << 20
FILES = {"top/a.txt": b"alpha", "top/deep/er/b.bin": bytes(range(256)) * 50, "top/empty": b"", "other/c": b"c"}


def make(kind: str, files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o4777
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz", "txz"])
def test_good_archives(tmp_path: Path, kind: str) -> None:
    data = make("zip" if kind == "zip" else "tar", FILES)
    data = {"tgz": gzip.compress, "txz": lzma.compress}.get(kind, bytes)(data)
    archive = tmp_path / "x"
    archive.write_bytes(data)
    read: list[int] = []
    entries = unpack(archive, tmp_path / "out", "tgz" if kind == "txz" else kind, limit=LIMIT, advance=read.append)
    assert tree(tmp_path / "out") == FILES
    assert {e.path: (e.size, e.sha256) for e in entries} == {
        name: (len(body), hashlib.sha256(body).hexdigest()) for name, body in FILES.items()
    }
    assert 0 < sum(read) <= len(data)
    # modes of the archive (set-user-id, world-writable) are not taken over
    assert all(not stat.S_IMODE(path.stat().st_mode) & 0o7022 for path in (tmp_path / "out").rglob("*"))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_strip_and_only(tmp_path: Path, kind: str) -> None:
    (tmp_path / "x").write_bytes(make(kind, {**FILES, "__MACOSX/top/._a.txt": b"mac", "top/.DS_Store": b"mac"}))
    unpack(tmp_path / "x", tmp_path / "stripped", kind, limit=LIMIT, strip=1)
    assert set(tree(tmp_path / "stripped")) == {"a.txt", "deep/er/b.bin", "empty", "c"}
    unpack(tmp_path / "x", tmp_path / "some", kind, limit=LIMIT, only=["*.txt", "other/*"])
    assert set(tree(tmp_path / "some")) == {"top/a.txt", "other/c"}
    with pytest.raises(ArchiveError, match=r"holds no files that match \*\.jpg"):
        unpack(tmp_path / "x", tmp_path / "none", kind, limit=LIMIT, only=["*.jpg"])


def test_one_compressed_file(tmp_path: Path) -> None:
    (tmp_path / "images-idx3-ubyte.gz").write_bytes(gzip.compress(b"abc" * 1000))
    unpack(tmp_path / "images-idx3-ubyte.gz", tmp_path / "out", "gz", limit=LIMIT)
    assert tree(tmp_path / "out") == {"images-idx3-ubyte": b"abc" * 1000}


def test_links_inside_become_copies(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, target in (
            ("d/soft", tarfile.SYMTYPE, "../real"),
            ("real", tarfile.REGTYPE, ""),
            ("hard", tarfile.LNKTYPE, "real"),
            ("d/twice", tarfile.SYMTYPE, "soft"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            info.size = 4 if name == "real" else 0
            tar.addfile(info, io.BytesIO(b"data"))
    (tmp_path / "x").write_bytes(buffer.getvalue())
    unpack(tmp_path / "x", tmp_path / "out", "tar", limit=LIMIT)
    assert tree(tmp_path / "out") == dict.fromkeys(["real", "hard", "d/soft", "d/twice"], b"data")
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


def test_last_of_two_members_counts_in_a_tar(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for data in (b"old content", b"new"):
            info = tarfile.TarInfo("a")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (tmp_path / "x").write_bytes(buffer.getvalue())
    entries = unpack(tmp_path / "x", tmp_path / "out", "tar", limit=20)
    assert tree(tmp_path / "out") == {"a": b"new"}
    assert [entry.size for entry in entries] == [3]


HOSTILE = [("tar", name) for name in TAR] + [("tgz", name) for name in TAR] + [("zip", name) for name in ZIP]


def test_there_are_enough_attacks() -> None:
    assert len(TAR) + len(ZIP) >= 40


@pytest.mark.parametrize(("kind", "name"), HOSTILE, ids=[f"{kind}: {name}" for kind, name in HOSTILE])
def test_nothing_escapes(tmp_path: Path, kind: str, name: str) -> None:
    data = (ZIP if kind == "zip" else TAR)[name]()
    outer = tmp_path / "outer"
    (outer / "inner").mkdir(parents=True)
    archive = outer / "x.archive"
    archive.write_bytes(gzip.compress(data) if kind == "tgz" else data)
    victim = outer / "evil"
    with pytest.raises(ArchiveError) as caught:
        unpack(archive, outer / "inner" / "out", kind, limit=LIMIT)  # type: ignore[arg-type]
    assert len(caught.value.message.splitlines()) == 1
    assert not victim.exists()
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and outer / "inner" / "out" not in path.parents]
    assert outside == [archive]
    assert not Path("/rdx_escape").exists()
    inside = list((outer / "inner" / "out").rglob("*"))
    assert not any(path.is_symlink() for path in inside)
    assert all(path.is_file() or path.is_dir() for path in inside)
    assert sum(path.stat().st_size for path in inside if path.is_file()) <= LIMIT
    assert Path("/etc/passwd").read_bytes() != SECRET


@pytest.mark.parametrize(
    ("kind", "make_it"),
    [
        ("gz", bad.gzip_bomb),
        ("tgz", bad.truncated_tgz),
        ("tar", bad.tar_cut_between_members),
        ("tar", bad.tar_with_a_broken_header),
        ("zip", bad.zip_with_a_flipped_byte),
        ("zip", lambda: b"this is an HTML page that says: not found"),
        ("tar", lambda: b"this is an HTML page that says: not found"),
        ("tgz", lambda: b""),
        ("gz", lambda: gzip.compress(b"abc" * 99)[:-6]),
    ],
)
def test_damaged(tmp_path: Path, kind: str, make_it: object) -> None:
    (tmp_path / "x.gz").write_bytes(make_it())  # type: ignore[operator]
    with pytest.raises(ArchiveError):
        unpack(tmp_path / "x.gz", tmp_path / "out", kind, limit=LIMIT)  # type: ignore[arg-type]


def test_a_tar_without_its_end_is_fine_when_its_hash_was_right(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bad.tar_cut_between_members())
    unpack(tmp_path / "x", tmp_path / "out", "tar", limit=LIMIT, whole=True)
    assert set(tree(tmp_path / "out")) == {"a"}


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_MEMBERS", 3)
    (tmp_path / "x").write_bytes(make("tar", FILES))
    with pytest.raises(ArchiveError, match="more than 3 members"):
        unpack(tmp_path / "x", tmp_path / "out", "tar", limit=LIMIT)


def test_stop(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(make("tar", FILES))
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        unpack(tmp_path / "x", tmp_path / "out", "tar", limit=LIMIT, stop=stop)


def test_refuses_to_mix_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(make("tar", FILES))
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError):
        unpack(tmp_path / "x", tmp_path / "out", "tar", limit=LIMIT)
