"""The front of a network kept in memory, so that only what follows a layer runs again and again.

Everything that has finished when a layer has run gives the same output for the same image every time. Those outputs are
recorded once per image; in later passes the modules that made them return the record instead of running. It needs
nothing but modules: connections that bypass the layer, tuples and several calls of one module are all recorded.

Symbols: k images. A *call* is one run of a module in a forward pass; a call is *outer* when the call around it is
still running at the time the layer starts, so that its record stands for all it contains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rdxcli.models.outputs import copied, structure, tensors
from rdxcli.models.taps import first_tensor

PROBES = 5  # images of the trial pass; a number that is no usual channel count, so that the batch axis is recognised
TOLERANCE = 1e-4


class _Reached(Exception):  # noqa: N818  not an error: leaves the forward pass
    pass


@dataclass
class _Call:
    """An outer call before the layer (or of the layer itself) and what it returned.

    ``record`` is the structure of the output with a number in place of each tensor, `None` where it cannot be kept.
    """

    module: nn.Module
    order: int  # among the calls of this module that remain when all outer calls are answered from memory
    record: Any = None
    axes: tuple[int, ...] = ()


class Front:
    """Recorded outputs of everything up to a layer, for some images.

    Made by `record_front`. `logits` gives the network's output for some of the images while the layer and all before it
    are answered from memory; forward hooks of the layer see its recorded output and may replace it.
    """

    def __init__(
        self, module: nn.Module, calls: list[_Call], kept: list[list[Tensor] | None], images: Tensor | None, size: Any
    ) -> None:
        self.module, self._calls, self._kept, self._images, self._size = module, calls, kept, images, size

    @property
    def nbytes(self) -> int:
        """Memory of the records."""
        kept = [tensor for part in self._kept if part is not None for tensor in part]
        kept += [self._images] if self._images is not None else []
        return sum(tensor.numel() * tensor.element_size() for tensor in kept)

    def logits(self, which: Sequence[int], like: Tensor) -> Tensor:
        """The network's first output tensor for the images ``which``.

        `which`: positions among the recorded images; `like`: gives device and precision.
        """
        index = torch.as_tensor(list(which))
        answers = [
            None if kept is None else _taken(call, kept, index, like)
            for call, kept in zip(self._calls, self._kept, strict=True)
        ]
        if self._images is None:
            images = torch.full((len(index), *self._size), float("nan"), device=like.device, dtype=like.dtype)
        else:
            images = self._images[index].to(like.device, like.dtype)
        return _answered(self.module, images, self._calls, answers)


class Rest:
    """What follows a layer that nothing bypasses, from the layer's output alone.

    Made by `rest_after`. Nothing is recorded: the calls before the layer return NaN, which the network does not read.
    """

    def __init__(self, module: nn.Module, calls: list[_Call], size: tuple[int, ...], shape: tuple[int, ...]) -> None:
        self.module, self.shape, self._calls, self._size = module, shape, calls, size

    def __call__(self, given: Tensor) -> Tensor:
        """The network's first output tensor for outputs (b, *shape) of the layer; gradients flow to them."""
        images = torch.full((len(given), *self._size), float("nan"), device=given.device, dtype=given.dtype)
        own = _filled(self._calls[-1], lambda i, shape, dtype: given)
        return _answered(self.module, images, self._calls, [*[None] * (len(self._calls) - 1), own])


def rest_after(module: nn.Module, layer: nn.Module, probe: Tensor) -> Rest | None:
    """Find what follows ``layer``, so that it runs without what stands before.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode.
    layer : nn.Module
        One of its modules.
    probe : Tensor of shape (k, c, h, w)
        A few images on the network's device and in its precision. k is best a number that is no channel count.

    Returns
    -------
    Rest or None
        None where the layer does not run exactly once, returns more than one tensor, or something bypasses it.
    """
    with torch.no_grad():
        found = _outer_calls(module, layer, probe)
        if found is None:
            return None
        calls, outputs, wanted = found
        own = first_tensor(outputs[-1])
        if calls[-1].module is not layer or calls[-1].axes != (0,) or own is None:
            return None
        rest = Rest(module, calls, tuple(probe.shape[1:]), tuple(own.shape[1:]))
        try:
            return rest if _close(rest(own.clone()), wanted) else None
        except (RuntimeError, ValueError):
            return None


def record_front(
    module: nn.Module, layer: nn.Module, images: Tensor, like: Tensor, *, most_bytes: int, batch_size: int = 32
) -> Front | None:
    """Record what runs up to ``layer``.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode.
    layer : nn.Module
        One of its modules.
    images : Tensor of shape (k, c, h, w)
    like : Tensor
        Gives device and precision of the network.
    most_bytes : int
        Of the records.

    Returns
    -------
    Front or None
        None where it would not give the network's own logits, the layer does not run exactly once, or the records are
        larger than ``most_bytes``.

    Notes
    -----
    One pass over the images up to the layer, and one pass over a few images per outer call to see which records the
    rest reads. Memory: the outputs of the layer and of what bypasses it.
    """
    probe = images[:PROBES].to(like.device, like.dtype)
    with torch.no_grad():
        found = _outer_calls(module, layer, probe)
        if found is None:
            return None
        calls, outputs, wanted = found
        trial = _trial(module, probe, calls, outputs, wanted)
        if trial is None:
            return None
        read, needs_images = trial
        of_probe = sum(tensor.numel() * tensor.element_size() for i in read for tensor in tensors(outputs[i]))
        if of_probe / len(probe) * len(images) > most_bytes:
            return None
        kept: list[list[Tensor] | None] = [None] * len(calls)
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size].to(like.device, like.dtype)
            made = _record(module, layer, batch, calls)
            if made is None:
                return None
            for i in read:
                parts = [
                    tensor.movedim(axis, 0).cpu() for tensor, axis in zip(tensors(made[i]), calls[i].axes, strict=True)
                ]
                if kept[i] is None:
                    kept[i] = [part.new_empty((len(images), *part.shape[1:])) for part in parts]
                for whole, part in zip(kept[i] or [], parts, strict=True):
                    if part.shape != whole[start : start + batch_size].shape:
                        return None
                    whole[start : start + batch_size] = part
    front = Front(module, calls, kept, images if needs_images else None, tuple(images.shape[1:]))
    own = front.logits(range(len(probe)), like)
    return front if _close(own, wanted) else None


def _outer_calls(module: nn.Module, layer: nn.Module, probe: Tensor) -> tuple[list[_Call], list[Any], Tensor] | None:
    """Outer calls up to the end of the layer with their outputs, and the logits."""
    open_calls: list[int] = []  # numbers of running calls
    around: dict[int, int | None] = {}
    done: list[tuple[int, nn.Module, Any]] = []
    runs, count = 0, 0
    at_layer: set[int] = set()

    def enter(which: nn.Module, inputs: Any) -> None:
        nonlocal count, runs
        if which is layer:
            runs += 1
            at_layer.update(open_calls)
        around[count] = open_calls[-1] if open_calls else None
        open_calls.append(count)
        count += 1

    def leave(which: nn.Module, inputs: Any, output: Any) -> None:
        number = open_calls.pop()
        if not runs or which is layer:
            known = structure(output, len(probe)) is not None
            done.append((number, which, copied(output) if known else output))

    parts = [part for part in module.modules() if part is not module]
    handles = [part.register_forward_pre_hook(enter) for part in parts]
    handles += [part.register_forward_hook(leave) for part in parts]
    try:
        logits = first_tensor(module(probe))
    finally:
        for handle in handles:
            handle.remove()
    if runs != 1 or logits is None:
        return None
    # calls inside the layer ended after it had started, and are not in `done`
    outer = {number for number, _, _ in done if around[number] is None or around[number] in at_layer}
    records: dict[int, tuple[Any, tuple[int, ...]] | None] = {
        number: structure(output, len(probe)) for number, _, output in done if number in outer
    }
    answered = {number for number, record in records.items() if record is not None}

    def within(number: int) -> bool:
        parent = around[number]
        return parent is not None and (parent in answered or within(parent))

    calls, outputs = [], []
    seen: Counter[int] = Counter()
    # in the order in which they started: this is how a module's calls are counted
    for number, which, output in sorted(done, key=lambda one: one[0]):
        if within(number):
            continue
        order = seen[id(which)]
        seen[id(which)] += 1
        record = records.get(number)
        if record is not None:
            calls.append(_Call(which, order, *record))
            outputs.append(output)
    if not any(call.module is layer for call in calls):
        return None
    return calls, outputs, logits.clone()


def _trial(
    module: nn.Module, probe: Tensor, calls: list[_Call], outputs: list[Any], wanted: Tensor
) -> tuple[list[int], bool] | None:
    """Which records the rest of the network reads, and whether it reads the images.

    What is not read may be anything: NaN in its place leaves the logits as they are.
    """
    nothing = torch.full_like(probe, float("nan"))

    def same(read: set[int], images: Tensor) -> bool:
        answers = [copied(output) if i in read else None for i, output in enumerate(outputs)]
        try:
            return _close(_answered(module, images, calls, answers), wanted)
        except (RuntimeError, ValueError):
            return False

    last = len(calls) - 1  # the layer itself ends last
    if same({last}, nothing):
        return [last], False
    read = set(range(len(calls)))
    if not same(read, probe):
        return None
    needs_images = not same(read, nothing)
    images = probe if needs_images else nothing
    for i in range(last):
        if same(read - {i}, images):
            read.remove(i)
    return sorted(read), needs_images


def _record(module: nn.Module, layer: nn.Module, batch: Tensor, calls: list[_Call]) -> list[Any] | None:
    """Outputs of the calls for a batch, up to the layer; None when something ran otherwise than in the trial."""
    made: list[Any] = [None] * len(calls)
    by_module = _by_module(calls)
    inside: list[bool] = []  # whether the running calls are answered ones
    seen: Counter[int] = Counter()

    def enter(which: nn.Module, inputs: Any) -> None:
        if any(inside):
            inside.append(False)
            return
        i = by_module.get((id(which), seen[id(which)]))
        seen[id(which)] += 1
        inside.append(i is not None)
        places.append(i)

    places: list[int | None] = []

    def leave(which: nn.Module, inputs: Any, output: Any) -> None:
        inside.pop()
        if any(inside):
            return
        i = places.pop()
        if i is not None:
            made[i] = copied(output)
        if which is layer:
            raise _Reached

    parts = [part for part in module.modules() if part is not module]
    handles = [part.register_forward_pre_hook(enter) for part in parts]
    handles += [part.register_forward_hook(leave) for part in parts]
    try:
        module(batch)
    except _Reached:
        pass
    finally:
        for handle in handles:
            handle.remove()
    for output, call in zip(made, calls, strict=True):
        shape = None if output is None else structure(output, len(batch), call.axes)
        if shape is None or shape[0] != call.record:
            return None
    return made


def _answered(module: nn.Module, images: Tensor, calls: list[_Call], answers: list[Any]) -> Tensor:
    """A pass of the network in which the calls return ``answers``, NaN where there is none."""
    by_module = _by_module(calls)
    seen: Counter[int] = Counter()

    def answer(which: nn.Module, run: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            i = by_module.get((id(which), seen[id(which)]))
            seen[id(which)] += 1
            if i is None:
                return run(*args, **kwargs)
            return answers[i]

        return forward

    patches = {id(call.module): call.module for call in calls}
    for i, call in enumerate(calls):
        if answers[i] is None:
            answers[i] = _blank(call, len(images), images)
    with _patched([(which, answer(which, which.forward)) for which in patches.values()]):
        output = first_tensor(module(images))
    if output is None:
        raise RuntimeError("the network returns no tensor")
    return output


@contextmanager
def _patched(patches: Sequence[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    before = [which.__dict__.get("forward") for which, _ in patches]
    try:
        for which, forward in patches:
            which.__dict__["forward"] = forward
        yield
    finally:
        for (which, _), old in zip(patches, before, strict=True):
            if old is None:
                which.__dict__.pop("forward", None)
            else:
                which.__dict__["forward"] = old


def _by_module(calls: list[_Call]) -> dict[tuple[int, int], int]:
    return {(id(call.module), call.order): i for i, call in enumerate(calls)}


def _filled(call: _Call, fill: Callable[[int, tuple[int, ...], torch.dtype], Tensor]) -> Any:
    """The structure of the call's output with tensors made by ``fill`` (number, shape of one image, dtype)."""
    number = iter(range(len(call.axes)))

    def walk(part: Any) -> Any:
        if isinstance(part, tuple) and len(part) == 2 and isinstance(part[1], torch.dtype):
            i = next(number)
            return fill(i, part[0], part[1]).movedim(0, call.axes[i])
        if isinstance(part, tuple | list):
            return type(part)(walk(one) for one in part)
        if isinstance(part, dict):
            return {key: walk(one) for key, one in part.items()}
        return part

    return walk(call.record)


def _taken(call: _Call, kept: list[Tensor], index: Tensor, like: Tensor) -> Any:
    return _filled(call, lambda i, shape, dtype: kept[i][index].to(like.device))


def _blank(call: _Call, count: int, like: Tensor) -> Any:
    def fill(i: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        value = float("nan") if dtype.is_floating_point else 0
        return torch.full((count, *shape), value, dtype=dtype, device=like.device)

    return _filled(call, fill)


def _close(ours: Tensor, wanted: Tensor) -> bool:
    if ours.shape != wanted.shape:
        return False
    scale = float(wanted.abs().max()) or 1.0
    return bool(((ours - wanted).abs() <= TOLERANCE * scale).all())
