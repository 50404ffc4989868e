"""Weights in the caches of their libraries: fetched from a local hub through its own library, then found offline."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from download_server import Site

from rdxcli.download import catalogue, hub
from rdxcli.download.catalogue import Hub, Recipe
from rdxcli.download.expected import Policy, TransferError
from rdxcli.download.planning import Settings
from rdxcli.errors import RdxError
from rdxcli.services.download import DownloadOptions, check, download

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hugging(BaseHTTPRequestHandler):
    """As much of the hub's interface as its library asks for."""

    protocol_version = "HTTP/1.1"
    repos: dict[str, dict[str, bytes]]
    gated: set[str]
    fetched: list[str]

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+?)(/revision/[^/]+)?", path):
            return self.model(found[1], body)
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            data = self.repos.get(found[1], {}).get(found[2])
            if data is None:
                return self.send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
            if body:
                self.fetched.append(f"{found[1]}/{found[2]}")
            etag = hashlib.sha256(data).hexdigest()
            return self.send(200, data, {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'}, body)
        return self.send(404, b"", {}, body)

    def model(self, repo: str, body: bool) -> None:
        if repo in self.gated:
            return self.send(403, b"", {"X-Error-Code": "GatedRepo"}, body)
        if repo not in self.repos:
            return self.send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)
        siblings = [{"rfilename": name, "size": len(data)} for name, data in self.repos[repo].items()]
        document = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}
        return self.send(200, json.dumps(document).encode(), {"Content-Type": "application/json"}, body)

    def send(self, code: int, data: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)


@contextmanager
def local_hub(repos: dict[str, dict[str, bytes]], gated: set[str] = frozenset()) -> Iterator[tuple[str, list[str]]]:  # type: ignore[assignment]
    fetched: list[str] = []
    handler = type("Handler", (Hugging,), {"repos": repos, "gated": gated, "fetched": fetched})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", fetched
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and permission to go online."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "hub"


# what each published repository holds, besides files that nobody reads
CONTENT = {
    "timm": {
        "config.json": b"{}",
        "model.safetensors": b"weights" * 99,
        "pytorch_model.bin": b"old",
        "README.md": b"x",
    },
    "open_clip": {
        "open_clip_config.json": b"{}",
        "open_clip_model.safetensors": b"weights" * 99,
        "open_clip_pytorch_model.bin": b"old",
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b"{}",
        "special_tokens_map.json": b"{}",
    },
    "transformers": {
        "config.json": b"{}",
        "preprocessor_config.json": b"{}",
        "vocab.txt": b"a",
        "model-00001-of-00002.safetensors": b"weights" * 9,
        "model-00002-of-00002.safetensors": b"weights" * 8,
        "model.safetensors.index.json": json.dumps(
            {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
        ).encode(),
        "pytorch_model-00001-of-00001.bin": b"old",
        "picture.png": b"x",
    },
}
HUB = [name for name, recipe in catalogue.catalogue().items() if recipe.hub and recipe.hub[0].library != "torchvision"]
TORCHVISION = [name for name, r in catalogue.catalogue().items() if r.hub and r.hub[0].library == "torchvision"]


@pytest.mark.parametrize("name", HUB)
def test_every_hub_recipe(cache: Path, tmp_path: Path, policy: Policy, name: str) -> None:
    recipe = catalogue.get(name)
    repos = {part.repo: CONTENT[part.library] for part in recipe.hub}
    assert hub.cached(recipe) is None
    with local_hub(repos) as (url, fetched):
        settings = Settings(root=tmp_path / "data", mirror=url, policy=policy)
        done = hub.warm(recipe, settings)
        assert done.status == "downloaded"
        assert done.folder.name == COMMIT
        assert not any(name.endswith((".bin", ".md", ".png")) for name in fetched)
        assert done.fetched_bytes > 0
        assert any(path.name.endswith(".safetensors") for path in done.folder.iterdir())
        fetched.clear()
        assert hub.warm(recipe, settings).status == "present"
        assert fetched == []
    assert hub.cached(recipe) == done.folder
    assert check([name], tmp_path / "data")["intact"]


def test_older_repositories_without_safetensors() -> None:
    part = Hub(library="timm", repo="a/b")
    assert hub.choose_files(part, ["config.json", "pytorch_model.bin"]) == ["config.json", "pytorch_model.bin"]
    with pytest.raises(RdxError, match="no weights that timm could read"):
        hub.choose_files(part, ["README.md", "config.json"])


def test_missing_shard_is_not_present(cache: Path, tmp_path: Path, policy: Policy) -> None:
    recipe = catalogue.get("dinov2-base")
    with local_hub({recipe.hub[0].repo: CONTENT["transformers"]}) as (url, _):
        done = hub.warm(recipe, Settings(root=tmp_path, mirror=url, policy=policy))
        (done.folder / "model-00002-of-00002.safetensors").unlink()
        assert hub.cached(recipe) is None
        assert hub.warm(recipe, Settings(root=tmp_path, mirror=url, policy=policy)).status == "downloaded"
    assert hub.cached(recipe) == done.folder


def test_what_can_go_wrong(cache: Path, tmp_path: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = catalogue.get("dino")
    repo = recipe.hub[0].repo
    with local_hub({}, {repo}) as (url, _):
        settings = Settings(root=tmp_path, mirror=url, policy=policy)
        with pytest.raises(TransferError, match="asks for an agreement") as caught:
            hub.warm(recipe, settings)
        assert "hf auth login" in str(caught.value.hint)
    with local_hub({}) as (url, _):
        with pytest.raises(TransferError, match="dino") as caught:
            hub.warm(recipe, Settings(root=tmp_path, mirror=url, policy=policy))
        assert len(caught.value.message.splitlines()) == 1
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(TransferError, match=r"cannot fetch .*: connection refused"):
            hub.warm(recipe, Settings(root=tmp_path, mirror=url, policy=policy))
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(TransferError, match="HF_HUB_OFFLINE is set"):
        hub.warm(recipe, Settings(root=tmp_path, policy=policy))


@pytest.mark.parametrize("name", TORCHVISION)
def test_every_torchvision_recipe(cache: Path, site: Site, tmp_path: Path, policy: Policy, name: str) -> None:
    body = name.encode() * 1000
    real = catalogue.get(name)
    file = f"{real.hub[0].repo.rpartition('/')[2].rpartition('-')[0]}-{hashlib.sha256(body).hexdigest()[:8]}.pth"
    part = real.hub[0].model_copy(update={"repo": f"https://download.pytorch.org/models/{file}"})
    recipe = real.model_copy(update={"hub": (part,)})
    site.files[f"/{file}"] = body
    settings = Settings(root=tmp_path / "data", mirror=site.url, policy=policy)
    assert hub.warm(recipe, settings).status == "downloaded"
    target = tmp_path / "torch" / "hub" / "checkpoints" / file
    assert target.read_bytes() == body
    assert hub.cached(recipe) == target
    assert hub.warm(recipe, settings).status == "present"
    target.write_bytes(b"damaged")
    assert hub.warm(recipe, settings).status == "downloaded"
    assert target.read_bytes() == body
    site.files[f"/{file}"] = b"something else"
    target.unlink()
    with pytest.raises(TransferError, match="SHA-256"):
        hub.warm(recipe, settings)
    assert not target.exists()


def test_where_torch_keeps_its_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    for variable in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv("TORCH_HOME", raising=False)
        monkeypatch.setenv(variable, str(tmp_path / "x"))
        assert hub.torch_checkpoints() == Path(torch.hub.get_dir()) / "checkpoints"


def test_models_without_a_recipe(cache: Path, tmp_path: Path) -> None:
    from rdxcli.models.kept import recipe_of

    def repo(name: str) -> str:
        recipe = recipe_of(name)
        assert isinstance(recipe, Recipe)
        return recipe.hub[0].repo

    assert repo("timm:resnet18.a1_in1k") == "timm/resnet18.a1_in1k"
    assert repo("timm:hf-hub:owner/net") == "owner/net"
    assert repo("hf:facebook/dinov2-small") == "facebook/dinov2-small"
    assert repo("open_clip:ViT-B-32/laion2b_s34b_b79k") == "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    assert repo("torchvision:resnet18@IMAGENET1K_V1").endswith("resnet18-f37072fd.pth")
    for name in ("digits-cnn", "no-such-model", "timm:no_such_network", f"hf:{tmp_path}", "torchvision:nothing"):
        assert recipe_of(name) is None


def test_through_the_service(cache: Path, tmp_path: Path) -> None:
    with local_hub({"owner/net": CONTENT["timm"]}) as (url, _):
        outcome = download(DownloadOptions(["timm:hf-hub:owner/net"], root=tmp_path, mirror=url))
    entry = outcome.downloads[0]
    assert (entry["kind"], entry["status"]) == ("hub", "downloaded")
    assert entry["sources"][0]["revision"] == COMMIT


def test_the_library_loads_it_offline(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny network in the hub's own format: fetched, then loaded by timm without a network."""
    import timm
    import torch
    from huggingface_hub import constants
    from timm.models import save_for_hf

    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=3)
    save_for_hf(network, tmp_path / "net", safe_serialization=True)
    files = {path.name: path.read_bytes() for path in (tmp_path / "net").iterdir()}
    with local_hub({"acme/tiny": files}) as (url, _):
        download(DownloadOptions(["timm:hf-hub:acme/tiny"], root=tmp_path, mirror=url))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    loaded = timm.create_model("hf-hub:acme/tiny", pretrained=True)
    assert torch.equal(loaded.state_dict()["head.weight"], network.state_dict()["head.weight"])
