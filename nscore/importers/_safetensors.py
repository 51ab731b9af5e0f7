"""The safetensors format: a header in JSON, then the raw bytes of each tensor, of which none is believed before it is checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from nscore.importers._json import decoded
from nscore.importers._places import SourceFile

__all__ = ["DTYPES", "tensors"]

LARGEST_HEADER = 16 << 20

DTYPES: Mapping[str, str] = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "F16": "<f2",
    "BF16": "<u2",
    "U32": "<u4",
    "I32": "<i4",
    "F32": "<f4",
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
}
"""Of each dtype, what numpy reads it as; of BF16, which numpy has not, the bits."""

_MEND = "Copy or write the file again, or leave it out (--on-error skip)."


class _Tensor(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


_HEADER = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TENSOR = msgspec.json.Decoder(_Tensor)


def tensors(file: SourceFile) -> dict[str, tuple[str, npt.NDArray[np.generic]]]:
    """Each tensor of a file by name, with its dtype; those of a file on this machine are mapped, not read.

    Raises:
        SourceError: if it cannot be read, or its lengths, offsets, shapes or dtypes cannot be.
    """
    content = _mapped(file)
    if len(content) < 8:
        raise file.fault(f"{len(content)} bytes: too short for a safetensors file", mend=_MEND)
    length = int.from_bytes(content[:8].tobytes(), "little")
    data = content[8 + length :] if length <= min(LARGEST_HEADER, len(content) - 8) else None
    if data is None:
        raise file.fault(f"a header of {length:,} bytes in a file of {len(content):,}", mend=_MEND)
    entries = decoded(file, content[8 : 8 + length].tobytes(), _HEADER, place="header")
    entries.pop("__metadata__", None)
    said = {name: decoded(file, bytes(raw), _TENSOR, place=f"header, {name!r}") for name, raw in entries.items()}
    end = 0
    for name, tensor in sorted(said.items(), key=lambda item: item[1].data_offsets):
        _check(file, name, tensor, end)
        end = tensor.data_offsets[1]
    if end != len(data):
        raise file.fault(f"tensors of {end:,} bytes, and {len(data):,} bytes after the header", mend=_MEND)
    return {name: (tensor.dtype, _array(data, tensor)) for name, tensor in said.items()}


def _mapped(file: SourceFile) -> npt.NDArray[np.uint8]:
    if not file.is_local:
        return np.frombuffer(file.read(), dtype=np.uint8)
    try:
        if not Path(file.path).stat().st_size:
            return np.zeros(0, dtype=np.uint8)
        return np.memmap(file.path, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise file.fault(f"cannot be read: {said}", mend="See whether the path is right and may be read.") from error


def _check(file: SourceFile, name: str, tensor: _Tensor, end: int) -> None:
    """Raises unless the tensor begins where the one before it ends, and has as many bytes as its shape says."""
    place = f"header, {name!r}"
    if tensor.dtype not in DTYPES:
        raise file.fault(f"dtype {tensor.dtype!r}, expected one of {', '.join(DTYPES)}", place=place, mend=_MEND)
    if len(tensor.shape) > 8 or any(not 0 <= n < 1 << 48 for n in tensor.shape):
        raise file.fault(f"shape {str(tensor.shape)[:80]}", place=place, mend=_MEND)
    size = math.prod(tensor.shape) * np.dtype(DTYPES[tensor.dtype]).itemsize
    first, last = tensor.data_offsets
    if first != end or last - first != size:
        found = f"data_offsets {first} to {last}: expected {end} to {end + size}, for shape {tensor.shape}"
        raise file.fault(found, place=place, mend=_MEND)


def _array(data: npt.NDArray[np.uint8], tensor: _Tensor) -> npt.NDArray[np.generic]:
    first, last = tensor.data_offsets
    return data[first:last].view(DTYPES[tensor.dtype]).reshape(tensor.shape)
