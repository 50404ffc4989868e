"""A local server and a patient, quick policy for the download tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from download_server import Site, serve

from rdxcli.download.expected import Policy


@pytest.fixture
def site() -> Iterator[Site]:
    with serve(Site()) as running:
        yield running


@pytest.fixture
def policy() -> Policy:
    return Policy(tries=4, connect_tries=2, wait=0.01, longest_wait=0.05, connect=2.0, stall=0.4, redirects=5)
