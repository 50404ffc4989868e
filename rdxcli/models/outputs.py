"""What a module returns: tensors in any nesting of tuples, lists and dicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rdxcli.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def structure(output: Any, batch: int, axes: Sequence[int] = ()) -> tuple[Any, tuple[int, ...]] | None:
    """The output with shape and dtype of one image in place of each tensor, and the batch axis of each.

    Parameters
    ----------
    batch : int
        Images in the batch.
    axes : sequence of int
        The batch axis of each tensor where it is known; else the first of the first two axes that is ``batch`` long.

    Returns
    -------
    structure and axes, or None
        None where something else is in it, or a tensor without such an axis.
    """
    found: list[int] = []

    def walk(part: Any) -> Any:
        if isinstance(part, torch.Tensor):
            given = axes[len(found)] if len(found) < len(axes) else None
            axis = next((a for a in range(min(2, part.ndim)) if part.shape[a] == batch and given in (None, a)), None)
            if axis is None:
                raise LookupError
            found.append(axis)
            return tuple(part.movedim(axis, 0).shape[1:]), part.dtype
        if type(part) in (tuple, list):
            return type(part)(walk(one) for one in part)
        if type(part) is dict:
            return {key: walk(one) for key, one in part.items()}
        if part is None:
            return None
        raise LookupError

    try:
        return walk(output), tuple(found)
    except LookupError:
        return None


def mapped(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The output with every tensor replaced by ``change(tensor)``."""
    if isinstance(output, torch.Tensor):
        return change(output)
    if isinstance(output, tuple | list):
        return type(output)(mapped(one, change) for one in output)
    if isinstance(output, dict):
        return {key: mapped(one, change) for key, one in output.items()}
    return output


def tensors(output: Any) -> list[Tensor]:
    """The tensors of the output, in order."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    mapped(output, note)
    return found


def copied(output: Any) -> Any:
    """A copy: networks write into what they are given."""
    return mapped(output, torch.clone)
