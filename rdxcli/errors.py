"""The errors a person may see. Each says what is wrong and, in ``hint``, what to do about it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from importlib.util import find_spec

# a path keeps one slash of an address; the second way is a password with a slash, ? or # in it, which is no port
_CREDENTIALS = re.compile(
    r"(://|\b(?:https?|s?ftp|s3a?|gc?s|az|abfs|hf):/)"
    r"(?:[^/\s?#]+|[^/\s?#:@]*:(?!:|\d+(?:[/?#]|$))[^\s\"',]*)@",
    re.I,
)
_SIGNATURES = re.compile(
    r"([?&](?:x-(?:amz|goog)-(?:signature|credential|security-token)|awsaccesskeyid|signature|sig|key-pair-id|token|"
    r"access_?token|auth|api_?key|key|password|passwd|secret)=)[^&\s#\"'`]+",
    re.I,
)


def without_passwords(text: str) -> str:
    """``text`` without the names, passwords, keys and signatures that web addresses in it carry."""
    return _SIGNATURES.sub(r"\1...", _CREDENTIALS.sub(r"\1", text))


class RdxError(Exception):
    """Base of every error that is shown to a person without a traceback.

    Parameters
    ----------
    message : str
        What was given and what was expected, in one line, without a full stop.
    hint : str, optional
        What to do: near matches, or the command that fixes it.

    Attributes
    ----------
    exit_code : int
        Exit status of the command line: 1 failed, 2 wrong usage, 3 a gate was not met.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        message = without_passwords(message)
        super().__init__(message)
        self.message = message
        self.hint = without_passwords(hint) if hint is not None else None


class UsageError(RdxError):
    """An option or argument has an impossible value, or options contradict each other."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A model, data set, layer, method or artifact of that name does not exist."""

    def __init__(self, kind: str, name: str, known: Iterable[str], command: str | None = None) -> None:
        hints = [did_you_mean(name, known), f"`{command}` lists them" if command else None]
        super().__init__(f"unknown {kind}: `{name}`", " ".join(hint for hint in hints if hint) or None)


class InputError(RdxError, ValueError):
    """Given data cannot be used: missing file, wrong shape, NaN rows, rows that do not match."""


class MissingDataError(InputError):
    """A data set or weights are not on this machine; the hint names the command that fetches them."""


class ArtifactError(RdxError):
    """An artifact is missing, damaged, held by another process, or was made with other parameters."""


class DependencyError(RdxError):
    """An optional package is not installed; the hint names the extra."""

    def __init__(self, package: str, extra: str | None = None) -> None:
        target = f"'rdx-vision[{extra}]'" if extra else package
        super().__init__(f"the package `{package}` is needed for this and is not installed", f"pip install {target}")


def installed(module: str) -> bool:
    """Whether a module can be found; it is not imported."""
    try:
        return find_spec(module) is not None
    except ValueError:  # blocked, or half set up: ``sys.modules[name]`` is None or has no spec
        return False


class OutOfTimeError(RdxError):
    """A part of the work took longer than a person allowed."""


class GateError(RdxError):
    """A threshold given by the user (``--fail-above``) was not met."""

    exit_code = 3


def near_matches(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Known names that look like ``name``, best first."""
    names = list(dict.fromkeys(known))
    folded = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower(), folded, n=limit, cutoff=0.55)
    found = [folded[match] for match in close]
    if len(found) < limit and len(name) >= 3:
        found += [n for n in names if name.lower() in n.lower() and n not in found][: limit - len(found)]
    return found


def did_you_mean(name: str, known: Iterable[str], otherwise: str | None = None, folder: object = None) -> str | None:
    """The hint that names what looks like ``name``; ``otherwise`` where nothing does.

    Parameters
    ----------
    name : str
        What was given.
    known : iterable of str
        What there is.
    otherwise : str, optional
    folder : path, optional
        Of file names: they are named with it.
    """
    near = near_matches(name, known)
    if not near:
        return otherwise
    shown = near if folder is None else [f"{folder}/{match}" for match in near]
    return f"did you mean {' or '.join(f'`{match}`' for match in shown)}?"
