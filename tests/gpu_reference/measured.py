"""A measurement record made by hand, for tests."""

from typing import Any

from gpu_reference.records import MeasurementRecord
from gpu_reference.records.summary import Summary

DIGEST = "0123456789abcdef" * 4


def summary(median: float = 2e-3) -> Summary:
    """Three runs about ``median``."""
    return Summary.of([median / 2, median, median * 2])


def record_values(**changes: Any) -> dict[str, Any]:
    """The JSON values of a valid record, with top-level fields replaced."""
    values: dict[str, Any] = {
        "schema_version": 1,
        "command": "forestage reference measure --suite quick --out RECORD",
        "date": "2026-11-22T01:54:45+00:00",
        "suite": "quick",
        "device": "cpu",
        "commit": "unknown",
        "sources": DIGEST,
        "machine": {
            "processor": "a processor", "cores": 2, "usable_cores": 2, "threads": 2, "memory_gib": 16.0, "gpu": None,
            "gpu_memory_gib": None, "driver": None, "cuda": None, "pcie": None,
        },
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "model": {
            "name": "forestage-small-moe", "layers": 8, "experts": 32, "top_k": 4, "hidden": 64,
            "expert_intermediate": 144, "expert_matrices": 3, "activation": "swiglu", "expert_bias": False,
            "formats": {"fp32": 110592},
        },
        "trace": {
            "name": "trace.safetensors", "model": "forestage-small-moe", "tokens": 9, "sequences": 2, "digest": DIGEST,
        },
        "predictors": {"next-use": DIGEST},
        "seed": 0,
        "sections": [{"name": "copies", "state": "done", "reason": None, "took_s": 1.5}],
        "micro": [
            {
                "kind": "copy_to_device",
                "settings": {"memory": "pageable", "copy_bytes": 65536, "streams": 1, "clock": "host", "queued": 1},
                "seconds": summary().model_dump(), "bytes": 65536, "relative_error": 0.0,
            }
        ],
        "decode": [
            {
                "row": "LRU",
                "policy": {"eviction": "lru"},
                "scope": "layer",
                "share": 0.25,
                "places": 64,
                "regimen": {"name": "real sizes", "expert_intermediate": 144, "expert_bytes": 110592, "format": "fp32"},
                "part": {"sequences": [0, 1], "batch": 1, "warm_steps": 2, "steps": 6, "tokens": 6},
                "mode": "eager", "kernel": "torch", "foresight": "none",
                "tpot_s": summary().model_dump(), "hit_rate": 0.5, "moved_bytes": 110592, "stall_s": 0.1,
                "link_busy_s": 0.1, "counts": {"lookups": 10}, "output_digest": DIGEST, "matches_resident": True,
            }
        ],
    }  # fmt: skip
    return {**values, **changes}


def a_record(**changes: Any) -> MeasurementRecord:
    """A valid record, with top-level fields replaced."""
    return MeasurementRecord.parse(record_values(**changes), origin="a record made by hand")
