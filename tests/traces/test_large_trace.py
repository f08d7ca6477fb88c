"""A trace larger than memory: opened at once, sliced without reading the rest."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.traces.trace_samples import make_trace

TOKENS, LAYERS, TOP_K = 50_000_000, 24, 4
LENGTH = 250

OPEN_AND_SLICE = """
import resource, sys
import numpy as np
from traces import RoutingTrace
import traces.content  # what the compiler takes is no part of opening a file
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
trace = RoutingTrace.load(sys.argv[1])
part = trace.sequence(100_000)
print(trace.tokens, part.tokens, int(part.expert_ids.sum()), peak() - before)
"""


def write_sparse_trace(path: Path) -> int:
    """Write a 14 GB file that takes a few MB of disk, with routing in sequence 100,000 alone; return its ids' sum."""
    sample = make_trace(lengths=(LENGTH,), layers=LAYERS, experts=32, top_k=TOP_K, hashes=False)
    sequences = TOKENS // LENGTH
    shapes = {
        "sequence_offsets": ("I64", 8, [sequences + 1]),
        "position": ("I32", 4, [TOKENS]),
        "domain_index": ("U32", 4, [sequences]),
        "dataset_index": ("U32", 4, [sequences]),
        "gate_weights": ("F16", 2, [TOKENS, LAYERS, TOP_K]),
        "expert_ids": ("U8", 1, [TOKENS, LAYERS, TOP_K]),
        "phase": ("U8", 1, [TOKENS]),
    }
    document = {"metadata": sample.metadata.model_dump(), "domain_labels": ["d"], "dataset_labels": ["d"]}
    header: dict[str, object] = {
        "__metadata__": {"format": "forestage-trace", "version": "1", "trace": json.dumps(document)}
    }
    starts, offset = {}, 0
    for name, (dtype, size, shape) in shapes.items():
        starts[name], end = offset, offset + size * int(np.prod(shape))
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
        file.write(np.arange(0, TOKENS + 1, LENGTH, dtype=np.int64).tobytes())
        for name in ("position", "gate_weights", "expert_ids", "phase"):
            rows = getattr(sample, name)
            file.seek(8 + len(text) + starts[name] + 100_000 * rows.nbytes)
            file.write(rows.tobytes())
    return int(sample.expert_ids.sum())


def test_fifty_million_tokens_open_and_slice_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    expected = write_sparse_trace(path)
    assert path.stat().st_size > 14e9
    assert path.stat().st_blocks * 512 < 20e6
    result = subprocess.run([sys.executable, "-c", OPEN_AND_SLICE, path], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    tokens, sliced, ids, peak_kib = (int(part) for part in result.stdout.split())
    assert (tokens, sliced, ids) == (TOKENS, LENGTH, expected)
    assert peak_kib < 64 * 1024
