"""Arrays of an ``.npz`` archive without holding them in memory: mapped in the archive, or unpacked to a file.

The archive is a zip of ``.npy`` members (NumPy's ``numpy.lib.format``). An uncompressed member is mapped at its offset
in the archive, after its bytes were read and their CRC-32 was compared with the archive's. A compressed member is
unpacked to an unnamed temporary file (in the folder that ``TMPDIR`` names) and mapped there.
"""

import struct
import tempfile
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
"""A zip member's own header, "4.3.7 Local file header" of PKWARE's APPNOTE: its last two fields are the lengths of the
name and of the extra field that follow it."""

_COPY_BYTES = 16 << 20


def open_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of the archive, by name; read-only.

    Raises:
        ForestageError: if the file is missing or damaged, or an array holds Python objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                member.filename.removesuffix(".npy"): _array(path, archive, member)
                for member in archive.infolist()
                if member.filename.endswith(".npy")
            }
    except OSError as error:
        raise ForestageError(f"{path}: cannot read ({error.strerror or error})") from error
    except ForestageError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy's parser of headers raise many kinds
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ForestageError(f"{path}: not an .npz archive, or a damaged one ({reason}); write it again") from error


def _array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """One member as a mapped array (as a read one, if it is too small to map)."""
    with archive.open(member) as stream:
        shape, fortran, dtype = _npy_header(stream)
        if dtype.hasobject:
            raise ForestageError(f"{path}: {member.filename}: holds Python objects; save numbers")
        begin = member.file_size - int(np.prod(shape, dtype=object)) * dtype.itemsize
        if begin < 0:
            raise ValueError(f"{member.filename} is truncated")
        if 0 in shape or not shape:
            content = stream.read()
            return np.frombuffer(content, dtype).reshape(shape)
        order: Any = "F" if fortran else "C"
        if member.compress_type == zipfile.ZIP_STORED:
            while stream.read(_COPY_BYTES):
                pass  # zipfile compares the checksum at the end
            with path.open("rb") as raw:
                raw.seek(member.header_offset)
                fields = _LOCAL_HEADER.unpack(raw.read(_LOCAL_HEADER.size))
            offset = member.header_offset + _LOCAL_HEADER.size + fields[-2] + fields[-1] + begin
            return np.asarray(np.memmap(path, dtype, "r", offset, shape, order))
        with tempfile.TemporaryFile() as unpacked:
            while block := stream.read(_COPY_BYTES):
                unpacked.write(block)
            unpacked.flush()
            return np.asarray(np.memmap(unpacked, dtype, "r", 0, shape, order))


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and dtype of an ``.npy`` member; leaves ``stream`` at the first element."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"version {version} of .npy")
