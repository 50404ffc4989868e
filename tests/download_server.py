"""A real HTTP server for download tests: byte ranges, validators, and every way to misbehave that the tests need."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROBE = "bytes=0-0"


@dataclass
class Fault:
    """What goes wrong with one request for a file (probes, which ask for the first byte only, are spared).

    ``status``: answer with that code; ``cut``: close the line after so many bytes of the body; ``stall``: after ``cut``
    bytes wait so many seconds before closing.
    """

    status: int | None = None
    cut: int | None = None
    stall: float = 0.0
    retry_after: str | None = None


def opened() -> threading.Event:
    """A gate that lets everything through; while it is cleared a body stops after its first chunk."""
    gate = threading.Event()
    gate.set()
    return gate


@dataclass
class Site:
    """Files by path, and how the server treats them."""

    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    always: dict[str, int] = field(default_factory=dict)
    ranges: bool = True
    etags: bool = True
    lengths: bool = True
    chunk: int = 1 << 16
    pause: float = 0.0
    stop: int | None = None
    """No body goes on beyond so many bytes of its file until this is taken back."""
    gate: threading.Event = field(default_factory=opened)
    log: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    def requests(self, path: str) -> list[str | None]:
        """The ``Range`` of each request for ``path`` that is no probe."""
        return [span for asked, span in self.log if asked == path and span != PROBE]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        site, span = self.site, self.headers.get("Range")
        site.log.append((self.path, span))
        probe = span == PROBE
        if self.path in site.redirects:
            return self._short(302, {"Location": site.redirects[self.path]})
        if self.path in site.always:
            return self._short(site.always[self.path])
        body = site.files.get(self.path)
        if body is None:
            return self._short(404)
        waiting = site.faults.get(self.path, [])
        fault = waiting.pop(0) if waiting and not probe else Fault()
        if fault.status is not None:
            return self._short(fault.status, {"Retry-After": fault.retry_after} if fault.retry_after else {})
        self._body(body, span, fault)
        return None

    def _body(self, body: bytes, span: str | None, fault: Fault) -> None:
        site = self.site
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        start, end, code = 0, len(body), 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", span or "")
        condition = self.headers.get("If-Range")
        if asked and site.ranges and (condition is None or (site.etags and condition == etag)):
            start, code = int(asked[1]), 206
            end = min(int(asked[2]) + 1, end) if asked[2] else end
            if start >= len(body):
                return self._short(416, {"Content-Range": f"bytes */{len(body)}"})
        self.send_response(code)
        if site.lengths:
            self.send_header("Content-Length", str(end - start))
        else:
            self.send_header("Connection", "close")
        if code == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(body)}")
        if site.etags:
            self.send_header("ETag", etag)
        self.end_headers()
        stop = end if fault.cut is None else min(end, start + fault.cut)
        try:
            for position in range(start, stop, site.chunk):
                self.wfile.write(body[position : min(position + site.chunk, stop)])
                self.wfile.flush()
                site.gate.wait(60)
                if site.pause:
                    time.sleep(site.pause)
                while site.stop is not None and position + site.chunk >= site.stop:
                    time.sleep(0.005)
            if fault.cut is not None or not site.lengths:
                time.sleep(fault.stall)
                self.close_connection = True
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        return None

    def _short(self, code: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that go away in mid-sentence are what the tests are about


@contextmanager
def serve(site: Site) -> Iterator[Site]:
    """Run a server on a free port while the context lasts."""
    handler = type("Handler", (_Handler,), {"site": site})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
