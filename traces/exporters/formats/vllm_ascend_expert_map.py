"""vLLM-Ascend's ``expert_map_path``: which experts each device holds in each layer, placed by their loads.

``{"moe_layer_count", "layer_list": [{"layer_id", "device_count", "device_list": [{"device_id", "device_expert"}]}]}``;
layers are the MoE layers, counted from 0 (``expert_file_to_tensor`` in ``vllm_ascend/eplb/core/eplb_utils.py``, and the
writer ``_export_tensor_to_file`` in ``vllm_ascend/eplb/adaptor/vllm_adaptor.py``). All devices hold equally many
experts. vLLM itself reads no such file: its EPLB starts from the experts in order and counts its own loads
(``EPLBConfig``).

Placement of a layer: each redundant replica goes to the expert with the most load per replica; a device holds at most
one replica of an expert. Experts with several replicas are placed first, on the devices with the most room; then the
others, most load first, each on the least loaded device that has room.
"""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from catalog.files import write_text
from catalog.progress import Progress
from traces.exporters.counts import expert_counts
from traces.exporters.exporter import Exporter, ExportOptions, Source, lost_but

NAME = "vllm_ascend_expert_map"


def check(source: Source, path: Path, options: ExportOptions) -> None:
    """Refuse a number of devices over which the experts cannot be spread equally.

    Raises:
        ForestageError: naming the option.
    """
    if options.devices is None:
        raise ForestageError(f"--devices: {NAME} places experts on devices; say on how many")
    placed = source.recording.experts + (options.redundant or 0)
    if placed % options.devices:
        raise ForestageError(
            f"--devices {options.devices}: {placed} experts, replicas included, cannot be as many on each; choose a "
            f"divisor, or --redundant {(options.redundant or 0) + -placed % options.devices}"
        )
    if (options.redundant or 0) > source.recording.experts * (options.devices - 1):
        raise ForestageError(
            f"--redundant {options.redundant}: more than a replica of every expert on every device; choose at most "
            f"{source.recording.experts * (options.devices - 1)}"
        )


def write(source: Source, path: Path, options: ExportOptions, progress: Progress) -> tuple[Path, ...]:
    """Write the placement of every layer."""
    assert options.devices is not None
    loads = expert_counts(source, progress).sum(axis=0)
    layers = []
    for number, load in enumerate(loads):
        held = place(load, options.devices, options.redundant or 0)
        devices = [{"device_id": device, "device_expert": experts} for device, experts in enumerate(held)]
        layers.append({"layer_id": number, "device_count": options.devices, "device_list": devices})
    write_text(path, json.dumps({"moe_layer_count": len(layers), "layer_list": layers}) + "\n")
    return (path,)


def place(load: npt.NDArray[np.float64], devices: int, redundant: int) -> list[list[int]]:
    """Experts of each device, ascending; the module's docstring states the rule.

    Args:
        load: f64 ``[experts]``, the load of each expert.
        devices: number of devices; each holds ``(experts + redundant) / devices`` experts.
        redundant: number of replicas beyond the first of each expert, at most ``experts · (devices − 1)``.
    """
    replicas = np.ones(len(load), np.int64)
    for _ in range(redundant):
        shared = np.where(replicas < devices, load / replicas, -1.0)
        replicas[int(shared.argmax())] += 1
    share = load / replicas
    room = np.full(devices, (len(load) + redundant) // devices)
    total = np.zeros(devices)
    held: list[list[int]] = [[] for _ in range(devices)]
    # Experts with several replicas go first and where the most room is, so that no device needs an expert twice.
    for expert in sorted(range(len(load)), key=lambda e: (replicas[e] == 1, -share[e], e)):
        alone = replicas[expert] == 1
        free = sorted(np.flatnonzero(room).tolist(), key=lambda d: (0 if alone else -room[d], total[d], d))
        for device in free[: replicas[expert]]:
            held[device].append(expert)
            total[device] += share[expert]
            room[device] -= 1
    return [sorted(experts) for experts in held]


def lost(source: Source, path: Path, options: ExportOptions) -> tuple[str, ...]:
    """Everything except the number of experts: a placement does not show the loads behind it."""
    return lost_but(source, "experts")


EXPORTER = Exporter(
    NAME,
    "vLLM-Ascend's expert_map_path: experts placed on devices by load",
    (".json",),
    check,
    write,
    lost,
    uses=frozenset({"devices", "redundant"}),
    takes_loads=True,
)
