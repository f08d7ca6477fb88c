"""The host's processor and memory, as a configuration and the catalogue give them."""

from dataclasses import dataclass

from catalog.catalogue import Catalog, load_catalog
from catalog.errors import ForestageError
from catalog.machines import MachineRecord
from perfmodel.config import SimulationConfig
from perfmodel.units import PS_PER_US


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What computes an expert where it lies.

    Attributes:
        bytes_per_s: bandwidth of its memory that can be used, by the processor and the link together.
        flops_per_s: arithmetic that its processor reaches, two operations a multiply-add; ``None``: not known, so that
            it cannot be asked to compute.
        latency_ps: one way between the device and the processor.
    """

    bytes_per_s: int
    flops_per_s: int | None
    latency_ps: int


def host_of(config: SimulationConfig, machine: MachineRecord, catalog: Catalog | None = None) -> Host | None:
    """The host of ``machine`` under ``config``; ``None`` where neither says anything of its memory's bandwidth.

    Raises:
        ForestageError: if the catalogue (the shipped one by default) has no host memory of the name.
    """
    name = config.host_memory or machine.host_memory
    record = None if name is None else (load_catalog() if catalog is None else catalog).host_memories.find(name)
    if config.host_gb_per_s is not None:
        bytes_per_s = round(config.host_gb_per_s * 1e9)
    elif record is not None:
        bytes_per_s = record.usable_bytes_per_s
    else:
        return None
    tflops = config.host_tflops if record is None or config.host_tflops is not None else record.compute_tflops
    latency_us = config.host_latency_us
    if latency_us is None:
        latency_us = 0.0 if record is None else record.latency_us
    return Host(
        bytes_per_s=bytes_per_s,
        flops_per_s=None if tflops is None else round(tflops * 1e12),
        latency_ps=round(latency_us * PS_PER_US),
    )


def computing_host(host: Host | None, machine: MachineRecord) -> tuple[Host, int]:
    """The host and its operations a second, where it is to compute.

    Raises:
        ForestageError: if its memory or its arithmetic is not known.
    """
    if host is None:
        raise ForestageError(
            f"machine {machine.name}: host_memory: not in the catalogue, so its host cannot compute; give "
            "host_memory, or host_gb_per_s and host_tflops"
        )
    if host.flops_per_s is None:
        raise ForestageError(
            f"machine {machine.name}: host_tflops: not known, so its host cannot compute; give host_tflops"
        )
    return host, host.flops_per_s
