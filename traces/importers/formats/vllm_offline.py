"""vLLM's offline outputs, saved by its user: one ``.npz`` per request, or a folder of them.

``LLM.generate`` returns ``RequestOutput.prompt_token_ids`` and, of each ``CompletionOutput``, ``token_ids`` and
``routed_experts`` (``vllm/outputs.py``; an array, with ``enable_return_routed_experts``). The arrays read are
``routed_experts [tokens, layers, top_k]`` (perhaps with ``prompt_routed_experts``), ``prompt_token_ids [tokens]`` and
``output_token_ids`` or ``token_ids [tokens]``, and optionally ``num_cached_tokens`` and ``start``, the position of the
first row; other arrays are ignored. ``traces.importers.formats.vllm_response`` describes which tokens have rows. Files
of a folder are ordered by the numbers in their names.
"""

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.importers.assembly.array_file import read_arrays
from traces.importers.assembly.folder_files import in_number_order
from traces.importers.assembly.responses import LARGEST
from traces.importers.assembly.routed_ids import RoutedIds, checked_array
from traces.importers.assembly.served_rows import ServedRows
from traces.importers.formats.vllm_response import CHOICE, PROMPT, Choice, Told, placed
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.trace import RoutingTrace

ZIP_START = b"PK\x03\x04"

PROMPT_IDS = "prompt_token_ids"
OUTPUT_IDS = ("output_token_ids", "token_ids")

CACHED = "num_cached_tokens"
START = "start"

REMEDY = "make the LLM with enable_return_routed_experts=True"

OTHERS = frozenset({"expert_ids", "seq_offsets"})
"""Arrays of the project's own ``npz``, a different format."""


def sniff(path: Path, start: bytes) -> bool:
    """An ``.npz`` with ``routed_experts``, or a folder whose first ``.npz`` has it."""
    if path.is_dir():
        return any(_is_request(file) for file in _files(path)[:1])
    return start.startswith(ZIP_START) and _is_request(path)


def read(path: Path, options: ImportOptions, report: Report) -> RoutingTrace:
    """The routing of every request.

    Raises:
        ForestageError: if a file is damaged or not such a request, its arrays contradict each other, two files are
            equal, or the model is not known.
    """
    files = _files(path) if path.is_dir() else [path]
    if not files:
        raise ForestageError(f"{path}: holds no .npz file")
    rows = ServedRows(path, options, dataset="vLLM")
    told = Told()
    seen: dict[bytes, Path] = {}
    for file in report.counted(files):
        arrays = read_arrays(file)
        content = _fingerprint(arrays)
        if content in seen:
            raise ForestageError(
                f"{file}: the same request as {seen[content].name}; leave one of them out of the folder"
            )
        seen[content] = file
        answer = placed(_choice(arrays, file), _number(arrays, CACHED, file), told, shared=False)
        if answer is not None:
            rows.append(answer)
    if not rows.sequences:
        raise ForestageError(f"{path}: no request has routed experts; {REMEDY}")
    told.tell(path, report)
    source = f"vLLM, enable_return_routed_experts, offline, from {path.name}"
    return rows.finish(report, source=source, name=None)


def _is_request(path: Path) -> bool:
    """Whether a file is an ``.npz`` of one request."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False
    is_unrouted = PROMPT_IDS in names and bool(names & set(OUTPUT_IDS))  # refused, naming vLLM's option
    return (CHOICE in names or is_unrouted) and not names & OTHERS


def _files(folder: Path) -> list[Path]:
    """The ``.npz`` files of a folder, by the numbers in their names."""
    return in_number_order(file for file in folder.iterdir() if file.suffix == ".npz" and file.is_file())


def _choice(arrays: dict[str, npt.NDArray[Any]], file: Path) -> Choice:
    """A request, as a response's only choice."""
    place = str(file)
    before, rows = _rows(arrays, PROMPT, place), _rows(arrays, CHOICE, place, _number(arrays, START, file))
    if rows is None and before is None:
        held = ", ".join(arrays) or "nothing"
        raise ForestageError(f"{place}: {CHOICE}: missing array; the file holds {held}; {REMEDY}")
    prompt_ids = _token_ids(arrays, PROMPT_IDS, place)
    outputs = [_token_ids(arrays, name, place) for name in OUTPUT_IDS]
    if prompt_ids is None:
        raise ForestageError(f"{place}: {PROMPT_IDS}: missing array; nothing tells where the prompt ends")
    output_ids = next((ids for ids in outputs if ids is not None), None)
    if output_ids is None:
        raise ForestageError(f"{place}: {OUTPUT_IDS[0]}: missing array; nothing tells how many tokens were generated")
    padded = rows is not None and rows.ids.shape[2] > 1 and not rows.ids[-1].any()
    if before is not None and len(before.ids) > len(prompt_ids):
        raise ForestageError(f"{place}: {PROMPT}: {len(before.ids)} rows, but {PROMPT_IDS} are {len(prompt_ids)}")
    return Choice(
        before=before,
        has_prompt=before is not None,
        rows=rows.without(1) if rows is not None and padded else rows,
        padded=padded,
        prompt=len(prompt_ids),
        prompt_ids=prompt_ids,
        generated=len(output_ids),
        token_ids=output_ids,
        place=place,
        cached_field=CACHED,
        start_field=f"an array {START}",
    )


def _rows(arrays: dict[str, npt.NDArray[Any]], name: str, place: str, start: int | None = None) -> RoutedIds | None:
    """The ids of an array from position ``start`` on; ``None`` if it is missing or has no token."""
    array = arrays.get(name)
    if array is None:
        return None
    if array.dtype.kind == "O":
        raise ForestageError(
            f"{place}: {name}: None or other Python objects in place of an array; {REMEDY}, or leave the request out "
            "of the folder"
        )
    found = checked_array(array, name, place, start)
    return found if len(found.ids) else None


def _token_ids(arrays: dict[str, npt.NDArray[Any]], name: str, place: str) -> npt.NDArray[np.int64] | None:
    """Vocabulary indices; ``None`` if the array is missing."""
    array = arrays.get(name)
    if array is None:
        return None
    if not array.size and array.ndim == 1:
        return np.zeros(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu" or array.min() < 0 or array.max() > LARGEST:
        raise ForestageError(f"{place}: {name}: {array.dtype} {list(array.shape)}; expected whole numbers [tokens]")
    return array.astype(np.int64)


def _number(arrays: dict[str, npt.NDArray[Any]], name: str, file: Path) -> int | None:
    """A whole number ≥ 0; ``None`` if the file lacks it or has ``None`` saved in its place."""
    value = arrays.get(name)
    if value is None or value.dtype.kind == "O":
        return None
    if value.size != 1 or value.dtype.kind not in "iu" or not 0 <= int(value.item()) <= LARGEST:
        raise ForestageError(f"{file}: {name}: {value.dtype} {list(value.shape)}; expected a whole number from 0 on")
    return int(value.item())


def _fingerprint(arrays: dict[str, npt.NDArray[Any]]) -> bytes:
    """A digest of a request, which does not depend on its file's name."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name}{arrays[name].dtype}{arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.digest()


IMPORTER = Importer(
    "vllm_offline",
    "vLLM's offline outputs with routed_experts: an .npz a request, or a folder of them",
    sniff,
    read,
    uses=frozenset({"model", "experts", "top_k", "layers", "domain", "dataset"}),
    folders=True,
)
