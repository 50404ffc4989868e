"""Archives that try to write where they should not, or more than they should, built by code for the tests."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

TAR: dict[str, Callable[[], bytes]] = {}
ZIP: dict[str, Callable[[], bytes]] = {}
SECRET = b"written by a hostile archive"


def _tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for info, data in members:
            info.size = len(data) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _file(name: str, mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.mode = mode
    return info, SECRET


def _special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    info.devmajor, info.devminor = 1, 3
    return info, b""


def _tar_case(name: str, *members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> None:
    TAR[name] = lambda: _tar(*members, form=form)


_tar_case("absolute", _file("/rdx_escape/evil"))
_tar_case("parent", _file("../evil"))
_tar_case("parent in the middle", _file("a/../../evil"))
_tar_case("parent after many folders", _file("a/b/c/../../../../evil"))
_tar_case("parent in a pax header", _file("../" * 3 + "x" * 180), form=tarfile.PAX_FORMAT)
_tar_case("parent in a long name", _file("../" + "y/" * 60 + "evil"))
_tar_case("link out, then a file through it", _special("out", tarfile.SYMTYPE, ".."), _file("out/evil"))
_tar_case("absolute link", _special("passwd", tarfile.SYMTYPE, "/etc/passwd"), _file("a"))
_tar_case("link out by many parents", _special("a/b", tarfile.SYMTYPE, "../../../etc/passwd"), _file("c"))
_tar_case("hard link out", _special("passwd", tarfile.LNKTYPE, "../../etc/passwd"), _file("a"))
_tar_case("absolute hard link", _special("passwd", tarfile.LNKTYPE, "/etc/passwd"), _file("a"))
_tar_case("link to a link out", _special("b", tarfile.SYMTYPE, "a"), _special("a", tarfile.SYMTYPE, ".."), _file("c"))
_tar_case("links in a circle", _special("a", tarfile.SYMTYPE, "b"), _special("b", tarfile.SYMTYPE, "a"), _file("c"))
_tar_case("link replaced by a file", _special("x", tarfile.SYMTYPE, "/etc/passwd"), _file("x"))
_tar_case("inner link replaced by a file", _file("y"), _special("x", tarfile.SYMTYPE, "y"), _file("x"))
_tar_case("character device", _special("null", tarfile.CHRTYPE), _file("a"))
_tar_case("block device", _special("disk", tarfile.BLKTYPE), _file("a"))
_tar_case("pipe", _special("pipe", tarfile.FIFOTYPE), _file("a"))
_tar_case("file as a folder", _file("a"), _file("a/b"))
_tar_case("folder as a file", _file("a/b"), _file("a"))
_tar_case("control characters", _file("a\x1b[31mb"))
_tar_case("backslashes", _file("..\\..\\evil"))
_tar_case("drive", _file("C:/evil"))
_tar_case("name too long", _file("x" * 300))
_tar_case("too deep", _file("/".join("d" * 100)))
_tar_case("link to the folder itself", _special("self", tarfile.SYMTYPE, "."), _file("self/self/a"))


def _bomb_tar() -> bytes:
    info = tarfile.TarInfo("zeros")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info.size = 4 << 20
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    return buffer.getvalue()


TAR["larger than its limit"] = _bomb_tar


def _zip(*members: tuple[zipfile.ZipInfo | str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def _link(name: str, target: str) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info, target.encode()


def _kind(name: str, kind: int) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (kind | 0o644) << 16
    return info, b""


def _zip_case(name: str, *members: tuple[zipfile.ZipInfo | str, bytes]) -> None:
    ZIP[name] = lambda: _zip(*members)


_zip_case("absolute", ("/rdx_escape/evil", SECRET))
_zip_case("parent", ("../evil", SECRET))
_zip_case("parent in the middle", ("a/../../evil", SECRET))
_zip_case("backslashes", ("a.txt", SECRET), (zipfile.ZipInfo("..\\..\\evil"), SECRET))
_zip_case("drive", ("C:evil", SECRET))
_zip_case("link out", _link("out", "../.."), ("a", SECRET))
_zip_case("absolute link", _link("passwd", "/etc/passwd"), ("a", SECRET))
_zip_case("link, then a file through it", _link("out", ".."), ("out/evil", SECRET))
_zip_case("device", _kind("null", stat.S_IFCHR), ("a", SECRET))
_zip_case("pipe", _kind("pipe", stat.S_IFIFO), ("a", SECRET))
_zip_case("bomb", ("zeros", bytes(4 << 20)))
_zip_case("file as a folder", ("a", SECRET), ("a/b", SECRET))


def _zip_twice() -> bytes:
    data = _zip(("aaaa", b"first"), ("bbbb", b"second"))
    return data.replace(b"bbbb", b"aaaa")


def _zip_that_lies_about_its_size() -> bytes:
    data = bytearray(_zip(("zeros", bytes(4 << 20))))
    claimed = struct.pack("<I", 100)
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.find(signature) + offset
        data[at : at + 4] = claimed
    return bytes(data)


def _zip_encrypted() -> bytes:
    data = bytearray(_zip(("a", SECRET)))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(signature) + offset] |= 1
    return bytes(data)


def _zip_zero_byte() -> bytes:
    return _zip(("goodXevil", SECRET)).replace(b"goodXevil", b"good\0evil")


ZIP["the same name twice"] = _zip_twice
ZIP["more than its directory says"] = _zip_that_lies_about_its_size
ZIP["encrypted"] = _zip_encrypted
ZIP["zero byte in a name"] = _zip_zero_byte


def gzip_bomb() -> bytes:
    """Four megabytes of zeros in four kilobytes."""
    return gzip.compress(bytes(4 << 20))


def truncated_tgz() -> bytes:
    """A compressed tar that was cut."""
    data = gzip.compress(_tar(_file("a"), (tarfile.TarInfo("b"), bytes(range(256)) * 4000)))
    return data[: len(data) * 2 // 3]


def tar_cut_between_members() -> bytes:
    """A tar that was cut at the end of a member: no library notices."""
    return _tar(_file("a"), _file("b"))[:1024]


def tar_with_a_broken_header() -> bytes:
    """A tar whose second header is damaged: a library stops without a word."""
    data = bytearray(_tar(_file("a"), _file("b"), _file("c")))
    data[1024 + 148] ^= 0xFF
    return bytes(data)


def zip_with_a_flipped_byte() -> bytes:
    """A zip with damage in the compressed data."""
    body = zlib.crc32(b"seed").to_bytes(4, "big") * 3000
    data = bytearray(_zip(("a", body)))
    data[45] ^= 0x10
    return bytes(data)
