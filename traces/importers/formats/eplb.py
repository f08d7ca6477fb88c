"""DeepSeek EPLB's input: ``weight [layers, logical experts]``, how much load each expert had.

A tensor alone, or one named ``weight``, in any file of ``traces.importers.assembly.array_file``. Layers are the MoE
layers, or all layers with the dense ones zero. The balancer's outputs (``phy2log``, ``log2phy``) are maps, not loads,
and so is vLLM-Ascend's ``expert_map.json``: see ``traces.importers.assembly.expert_map``.
"""

from pathlib import Path

import numpy as np

from catalog.errors import ForestageError
from traces.expert_load import ExpertLoad
from traces.importers.assembly import torch_file
from traces.importers.assembly.array_file import UNNAMED, read_arrays
from traces.importers.assembly.expert_loads import build_load
from traces.importers.assembly.expert_map import is_device_layout
from traces.importers.assembly.text_file import starting_bytes
from traces.importers.formats.own import is_safetensors
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report

NAME = "weight"
MAPS = ("phy2log", "log2phy", "logcnt")


def sniff(path: Path, start: bytes) -> bool:
    """A PyTorch, NumPy, safetensors or JSON file with an entry ``weight``, or one of the balancer's outputs."""
    if torch_file.is_torch_file(start):
        return bool(torch_file.names_in(path) & {NAME, *MAPS})
    if is_safetensors(start):
        return any(f'"{name}":'.encode() in start for name in (NAME, *MAPS))
    if start.startswith(b"PK\x03\x04"):
        return any(f"{name}.npy".encode() in start[:256] for name in (NAME, *MAPS))
    return start.lstrip().startswith((b'{"weight"', b'{"phy2log"', b'{"log2phy"')) or is_device_layout(start[: 1 << 12])


def read(path: Path, options: ImportOptions, report: Report) -> ExpertLoad:
    """The loads, as one step.

    Raises:
        ForestageError: if the file is damaged, holds no such array or a map instead, or the model is not known.
    """
    if is_device_layout(starting_bytes(path, 1 << 12)):
        raise ForestageError(
            f"{path}: a map of experts to devices (layer_list), which says nothing of routing; give it as "
            "--expert-map with the recording it belongs to"
        )
    arrays = read_arrays(path)
    weight = arrays.get(NAME, arrays.get(UNNAMED))
    if weight is None:
        maps = [name for name in MAPS if name in arrays]
        if maps:
            raise ForestageError(
                f"{path}: {', '.join(maps)}: the balancer's output, a map of experts; give it as --expert-map with the "
                "recording it belongs to"
            )
        raise ForestageError(f"{path}: weight: missing array (found: {', '.join(arrays) or 'nothing'})")
    if weight.ndim != 2:
        raise ForestageError(f"{path}: weight: {weight.dtype} {list(weight.shape)}; expected [layers, logical experts]")
    return build_load(np.asarray(weight)[None], path, options, report, source="DeepSeek EPLB load")


IMPORTER = Importer(
    "eplb",
    "DeepSeek EPLB's load: weight [layers, experts] (loads only)",
    sniff,
    read,
    uses=frozenset({"model", "experts", "top_k", "layers"}),
)
