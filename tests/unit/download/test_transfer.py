"""Transfers against a real server that cuts, lies, stalls and redirects."""

from __future__ import annotations

import errno
import hashlib
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from download_server import Fault, Site

from rdxcli.download import transfer
from rdxcli.download.expected import Expected, Policy, Stopped, TransferError
from rdxcli.download.transfer import client, fetch, probe

BODY = bytes(range(256)) * 1200  # 307,200 bytes
SHA = hashlib.sha256(BODY).hexdigest()
MD5 = hashlib.md5(BODY).hexdigest()
KNOWN = Expected(len(BODY), SHA, None, MD5)


def get(
    site: Site, policy: Policy, folder: Path, expected: Expected = KNOWN, path: str = "/f.bin", **more: Any
) -> transfer.Fetched:
    with client(policy) as http:
        return fetch(http, [site.url + path], folder / "f.bin", expected, policy, threading.Event(), **more)


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_whole_file(site: Site, policy: Policy, tmp_path: Path) -> None:
    site.files["/f.bin"] = BODY
    steps: list[int] = []
    done = get(site, policy, tmp_path, advance=steps.append)
    assert (done.size, done.sha256, done.md5, done.resumed) == (len(BODY), SHA, MD5, 0)
    assert (tmp_path / "f.bin").read_bytes() == BODY
    assert left_over(tmp_path) == ["f.bin"]
    assert sum(steps) == len(BODY)


@pytest.mark.parametrize("offset", [0, 1, 2, 511, 512, 4096, 65535, 65536, 65537, 150_000, 262_144, 307_198, 307_199])
@pytest.mark.parametrize("etags", [True, False])
def test_resumes_after_a_cut(site: Site, policy: Policy, tmp_path: Path, offset: int, etags: bool) -> None:
    site.files["/f.bin"], site.etags = BODY, etags
    site.faults["/f.bin"] = [Fault(cut=offset)]
    steps: list[int] = []
    get(site, policy, tmp_path, advance=steps.append)
    assert (tmp_path / "f.bin").read_bytes() == BODY
    asked = site.requests("/f.bin")
    assert asked == [None, f"bytes={offset}-" if offset else None]
    assert sum(steps) == len(BODY)


def test_many_cuts_in_one_file(site: Site, policy: Policy, tmp_path: Path) -> None:
    site.files["/f.bin"] = BODY
    site.faults["/f.bin"] = [Fault(cut=17_001) for _ in range(15)]
    get(site, policy, tmp_path)
    assert (tmp_path / "f.bin").read_bytes() == BODY
    assert site.requests("/f.bin")[1:4] == ["bytes=17001-", "bytes=34002-", "bytes=51003-"]


def test_the_next_run_continues(site: Site, policy: Policy, tmp_path: Path) -> None:
    site.files["/f.bin"] = BODY
    site.faults["/f.bin"] = [Fault(cut=100_000), *[Fault(status=500) for _ in range(policy.tries)]]
    with pytest.raises(TransferError, match="500"):
        get(site, policy, tmp_path, Expected())
    assert left_over(tmp_path) == ["f.bin.part", "f.bin.part.json"]
    site.log.clear()
    site.faults.clear()
    done = get(site, policy, tmp_path, Expected())
    assert site.requests("/f.bin") == ["bytes=100000-"]
    assert done.resumed == 100_000
    assert (tmp_path / "f.bin").read_bytes() == BODY


def test_without_ranges_it_starts_again(site: Site, policy: Policy, tmp_path: Path) -> None:
    site.files["/f.bin"], site.ranges = BODY, False
    site.faults["/f.bin"] = [Fault(cut=200_000), Fault(cut=10)]
    steps: list[int] = []
    get(site, policy, tmp_path, advance=steps.append)
    assert (tmp_path / "f.bin").read_bytes() == BODY
    assert len(site.requests("/f.bin")) == 3
    assert sum(steps) == len(BODY)


def test_a_file_that_changed_meanwhile(site: Site, policy: Policy, tmp_path: Path) -> None:
    site.files["/f.bin"] = BODY
    site.faults["/f.bin"] = [Fault(cut=90_000), *[Fault(status=500) for _ in range(policy.tries)]]
    with pytest.raises(TransferError):
        get(site, policy, tmp_path, Expected())
    site.faults.clear()
    site.files["/f.bin"] = changed = BODY[::-1]
    get(site, policy, tmp_path, Expected())
    assert (tmp_path / "f.bin").read_bytes() == changed


def test_bytes_that_nothing_vouches_for_are_not_trusted(site: Site, policy: Policy, tmp_path: Path) -> None:
    site.files["/f.bin"], site.etags = BODY, False
    (tmp_path / "f.bin.part").write_bytes(b"x" * 1000)
    get(site, policy, tmp_path, Expected(size=len(BODY)))
    assert (tmp_path / "f.bin").read_bytes() == BODY
    assert site.requests("/f.bin") == [None]


def test_damaged_bytes_of_an_earlier_run_are_fetched_again(site: Site, policy: Policy, tmp_path: Path) -> None:
    site.files["/f.bin"] = BODY
    (tmp_path / "f.bin.part").write_bytes(b"x" * 1000)
    get(site, policy, tmp_path)
    assert (tmp_path / "f.bin").read_bytes() == BODY
    assert site.requests("/f.bin") == ["bytes=1000-", None]


def test_a_complete_part_needs_no_server(site: Site, policy: Policy, tmp_path: Path) -> None:
    (tmp_path / "f.bin.part").write_bytes(BODY)
    get(site, policy, tmp_path)
    assert (tmp_path / "f.bin").read_bytes() == BODY
    assert site.log == []


def test_too_long_a_part(site: Site, policy: Policy, tmp_path: Path) -> None:
    site.files["/f.bin"] = BODY
    (tmp_path / "f.bin.part").write_bytes(BODY + b"more")
    get(site, policy, tmp_path)
    assert (tmp_path / "f.bin").read_bytes() == BODY


def test_range_beyond_the_end(site: Site, policy: Policy, tmp_path: Path) -> None:
    site.files["/f.bin"] = BODY
    (tmp_path / "f.bin.part").write_bytes(BODY + b"more")
    get(site, policy, tmp_path, Expected(sha256=SHA))
    assert (tmp_path / "f.bin").read_bytes() == BODY
    assert site.requests("/f.bin") == [f"bytes={len(BODY) + 4}-", None]


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (Expected(size=len(BODY) + 1), "the recipe says"),
        (Expected(sha256="0" * 64), "SHA-256"),
        (Expected(sha256_prefix="12345678"), "expected 12345678"),
        (Expected(md5="0" * 32), "MD5"),
    ],
)
def test_wrong_size_or_hash(site: Site, policy: Policy, tmp_path: Path, expected: Expected, message: str) -> None:
    site.files["/f.bin"] = BODY
    with pytest.raises(TransferError, match=message):
        get(site, policy, tmp_path, expected)
    assert left_over(tmp_path) == []


def test_without_a_length_a_short_file_shows_by_its_size(site: Site, policy: Policy, tmp_path: Path) -> None:
    site.files["/f.bin"], site.lengths = BODY, False
    site.faults["/f.bin"] = [Fault(cut=5000)]
    get(site, policy, tmp_path)
    assert (tmp_path / "f.bin").read_bytes() == BODY


def test_more_bytes_than_the_recipe_allows(site: Site, policy: Policy, tmp_path: Path) -> None:
    site.files["/f.bin"], site.lengths = BODY, False
    with pytest.raises(TransferError, match="more than 1000 bytes"):
        get(site, policy, tmp_path, Expected(size=1000))
    assert "f.bin" not in left_over(tmp_path)


@pytest.mark.parametrize("code", [401, 403, 404, 410, 451])
def test_refusals_are_not_repeated(site: Site, policy: Policy, tmp_path: Path, code: int) -> None:
    site.always["/f.bin"] = code
    with pytest.raises(TransferError, match=str(code)):
        get(site, policy, tmp_path)
    assert len(site.requests("/f.bin")) == 1
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_passing_trouble_is_waited_for(site: Site, policy: Policy, tmp_path: Path, code: int) -> None:
    site.files["/f.bin"] = BODY
    site.faults["/f.bin"] = [Fault(status=code), Fault(cut=100), Fault(status=code, retry_after="0")]
    get(site, policy, tmp_path)
    assert (tmp_path / "f.bin").read_bytes() == BODY
    assert len(site.requests("/f.bin")) == 4


def test_lasting_trouble_is_given_up(site: Site, policy: Policy, tmp_path: Path) -> None:
    site.always["/f.bin"] = 500
    with pytest.raises(TransferError, match=r"500.*4 attempts"):
        get(site, policy, tmp_path)
    assert len(site.requests("/f.bin")) == policy.tries


def test_waits_as_long_as_the_server_asks(
    site: Site, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.files["/f.bin"] = BODY
    site.faults["/f.bin"] = [Fault(status=503, retry_after="7")]
    patient = Policy(**{**vars(policy), "longest_wait": 60.0})
    waits: list[float] = []

    class Event(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            return False

    with client(patient) as http:
        fetch(http, [site.url + "/f.bin"], tmp_path / "f.bin", KNOWN, patient, Event())
    assert waits == [7.0]


def test_a_silent_line_counts_as_cut(site: Site, policy: Policy, tmp_path: Path) -> None:
    site.files["/f.bin"] = BODY
    site.faults["/f.bin"] = [Fault(cut=123_456, stall=3.0)]
    start = time.monotonic()
    get(site, policy, tmp_path)
    assert time.monotonic() - start < 3.0  # it did not wait for the server
    assert site.requests("/f.bin") == [None, "bytes=123456-"]
    assert (tmp_path / "f.bin").read_bytes() == BODY


def test_slow_but_steady_is_fine(site: Site, policy: Policy, tmp_path: Path) -> None:
    site.files["/f.bin"], site.chunk, site.pause = BODY, 40_000, 0.1  # longer in all than the patience for silence
    get(site, policy, tmp_path)
    assert site.requests("/f.bin") == [None]


def test_redirects(site: Site, policy: Policy, tmp_path: Path) -> None:
    site.files["/real.bin"] = BODY
    site.redirects["/f.bin"] = "/second"
    site.redirects["/second"] = "/real.bin"
    site.faults["/real.bin"] = [Fault(cut=4242)]
    done = get(site, policy, tmp_path)
    assert done.url.endswith("/f.bin")
    assert site.requests("/real.bin") == [None, "bytes=4242-"]


def test_redirect_loop(site: Site, policy: Policy, tmp_path: Path) -> None:
    site.redirects["/f.bin"] = "/second"
    site.redirects["/second"] = "/f.bin"
    with pytest.raises(TransferError, match="redirects"):
        get(site, policy, tmp_path)
    assert len(site.log) <= policy.redirects + 2
    with client(policy) as http, pytest.raises(TransferError, match="redirects in a circle"):
        probe(http, [site.url + "/f.bin"], KNOWN, policy)


def test_redirect_to_something_else_than_http(site: Site, policy: Policy, tmp_path: Path) -> None:
    site.redirects["/f.bin"] = "file:///etc/passwd"
    with pytest.raises(TransferError):
        get(site, policy, tmp_path)
    assert left_over(tmp_path) == []


def test_https_may_not_lead_to_http_unless_a_hash_is_known(tmp_path: Path, policy: Policy) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.scheme == "https":
            return httpx.Response(302, headers={"Location": "http://elsewhere.test/f.bin"})
        return httpx.Response(200, stream=httpx.ByteStream(BODY))

    with httpx.Client(transport=httpx.MockTransport(answer), follow_redirects=True) as http:
        with pytest.raises(TransferError, match="from https to http"):
            fetch(http, ["https://here.test/f.bin"], tmp_path / "f.bin", Expected(), policy, threading.Event())
        fetch(http, ["https://here.test/f.bin"], tmp_path / "f.bin", KNOWN, policy, threading.Event())
    assert (tmp_path / "f.bin").read_bytes() == BODY


def test_the_second_address(site: Site, policy: Policy, tmp_path: Path) -> None:
    site.files["/b/f.bin"] = BODY
    with client(policy) as http:
        urls = [site.url + "/a/f.bin", site.url + "/b/f.bin"]
        assert probe(http, urls, KNOWN, policy).url == urls[1]
        done = fetch(http, urls, tmp_path / "f.bin", KNOWN, policy, threading.Event())
    assert done.url == urls[1]


def test_nobody_there(policy: Policy, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/f.bin"  # bound, but nobody listens
        with client(policy) as http:
            with pytest.raises(TransferError, match="connection refused"):
                probe(http, [url], KNOWN, policy)
            with pytest.raises(TransferError, match=r"connection refused \(2 attempts\)"):
                fetch(http, [url], tmp_path / "f.bin", KNOWN, policy, threading.Event())


def test_probe_tells_the_size(site: Site, policy: Policy) -> None:
    site.files["/f.bin"] = BODY
    with client(policy) as http:
        found = probe(http, [site.url + "/f.bin"], Expected(), policy)
        assert (found.size, found.ranges) == (len(BODY), True)
        site.ranges = False
        found = probe(http, [site.url + "/f.bin"], Expected(), policy)
        assert (found.size, found.ranges) == (len(BODY), False)
        with pytest.raises(TransferError, match="the recipe says 5"):
            probe(http, [site.url + "/f.bin"], Expected(size=5), policy)


def test_full_disk_keeps_what_there_is(
    site: Site, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.files["/f.bin"] = BODY
    real_open = open

    def small_disk(path: Any, mode: str = "r", *more: Any, **keywords: Any) -> Any:
        stream = real_open(path, mode, *more, **keywords)
        if "b" in mode and "r" not in mode:
            write, room = stream.write, 131_072

            class Full:
                def __getattr__(self, name: str) -> Any:
                    return getattr(stream, name)

                def __enter__(self) -> Full:
                    return self

                def __exit__(self, *_: Any) -> None:
                    stream.close()

                def write(self, data: bytes) -> int:
                    if stream.tell() + len(data) > room:
                        raise OSError(errno.ENOSPC, "No space left on device")
                    return int(write(data))

            return Full()
        return stream

    monkeypatch.setattr(transfer, "open", small_disk, raising=False)
    with pytest.raises(OSError, match="No space left"):
        get(site, policy, tmp_path)
    kept = (tmp_path / "f.bin.part").stat().st_size
    assert 0 < kept <= 131_072
    monkeypatch.undo()
    done = get(site, policy, tmp_path)
    assert done.resumed == kept
    assert (tmp_path / "f.bin").read_bytes() == BODY


def test_stop_keeps_what_there_is(site: Site, policy: Policy, tmp_path: Path) -> None:
    site.files["/f.bin"], site.chunk, site.pause = BODY, 20_000, 0.02
    stop = threading.Event()

    def after(count: int, seen: list[int] = [0]) -> None:  # noqa: B006  kept between calls on purpose
        seen[0] += count
        if seen[0] > 100_000:
            stop.set()

    with client(policy) as http, pytest.raises(Stopped):
        fetch(http, [site.url + "/f.bin"], tmp_path / "f.bin", KNOWN, policy, stop, after)
    assert 0 < (tmp_path / "f.bin.part").stat().st_size < len(BODY)
    assert get(site, policy, tmp_path).resumed > 0


@pytest.mark.parametrize(
    ("proxy", "known"),
    [
        ("socks5://127.0.0.1:1", True),
        ("socks5h://u:pw@127.0.0.1:1", True),
        ("socks4://u:pw@h:1", False),
        ("x:y", False),
    ],
)
def test_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch, proxy: str, known: bool) -> None:
    """SOCKS is spoken; what is not understood is one line that names the variable and keeps the password."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    if known:
        client(Policy()).close()
        return
    with pytest.raises(TransferError, match="ALL_PROXY=") as caught:
        client(Policy())
    assert "pw" not in caught.value.message
