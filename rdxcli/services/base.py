"""The one walk of every analysis, and what analyses share.

An analysis is a class with four steps; `Analysis.run` walks them in this order, `Analysis.plan` (``--dry-run``) is the
same walk stopped before the work::

    check()            options and hyper-parameters, before anything is read     -> settings: what changes the result
    gather()           what is read, through the gates                           -> records by name
    folder()           where the artifact goes
    compute(draft)     the method                                                -> a result record and its files

What people see of the result is its summary (`rdxcli.report.kinds`): one builder for each kind of artifact.

The request of the artifact is made here and nowhere else, from the settings and the identity (a fingerprint of the
content) of every record that was gathered, and from the content of every file that an option names. An analysis that
reads something cannot leave it out of the request.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from rdxcli.artifacts import Artifact, Draft, Request, create, write_json
from rdxcli.artifacts.identity import identity, named_files
from rdxcli.artifacts.store import DOCUMENTS
from rdxcli.errors import RdxError
from rdxcli.methods.costs import Cost, documented, expected
from rdxcli.progress import human_count, log
from rdxcli.records import ConceptMatrix, Representation, Result
from rdxcli.report.kinds import summarize
from rdxcli.report.summary import Summary

Options = TypeVar("Options")


@dataclass(frozen=True)
class Outcome:
    """A finished explanation.

    Parameters
    ----------
    document : dict
        The JSON document of the artifact.
    lines : sequence of str
        Further words for people.
    reused : bool
        It had been made before.
    failed : RdxError, optional
        Why something that was asked for beside the artifact is not there.
    """

    artifact: Artifact
    document: Mapping[str, Any]
    lines: Sequence[str] = ()
    reused: bool = False
    failed: RdxError | None = None

    @cached_property
    def summary(self) -> Summary:
        """What people see of it."""
        return summarize(self.document, self.artifact.path, self.artifact.manifest.command)


class Analysis(ABC, Generic[Options]):
    """One question asked of records, as an artifact.

    Attributes
    ----------
    options : Options
        What was asked, as it came from a front end: a dataclass with ``outputs``, ``seed``, ``force`` and ``run``.
    settings : mapping
        Everything that changes the result and is not read from a file; set from `check`.
    records : mapping
        Everything that was read, by name; set from `gather`.
    kind : str
        Kind of the artifact.
    version : str
        Version of the computation; raised when it gives other results for the same request.
    resumes : bool
        Whether an interrupted run is continued.
    """

    kind: ClassVar[str]
    version: ClassVar[str] = "1"
    resumes: bool = False

    def __init__(self, options: Options) -> None:
        self.options: Any = options
        self.settings: Mapping[str, Any] = {}
        self.records: Mapping[str, Any] = {}

    @abstractmethod
    def check(self) -> Mapping[str, Any]:
        """The settings, complete with defaults. Refuses what can be refused before anything is read."""

    @abstractmethod
    def gather(self) -> Mapping[str, Any]:
        """The records by name. What is not here is not read later."""

    @abstractmethod
    def folder(self) -> Path:
        """Where the artifact goes; `settings` and `records` are known."""

    @abstractmethod
    def compute(self, draft: Draft) -> Result:
        """The result. Files beside the document are written to ``draft.path``; ``draft.manifest.rows`` is set."""

    def cost(self) -> Mapping[str, Any]:
        """What is read and what is missing, for ``--dry-run``; `records` may be empty."""
        return {}

    def sizes(self) -> Mapping[str, float]:
        """Sizes of the work as `rdxcli.methods.costs` calls them, as far as they are known; `records` may be empty."""
        return {}

    def expected(self) -> Cost | None:
        """Rows, bytes, memory and seconds of the work; None while a size is not known."""
        way = getattr(self.options, "scoring", "") or getattr(self.options, "method", "")
        return expected(self.kind, str(way), self.sizes())

    def request(self) -> Request:
        """The request of the artifact: settings, the identity of every record, the content of every file named."""
        inputs = {name: identity(record) for name, record in self.records.items()}
        files = named_files(self.options)
        return Request(
            kind=self.kind,
            parameters=dict(self.settings),
            inputs={**inputs, **({"files": files} if files else {})},
            seed=self.options.seed,
            code=self.version,
        )

    def run(self) -> Outcome:
        """Make the artifact, or find it made from the same request.

        Raises `RdxError` or `ValueError` (unusable input or options; an artifact of the same name made from another
        request).
        """
        self.settings = self.check()
        self.records = self.gather()
        draft = self.make(self.folder(), self.request())
        return self.outcome(draft.result, reused=draft.reused)

    def make(self, folder: Path, request: Request) -> Draft:
        """The finished draft, made here or found; analyses that processes share make it in shards instead."""
        with create(folder, request, force=self.options.force, resume=self.resumes) as draft:
            if not draft.reused:
                self.announce()
                result = self.compute(draft)
                write_json(draft.path / DOCUMENTS[self.kind], result.to_document(folder.as_posix()))
        return draft

    def plan(self) -> dict[str, Any]:
        """What `run` would do: the same walk without its work and without extracting anything."""
        self.settings = self.check()
        return {**self.settings, **self.cost(), **documented(self.expected())}

    def announce(self) -> Cost | None:
        """Say what was read and what the work takes, and give the latter back."""
        cost = self.expected()
        log.info("%s", "; ".join(map(str, filter(None, (self.headline(), cost)))))
        return cost

    def outcome(self, artifact: Artifact, reused: bool = False) -> Outcome:
        """A finished artifact with what people see of it."""
        return Outcome(artifact, artifact.document(), reused=reused)

    def headline(self) -> str:
        """The first line: what was read, and as what."""
        return f"{self.settings.get('method', self.kind)}: " + "; ".join(
            said for said in (described(name, record) for name, record in self.records.items()) if said
        )


def described(name: str, record: Any) -> str | None:
    """A record in a few words for people; None for what is not worth a word."""
    if isinstance(record, Representation):
        layer = f" {record.layer}" if record.layer else ""
        extra = (
            [f"{human_count(len(set(map(str, record.labels))), 'label')}"]
            if record.labels is not None
            else ["no labels"]
        )
        extra.append("by ids" if record.sample_ids is not None else "by position")
        return f"{record.name}{layer}: n = {record.n:,}, d = {record.d:,} ({', '.join(extra)})"
    if isinstance(record, ConceptMatrix):
        return (
            f"{name}: {human_count(record.values.shape[1], 'column')} for "
            f"{human_count(record.values.shape[0], 'sample')}"
        )
    if isinstance(record, np.ndarray):
        return f"{name}: {record.shape[0]:,}" if record.ndim else None
    return None
