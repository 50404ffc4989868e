"""``rdx doctor``: every fault of an environment is one line and the command that repairs it, and exit code 1."""

from __future__ import annotations

import compileall
import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import rdx_here

from rdxcli import doctor
from rdxcli.artifacts import Request, create
from rdxcli.artifacts.verifying import verify

ROOT = Path(__file__).resolve().parents[3]


WHOLE = doctor._whole
CHECKED = functools.cache(WHOLE)  # torch alone has 15,000 files


@pytest.fixture(autouse=True)
def packages_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_whole", CHECKED)


def faults(cwd: Path, code: int = 1) -> dict[str, str]:
    """What the doctor finds, with what repairs it."""
    done = rdx_here("doctor", "--json", cwd=cwd)
    assert done.returncode == code, done.stdout[-600:]
    return {entry["problem"]: entry["repair"] for entry in json.loads(done.stdout)["problems"]}


def test_a_machine_that_is_as_it_should_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDX_CACHE", str(tmp_path / "cache"))
    assert faults(tmp_path, code=0) == {}
    assert list(tmp_path.iterdir()) == []
    assert "nothing to repair" in rdx_here("doctor", cwd=tmp_path).stderr


def test_libraries_that_are_compiled_at_every_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "torch" / "__init__.py"
    package.parent.mkdir()
    package.touch()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(origin=str(package)))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert doctor._bytecode().startswith("not kept (PYTHONDONTWRITEBYTECODE is set)")
    assert doctor._bytecode().endswith(f"-m compileall -q {tmp_path}")
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert doctor._bytecode().startswith(f"not kept ({tmp_path} takes none)")
    compileall.compile_file(package, quiet=1)
    assert doctor._bytecode() == "kept"


@pytest.mark.parametrize("variable", ["RDX_CACHE", "RDX_OUTPUTS", "RDX_DATA", "HF_HOME"])
def test_a_place_that_is_a_file_or_lies_below_one(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for place in ("file", "file/below"):
        monkeypatch.setenv(variable, str(tmp_path / place))
        if variable == "HF_HOME":
            monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / place))
        ((problem, repair),) = faults(tmp_path).items()
        assert problem.endswith(f"cannot write to {tmp_path / place}: {tmp_path / 'file'} is a file, expected a folder")
        assert repair.startswith(f"export {variable}=FOLDER")


def test_a_folder_that_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # root may write anywhere but where the kernel answers itself
    monkeypatch.setenv("RDX_CACHE", "/proc/self/rdx" if sys.platform == "linux" else str(tmp_path / "no"))
    (tmp_path / "no").mkdir(mode=0o500)
    ((problem, _),) = faults(tmp_path).items()
    assert problem.startswith("cache: cannot write to")


def test_the_file_of_the_report_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor._Findings()
    with open(tmp_path / "o", "w") as stream:
        monkeypatch.setattr(doctor.sys, "stdout", stream)
        assert "not there yet, writable" in doctor._place("outputs", tmp_path / "o", "RDX_OUTPUTS", True, found)
        assert not found.problems
        (tmp_path / "other").touch()
        doctor._place("outputs", tmp_path / "other", "RDX_OUTPUTS", True, found)
    assert found.problems[0]["problem"].endswith("is a file, expected a folder")


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None: ...

        def write(self, _: bytes) -> None:
            raise OSError(28, os.strerror(28))

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", lambda dir: Full())
    found = faults(tmp_path)
    assert all("No space left on device" in problem for problem in found)
    assert all(repair.startswith("df -h ") for repair in found.values())


def test_a_user_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdxcli.places.cache_root", lambda: Path(doctor.tempfile.gettempdir()) / "rdx-12345")
    monkeypatch.delenv("RDX_CACHE", raising=False)
    ((problem, repair),) = faults(tmp_path).items()
    assert problem.startswith("there is no home directory")
    assert repair == "export RDX_CACHE=FOLDER"


@pytest.mark.parametrize("value", ["ftp://me:secret@host:1", "http://host:port", "http://:80"])
def test_a_proxy_that_cannot_be_used(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    ((problem, repair),) = faults(tmp_path).items()
    assert problem.startswith("HTTPS_PROXY is no proxy")
    assert "secret" not in problem
    assert repair == "unset HTTPS_PROXY"


def test_a_proxy_is_shown_without_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@host:3128")
    done = rdx_here("doctor", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["machine"]["proxy"] == "https http://host:3128"


def test_a_device_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDX_DEVICE", "tpu")
    assert faults(tmp_path) == {"RDX_DEVICE: unknown device: `tpu`": "unset RDX_DEVICE"}


def test_a_card_that_torch_cannot_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    there = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path == Path("/dev/nvidiactl") or there(path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    ((problem, repair),) = faults(tmp_path).items()
    assert "a build without CUDA" in problem
    assert repair.endswith("pip install --force-reinstall torch torchvision")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    ((problem, repair),) = faults(tmp_path).items()
    assert "a driver too old for CUDA 13.0" in problem
    assert repair.startswith("nvidia-smi")


@pytest.mark.parametrize("broken", ["torch", "torchvision"])
def test_libraries_that_do_not_load(broken: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, broken, None)
    ((problem, repair),) = faults(tmp_path).items()
    assert problem.startswith(f"{broken} does NOT load")
    assert "pip install --force-reinstall torch torchvision" in repair


def test_what_fails_with_another_library_is_said_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def failing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'numpy'", name="numpy")

    monkeypatch.setattr(doctor, "import_module", failing)
    ((problem, _),) = faults(tmp_path).items()
    assert problem.startswith("numpy does NOT load")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("Version: 1.2\n", "is too old: 1.2, expected 2.10 or newer"),
        ("Version: 2.10.1+cpu\n", None),
        ("", "is half installed: its description cannot be read"),
        (None, "is not installed"),
        ("Version: 3.0\n", "is half installed: 1 of its 2 files are missing"),
    ],
)
def test_packages_by_what_their_installation_left(
    state: str | None, said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if state is not None:
        info = tmp_path / "thing-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: thing\n{state}" if state else "", "utf-8")
        (tmp_path / "thing.py").touch()
        gone = ",,\ngone.py,,\n" if state == "Version: 3.0\n" else ",,\n"
        (info / "RECORD").write_text(f"thing.py{gone}", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert WHOLE("thing", "2.10")[1] == said


def test_a_core_package_that_is_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor, "_whole", lambda name, lowest: ("1.0", "is half installed") if name == "timm" else CHECKED(name, lowest)
    )
    ((problem, repair),) = faults(tmp_path).items()
    assert problem == "the package timm is half installed"
    assert "--force-reinstall --no-deps 'timm>=" in repair


def test_other_commands_send_to_the_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for missing, said in (("rdxcli.nothing", "defect of rdx"), ("x", "`rdx doctor` says what repairs it")):

        def fail(name: str = missing) -> None:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

        monkeypatch.setattr("rdxcli.listing.models", fail)
        assert said in rdx_here("list", "models", cwd=tmp_path).stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "sys.modules['typer'] = None",
            "error: rdx cannot start: .*typer.*\nhint: .*pip install --force-reinstall typer",
        ),
        ("sys.version_info = (3, 10, 1)", "error: rdx needs Python 3.11 or newer, got "),
    ],
)
def test_where_rdx_cannot_even_start(given: str, said: str) -> None:
    program = f"import sys; import rdxcli.__main__ as door; {given}; door.main()"
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.match(said, done.stderr), done.stderr


def make(folder: Path) -> Path:
    with create(folder, Request(kind="comparison")) as draft:
        (draft.path / "concepts.json").write_text("{ }")
    return folder


def test_manifests_that_cannot_be_read_or_are_too_new(tmp_path: Path) -> None:
    for name in ("good", "old", "new", "cut"):
        make(tmp_path / "outputs" / name)
    for name, change in (("old", {"hashes": {}, "digest": None}), ("new", {"schema_version": 99})):
        path = tmp_path / "outputs" / name / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    (tmp_path / "outputs" / "cut" / "manifest.json").write_text("{")
    found = faults(tmp_path)
    assert len(found) == 2
    assert "upgrade rdx-vision" in [repair for problem, repair in found.items() if "written by a newer rdx" in problem]
    report = json.loads(rdx_here("doctor", "--json", cwd=tmp_path).stdout)["artifacts"]
    assert report == {"finished": 4, "unfinished": 0, "made by an older version, without hashes": 1}


def test_verify_names_the_command_that_makes_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/rdx", "compare", "a b.npy", "c.npy"])
    (make(tmp_path / "one") / "concepts.json").write_text("[ ]")
    assert [entry["repair"] for entry in verify(tmp_path).damaged] == ["rdx compare 'a b.npy' c.npy --force"]
    (tmp_path / "one" / "manifest.json").write_text("{")
    assert [entry["repair"] for entry in verify(tmp_path).damaged] == ["make it again with --force"]


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can become somebody else")
def test_somebody_who_may_not_look(tmp_path: Path) -> None:
    """As a user without rights: what cannot be read is damaged, not absent."""
    closed = make(tmp_path / "outputs" / "closed")
    closed.chmod(0o700)
    for folder in (tmp_path, *tmp_path.parents[:3], tmp_path / "outputs"):
        if folder.stat().st_uid == os.getuid() and folder != Path(folder.anchor):
            folder.chmod(folder.stat().st_mode | 0o055)
    program = f"""
        import os, sys
        from pathlib import Path
        from rdxcli.artifacts.verifying import verify
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        (entry,) = verify(Path({str(tmp_path / "outputs")!r})).damaged
        print(entry["problem"], entry["repair"], sep="\\n")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], check=True, capture_output=True, text=True, cwd=ROOT
    )
    problem, repair = done.stdout.splitlines()
    assert problem == f"{closed} cannot be read: Permission denied"
    assert repair.startswith(f"chmod -R u+rwX {closed}")
    shutil.rmtree(tmp_path / "outputs")
