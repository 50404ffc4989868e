"""Bytes over HTTP into a file: resumed, retried, counted and verified, and never visible under their name before that.

A transfer writes ``NAME.part`` with ``NAME.part.json`` beside it, which says what the bytes are a part of. Whatever
ends the transfer (a cut line, a full disk, ``kill -9``), the next one continues after the last byte on disk, if the
server still has the same file; otherwise it starts again.
"""

from __future__ import annotations

import json
import os
import random
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rdxcli import __version__
from rdxcli.errors import without_passwords
from rdxcli.lazy import httpx
from rdxcli.progress import human_count, log

from .expected import Expected, Fetched, Policy, Remote, Stopped, TransferError, digests
from .responses import content_range, describe, length, retry_after, validator

_RETRIED = {408, 425, 429, 500, 502, 503, 504}


class _Retry(Exception):  # noqa: N818
    def __init__(self, reason: str, after: float | None = None, connected: bool = True) -> None:
        super().__init__(reason)
        self.reason, self.after, self.connected = reason, after, connected


class _Refused(Exception):  # noqa: N818
    """This address will not give the file; another may."""


def client(policy: Policy) -> httpx.Client:
    """A client for many transfers at once; proxies are taken from the environment.

    Raises `TransferError` (the environment names a proxy of a kind that is not known).
    """
    with proxies_of_the_environment():
        return httpx.Client(
            verify=_certificates(),
            follow_redirects=True,
            max_redirects=policy.redirects,
            timeout=httpx.Timeout(policy.stall, connect=policy.connect, pool=None),
            limits=httpx.Limits(max_connections=32),
            # the bytes of the file itself are wanted: no server may compress them again
            headers={"User-Agent": f"rdx/{__version__}", "Accept-Encoding": "identity"},
        )


@contextmanager
def proxies_of_the_environment() -> Iterator[None]:
    """Say in one line what is wrong with the proxies that the environment names; their passwords are not repeated."""
    try:
        yield
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        names = [name for name in os.environ if name.lower() in _PROXIES and os.environ[name]]
        if not names or not any(word in str(error).lower() for word in ("proxy", "socks", "url", "port")):
            raise
        given = ", ".join(f"{name}={without_passwords(os.environ[name])}" for name in sorted(names))
        hint = (
            "pip install 'httpx[socks]'"
            if isinstance(error, ImportError)
            else "expected http://, https:// or socks5://"
        )
        raise TransferError(f"the proxy of the environment cannot be used: {given}", f"{hint}; or unset it") from None


_PROXIES = ("all_proxy", "http_proxy", "https_proxy")


@cache
def _certificates() -> ssl.SSLContext:
    # reading them takes longer than a small download
    return httpx.create_ssl_context()


def probe(http: httpx.Client, urls: Sequence[str], expected: Expected, policy: Policy) -> Remote:
    """Ask for the first byte of the first address that has the file, and learn its size.

    Raises `TransferError` (no address can be reached or has the file in the expected size).
    """
    failures: list[str] = []
    for url in urls:
        for attempt in range(policy.connect_tries):
            if attempt:
                threading.Event().wait(policy.wait)
            try:
                with http.stream("GET", url, headers={"Range": "bytes=0-0"}) as response:
                    _check_status(response, url, expected)
                    total = content_range(response)[1] if response.status_code == 206 else length(response)
                    if total is None:
                        total = expected.size
                    elif expected.size not in (None, total):
                        raise _Refused(f"the server has {total} bytes, the recipe says {expected.size}")
                    return Remote(url, total, response.status_code == 206)
            except _Refused as refusal:
                failures.append(f"{_host(url)}: {refusal}")
                break
            except (httpx.HTTPError, httpx.InvalidURL, _Retry) as error:
                reason = error.reason if isinstance(error, _Retry) else describe(error)
                if attempt == policy.connect_tries - 1 or isinstance(error, httpx.TooManyRedirects):
                    failures.append(f"{_host(url)}: {reason}")
                    break
    raise _unreachable(urls, failures)


def fetch(
    http: httpx.Client,
    urls: Sequence[str],
    target: Path,
    expected: Expected,
    policy: Policy,
    stop: threading.Event,
    advance: Callable[[int], None] = lambda steps: None,
) -> Fetched:
    """Fetch a file; ``target`` appears when it is complete and verified.

    Raises `TransferError` (every address failed: refused, gone, cut too often, or wrong bytes twice) or `OSError` (the
    disk is full or cannot be written).

    Parameters
    ----------
    urls : sequence of str
        Addresses of the same file, best first.
    target : Path
        Its folder exists. A verified file that is there already is not fetched again.
    stop : threading.Event
        When set, the transfer raises `Stopped` at the next chunk.
    advance : callable
        Told the bytes as they come; negative when bytes turn out to be useless.
    """
    part = target.with_name(target.name + ".part")
    failures: list[str] = []
    known = 0

    def report(position: int) -> None:
        nonlocal known
        advance(position - known)
        known = position

    for url in urls:
        # wrong bytes may come from a resumed transfer of a file that changed meanwhile: once more, from the start
        for attempt in range(2):
            try:
                resumed = _transfer(http, url, part, expected, policy, stop, report)
            except _Refused as refusal:
                failures.append(f"{_host(url)}: {refusal}")
                break
            size = part.stat().st_size
            sha256, md5 = digests(part, stop)
            problem = expected.problem(size, sha256, md5)
            if problem is None:
                os.replace(part, target)
                _notes(part).unlink(missing_ok=True)
                return Fetched(url, size, sha256, md5, resumed)
            _discard(part)
            report(0)
            log.debug("%s: %s (attempt %d)", url, problem, attempt + 1)
            if attempt == 1 or not resumed:
                failures.append(f"{_host(url)}: {problem}")
                break
    raise _unreachable(urls, failures)


def _transfer(
    http: httpx.Client,
    url: str,
    part: Path,
    expected: Expected,
    policy: Policy,
    stop: threading.Event,
    report: Callable[[int], None],
) -> int:
    """Bring ``part`` to its full length; returns how many bytes were there before."""
    progress = _Progress(url, part, expected, report)
    before = progress.offset
    failures, connected, wait = 0, False, policy.wait
    while not progress.complete:
        if stop.is_set():
            raise Stopped
        start = progress.offset
        try:
            _attempt(http, url, progress, stop)
            continue
        except _Retry as retry:
            reason, after = retry.reason, retry.after
            connected = connected or retry.connected
        except httpx.TooManyRedirects:
            raise _Refused(f"more than {human_count(policy.redirects, 'redirect')}") from None
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise _Refused(describe(error)) from None
        except httpx.HTTPError as error:
            reason, after = describe(error), None
            connected = connected or not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError)
        if progress.offset > start:
            failures, wait = 0, policy.wait
        failures += 1
        if failures >= (policy.tries if connected else policy.connect_tries):
            raise _Refused(f"{reason} ({human_count(failures, 'attempt')})")
        pause = min(after if after is not None else wait * random.uniform(0.75, 1.25), policy.longest_wait)
        log.debug("%s: %s at byte %d; again in %.1f s", without_passwords(url), reason, progress.offset, pause)
        if stop.wait(pause):
            raise Stopped
        wait = min(wait * 2, policy.longest_wait)
    return before


class _Progress:
    """The bytes of one file that are on disk, and what they are a part of."""

    def __init__(self, url: str, part: Path, expected: Expected, report: Callable[[int], None]) -> None:
        self.url, self.part, self.expected, self.report = url, part, expected, report
        self.validator: str | None = None
        self.total: int | None = expected.size
        self.complete = False
        self.offset = part.stat().st_size if part.is_file() else 0
        notes = _read_notes(part) if self.offset else {}
        here = notes.get("url") == without_passwords(url)
        # without a hash or a validator nothing would tell a changed file: bytes of an earlier run are not trusted
        if self.offset and (expected.certain or (here and notes.get("validator"))):
            self.validator = notes.get("validator") if here else None
            self.total = expected.size if expected.size is not None else notes.get("total")
        elif self.offset:
            self.restart()
        if self.total is not None and self.offset > self.total:
            self.restart()
        self.complete = self.total is not None and self.offset == self.total
        report(self.offset)

    def restart(self) -> None:
        """Forget the bytes: they are not of the file that the server has."""
        _discard(self.part)
        self.offset, self.validator, self.total = 0, None, self.expected.size
        self.report(0)

    def note(self, total: int | None, validator: str | None) -> None:
        """Write down what the bytes that follow are a part of."""
        self.total, self.validator = total, validator
        draft = _notes(self.part).with_suffix(".tmp")
        draft.write_text(
            json.dumps({"url": without_passwords(self.url), "total": total, "validator": validator}), "utf-8"
        )
        os.replace(draft, _notes(self.part))


def _attempt(http: httpx.Client, url: str, progress: _Progress, stop: threading.Event) -> None:
    headers = {}
    if progress.offset:
        headers["Range"] = f"bytes={progress.offset}-"
        if progress.validator:
            headers["If-Range"] = progress.validator
    with http.stream("GET", url, headers=headers) as response:
        if response.status_code == 416:
            _, total = content_range(response)
            if total is not None and total == progress.offset and progress.expected.size in (None, total):
                progress.complete = True
                return
            progress.restart()
            raise _Retry("the server's file is shorter than what is here")
        _check_status(response, url, progress.expected)
        _accept(response, progress)
        mode = "ab" if progress.offset else "wb"
        with open(progress.part, mode) as stream:
            try:
                for chunk in response.iter_raw():
                    if stop.is_set():
                        raise Stopped
                    if progress.total is not None and progress.offset + len(chunk) > progress.total:
                        raise _Refused(f"the server sends more than {progress.total} bytes")
                    stream.write(chunk)
                    progress.offset += len(chunk)
                    progress.report(progress.offset)
            finally:
                # what could not be written does not count
                try:
                    stream.flush()
                finally:
                    progress.offset = os.fstat(stream.fileno()).st_size
            if progress.total is not None and progress.offset < progress.total:
                raise _Retry(f"the line was cut after {progress.offset} of {progress.total} bytes")
            os.fsync(stream.fileno())
    progress.complete = True


def _accept(response: httpx.Response, progress: _Progress) -> None:
    """Make ``progress`` fit what the server is about to send."""
    if response.status_code == 206:
        start, total = content_range(response)
        if start != progress.offset or (progress.total is not None and total not in (None, progress.total)):
            progress.restart()
            raise _Retry("the server's file is another one than before")
        total = total if total is not None else progress.total
    else:
        if progress.offset:
            log.debug("%s: the server starts again from the first byte", progress.url)
            progress.restart()
        total = length(response)
    if progress.expected.size is not None and total is not None and total != progress.expected.size:
        raise _Refused(f"the server has {total} bytes, the recipe says {progress.expected.size}")
    progress.note(total if total is not None else progress.expected.size, validator(response))


def _check_status(response: httpx.Response, url: str, expected: Expected) -> None:
    code = response.status_code
    if code in _RETRIED:
        raise _Retry(f"HTTP {code} {response.reason_phrase}".strip(), retry_after(response))
    if code not in {200, 206}:
        raise _Refused(f"HTTP {code} {response.reason_phrase}".strip())
    final = response.url
    if url.startswith("https:") and final.scheme != "https" and not expected.certain:
        raise _Refused(f"redirects from https to {final.scheme}://{final.host}, and no hash is known")


def _notes(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_notes(part: Path) -> dict[str, Any]:
    try:
        notes = json.loads(_notes(part).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _notes(part).unlink(missing_ok=True)


def _host(url: str) -> str:
    return urlsplit(without_passwords(url)).netloc or without_passwords(url)


def _unreachable(urls: Sequence[str], failures: Sequence[str]) -> TransferError:
    name = urlsplit(urls[0]).path.rpartition("/")[2]
    # one line whatever the number of addresses
    return TransferError(f"cannot fetch {name}: {'; '.join(dict.fromkeys(failures)) or 'no address'}")
