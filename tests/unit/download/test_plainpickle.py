"""The reader of pickles: the same values as the standard library, and nothing runs."""

from __future__ import annotations

import collections
import contextlib
import datetime
import os
import pickle  # noqa: TID251  the tests make the files that the reader must read or refuse
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rdxcli.download.plainpickle import Opaque, read_plain
from rdxcli.download.zipcheckpoint import read_zip_checkpoint
from rdxcli.errors import InputError

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(2**300), max_value=2**300),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(max_size=300),
)
KEYS = st.one_of(st.integers(), st.text(max_size=8), st.tuples(st.integers(), st.text(max_size=3)))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.tuples(inner, inner),
        st.dictionaries(KEYS, inner, max_size=5),
        st.frozensets(st.integers(), max_size=4),
        st.sets(st.text(max_size=4), max_size=4),
    ),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(value=VALUES, protocol=st.integers(min_value=2, max_value=5))
def test_reads_what_the_standard_library_writes(value: Any, protocol: int) -> None:
    assert read_plain(pickle.dumps(value, protocol), "x") == value


@pytest.mark.parametrize("protocol", [0, 1])
def test_text_protocols(protocol: int) -> None:
    value = {"a": [1, -5, 2**70, 2.5, None, True, False, ("t", "ü\n")], "b": {"c": (1, 2, 3, 4)}}
    assert read_plain(pickle.dumps(value, protocol), "x") == value


def test_shared_and_ordered_values() -> None:
    row = [1, 2]
    value = {"a": row, "b": row, "o": collections.OrderedDict([("z", 1), ("y", row)])}
    read = read_plain(pickle.dumps(value, 4), "x")
    assert read == value
    assert read["a"] is read["b"]
    assert list(read["o"]) == ["z", "y"]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(5, dtype=">i4"),
        np.array(3.5, dtype=np.float32),
        np.array([], dtype=np.int64),
        np.array([True, False]),
        np.array(["ab", "c"]),
    ],
    ids=str,
)
def test_arrays(array: np.ndarray, protocol: int) -> None:
    read = read_plain(pickle.dumps({"x": array, "y": [array]}, protocol), "x")
    np.testing.assert_array_equal(read["x"], array)
    np.testing.assert_array_equal(read["y"][0], array)
    assert read["x"].shape == array.shape


def test_scalars_of_numpy() -> None:
    assert read_plain(pickle.dumps([np.int64(7), np.float32(0.5)], 4), "x") == [7, 0.5]


def python2_string(data: bytes) -> bytes:
    """An eight-bit string as Python 2 wrote it."""
    if len(data) < 256:
        return b"U" + bytes([len(data)]) + data
    return b"T" + struct.pack("<i", len(data)) + data


def test_strings_of_python_2() -> None:
    body = bytes(range(256)) * 3
    data = b"\x80\x02}(" + python2_string(b"labels") + b"](K\x01K\x02e" + python2_string(b"raw")
    data += python2_string(body) + b"u."
    assert read_plain(data, "x") == {"labels": [1, 2], "raw": body}


class Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"echo pwned > {self.path}",)


class ViaBuild:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return eval, (f"open({str(self.path)!r}, 'w').write('pwned')",)


@pytest.mark.parametrize("attack", [Attack, ViaBuild])
@pytest.mark.parametrize("protocol", range(6))
def test_nothing_runs(tmp_path: Path, attack: Any, protocol: int) -> None:
    marker = tmp_path / "pwned"
    for value in (attack(marker), [attack(marker)], {"state_dict": attack(marker)}):
        data = pickle.dumps(value, protocol)
        with pytest.raises(InputError, match="more than plain values"):
            read_plain(data, "x.pkl")
        read_plain(data, "x.pkl", lenient=True)
    assert not marker.exists()


def test_lenient_reading_keeps_markers() -> None:
    value = {"when": datetime.date(2024, 1, 2), "n": 3, "where": Path("a")}
    read = read_plain(pickle.dumps(value, 4), "x", lenient=True)
    assert read["n"] == 3
    assert isinstance(read["when"], Opaque)
    with pytest.raises(InputError, match=r"datetime\.date"):
        read_plain(pickle.dumps(value, 4), "x")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04",
        b"no pickle at all",
        b"\x80\x04]",
        b"\x80\x04K\x01K\x02a.",
        b"\x80\x04h\x05.",
        b"\x80\x04X\xff\xff\xff\xffabc.",
        b"\x80\x04\x8b\xff\xff\xff\xff.",
        b"e.",
        b"\x80\x04cnumpy\ndtype\n(X\x01\x00\x00\x00Otq.",
        b"\x82\x01.",
        b"(i__builtin__\neval\n.",
        b"\x80\x04K\x01r\xf0\xff\xff\xff.",  # a memo of 2^32 places
        b"\x80\x04c_codecs\nencode\n}X\x0c\x00\x00\x00__defaults__Nsb.",
        b"\x80\x04c_codecs\nencode\nN}X\x0c\x00\x00\x00__defaults__Ns\x86b.",
        b"\x80\x04cnumpy\nndarray\n}X\x04\x00\x00\x00nameNsb.",
        b"\x80\x04cbuiltins\nset\n}X\x04\x00\x00\x00nameNsb.",
        b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".",
    ],
)
def test_damaged_or_foreign(data: bytes) -> None:
    with pytest.raises(InputError):
        read_plain(data, "x")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    with contextlib.suppress(InputError):
        read_plain(b"\x80\x04" + data, "x")


def test_cut_anywhere() -> None:
    data = pickle.dumps({"a": [1, 2.5, "text", b"bytes"], "b": np.arange(3)}, 4)
    for length in range(len(data)):
        with pytest.raises(InputError):
            read_plain(data[:length], "x")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_changed_bytes_raise_nothing_else(data: Any) -> None:
    whole = bytearray(pickle.dumps({"a": [1, 2.5, "text", {3}], "b": np.arange(3), "c": ("d", b"e")}, 4))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    for lenient in (False, True):
        with contextlib.suppress(InputError):
            read_plain(bytes(whole), "x", lenient=lenient)


def test_arrays_of_objects_are_refused() -> None:
    with pytest.raises(InputError):
        read_plain(pickle.dumps(np.array([{}, None], dtype=object), 4), "x")


class Callback:
    """Something that no weights-only reader knows."""


def test_tensors_of_a_checkpoint(tmp_path: Path) -> None:
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state = {
        "plain": base,
        "view": base[1:3, ::2],
        "transposed": base.T,
        "half": torch.tensor([0.5, -2.0], dtype=torch.float16),
        "brain": torch.tensor([1.5, -0.25], dtype=torch.bfloat16),
        "long": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "flags": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
    }
    path = tmp_path / "x.ckpt"
    torch.save({"state_dict": state, "callbacks": {"c": Callback()}, "epoch": 4}, path)
    content, load = read_zip_checkpoint(path)
    assert content["epoch"] == 4
    for name, tensor in state.items():
        expected = tensor.detach().float() if tensor.dtype == torch.bfloat16 else tensor.detach()
        np.testing.assert_array_equal(load(content["state_dict"][name]), expected.numpy())


def test_a_tensor_that_reaches_too_far(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"w": torch.ones(4, 4)}, path)
    content, load = read_zip_checkpoint(path)
    with pytest.raises(InputError, match="reaches beyond"):
        load(type(content["w"])(content["w"].storage, 0, (40, 4), (4, 1)))
    with pytest.raises(InputError, match="damaged"):
        load(type(content["w"])(content["w"].storage, 0, (2, 2), (-4, 1)))
