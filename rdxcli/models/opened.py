"""What every loader returns, and what they share."""

from __future__ import annotations

import functools
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from rdxcli.errors import InputError, MissingDataError, RdxError, UnknownNameError, UsageError
from rdxcli.models.grammar import literal, parse
from rdxcli.models.preprocessing import OPTIONS, Preprocessing, ProcessorTransform
from rdxcli.models.registry import ModelSpec
from rdxcli.models.taps import Tokens

if TYPE_CHECKING:
    from torch import nn


@dataclass
class Opened:
    """A network as a loader hands it over, before it is moved to its device.

    Parameters
    ----------
    provenance : mapping
        Where the weights come from; plain values.
    classifier : nn.Module, optional
        Layer that gives the logits, where the library says.
    default_layer : str, optional
        Path or alias; None looks for the penultimate representation.
    """

    module: nn.Module
    transform: Preprocessing | ProcessorTransform
    tokens: Tokens = field(default_factory=Tokens)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    classifier: nn.Module | None = None
    default_layer: str | None = None


def all_options(spec: ModelSpec) -> dict[str, str]:
    """Options of the source, of the catalogue and of the user, the later over the earlier."""
    source = {} if spec.kind == "digits" else dict(parse(spec.source).options)
    return {**source, **spec.preprocessing, **spec.options}


def constructor_options(spec: ModelSpec, *handled: str) -> dict[str, Any]:
    """Options that go to the network's constructor, as numbers, booleans and text."""
    options = all_options(spec)
    return {key: literal(value) for key, value in options.items() if key not in OPTIONS and key not in handled}


def build(spec: ModelSpec, constructor: Callable[..., Any], options: Mapping[str, Any], **fixed: Any) -> Any:
    """Call a constructor with what rdx says (``fixed``) and what the user says; the latter may be a mistake."""
    clash = sorted(set(options) & set(fixed))
    if clash:
        raise UsageError(f"`{spec.name}`: the option `{clash[0]}` is set by rdx")
    try:
        return constructor(**fixed, **options)
    except (TypeError, AssertionError, ValueError) as error:
        if options:
            given = ", ".join(f"{key}={value}" for key, value in options.items())
            text = " ".join(str(error).split())[:200]
            raise UsageError(f"`{spec.name}` cannot be built with {given}: {text}") from error
        raise


def is_offline() -> bool:
    """Whether the user asked to stay off the network (``HF_HUB_OFFLINE``, also heeded for weights from other hosts)."""
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def hub_is_offline() -> bool:
    """Whether the hub is out of reach: the user stays off the network, or its name cannot be resolved.

    Without this the hub's library retries for about a minute, with a line for each attempt.
    """
    return is_offline() or _unresolved(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))


@functools.cache
def _unresolved(address: str) -> bool:
    if getproxies():
        return False  # the proxy resolves names
    try:
        socket.getaddrinfo(urlsplit(address).hostname, None)
    except OSError:
        return True
    return False


def missing_weights(spec: ModelSpec, reason: str) -> MissingDataError:
    """The error for weights that are not here. They are never replaced by random numbers."""
    text = " ".join(reason.split())
    source = spec.source.partition(":")[2]
    if spec.url is not None:
        fetch = f"`rdx download {spec.name.partition('?')[0]}` fetches them"
    elif spec.name.partition(":")[0] != spec.source.partition(":")[0]:
        fetch = f"`rdx download {spec.name.partition('?')[0]}` fetches `{source}`, or load it once with a network"
    else:
        fetch = f"load `{source}` once with a network, or write `file:PATH?arch=...` for weights that you have"
    return MissingDataError(
        f"the weights of `{spec.name}` are not on this machine" + (f" ({text[:200]})" if text else ""),
        f"{fetch}; `rdx extract --untrained` takes random weights on purpose",
    )


@contextmanager
def fetching(spec: ModelSpec) -> Iterator[None]:
    """Around a library's loader: no code from checkpoints, no handlers on the root logger, errors for people.

    Raises `MissingDataError` (the weights are neither here nor reachable) or `InputError` (they do not fit the
    network).
    """
    root = logging.getLogger()
    handler = logging.NullHandler()
    root.addHandler(handler)  # keeps `logging.info(...)` in a library from installing a handler of its own
    previous = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    hub: Any = sys.modules.get("huggingface_hub.constants")  # has read the variable when it was imported
    online = hub is not None and hub_is_offline() and not hub.HF_HUB_OFFLINE
    if online:
        hub.HF_HUB_OFFLINE = True
    try:
        yield
    except RdxError:
        raise
    except OSError as error:  # includes every network error of huggingface_hub, requests, httpx and urllib
        raise missing_weights(spec, _reason(error)) from error
    except Exception as error:
        text = " ".join(str(error).split())
        if "loading state_dict" in text or "size mismatch" in text:
            raise InputError(f"the weights of `{spec.name}` do not fit the network: {text[:400]}") from error
        if _is_network(error):
            raise missing_weights(spec, _reason(error)) from error
        raise InputError(f"`{spec.name}` cannot be loaded: {text[:400]}") from error
    finally:
        if online:
            hub.HF_HUB_OFFLINE = False
        root.removeHandler(handler)
        if previous is None:
            os.environ.pop("TORCH_FORCE_WEIGHTS_ONLY_LOAD", None)
        else:
            os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = previous


def _is_network(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, says that something could not be fetched."""
    while error is not None:
        names = {kind.__name__ for kind in type(error).__mro__}
        if names & {"EntryNotFoundError", "HTTPError", "TransportError", "URLError", "ConnectionError"}:
            return True
        text = str(error)
        if "Failed to download" in text or "could not be loaded" in text or "No pretrained weights exist" in text:
            return True
        error = error.__cause__ or error.__context__
    return False


def _reason(error: BaseException) -> str:
    """Why something could not be fetched, without the library's advice on its own options."""
    text = " ".join(str(error).split())
    unreachable = (
        "locate the file on the Hub",
        "couldn't connect",
        "offline mode is enabled",
        "cannot find the requested files",
    )
    return (
        "not in the library's cache, and the hub cannot be reached"
        if any(part in text for part in unreachable)
        else text
    )


def check_folder(spec: ModelSpec, folder: str) -> Path:
    """A folder that a model's name gives. Raises `MissingDataError` if it is not there."""
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise MissingDataError(f"`{spec.name}`: there is no folder {path}", "check the path")
    return path


def unknown_weights(architecture: str, tag: str, known: Iterable[str]) -> UnknownNameError:
    """The error for weights that a library does not have, with those that it has."""
    names = list(known)
    error = UnknownNameError(f"weights of {architecture}", tag, names)
    listed = ", ".join(f"`{name}`" for name in names[:8]) + (", ..." if len(names) > 8 else "")
    error.hint = error.hint or (f"it has {listed}" if names else "it has none")
    return error


def random_weights(spec: ModelSpec) -> dict[str, Any]:
    """Provenance of an untrained network."""
    return {"origin": spec.source, "weights": "random, because `--untrained` was given"}
