"""The host's processor and memory, as a configuration and the catalogue give them."""

from dataclasses import dataclass

from catalog.errors import ForestageError
from catalog.machines import MachineRecord
from perfmodel.config import SimulationConfig
from perfmodel.tasks import PS_PER_S

PS_PER_US = PS_PER_S // 10**6


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


def host_of(config: SimulationConfig, machine: MachineRecord) -> Host | None:
    """The host of ``machine`` under ``config``; ``None`` where neither says anything of its memory."""
    if config.host_gb_per_s is None:
        return None
    return Host(
        bytes_per_s=round(config.host_gb_per_s * 1e9),
        flops_per_s=None if config.host_tflops is None else round(config.host_tflops * 1e12),
        latency_ps=round(config.host_latency_us * PS_PER_US),
    )


def computing_host(host: Host | None, machine: MachineRecord) -> tuple[Host, int]:
    """The host and its operations a second, where it is to compute.

    Raises:
        ForestageError: if its memory or its arithmetic is not known.
    """
    if host is None:
        raise ForestageError(
            f"machine {machine.name}: host_memory: not in the catalogue, so its host cannot compute; give "
            "host_gb_per_s and host_tflops"
        )
    if host.flops_per_s is None:
        raise ForestageError(
            f"machine {machine.name}: host_tflops: not known, so its host cannot compute; give host_tflops"
        )
    return host, host.flops_per_s
