"""A reader of pickles that can only make plain values.

A pickle is a program for a small stack machine; the danger lies in the instructions that import and call things. This
reader runs the harmless instructions (numbers, text, bytes, lists, tuples, dictionaries, sets) and looks the rest up in
a fixed table of builders written here, which make dictionaries, bytes, NumPy arrays of numbers and, for checkpoints,
descriptions of tensors. Nothing is imported and nothing of the file is called. The instructions are documented in the
standard library's ``pickletools``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rdxcli.errors import InputError

from .plainvalues import BUILDERS, PendingArray, array_of, settled


@dataclass(frozen=True)
class Symbol:
    """A name that a pickle wanted imported. It is never looked up."""

    module: str
    name: str


@dataclass
class Opaque:
    """What an unknown call would have made; kept as a marker in lenient reading."""

    what: Symbol
    state: list[Any] = field(default_factory=list, repr=False)


class _Mark:
    pass


_MARK = _Mark()


def read_plain(data: bytes, what: str, lenient: bool = False, persistent: Callable[[Any], Any] | None = None) -> Any:
    """The value of a pickle of plain containers.

    Parameters
    ----------
    data : bytes
        Any protocol. Eight-bit strings of Python 2 become str where they are UTF-8, else bytes.
    what : str
        For messages.
    lenient : bool
        Keep a marker (`Opaque`) for objects that are not plain instead of refusing the file.
    persistent : callable, optional
        Resolves references to data outside the pickle.

    Raises
    ------
    InputError
        Damaged, or made of anything but plain values.
    """
    machine = _Machine(memoryview(data), what, lenient, persistent)
    try:
        return settled(machine.run())
    except InputError:
        raise
    except (IndexError, KeyError, TypeError, ValueError, struct.error, OverflowError, AttributeError) as error:
        raise InputError(f"{what} is no readable pickle: {str(error)[:120] or type(error).__name__}") from None


class _Machine:
    def __init__(self, data: memoryview, what: str, lenient: bool, persistent: Callable[[Any], Any] | None) -> None:
        self.data, self.what, self.lenient, self.persistent = data, what, lenient, persistent
        self.at = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def refuse(self, why: str) -> InputError:
        return InputError(
            f"{self.what} holds more than plain values ({why}); rdx reads such files without running code in them"
        )

    def take(self, count: int) -> memoryview:
        if count < 0 or self.at + count > len(self.data):
            raise InputError(f"{self.what} is no readable pickle: it breaks off at byte {len(self.data)}")
        start, self.at = self.at, self.at + count
        return self.data[start : self.at]

    def line(self) -> str:
        start = self.at
        while self.take(1)[0] != 0x0A:
            pass
        return bytes(self.data[start : self.at - 1]).decode("latin-1")

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def popped(self) -> list[Any]:
        """Everything above the last mark."""
        for position in range(len(self.stack) - 1, -1, -1):
            if self.stack[position] is _MARK:
                above = self.stack[position + 1 :]
                del self.stack[position:]
                return above
        raise InputError(f"{self.what} is no readable pickle: a mark is missing")

    def run(self) -> Any:
        steps, stack = _STEPS, self.stack
        data, size = self.data, len(self.data)
        while True:
            if self.at >= size:
                raise InputError(f"{self.what} is no readable pickle: it breaks off at byte {size}")
            code = data[self.at]
            self.at += 1
            if code == 0x2E:  # stop
                return stack.pop()
            step = steps.get(code)
            if step is None:
                raise self.refuse(f"instruction 0x{code:02x}")
            step(self)

    def call(self, function: Any, arguments: Any) -> Any:
        if isinstance(function, Symbol) and isinstance(arguments, tuple):
            builder = BUILDERS.get((function.module, function.name))
            if builder is not None:
                return builder(*map(settled, arguments))
            if self.lenient:
                return Opaque(function)
            raise self.refuse(f"{function.module}.{function.name}")
        if self.lenient and isinstance(function, Opaque):
            return Opaque(function.what)
        raise self.refuse("a call of something that is no name")

    def build(self, thing: Any, state: Any) -> Any:
        if isinstance(thing, PendingArray):
            _, shape, dtype, fortran, raw = state
            thing.value = array_of(shape, settled(dtype), bool(fortran), raw)
            return thing
        if isinstance(thing, np.dtype):
            return thing.newbyteorder(">" if state[1] == ">" else "<" if state[1] == "<" else "=")
        if isinstance(thing, Opaque):
            thing.state.append(state)
            return thing
        if isinstance(thing, dict) and self.lenient:
            return thing  # attributes of an ordered dictionary, for example `_metadata` of a state dict
        raise self.refuse(f"the state of a {type(thing).__name__}")


def _text(raw: memoryview) -> str | bytes:
    data = bytes(raw)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data


def _push(value: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    def step(machine: _Machine) -> None:
        machine.stack.append(value(machine))

    return step


def _integer_line(machine: _Machine) -> Any:
    text = machine.line().strip()
    return text == "01" if text in ("00", "01") else int(text.rstrip("L"))


def _string_line(machine: _Machine) -> str | bytes:
    text = machine.line().strip()
    if len(text) < 2 or text[0] not in "'\"" or text[-1] != text[0]:
        raise ValueError("a string without quotes")
    return _text(memoryview(text[1:-1].encode("latin-1").decode("unicode_escape").encode("latin-1")))


def _append(machine: _Machine) -> None:
    value = machine.stack.pop()
    _extend(machine, machine.stack[-1], [value])


def _appends(machine: _Machine) -> None:
    values = machine.popped()
    _extend(machine, machine.stack[-1], values)


def _extend(machine: _Machine, target: Any, values: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(map(settled, values))
    elif not isinstance(target, Opaque):
        raise machine.refuse(f"items of a {type(target).__name__}")


def _setitem(machine: _Machine) -> None:
    value = machine.stack.pop()
    key = machine.stack.pop()
    _set(machine, machine.stack[-1], [key, value])


def _setitems(machine: _Machine) -> None:
    values = machine.popped()
    _set(machine, machine.stack[-1], values)


def _set(machine: _Machine, target: Any, values: list[Any]) -> None:
    if isinstance(target, dict):
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[_key(key)] = settled(value)
    elif not isinstance(target, Opaque):
        raise machine.refuse(f"keys of a {type(target).__name__}")


def _key(key: Any) -> Any:
    return (key.module, key.name) if isinstance(key, Symbol) else id(key) if isinstance(key, Opaque) else key


def _additems(machine: _Machine) -> None:
    values = machine.popped()
    machine.stack[-1].update(values)


def _dict_from_mark(machine: _Machine) -> Any:
    values = machine.popped()
    made: dict[Any, Any] = {}
    _set(machine, made, values)
    return made


def _tuple_of(count: int) -> Callable[[_Machine], Any]:
    def make(machine: _Machine) -> Any:
        values = tuple(map(settled, machine.stack[-count:]))
        if len(values) < count:
            raise ValueError("a tuple is too short")
        del machine.stack[-count:]
        return values

    return make


def _global(machine: _Machine) -> Symbol:
    return Symbol(machine.line(), machine.line())


def _stack_global(machine: _Machine) -> Symbol:
    name, module = machine.stack.pop(), machine.stack.pop()
    return Symbol(str(module), str(name))


def _reduce(machine: _Machine) -> Any:
    arguments, function = machine.stack.pop(), machine.stack.pop()
    return machine.call(function, arguments)


def _new_object_ex(machine: _Machine) -> Any:
    machine.stack.pop()  # keyword arguments
    return _reduce(machine)


def _build(machine: _Machine) -> None:
    state = machine.stack.pop()
    machine.stack[-1] = _replaced(machine, machine.stack[-1], machine.build(machine.stack[-1], state))


def _replaced(machine: _Machine, old: Any, new: Any) -> Any:
    if new is not old:
        # a type whose state made another value: whoever remembers the old one means the new one
        machine.memo = {key: new if value is old else value for key, value in machine.memo.items()}
    return new


def _remember(machine: _Machine, key: int) -> None:
    machine.memo[key] = machine.stack[-1]


def _persistent(machine: _Machine) -> Any:
    reference = machine.stack.pop()
    if machine.persistent is None:
        raise machine.refuse("a reference to data outside the file")
    return machine.persistent(reference)


def _extension(machine: _Machine) -> None:
    raise machine.refuse("an extension")


def _none(machine: _Machine) -> None:
    return None


def _skip(count: int) -> Callable[[_Machine], None]:
    def step(machine: _Machine) -> None:
        machine.take(count)

    return step


def _pop(machine: _Machine) -> None:
    machine.stack.pop()


def _pop_mark(machine: _Machine) -> None:
    machine.popped()


def _long(width: int) -> Callable[[_Machine], Any]:
    form = {1: "<B", 4: "<i"}[width]
    return lambda machine: int.from_bytes(machine.take(machine.number(form)), "little", signed=True)


def _sized(form: str, kind: Callable[[memoryview], Any]) -> Callable[[_Machine], Any]:
    return lambda machine: kind(machine.take(machine.number(form)))


def _unicode(raw: memoryview) -> str:
    return bytes(raw).decode("utf-8", "surrogatepass")


_STEPS: dict[int, Callable[[_Machine], None]] = {
    0x80: _skip(1),  # protocol
    0x95: _skip(8),  # frame
    ord("("): _push(lambda m: _MARK),
    ord("0"): _pop,
    ord("1"): _pop_mark,
    ord("2"): _push(lambda m: m.stack[-1]),
    ord("N"): _push(_none),
    0x88: _push(lambda m: True),
    0x89: _push(lambda m: False),
    ord("I"): _push(_integer_line),
    ord("L"): _push(_integer_line),
    ord("J"): _push(lambda m: m.number("<i")),
    ord("K"): _push(lambda m: m.take(1)[0]),
    ord("M"): _push(lambda m: m.number("<H")),
    0x8A: _push(_long(1)),
    0x8B: _push(_long(4)),
    ord("F"): _push(lambda m: float(m.line())),
    ord("G"): _push(lambda m: m.number(">d")),
    ord("S"): _push(_string_line),
    ord("T"): _push(_sized("<i", _text)),
    ord("U"): _push(_sized("<B", _text)),
    ord("V"): _push(lambda m: m.line().encode("latin-1").decode("raw_unicode_escape")),
    ord("X"): _push(_sized("<I", _unicode)),
    0x8C: _push(_sized("<B", _unicode)),
    0x8D: _push(_sized("<Q", _unicode)),
    ord("B"): _push(_sized("<I", bytes)),
    ord("C"): _push(_sized("<B", bytes)),
    0x8E: _push(_sized("<Q", bytes)),
    0x96: _push(_sized("<Q", bytes)),
    ord("]"): _push(lambda m: []),
    ord("l"): _push(lambda m: list(map(settled, m.popped()))),
    ord("a"): _append,
    ord("e"): _appends,
    ord(")"): _push(lambda m: ()),
    ord("t"): _push(lambda m: tuple(map(settled, m.popped()))),
    0x85: _push(_tuple_of(1)),
    0x86: _push(_tuple_of(2)),
    0x87: _push(_tuple_of(3)),
    ord("}"): _push(lambda m: {}),
    ord("d"): _push(_dict_from_mark),
    ord("s"): _setitem,
    ord("u"): _setitems,
    0x8F: _push(lambda m: set()),
    0x90: _additems,
    0x91: _push(lambda m: frozenset(m.popped())),
    ord("g"): _push(lambda m: m.memo[int(m.line())]),
    ord("h"): _push(lambda m: m.memo[m.take(1)[0]]),
    ord("j"): _push(lambda m: m.memo[m.number("<I")]),
    ord("p"): lambda m: _remember(m, int(m.line())),
    ord("q"): lambda m: _remember(m, m.take(1)[0]),
    ord("r"): lambda m: _remember(m, m.number("<I")),
    0x94: lambda m: _remember(m, len(m.memo)),
    ord("c"): _push(_global),
    0x93: _push(_stack_global),
    ord("R"): _push(_reduce),
    0x81: _push(_reduce),
    0x92: _push(_new_object_ex),
    ord("b"): _build,
    ord("Q"): _push(_persistent),
    0x82: _extension,
    0x83: _extension,
    0x84: _extension,
}


__all__ = ["Opaque", "Symbol", "read_plain"]
