"""Results as JUnit writes them, for the test viewers of CI systems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from rdxcli.report.text import clean

LONGEST = 2000


@dataclass(frozen=True)
class JunitCase:
    """One test case.

    Attributes
    ----------
    failure : str, optional
        Why it failed.
    text : str
        What there is to say besides.
    """

    name: str
    failure: str | None = None
    text: str = ""


def junit(suite: str, cases: Sequence[JunitCase]) -> str:
    """An XML document of one suite; foreign text cannot break it."""
    failures = sum(case.failure is not None for case in cases)
    root = ElementTree.Element(
        "testsuite", name=clean(suite), tests=str(len(cases)), failures=str(failures), errors="0", skipped="0"
    )
    for case in cases:
        element = ElementTree.SubElement(root, "testcase", classname=clean(suite), name=clean(case.name))
        if case.failure is not None:
            ElementTree.SubElement(element, "failure", message=clean(case.failure, LONGEST))
        if case.text:
            said = "\n".join(clean(line, LONGEST) for line in case.text.splitlines())
            ElementTree.SubElement(element, "system-out").text = said
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
