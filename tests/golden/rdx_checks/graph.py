"""Distances, difference graphs, clustering, choice of images, scores: the RDX method itself."""

from __future__ import annotations

from golden.rdx_checks import Compute

CHECKS: dict[str, Compute] = {}
