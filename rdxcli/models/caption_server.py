"""Captions from a server that speaks OpenAI's chat protocol, as vLLM, llama.cpp and others do.

The key is read from the environment (``OPENAI_API_KEY``) when a request is sent, and is written nowhere.
"""

from __future__ import annotations

import base64
import io
import os
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rdxcli.errors import InputError, RdxError, UsageError
from rdxcli.lazy import httpx, torch
from rdxcli.models.captioners import INSTRUCTION, Captioner, Sampling, load_captioner, one_line, resolve_captioner
from rdxcli.numerics.seeding import generator
from rdxcli.progress import log

if TYPE_CHECKING:
    from PIL import Image

SCHEME = "openai:"
KEY = "OPENAI_API_KEY"
DEFAULT_URL = "https://api.openai.com/v1"
_SIDE = 1024  # pixels of the longer side that are sent
_TIMEOUT = 300.0  # seconds that an answer may take
_CONNECT = 10.0
_TRIES, _FIRST_WAIT, _LONGEST_WAIT = 6, 0.5, 30.0
_AGAIN = frozenset([408, 409, 425, 429, 500, 502, 503, 504])


class CaptionServer:
    """A captioner behind ``BASE_URL/chat/completions``.

    Raises `UsageError` (the address is none, or carries a name and password).

    Parameters
    ----------
    name : str
        ``openai:MODEL``.
    base_url : str, optional
        Up to and with ``/v1``; OpenAI's own without it.
    parallel : int
        Requests at a time.
    first_wait : float
        Seconds before a failed request is tried again; doubles each time.
    """

    same_tokens = False

    def __init__(
        self, name: str, base_url: str | None = None, *, parallel: int = 8, first_wait: float = _FIRST_WAIT
    ) -> None:
        url = (base_url or DEFAULT_URL).rstrip("/")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"--base-url {url}: expected an address", "for example http://localhost:8000/v1")
        if parts.username or parts.password or parts.query:
            raise UsageError("--base-url carries a name, password or query", f"keys are read from {KEY} only")
        if not name.removeprefix(SCHEME):
            raise UsageError("which model of the server?", f"write {SCHEME}NAME")
        if parallel < 1:
            raise UsageError(f"--parallel: got {parallel}, expected at least 1")
        self.name, self.model, self.base_url, self.parallel = name, name.removeprefix(SCHEME), url, parallel
        self.first_wait = first_wait
        self.device = torch.device("cpu")

    def prompt(self, given: str | None) -> str:
        """The prompt that is used when ``given`` was asked for."""
        return INSTRUCTION if given is None else given

    def description(self) -> dict[str, Any]:
        """What a manifest records."""
        return {
            "name": self.name,
            "class": type(self).__name__,
            "dtype": None,
            "provenance": {"origin": "openai", "repository": self.model, "base_url": self.base_url},
            "weights_sha256": None,
        }

    def prepare(self, image: Image.Image) -> str:
        """The image as a data address; may run in a thread."""
        small = image.convert("RGB")
        small.thumbnail((_SIDE, _SIDE))
        content = io.BytesIO()
        small.save(content, "JPEG", quality=92)
        return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"

    def caption(self, items: Sequence[str], sample_ids: Sequence[str], how: Sampling) -> list[list[str]]:
        """Captions of prepared images: one request each, so that servers without ``n`` do too.

        Raises `RdxError` (the server cannot be reached, refuses, or answers something else than the protocol has).
        """
        jobs = [
            self._body(item, sample, k, how)
            for item, sample in zip(items, sample_ids, strict=True)
            for k in range(how.captions)
        ]
        with (
            _client() as client,
            ThreadPoolExecutor(self.parallel) as pool,
        ):
            asked = self.prompt(how.prompt)
            texts = [one_line(text, asked) for text in pool.map(lambda body: self._asked(client, body), jobs)]
        return [texts[i * how.captions : (i + 1) * how.captions] for i in range(len(items))]

    def ask(self, question: str, seed: int = 0) -> str:
        """The answer to a question without an image. Raises `RdxError` as of `caption`."""
        body = {"model": self.model, "messages": [{"role": "user", "content": question}], "temperature": 0.0}
        with _client() as client:
            return self._asked(client, {**body, "max_tokens": 400, "seed": seed})

    def _body(self, item: str, sample: str, k: int, how: Sampling) -> dict[str, Any]:
        # a number that belongs to the image and the caption: servers that honour it give the same words again
        seed = int(generator(how.seed, "caption", sample, k).integers(2**31 - 1))
        content = [{"type": "text", "text": self.prompt(how.prompt)}, {"type": "image_url", "image_url": {"url": item}}]
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": how.temperature,
            "top_p": how.top_p,
            "max_tokens": how.max_tokens,
            "seed": seed,
        }

    def _asked(self, client: httpx.Client, body: dict[str, Any]) -> str:
        key = os.environ.get(KEY)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        said = ""
        for attempt in range(_TRIES):
            wait = min(self.first_wait * 2**attempt, _LONGEST_WAIT) * (0.75 + 0.5 * random.random())
            try:
                answer = client.post(f"{self.base_url}/chat/completions", json=body, headers=headers)
            except httpx.TransportError as error:
                said = f"{type(error).__name__}: {error}"
            else:
                if answer.status_code == 200:
                    return _text(answer, self.base_url)
                said = f"{answer.status_code}: {_complaint(answer)}"
                if answer.status_code not in _AGAIN:
                    raise _refusal(answer.status_code, said, self)
                asked_for = answer.headers.get("retry-after", "")
                if asked_for.isdigit():
                    wait = min(float(asked_for), _LONGEST_WAIT)
            if attempt + 1 < _TRIES:
                log.debug("%s: %s; again in %.1f s", self.base_url, said, wait)
                time.sleep(wait)
        raise RdxError(
            f"{self.base_url} did not answer in {_TRIES} tries: {said}",
            "is the server running? The same command goes on where this one ended",
        )


def check_captioner(name: str, base_url: str | None = None, parallel: int = 8) -> None:
    """Refuse a captioner that its name or address shows to be none; touches neither disk nor network.

    Raises `UnknownNameError` or `UsageError`.
    """
    if name.startswith(SCHEME):
        CaptionServer(name, base_url, parallel=parallel)
    elif base_url is not None:
        raise UsageError("--base-url is of a server", f"name a model of it: --model {SCHEME}NAME")
    else:
        resolve_captioner(name)


def open_captioner(
    name: str, device: str = "auto", dtype: str | None = None, *, base_url: str | None = None, parallel: int = 8
) -> Captioner | CaptionServer:
    """A captioner by any name: of a server, or one that is loaded (see `rdxcli.models.captioners.load_captioner`)."""
    check_captioner(name, base_url, parallel)
    return (
        CaptionServer(name, base_url, parallel=parallel)
        if name.startswith(SCHEME)
        else load_captioner(name, device, dtype)
    )


def _refusal(status: int, said: str, server: CaptionServer) -> RdxError:
    if status in (401, 403):
        return RdxError(f"{server.base_url} refuses the key: {said}", f"set {KEY} in the environment")
    if status == 404:
        return UsageError(f"{server.base_url} knows no model `{server.model}`: {said}", "see its /models")
    return InputError(f"{server.base_url} refuses the request: {said}", "does the model read images?")


def _client() -> httpx.Client:
    return httpx.Client(timeout=httpx.Timeout(_TIMEOUT, connect=_CONNECT))


def _complaint(answer: httpx.Response) -> str:
    """What the server says is wrong, in a line."""
    try:
        error = answer.json()["error"]
        text = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError):
        text = answer.text
    return " ".join(str(text).split())[:300]


def _text(answer: httpx.Response, url: str) -> str:
    try:
        content = answer.json()["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        content = None
    if not isinstance(content, str):
        raise InputError(f"{url} answered something else than a chat completion: {answer.text[:200]}")
    return content
