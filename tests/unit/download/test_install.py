"""From recipe to finished folder: recognised, repaired, refused, and never half-made."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from download_server import Fault, Site
from hostile_archives import TAR, ZIP

from rdxcli.download import install as module
from rdxcli.download import store
from rdxcli.download.archives import ArchiveError
from rdxcli.download.catalogue import Recipe
from rdxcli.download.expected import Policy, TransferError
from rdxcli.download.install import install
from rdxcli.download.planning import Plan, Settings, link, make_plan
from rdxcli.download.store import Home
from rdxcli.errors import InputError, MissingDataError, RdxError, UsageError
from rdxcli.services.download import DownloadOptions
from rdxcli.services.download import plan as plan_of

IMAGES = {f"set/images/{i:03d}.bin": os.urandom(2000) for i in range(20)}


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def recipe(**changes: Any) -> Recipe:
    content: dict[str, Any] = {
        "name": "small",
        "title": "Small",
        "kind": "checkpoint",
        "papers": ["rdx"],
        "homepage": "https://example.org",
        "licence": "MIT",
        "base": "http://nowhere.invalid/",
        "items": [
            {"name": "images.tgz", "extract": {"format": "tgz", "unpacked": 60000}},
            {"name": "labels.txt", "into": "notes"},
            {"name": "extra.zip", "part": "more", "into": "extra", "extract": {"format": "zip", "unpacked": 100}},
        ],
        "layout": ["set/images", "notes/labels.txt"],
    }
    return Recipe.model_validate({**content, **changes})


@pytest.fixture
def small(site: Site) -> Site:
    site.files["/small/images.tgz"] = tarred(IMAGES)
    site.files["/small/labels.txt"] = b"one\ntwo\n"
    site.files["/small/extra.zip"] = zipped({"a": b"1", "b": b"2"})
    return site


@pytest.fixture
def settings(site: Site, policy: Policy, tmp_path: Path) -> Settings:
    return Settings(root=tmp_path / "data", mirror=site.url, policy=policy)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".rdx" not in path.parts
    }


WHOLE = {**IMAGES, "notes/labels.txt": b"one\ntwo\n", "extra/a": b"1", "extra/b": b"2"}


def test_installs_and_writes_a_receipt(small: Site, settings: Settings) -> None:
    done = install(recipe(), settings)
    assert (done.status, done.folder) == ("downloaded", settings.root / "small")
    assert tree(done.folder) == WHOLE
    receipt = json.loads((done.folder / ".rdx" / "receipt.json").read_text())
    assert receipt["licence"] == "MIT"
    facts = receipt["items"]["images.tgz"]
    body = small.files["/small/images.tgz"]
    assert facts["sha256"] == hashlib.sha256(body).hexdigest()
    assert (facts["size"], facts["files"], facts["bytes"]) == (len(body), 20, 40000)
    assert facts["url"] == small.url + "/small/images.tgz"
    assert done.fetched_bytes == sum(len(body) for body in small.files.values())
    # the work area is empty, and the hash is remembered for next time
    assert sorted(path.name for path in (settings.root / ".rdx-download").iterdir()) == [
        *("hashes.json", "hashes.lock", "small.lock"),
    ]
    assert (
        store.seen_hashes(settings.root)["small"]["labels.txt"]["sha256"] == hashlib.sha256(b"one\ntwo\n").hexdigest()
    )


def test_mirror_may_be_flat(small: Site, settings: Settings) -> None:
    small.files = {path.replace("/small", ""): body for path, body in small.files.items()}
    assert tree(install(recipe(), settings).folder) == WHOLE


def test_finished_is_recognised_without_a_request(small: Site, settings: Settings) -> None:
    install(recipe(), settings)
    small.log.clear()
    done = install(recipe(), settings)
    assert (done.status, done.fetched_bytes) == ("present", 0)
    assert small.log == []
    done = install(recipe(), replace(settings, force=True))
    assert done.status == "downloaded"
    assert len(small.requests("/small/images.tgz")) == 1


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def keep_time(path: Path) -> None:
    stat = path.stat()
    flip(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    ("damage", "seen_at_once"),
    [(Path.unlink, True), (lambda path: path.write_bytes(b""), True), (flip, True), (keep_time, False)],
    ids=["missing", "empty", "changed", "changed with the old time"],
)
def test_damage_is_found_and_repaired(
    small: Site, settings: Settings, damage: Callable[[Path], Any], seen_at_once: bool
) -> None:
    folder = install(recipe(), settings).folder
    victim = folder / "set" / "images" / "007.bin"
    (folder / "mine.txt").write_text("a person's own note")
    damage(victim)
    assert bool(store.damaged(folder, "images.tgz")) == seen_at_once
    assert len(store.damaged(folder, "images.tgz", deep=True)) == 1
    small.log.clear()
    done = install(recipe(), settings if seen_at_once else replace(settings, force=True))
    assert done.status == ("repaired" if seen_at_once else "downloaded")
    assert tree(folder) == {**WHOLE, "mine.txt": b"a person's own note"}
    if seen_at_once:  # only what was damaged is fetched again
        assert {path for path, _ in small.log} == {"/small/images.tgz"}
    assert store.damaged(folder, "images.tgz", deep=True) == []


def test_lost_list_counts_as_damage(small: Site, settings: Settings) -> None:
    folder = install(recipe(), settings).folder
    (folder / ".rdx" / "labels.txt.tsv").unlink()
    assert install(recipe(), settings).status == "repaired"


def test_parts(small: Site, settings: Settings) -> None:
    wanted = recipe(default=["other"], items=[*recipe().model_dump()["items"], {"name": "o.txt", "part": "other"}])
    small.files["/small/o.txt"] = b"o"
    install(wanted, settings)
    home = Home(settings.root, wanted)
    assert home.ready()
    assert not home.ready(["more"])
    small.log.clear()
    install(wanted, replace(settings, parts=["more"]))
    assert {path for path, _ in small.log} == {"/small/extra.zip"}
    assert home.ready(["more"])
    assert tree(home.path) == {**WHOLE, "o.txt": b"o"}


def test_wrong_hash_leaves_nothing(small: Site, settings: Settings) -> None:
    wrong = recipe(items=[{"name": "labels.txt", "sha256": "0" * 64}], layout=["labels.txt"])
    with pytest.raises(TransferError, match="SHA-256") as caught:
        install(wrong, settings)
    assert "--mirror" in str(caught.value.hint)
    assert not (settings.root / "small").exists()
    assert not Home(settings.root, wrong).ready()


def test_wrong_size_is_refused_before_the_start(small: Site, settings: Settings) -> None:
    wrong = recipe(items=[{"name": "labels.txt", "size": 9, "sha256": "0" * 64}], layout=["labels.txt"])
    with pytest.raises(TransferError, match="the recipe says 9"):
        install(wrong, settings)
    assert small.requests("/small/labels.txt") == []


def test_one_missing_file_of_several_stops_before_the_start(small: Site, settings: Settings) -> None:
    del small.files["/small/extra.zip"]
    with pytest.raises(TransferError, match=r"cannot fetch extra\.zip: .*404"):
        install(recipe(), settings)
    assert small.requests("/small/images.tgz") == []
    assert not (settings.root / "small").exists()


def test_a_failing_file_stops_the_others_which_continue_later(small: Site, settings: Settings) -> None:
    big = os.urandom(3_000_000)
    small.files["/small/images.tgz"] = tarred({"set/images/big.bin": big})
    small.chunk, small.pause = 50_000, 0.02
    small.faults["/small/labels.txt"] = [Fault(cut=2), *[Fault(status=500)] * 3]
    with pytest.raises(TransferError, match="500") as caught:
        install(recipe(), settings)
    assert "continues where it stopped" in str(caught.value.hint)
    assert not (settings.root / "small").exists()
    part = Home(settings.root, recipe()).file("images.tgz.part")
    kept = part.stat().st_size
    assert 0 < kept < len(small.files["/small/images.tgz"])
    small.pause = 0.0
    small.log.clear()
    install(recipe(), settings)
    assert small.requests("/small/images.tgz") == [f"bytes={kept}-"]
    assert tree(settings.root / "small")["set/images/big.bin"] == big


def test_not_enough_disk(small: Site, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "free_bytes", lambda path: 1000)
    with pytest.raises(RdxError, match=r"needs .* of .*, which has 1\.0 kB free") as caught:
        install(recipe(), settings)
    assert "--root" in str(caught.value.hint)
    assert all(small.requests(path) == [] for path in small.files)


def test_disk_fills_up_while_unpacking(
    small: Site, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = module.unpack

    def full(archive: Path, folder: Path, *arguments: Any, **keywords: Any) -> Any:
        real(archive, folder, *arguments, **keywords)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "unpack", full)
    with pytest.raises(RdxError, match=r"the disk of .* is full") as caught:
        install(recipe(), settings)
    assert "continues" in str(caught.value.hint)
    assert not (settings.root / "small").exists()
    monkeypatch.undo()
    small.log.clear()
    small.always = dict.fromkeys(small.files, 500)  # what is fetched needs no server any more
    install(recipe(), settings)
    assert tree(settings.root / "small") == WHOLE
    assert small.log == []


ATTACKS = [("tar", name) for name in TAR] + [("zip", name) for name in ZIP]


@pytest.mark.parametrize(("form", "attack"), ATTACKS[::3], ids=[f"{form}: {name}" for form, name in ATTACKS[::3]])
def test_hostile_archives_are_never_visible(small: Site, settings: Settings, form: str, attack: str) -> None:
    small.files["/small/bad"] = (TAR if form == "tar" else ZIP)[attack]()
    bad = recipe(items=[{"name": "bad", "extract": {"format": form, "unpacked": 1}}], layout=["*"])
    if attack in {"bomb", "larger than its limit"}:
        return  # the smallest limit of a recipe is above these; test_archives has them
    with pytest.raises(ArchiveError):
        install(bad, settings)
    assert not (settings.root / "small").exists()
    assert [p.name for p in settings.root.iterdir()] == [".rdx-download"]
    assert [p.name for p in settings.root.parent.iterdir()] == ["data"]
    assert "small" not in store.seen_hashes(settings.root)  # its hash is not taken for the right one


def test_damaged_archive_is_fetched_again(small: Site, settings: Settings) -> None:
    good = small.files["/small/images.tgz"]
    small.files["/small/images.tgz"] = good[: len(good) // 2]
    with pytest.raises(ArchiveError, match="no intact tgz"):
        install(recipe(), settings)
    assert not (settings.root / "small").exists()
    small.files["/small/images.tgz"] = good
    install(recipe(), settings)
    assert tree(settings.root / "small") == WHOLE


def test_an_error_page_is_no_pickle(small: Site, settings: Settings) -> None:
    small.files["/small/x.pt"] = b"<html>404</html>"
    pickled = recipe(
        items=[{"name": "x.pt", "convert": [{"files": "*.pt", "kind": "checkpoint"}]}], layout=["x.safetensors"]
    )
    with pytest.raises(InputError, match=r"x\.pt is no .*checkpoint"):
        install(pickled, settings)
    assert not (settings.root / "small").exists()


def test_other_layout_than_the_recipe(small: Site, settings: Settings) -> None:
    with pytest.raises(RdxError, match="laid out otherwise than the recipe says: no pictures"):
        install(recipe(layout=["pictures"]), settings)
    assert not (settings.root / "small").exists()


def test_hash_of_the_first_download_is_expected_later(small: Site, settings: Settings) -> None:
    install(recipe(), settings)
    store.remove(settings.root / "small")
    small.files["/small/labels.txt"] = b"something else"
    with pytest.raises(TransferError, match="SHA-256") as caught:
        install(recipe(), settings)
    assert "has changed since it was first downloaded" in str(caught.value.hint)
    install(recipe(), replace(settings, force=True))
    assert (settings.root / "small" / "notes" / "labels.txt").read_bytes() == b"something else"


def test_newer_recipe_replaces(small: Site, settings: Settings) -> None:
    install(recipe(), settings)
    small.files["/small/labels.txt"] = b"version 2"
    items = recipe().model_dump()["items"]
    items[1]["sha256"] = hashlib.sha256(b"version 2").hexdigest()
    small.log.clear()
    install(recipe(items=items), settings)
    assert (settings.root / "small" / "notes" / "labels.txt").read_bytes() == b"version 2"
    assert small.requests("/small/images.tgz") == []


def test_refusal_of_the_person(small: Site, settings: Settings) -> None:
    def no(plan: Plan) -> None:
        assert plan.fetch_bytes == sum(len(body) for body in small.files.values())
        raise RdxError("no")

    with pytest.raises(RdxError, match="no"):
        install(recipe(), settings, no)
    assert all(small.requests(path) == [] for path in small.files)


def test_folder_of_somebody_else(small: Site, settings: Settings) -> None:
    folder = settings.root / "small"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("precious")
    for force in (False, True):
        with pytest.raises(RdxError, match="not from `rdx download`"):
            install(recipe(), replace(settings, force=force))
    assert tree(folder) == {"thesis.txt": b"precious"}
    # a complete copy that a person made is used as it is
    (folder / "set" / "images").mkdir(parents=True)
    (folder / "notes").mkdir()
    (folder / "notes" / "labels.txt").write_text("mine")
    assert install(recipe(), settings).status == "own copy"
    assert Home(settings.root, recipe()).ready()
    assert small.log == []


def test_link(settings: Settings, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (mine / "set" / "images").mkdir(parents=True)
    with pytest.raises(MissingDataError, match="there is no notes/labels"):
        link(recipe(), settings.root, mine)
    with pytest.raises(MissingDataError, match="no such folder"):
        link(recipe(), settings.root, tmp_path / "nowhere")
    (mine / "notes").mkdir()
    (mine / "notes" / "labels.txt").write_text("x")
    link(recipe(), settings.root, mine)
    home = Home(settings.root, recipe())
    assert home.content() == mine.resolve()
    assert home.ready()
    assert install(recipe(), settings).status == "linked"
    (mine / "notes" / "labels.txt").unlink()
    assert not home.ready()
    with pytest.raises(MissingDataError, match=r"where there is no notes/labels\.txt"):
        make_plan(recipe(), settings)
    (mine / "notes" / "labels.txt").write_text("x")
    link(recipe(), settings.root, mine)  # again is fine


def test_link_does_not_replace_a_download(small: Site, settings: Settings) -> None:
    folder = install(recipe(), settings).folder
    with pytest.raises(RdxError, match="already holds"):
        link(recipe(), settings.root, folder)


def test_gate(settings: Settings) -> None:
    shut = recipe(items=[], gate={"how": "Ask the owner.", "url": "https://example.org/form"})
    with pytest.raises(MissingDataError, match="cannot be downloaded by a program") as caught:
        install(shut, settings)
    hint = str(caught.value.hint)
    assert "Ask the owner." in hint
    assert "https://example.org/form" in hint
    assert "rdx download small --from FOLDER" in hint


def test_one_process_waits_for_the_other(small: Site, settings: Settings) -> None:
    small.chunk, small.pause = 20_000, 0.01
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(install(recipe(), settings).status)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(results) == ["downloaded", "present"]
    assert len(small.requests("/small/images.tgz")) == 1


def test_never_half_made_for_a_reader(small: Site, settings: Settings) -> None:
    small.chunk, small.pause = 10_000, 0.01
    home = Home(settings.root, recipe())
    seen: set[str] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            if home.path.exists():
                seen.add("whole" if tree(home.path) == WHOLE and home.ready() else "half")
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    install(recipe(), settings)
    time.sleep(0.05)
    stop.set()
    watcher.join()
    assert seen == {"whole"}


def test_root_that_cannot_be_written(small: Site, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RdxError, match="cannot write to the data root"):
        install(recipe(), replace(settings, root=tmp_path / "file"))


def test_data_folder_on_another_disk(small: Site, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.replace
    count = 0

    def across(source: Any, target: Any) -> None:
        nonlocal count
        if str(target).startswith(str(settings.root / "small")) and ".rdx-download" in str(source):
            count += 1
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(os, "replace", across)
    install(recipe(), settings)
    assert count == 1
    assert tree(settings.root / "small") == WHOLE


class Death(BaseException):
    """The process dies here: nothing after this line runs, as with ``kill -9``."""


class Reaper:
    """Lets the process die at the n-th change of a name on disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        for owner, name in (
            (os, "replace"),
            (os, "link"),
            (os, "rename"),
            (os, "rmdir"),
            (os, "unlink"),
            (os, "mkdir"),
        ):
            monkeypatch.setattr(owner, name, self.wrapped(getattr(owner, name)))

    def wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            if any(".rdx-download" in str(argument) or "/small" in str(argument) for argument in arguments):
                if self.left is not None and self.left <= 0:
                    raise Death
                self.left = None if self.left is None else self.left - 1
            return function(*arguments, **keywords)

        return call


@pytest.mark.parametrize("repair", [False, True], ids=["first download", "repair"])
def test_death_at_every_step(small: Site, settings: Settings, monkeypatch: pytest.MonkeyPatch, repair: bool) -> None:
    few = {name: data for name, data in IMAGES.items() if name < "set/images/003"}
    whole = {**few, "notes/labels.txt": b"one\ntwo\n", "extra/a": b"1", "extra/b": b"2"}
    small.files["/small/images.tgz"] = tarred(few)
    home = Home(settings.root, recipe())
    if repair:
        install(recipe(), settings)
    reaper = Reaper(monkeypatch)

    def damage() -> None:
        if repair:
            (home.path / "set" / "images" / "001.bin").write_bytes(b"damaged")

    def clean() -> None:
        reaper.left = None
        if repair:
            install(recipe(), settings)
        else:
            store.remove(settings.root)

    deaths = 0
    for step in range(0, 1000, 3):
        clean()
        damage()
        reaper.left = step
        try:
            install(recipe(), settings)
        except Death:
            deaths += 1
        else:
            break
        reaper.left = None
        # a reader sees nothing, or all of it, or (while it is being repaired) that it is not complete
        if home.path.exists() and home.ready():
            assert tree(home.path) == whole or repair
        if not repair:
            assert not home.path.exists() or tree(home.path) == whole
        done = install(recipe(), settings)
        assert tree(done.folder) == whole
        assert home.ready()
        assert all(store.damaged(home.path, item.name, deep=True) == [] for item in recipe().items)
    assert deaths > 5


@pytest.mark.parametrize("mirror", ["http://me:se/cret@host", "http://me:se#cret@host/x", "http://", "http://h:0/"])
def test_a_mirror_that_is_no_address_is_refused_without_its_password(mirror: str) -> None:
    with pytest.raises(UsageError, match="--mirror: expected an address") as caught:
        plan_of(DownloadOptions(("mnist",), mirror=mirror))
    assert "cret" not in f"{caught.value} {caught.value.hint}"


def test_the_password_of_a_mirror_is_not_written_down(small: Site, settings: Settings) -> None:
    mirror = str(settings.mirror).replace("http://", "http://user:secret@")
    install(recipe(), replace(settings, mirror=mirror))
    written = {path.name: path.read_bytes() for path in settings.root.rglob("*") if path.is_file()}
    assert {"receipt.json", "hashes.json"} <= written.keys()
    assert not any(b"secret" in content for content in written.values())
