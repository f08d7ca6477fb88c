"""TensorRT-LLM's expert statistic: a folder of ``meta_info.json`` and ``rank<r>.safetensors``.

``meta_info.json`` has ``num_experts`` and ``num_experts_per_token``; a rank's file has a tensor
``"<iteration>_<layer>"`` of ``[num_experts]`` counts for each iteration and layer. Ranks count their own tokens and are
added up; if every rank has the same counts (tensor parallelism: all see all tokens), one of them is taken.
"""

import re
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from catalog.config import describe_validation_error
from catalog.errors import ForestageError
from catalog.json_text import parse_json
from traces.expert_load import ExpertLoad
from traces.importers.assembly.expert_loads import build_load
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.metadata import MAX_EXPERTS
from traces.safetensors_file import open_tensors

META = "meta_info.json"
RANK_FILE = re.compile(r"rank(\d{1,6})\.safetensors")
KEY = re.compile(r"(\d{1,9})_(\d{1,6})")

Count = Annotated[int, Field(ge=1, le=MAX_EXPERTS, strict=True)]


class MetaInfo(BaseModel):
    """``meta_info.json``; other keys are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    num_experts: Count
    num_experts_per_token: Count


def sniff(path: Path, start: bytes) -> bool:
    """A folder with ``meta_info.json`` and a rank's file."""
    return path.is_dir() and (path / META).is_file() and bool(_rank_files(path))


def read(path: Path, options: ImportOptions, report: Report) -> ExpertLoad:
    """The loads of all ranks together, one step per iteration.

    Raises:
        ForestageError: if a file is missing or damaged, ranks differ in their keys, or the model is not known.
    """
    meta = _read_meta(path / META)
    files = _rank_files(path)
    if not files:
        raise ForestageError(f"{path}: holds no rank<r>.safetensors")
    absent = sorted(set(range(max(files) + 1)) - set(files))
    if absent:
        report.warn(f"{path}: rank{absent[0]}.safetensors is missing: the tokens that only it counted are left out")
    ranks = [_read_rank(file, meta.num_experts) for file in report.counted(list(files.values()))]
    keys = ranks[0].keys()
    for file, rank in zip(files.values(), ranks, strict=True):
        if rank.keys() != keys:
            odd = sorted(rank.keys() ^ keys)[0]
            raise ForestageError(f"{file}: {odd[0]}_{odd[1]}: not in every rank's file; fetch all files of one run")
    if len(ranks) > 1 and all(np.array_equal(rank[key], ranks[0][key]) for rank in ranks[1:] for key in keys):
        report.warn(f"{path}: all {len(ranks)} ranks counted the same; they are taken as copies, not added up")
        ranks = ranks[:1]
    iterations = sorted({iteration for iteration, _ in keys})
    layers = sorted({layer for _, layer in keys})
    counts = np.zeros((len(iterations), len(layers), meta.num_experts), dtype=np.int64)
    for step, iteration in enumerate(iterations):
        for row, layer in enumerate(layers):
            for rank in ranks:
                # If an iteration did not run a layer, there is no tensor, and the counts are 0.
                counts[step, row] += rank.get((iteration, layer), np.int64(0))
    return build_load(
        counts,
        path,
        options,
        report,
        source="TensorRT-LLM expert statistic",
        layer_map=tuple(layers),
        top_k=meta.num_experts_per_token,
    )


def _rank_files(folder: Path) -> dict[int, Path]:
    """Rank → file, ascending."""
    found = {int(match[1]): file for file in folder.iterdir() if (match := RANK_FILE.fullmatch(file.name))}
    return dict(sorted(found.items()))


def _read_meta(path: Path) -> MetaInfo:
    """``meta_info.json``, checked."""
    try:
        return MetaInfo.model_validate(parse_json(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ForestageError(f"{path}: cannot read ({error.strerror}); it lies beside the ranks' files") from error
    except ValidationError as error:
        raise ForestageError(f"{path}: {describe_validation_error(MetaInfo, error)}") from error
    except (ValueError, RecursionError) as error:
        raise ForestageError(f"{path}: not valid JSON ({error})") from error


def _read_rank(path: Path, experts: int) -> dict[tuple[int, int], npt.NDArray[np.int64]]:
    """(iteration, layer) → counts of one rank."""
    counts = {}
    for name, tensor in open_tensors(path).tensors.items():
        match = KEY.fullmatch(name)
        if not match:
            raise ForestageError(f"{path}: {name}: expected tensors named <iteration>_<layer>")
        if tensor.shape != (experts,) or tensor.dtype.kind not in "iu":
            raise ForestageError(
                f"{path}: {name}: {tensor.dtype} {list(tensor.shape)}; {META} says num_experts={experts}"
            )
        if tensor.min() < 0:
            raise ForestageError(f"{path}: {name}: {int(tensor.min())}; expected counts ≥ 0")
        counts[int(match[1]), int(match[2])] = tensor.astype(np.int64)
    return counts


IMPORTER = Importer(
    "tensorrt_llm",
    "TensorRT-LLM's expert statistic: a folder of meta_info.json and rank<r>.safetensors (loads only)",
    sniff,
    read,
    uses=frozenset({"model", "experts", "top_k", "layers"}),
    folders=True,
    files=False,
)
