"""The project's exchange format: ``NAME.npz`` with ``NAME.sequences.jsonl`` beside it (``docs/traces.md``).

Arrays ``expert_ids``, ``seq_offsets``, ``token_pos`` and, where the trace has them, ``gate_weights`` (f16) and
``token_crc32``, in an uncompressed archive that ``numpy.load`` reads; and one line per sequence: ``dataset``,
``category``, ``n_tokens``, ``n_prompt_tokens``.
"""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from catalog.files import atomic_path
from traces.exporters.exporter import (
    Exporter,
    ExportOptions,
    Progress,
    Source,
    lost_but,
    require_recorded,
    shape_options,
)
from traces.safetensors_file import byte_chunks
from traces.schema import DECODE
from traces.trace import RoutingTrace

NAME = "npz"


def check(source: Source, path: Path, options: ExportOptions) -> None:
    """Refuse unrecorded rows, and sequences in which prefill follows decode.

    Raises:
        ForestageError: naming the token or sequence.
    """
    require_recorded(source.trace, NAME, "use --format table")
    prompt_lengths(source.trace)


def write(source: Source, path: Path, options: ExportOptions, progress: Progress) -> tuple[Path, ...]:
    """Write the archive, array by array, and the labels."""
    trace = source.trace
    beside = path.with_name(path.name.removesuffix(".npz") + ".sequences.jsonl")
    prompts = prompt_lengths(trace)
    lengths = np.diff(trace.sequence_offsets).tolist()
    # The archive is renamed first: the reader refuses an archive without labels, but not labels without an archive.
    with atomic_path(beside) as labels, atomic_path(path) as archive:
        with labels.open("w", encoding="utf-8") as file:
            for dataset, domain, length, prompt in zip(trace.datasets, trace.domains, lengths, prompts, strict=True):
                line = {"dataset": dataset, "category": domain, "n_tokens": length, "n_prompt_tokens": prompt}
                file.write(json.dumps(line) + "\n")
        with zipfile.ZipFile(archive, "w") as file:
            _store(file, "expert_ids", trace.expert_ids, _parts(trace, "expert_ids", progress))
            _store(file, "seq_offsets", trace.sequence_offsets, byte_chunks(trace.sequence_offsets))
            for name, field in (
                ("gate_weights", "gate_weights"),
                ("token_pos", "position"),
                ("token_crc32", "token_hash"),
            ):
                array = getattr(trace, field)
                if array is not None:
                    _store(file, name, array, _parts(trace, field, progress))
    return path, beside


def prompt_lengths(trace: RoutingTrace) -> list[int]:
    """For each sequence, the position at which decode begins.

    Raises:
        ForestageError: naming a sequence with prefill after decode.
    """
    prompts = []
    for sequence, (start, end) in enumerate(zip(trace.sequence_offsets, trace.sequence_offsets[1:], strict=False)):
        decode = trace.phase[start:end] == DECODE
        first = int(decode.argmax()) if decode.any() else int(end - start)
        if not decode[first:].all():
            raise ForestageError(
                f"{trace.origin}: sequence {sequence} has prefill tokens after decode tokens, which the format {NAME} "
                "cannot say; use --format table"
            )
        prompts.append(int(trace.position[start + first]) if first < end - start else int(trace.position[end - 1]) + 1)
    return prompts


def _parts(trace: RoutingTrace, field: str, progress: Progress) -> Iterator[Any]:
    """The bytes of one token array, in parts."""
    done = 0
    for chunk in trace.chunks():
        yield from byte_chunks(getattr(chunk, field))
        done += chunk.tokens
        progress(done, trace.tokens)


def _store(file: zipfile.ZipFile, name: str, array: npt.NDArray[Any], parts: Iterator[Any]) -> None:
    """Store one array as NumPy's own writer would."""
    with file.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
        np.lib.format.write_array_header_1_0(member, header)
        for part in parts:
            member.write(part)


def lost(source: Source, path: Path, options: ExportOptions) -> tuple[str, ...]:
    """All facts about the trace as a whole; the reader infers them from the model's name and the weights."""
    return lost_but(source, "tokens", "gate_weights", "phase", "token_hash", "labels", "top_k")


def reader(source: Source, path: Path, options: ExportOptions) -> tuple[str, ...]:
    """``npz``, given the model's name, and its shape in case the catalogue does not know it."""
    return ("--format", NAME, *shape_options(source))


EXPORTER = Exporter(NAME, "NAME.npz with NAME.sequences.jsonl beside it", (".npz",), check, write, lost, reader=reader)
