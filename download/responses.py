"""What HTTP responses and network errors say: sizes, validators, when to come back, and reasons in words."""

from __future__ import annotations

import errno
import socket
from email.utils import parsedate_to_datetime
from time import time

from rdxcli.lazy import httpx


def content_range(response: httpx.Response) -> tuple[int | None, int | None]:
    """First byte and total size of a ``Content-Range`` header."""
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    if unit.strip().lower() != "bytes":
        return None, None
    return (int(first) if first.isdecimal() else None), (int(total) if total.strip().isdecimal() else None)


def length(response: httpx.Response) -> int | None:
    """``Content-Length``, when it is a number."""
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def validator(response: httpx.Response) -> str | None:
    """A strong ``ETag``, else ``Last-Modified``: what tells whether the file is still the same."""
    etag = response.headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return str(etag)
    return response.headers.get("Last-Modified")


def retry_after(response: httpx.Response) -> float | None:
    """Seconds until the server wants to be asked again; it may give a number or a date."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except (TypeError, ValueError):
        return None


def describe(error: Exception) -> str:
    """A network error in words, whatever client raised it."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "TooManyRedirects" in kinds:
        return "it redirects in a circle"
    if "ConnectTimeout" in kinds:
        return "no answer when connecting"
    if "TimeoutException" in kinds:
        return "no data for too long"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return "its name cannot be looked up"
        if isinstance(cause, OSError) and cause.errno in {errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH}:
            return (cause.strerror or "unreachable").lower()
        cause = cause.__cause__ or cause.__context__
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:1].lower() + text[1:160]
