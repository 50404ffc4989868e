"""What every loader returns, and what they share."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rdxcli.errors import InputError, MissingDataError, RdxError, UsageError
from rdxcli.models.grammar import literal
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
    module : nn.Module
    transform : Preprocessing or ProcessorTransform
    tokens : Tokens
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
    from rdxcli.models.grammar import parse

    source = {} if spec.kind == "digits" else dict(parse(spec.source).options)
    return {**source, **spec.preprocessing, **spec.options}


def constructor_options(spec: ModelSpec, *handled: str) -> dict[str, Any]:
    """Options that go to the network's constructor, as numbers, booleans and text."""
    options = all_options(spec)
    return {key: literal(value) for key, value in options.items() if key not in OPTIONS and key not in handled}


def build(name: str, constructor: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    """Call a constructor; options that it does not take are the user's mistake."""
    try:
        return constructor(**options)
    except (TypeError, AssertionError, ValueError) as error:
        if options:
            given = ", ".join(f"{key}={value}" for key, value in options.items())
            raise UsageError(f"`{name}` cannot be built with {given}: {' '.join(str(error).split())}") from error
        raise


def is_offline() -> bool:
    """Whether the user asked to stay off the network (``HF_HUB_OFFLINE``, also heeded for weights from other hosts)."""
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")


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
        f"{fetch}; `--untrained` takes random weights on purpose",
    )


@contextmanager
def fetching(spec: ModelSpec) -> Iterator[None]:
    """Around a library's loader: no code from checkpoints, no handlers on the root logger, errors for people.

    Raises
    ------
    MissingDataError
        If the weights are neither here nor reachable.
    InputError
        If they do not fit the network.
    """
    root = logging.getLogger()
    handler = logging.NullHandler()
    root.addHandler(handler)  # keeps `logging.info(...)` in a library from installing a handler of its own
    previous = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        yield
    except RdxError:
        raise
    except OSError as error:  # includes every network error of huggingface_hub, requests, httpx and urllib
        raise missing_weights(spec, str(error)) from error
    except Exception as error:
        text = " ".join(str(error).split())
        if "loading state_dict" in text or "size mismatch" in text:
            raise InputError(f"the weights of `{spec.name}` do not fit the network: {text[:400]}") from error
        if _is_network(error):
            raise missing_weights(spec, text) from error
        raise InputError(f"`{spec.name}` cannot be loaded: {text[:400]}") from error
    finally:
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


def random_weights(spec: ModelSpec) -> dict[str, Any]:
    """Provenance of an untrained network."""
    return {"origin": spec.source, "weights": "random, because `--untrained` was given"}
