"""How concepts with their scores are told to people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def listed(entries: Sequence[Mapping[str, Any]], most: int = 5) -> str:
    """Concepts with their scores in a line."""
    return ", ".join(f"{entry['concept']} {short(entry['score'])}" for entry in entries[:most]) or "-"


def short(score: float) -> str:
    """Two decimals, or one significant digit of a small number."""
    return f"{score:.2f}" if abs(score) >= 0.01 or score == 0 else f"{score:.1g}"


def words_of(image: Mapping[str, Any]) -> str:
    """An image's concepts in a line, or why there are none."""
    entries = image.get("for_prediction") or image["concepts"]
    return listed(entries) if entries else image.get("remark", "-")
