"""Read PyTorch's files as NumPy arrays and plain values; only this module of ``traces`` imports torch, when needed.

A ``.pt`` file is a zip archive around a pickle, and a pickle can run code when it is read. Therefore files are read
only with ``weights_only=True``, which builds tensors and plain containers and refuses everything else; and only in the
zip form, whose checksums are compared first (PyTorch itself does not compare them).
"""

import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from catalog.errors import ForestageError

LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""Beginning of files that ``torch.save`` wrote before version 1.6, without checksums (its magic number, pickled)."""

MET = re.compile(r"(?:GLOBAL|Unsupported|Can only|TorchScript) [^\n]*?(?=\s(?:was not|whose|but|passed)|\.\s|\n|$)")
"""The part of PyTorch's error that names what it refuses in a file."""

SCANNED_BYTES = 1 << 16
"""Bytes of the pickle that are searched for its first names."""


def is_torch_file(start: bytes) -> bool:
    """Whether a file that starts so was written by ``torch.save``: a zip whose first member is ``NAME/data.pkl``."""
    if start.startswith(LEGACY_START):
        return True
    name_length = int.from_bytes(start[26:28], "little")
    return start.startswith(b"PK\x03\x04") and start[30 : 30 + name_length].endswith(b"/data.pkl")


def names_in(path: Path) -> frozenset[str]:
    """The first texts in the pickle of a PyTorch file (keys of dictionaries and the like), found without running it.

    Empty if none are found; needs no torch.
    """
    return frozenset(argument for _, argument in _operations(path) if isinstance(argument, str))


def _tensors_in(path: Path) -> int:
    """How many tensors the beginning of a pickle names; several may be views of one storage."""
    return sum(name == "BINPERSID" for name, _ in _operations(path))


def _operations(path: Path) -> list[tuple[str, Any]]:
    """Name and argument of the first operations in the pickle of a PyTorch file, none of which is run."""
    found: list[tuple[str, Any]] = []
    try:
        with zipfile.ZipFile(path) as archive:
            member = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(member) as pickled:
                for operation, argument, _ in pickletools.genops(pickled.read(SCANNED_BYTES)):
                    found.append((operation.name, argument))
    except Exception:
        # A pickle cut off at SCANNED_BYTES ends so, and a damaged archive can raise anything; its reader tells.
        return found
    return found


def is_bare_list(path: Path) -> bool:
    """Whether a PyTorch file has several tensors and no names; needs no torch."""
    # Texts other than dictionary keys belong to pickled tensors: classes ("module name"), device, storage number.
    names = names_in(path) - {"storage", "cpu"}
    own = [name for name in names if not name.isdecimal() and " " not in name and not name.startswith("cuda")]
    return _tensors_in(path) > 1 and not own


def load(path: Path) -> Any:
    """The content of a ``torch.save`` file: dictionaries, lists, tuples, numbers, texts, and tensors as NumPy arrays.

    Arrays are mapped from the file if it stores them uncompressed; bfloat16 becomes float32.

    Raises:
        ForestageError: if torch is missing, or the file is damaged, not a PyTorch file, or contains more than data.
    """
    _check_archive(path)
    torch = _torch(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # about TorchScript archives, which are refused anyway
            value = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        # The unpickler raises many kinds for a damaged or hostile file. Quote what it met, not how to run it.
        met = MET.search(str(error))
        reason = " ".join(met[0].split()) if met else _first_line(error)
        raise ForestageError(
            f"{path}: refused: not tensors and plain values alone, or damaged ({reason}); save tensors, lists and "
            "dictionaries only"
        ) from error
    try:
        return _plain(value, torch)
    except (TypeError, RecursionError) as error:
        raise ForestageError(
            f"{path}: refused: {_first_line(error)}; save tensors, lists and dictionaries only"
        ) from error


def load_safetensors(path: Path, name: str) -> np.ndarray:
    """Tensor ``name`` of a safetensors file, for dtypes that NumPy lacks (bfloat16 becomes float32).

    Raises:
        ForestageError: if torch is missing or the tensor cannot be read.
    """
    torch = _torch(path)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return np.asarray(_plain(file.get_tensor(name), torch))
    except (SafetensorError, OSError, TypeError) as error:
        raise ForestageError(f"{path}: {name}: cannot read ({_first_line(error)})") from error


def _torch(path: Path) -> Any:
    """The torch module."""
    try:
        import torch
    except ImportError as error:
        raise ForestageError(f"{path}: reading it needs PyTorch: pip install 'forestage[torch]'") from error
    return torch


def _check_archive(path: Path) -> None:
    """Refuse anything but an undamaged zip archive; the checksums of its members are compared."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise ForestageError(f"{path}: cannot read ({error.strerror})") from error
    if not start.startswith(b"PK\x03\x04"):
        raise ForestageError(
            f"{path}: no PyTorch zip file; what is only pickled (or saved by torch before 1.6) is not read, as it has "
            "no checksums and may run code: save it again with torch.save"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            packed = [member.filename for member in archive.infolist() if member.compress_type != zipfile.ZIP_STORED]
    except Exception as error:  # zipfile raises many kinds for a damaged archive
        raise ForestageError(f"{path}: damaged or truncated ({_first_line(error)}); fetch it again") from error
    if damaged is not None:
        raise ForestageError(f"{path}: damaged: the checksum of {damaged!r} differs; fetch it again")
    if packed:  # torch.load would map the compressed bytes as if they were the numbers
        raise ForestageError(f"{path}: {packed[0]!r} is compressed, which torch.save never does; save it again with it")


def _plain(value: Any, torch: Any) -> Any:
    """``value`` with tensors as arrays and containers as built-in ones."""
    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided or value.is_quantized or value.is_complex() or value.device.type != "cpu":
            raise TypeError(f"a tensor of {value.dtype}, {value.layout} on {value.device} is not read")
        dense = value.detach()
        return (dense.float() if dense.dtype is torch.bfloat16 else dense).numpy()
    if isinstance(value, dict):
        return {_key(key): _plain(part, torch) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(part, torch) for part in value) if type(value) in (list, tuple) else _odd(value)
    if value is None or type(value) in (bool, int, float, str):
        return value
    return _odd(value)


def _key(key: Any) -> Any:
    """A dictionary's key, which must be a text or a number."""
    return key if type(key) in (str, int) else _odd(key)


def _odd(value: Any) -> Any:
    """Refuse a value that no recording contains."""
    raise TypeError(f"it holds a {type(value).__name__}")


def _first_line(error: BaseException) -> str:
    """The first sentence of an error, in one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
