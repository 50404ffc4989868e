"""A real local server that speaks OpenAI's chat protocol and describes pictures, with its bad days."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image


class Server(ThreadingHTTPServer):
    """Answers with words that depend on the picture and the seed, after what ``moods`` has in store."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict] = []
        self.keys: set[str | None] = set()
        self.moods: list[tuple[int, dict]] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.meeting: threading.Barrier | None = None
        self.dies_after: int | None = None
        """Requests that are answered; all later ones get no answer."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
            self.server.keys.add(self.headers.get("Authorization"))
            if self.server.dies_after is not None and len(self.server.asked) >= self.server.dies_after:
                self.server.at_once -= 1
                self.close_connection = True
                return
            mood = self.server.moods.pop(0) if self.server.moods else None
            if mood is None:
                self.server.asked.append(body)
        if self.server.meeting is not None:
            self.server.meeting.wait(timeout=30)
        status, answer = mood or (200, self.words(body))
        assert self.path == "/v1/chat/completions"
        raw = json.dumps(answer).encode()
        with self.server.lock:
            self.server.at_once -= 1
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(raw)

    @staticmethod
    def words(body: dict) -> dict:
        content = body["messages"][0]["content"]
        if isinstance(content, str):  # a question without a picture
            return _said("1. a big dog\n2. 'a red car'\n- near a tree\nThis is what I think of it: " + "and more " * 20)
        question, picture = content
        kind, _, content = picture["image_url"]["url"].partition(",")
        assert kind == "data:image/jpeg;base64"
        size = Image.open(io.BytesIO(base64.b64decode(content))).size
        told = hashlib.sha256(f"{content}{body['seed']}".encode()).hexdigest()[:6]
        text = f"a picture of {size[0]} by {size[1]}\nnumber {told}, asked: {question['text'][:8]}"
        return _said(text)


def _said(text: str) -> dict:
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


@contextmanager
def serving() -> Iterator[Server]:
    """A server that runs."""
    found = Server()
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
