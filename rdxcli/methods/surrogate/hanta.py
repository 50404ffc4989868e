"""HanTa's models of English, German and Dutch, read as plain data.

HanTa (Christian Wartena, LGPL) ships hidden Markov models of words and morphemes inside its wheel, as compressed
pickles. They hold nothing but numbers, text and containers, so they are read here without running anything: the
opcodes are walked by `pickletools`, which builds no objects, and everything else than plain data is refused.
"""

from __future__ import annotations

import gzip
import pickletools
import struct
from importlib import metadata
from pathlib import Path
from typing import Any

from rdxcli import errors

MODELS = {"en": "morphmodel_en.pgz", "de": "morphmodel_ger.pgz", "nl": "morphmodel_dutch.pgz"}
"""Languages that have a model, and its file in the package."""
_NUMPY_NUMBER = ("numpy.core.multiarray scalar", "numpy._core.multiarray scalar")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_MARK = object()


def installed() -> bool:
    """Whether HanTa and simplemma are there (``pip install 'rdx-vision[captions]'``)."""
    return errors.installed("HanTa") and errors.installed("simplemma")


def version() -> str:
    """Version of the HanTa package."""
    return metadata.version("HanTa")


def load(language: str = "en") -> Any:
    """HanTa's tagger with one of its own models.

    Raises `ValueError` (the language has no model, or the model holds something else than plain data).

    Parameters
    ----------
    language : {"en", "de", "nl"}
    """
    if language not in MODELS:
        raise ValueError(f"Got language {language!r}, expected one of {', '.join(MODELS)}")
    from HanTa import HanoverTagger

    path = Path(str(HanoverTagger.__file__)).with_name(MODELS[language])
    tagger = HanoverTagger.HanoverTagger(None, model=plain_content(gzip.decompress(path.read_bytes())))
    tagger.strict = False
    return tagger


def plain_content(raw: bytes) -> Any:
    """The numbers, text and containers of a pickle; nothing is imported or called.

    Raises `ValueError` (it holds anything else (functions, classes, instances), except NumPy's double-precision
    numbers).
    """
    stack: list[Any] = []
    memo: list[Any] = []

    def above_mark() -> list[Any]:
        place = len(stack) - 1
        while stack[place] is not _MARK:
            place -= 1
        items = stack[place + 1 :]
        del stack[place:]
        return items

    argument: Any
    for opcode, argument, _ in pickletools.genops(raw):
        name = opcode.name
        if name in _LITERALS:
            stack.append(argument)
        elif name == "MEMOIZE":
            memo.append(stack[-1])
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            stack.append(_MARK)
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            size = _TUPLES[name]
            items = stack[-size:]
            del stack[-size:]
            stack.append(tuple(items))
        elif name == "TUPLE":
            stack.append(tuple(above_mark()))
        elif name == "APPEND":
            stack[-2].append(stack[-1])
            del stack[-1]
        elif name == "APPENDS":
            items = above_mark()
            stack[-1].extend(items)
        elif name == "SETITEM":
            stack[-3][stack[-2]] = stack[-1]
            del stack[-2:]
        elif name == "SETITEMS":
            items = above_mark()
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name == "ADDITEMS":
            items = above_mark()
            stack[-1].update(items)
        elif name == "FROZENSET":
            stack.append(frozenset(above_mark()))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "STACK_GLOBAL":
            wanted = " ".join(map(str, stack[-2:]))
            if wanted not in ("numpy dtype", *_NUMPY_NUMBER):
                raise ValueError(f"Got {wanted}, expected plain data")
            stack[-2:] = [_Named(wanted)]
        elif name == "REDUCE":
            kind, given = stack[-2:]
            stack[-2:] = [_number(kind, given)]
        elif name == "BUILD" and isinstance(stack[-2], _Named):
            del stack[-1]  # byte order of NumPy's type of numbers, which `_number` reads from its name
        elif name == "STOP":
            return stack[-1]
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"Got the opcode {name}, expected plain data")
    raise ValueError("Got data that breaks off")


_LITERALS = frozenset(
    ["BINFLOAT", "BININT", "BININT1", "BININT2", "LONG1", "SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES"]
)
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Named(str):
    """The name of something that a pickle would import."""


def _number(kind: Any, given: Any) -> Any:
    """A NumPy number as a float; its type stands for itself."""
    if kind == "numpy dtype" and given[0] == "f8":
        return _Named("float64")
    if kind in _NUMPY_NUMBER and given[0] == "float64" and len(given[1]) == 8:
        return struct.unpack("<d", given[1])[0]
    raise ValueError(f"Got {kind}, expected plain data")
