"""Arrays of an uncompressed .npz file, mapped into memory and read when they are used.

Border: a zip of .npy members; the meaning of the arrays is the caller's.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from io import SEEK_END, BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# A member's header in the zip has a fixed part of 30 bytes, with two lengths at byte 26 (APPNOTE
# 4.3.7).
_LOCAL_BYTES, _LENGTHS_AT = 30, 26
_LOCAL_SIGNATURE = b"PK\x03\x04"
_IS_ENCRYPTED = 1
# numpy 2 takes no more axes; a damaged header may claim more.
_MOST_AXES = 64
# Integers, reals, complex numbers and booleans are read; texts, dates, records and objects are not.
_NUMBERS = "fciub"
# Version 3 exists for field names beyond ASCII, and numbers have no fields.
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclass(frozen=True)
class Mapped:
    """Arrays by name, as read-only views of a file, and the file's fingerprint.

    Attributes:
        fingerprint: 16 hexadecimal digits, a hash of the names, lengths and checksums of the
            arrays. The zip's directory holds these, so no array is read for it.
    """

    arrays: Mapping[str, Array]
    fingerprint: str


def map_arrays(path: Path, names: Collection[str]) -> Mapped:
    """Map the named arrays of a file, as far as it holds them; others are ignored.

    Raises:
        ValueError: The file is missing, no .npz file, cut off, compressed, or holds Python objects.
    """
    try:
        with path.open("rb") as file:
            members = _members(path, file, names)
            arrays = {name: _mapped(path, file, name, one) for name, one in members.items()}
    except IsADirectoryError as error:
        raise ValueError(f"'{path}' is a folder; name a file of numpy.savez in it") from error
    except OSError as error:
        raise ValueError(f"'{path}' cannot be read: {error.strerror or error}") from error
    told = [(name, one.file_size, one.CRC) for name, one in sorted(members.items())]
    return Mapped(arrays, blake2b(repr(told).encode(), digest_size=8).hexdigest())


def _members(
    path: Path, file: BufferedReader, names: Collection[str]
) -> dict[str, zipfile.ZipInfo]:
    is_begun = file.read(len(_LOCAL_SIGNATURE)) == _LOCAL_SIGNATURE
    try:
        with zipfile.ZipFile(file) as archive:
            found = {one.filename.removesuffix(".npy"): one for one in archive.infolist()}
    # A damaged directory makes zipfile raise more than the one error that it documents.
    except Exception as error:
        raise ValueError(
            f"'{path}' is cut off: it begins as an .npz file does and lacks its end; copy or "
            "write it again"
            if is_begun
            else f"'{path}' is no .npz file; write one with numpy.savez"
        ) from error
    return {name: one for name, one in found.items() if name in names}


def _mapped(path: Path, file: BufferedReader, name: str, member: zipfile.ZipInfo) -> Array:
    here = f"'{name}' in '{path}'"
    if member.flag_bits & _IS_ENCRYPTED or member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{here} is compressed; write it with numpy.savez, not savez_compressed")
    # The offset is below 0 where bytes before the directory were lost.
    file.seek(max(0, member.header_offset))
    local = file.read(_LOCAL_BYTES) if member.header_offset >= 0 else b""
    if len(local) < _LOCAL_BYTES or not local.startswith(_LOCAL_SIGNATURE):
        raise ValueError(f"'{path}' is damaged where '{name}' begins; copy or write it again")
    # The local header counts, not the directory's: it may be longer by a field for 64-bit lengths.
    begin = member.header_offset + _LOCAL_BYTES + sum(struct.unpack_from("<HH", local, _LENGTHS_AT))
    file.seek(begin)
    shape, is_fortran, dtype = _header(here, file)
    offset = file.tell()
    count = int(np.prod(shape, dtype=object))
    end = min(begin + member.file_size, file.seek(0, SEEK_END))
    if offset + count * dtype.itemsize > end:
        raise ValueError(f"{here} is shorter than its shape {shape} says; write it again")
    order: Any = "F" if is_fortran else "C"
    try:
        if count == 0:
            return np.empty(shape, dtype)
        # memmap would take the shape () for an unknown number of entries.
        return np.memmap(file, dtype, "r", offset, shape or (1,), order).reshape(shape)
    # If one axis has length 0, another may be longer than numpy can count.
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{here} cannot have the shape {shape}; write it again") from error


def _header(here: str, file: BufferedReader) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order (True if columns come first) and dtype of an array, from its header."""
    try:
        shape, is_fortran, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
    except OSError:
        raise
    # A damaged header makes Python's parser raise more than numpy documents: TokenError, TypeError,
    # RecursionError.
    except Exception as error:
        raise ValueError(f"{here} is no array; write it with numpy.savez") from error
    if dtype.hasobject:
        raise ValueError(f"{here} holds Python objects, which are never read; write numbers")
    if dtype.kind not in _NUMBERS or dtype.subdtype is not None:
        raise ValueError(f"{here} is {dtype}; write numbers")
    # numpy would accept True as a length.
    if len(shape) > _MOST_AXES or not all(type(n) is int and n >= 0 for n in shape):
        told = str(shape) if len(shape) <= _MOST_AXES else f"of {len(shape)} axes"
        raise ValueError(f"{here} cannot have the shape {told}; write it again")
    return shape, is_fortran, dtype
