"""``.ci/install``: which torch a machine gets, with real pip and an index of tiny wheels, and what uv is told."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import sys
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere there is one build")

BACKEND = """
import zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(f"{folder}/tiny-1.0-py3-none-any.whl", "w") as wheel:
        about = "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\nRequires-Dist: torch>=9\\n"
        wheel.writestr("tiny-1.0.dist-info/METADATA", about)
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    return "tiny-1.0-py3-none-any.whl"
"""
# python of the new environment: its pip has the configuration of the case, finds no uv, says what it would install
PYTHON = """#!{python}
import os, sys
words = sys.argv[1:]
if "config" in words:
    print({configuration!r})
elif words[-1] == "uv":
    sys.exit(1)
else:
    words += ["--index-url", {pypi!r}, "--dry-run", "--ignore-installed", "--report", {report!r}]
    os.execv(sys.executable, [sys.executable, *words])
"""
UV = """#!{python}
import json, os, sys
told = {{name: value for name, value in os.environ.items() if name.startswith("UV_")}}
json.dump([sys.argv[1:], told], open({report!r}, "w"))
"""


class Handler(SimpleHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """Address of a server with ``/pypi`` and ``/cpu``, and what it was asked for."""
    folder = tmp_path_factory.mktemp("index")
    for name, version in (("pypi", "9.0"), ("cpu", "9.0+cpu")):
        place = folder / name / "torch"
        place.mkdir(parents=True)
        with zipfile.ZipFile(place / f"torch-{version}-py3-none-any.whl", "w") as wheel:
            info = f"torch-{version}.dist-info"
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    asked: list[str] = []
    handler = partial(type("Asked", (Handler,), {"asked": asked}), directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


def program() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("ci_install", str(ROOT / ".ci" / "install"))
    spec = importlib.util.spec_from_loader("ci_install", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    path.chmod(0o755)


CASES = {
    "CPU index reachable": ({}, True),
    "CPU index not reachable": ({"reachable": False}, False),
    "GPU seen": ({"gpu": True}, False),
    "pip configured elsewhere": ({"configuration": "global.index-url='{server}/pypi'"}, False),
    "CPU build asked for": ({"choice": "cpu", "gpu": True, "configuration": "global.index-url='{server}/pypi'"}, True),
    "default asked for": ({"choice": "default"}, False),
}


@pytest.mark.parametrize("tool", ["pip", "uv"])
@pytest.mark.parametrize("case", CASES)
def test_the_build_of_torch(
    case: str, tool: str, index: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, expected = CASES[case]
    server, asked = index
    asked.clear()
    configuration = str(given.get("configuration", "")).format(server=server)
    report = tmp_path / "report.json"
    binaries = tmp_path / "venv" / "bin"
    filled = {"python": sys.executable, "pypi": f"{server}/pypi", "report": str(report), "configuration": configuration}
    script(binaries / "python", PYTHON.format(**filled))
    if tool == "uv":
        script(binaries / "uv", UV.format(**filled))
    (tmp_path / "backend.py").write_text(BACKEND, "utf-8")
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "tiny"\nversion = "1.0"\n',
        "utf-8",
    )
    install = program()
    monkeypatch.setattr(install, "ROOT", tmp_path)
    monkeypatch.setattr(install, "TORCH_CPU", f"{server if given.get('reachable', True) else 'http://127.0.0.1:9'}/cpu")
    monkeypatch.setattr(install, "has_gpu", lambda: given.get("gpu", False))
    monkeypatch.setattr(sys, "argv", ["install", str(tmp_path / "venv")])
    monkeypatch.setenv("RDX_TORCH", str(given.get("choice", "auto")))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONSTRAINT", "UV_DEFAULT_INDEX"):
        monkeypatch.delenv(name, raising=False)

    install.main()

    found = json.loads(report.read_text("utf-8"))
    if tool == "uv":
        words, told = found
        assert ("--torch-backend" in words) == expected
        assert told.get("UV_DEFAULT_INDEX") == (f"{server}/pypi" if configuration else None)
    else:
        versions = {entry["metadata"]["name"]: entry["metadata"]["version"] for entry in found["install"]}
        assert versions == {"tiny": "1.0", "torch": "9.0+cpu" if expected else "9.0"}
    if case in ("GPU seen", "pip configured elsewhere", "default asked for"):
        assert not any(path.startswith("/cpu") for path in asked)  # nothing goes around the configuration


def test_a_choice_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDX_TORCH", "rocm")
    with pytest.raises(SystemExit, match="RDX_TORCH: got `rocm`, expected auto, cpu or default"):
        program().wants_cpu_build({})


def test_a_python_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    install = program()
    monkeypatch.setattr(sys, "version_info", (3, 10, 1))
    with pytest.raises(SystemExit, match=r"rdx needs Python 3\.11 or newer"):
        install.main()
