"""The machine of a study: its host where the catalogue knows none, and the configuration of each point."""

from catalog import load_catalog
from perfmodel.comparison import Comparison
from perfmodel.config import SimulationConfig
from perfmodel.host import Host, host_of
from study.stages import StudyContext

DESKTOP = {"host_gb_per_s": 76.0, "host_tflops": 1.0}
"""Host where neither the settings nor the catalogue know one (assumption: a desktop's two channels of DDR5-5600 at
85 % of their peak, and half the FP32 peak of its cores)."""


def shares_of(context: StudyContext) -> list[float]:
    """Shares held, ascending, with the one that is shown in detail."""
    settings = context.config.system
    return sorted({*settings.capacity_fractions, settings.capacity_fraction})


def host_settings(context: StudyContext) -> dict[str, float]:
    """What the configuration must say of the host: the study's settings; a desktop's figures where nothing is known."""
    settings = context.config.system
    named = {name: getattr(settings, name) for name in DESKTOP if getattr(settings, name) is not None}
    machine = load_catalog().machines.find(settings.machine)
    host = host_of(SimulationConfig(machine=settings.machine, **named), machine)
    if host is None:
        return {**DESKTOP, **named}
    return named if host.flops_per_s is not None else {"host_tflops": DESKTOP["host_tflops"], **named}


def assumed(context: StudyContext) -> list[str]:
    """Names of the settings of the host that are a desktop's because nobody says them."""
    return [name for name in host_settings(context) if getattr(context.config.system, name) is None]


def simulation_config(
    context: StudyContext, share: float, *, link_gb_per_s: float | None = None, host_gb_per_s: float | None = None
) -> SimulationConfig:
    """One point: ``share`` of all experts held, with the machine's link and host memory or others."""
    settings = context.config.system
    given = {
        "sizes_of": settings.sizes_of,
        "machine": settings.machine,
        "scope": "global",
        "capacity_fraction": share,
        "link_gb_per_s": link_gb_per_s,
        **host_settings(context),
    }
    if host_gb_per_s is not None:
        given["host_gb_per_s"] = host_gb_per_s
    return SimulationConfig.parse_settings(given, origin="study configuration: system")


def link_of(point: Comparison) -> float:
    """Bandwidth of the point's host link, GB/s."""
    return point.link_gb_per_s


def host_at(point: Comparison) -> Host | None:
    """The point's host; ``None`` where nothing is known of it."""
    return host_of(point.config, load_catalog().machines.find(point.config.machine))


def host_memory_of(point: Comparison) -> float:
    """Bandwidth of the host's memory, GB/s, which a study always knows."""
    host = host_at(point)
    assert host is not None, "a study takes a desktop's where nothing is known"
    return host.bytes_per_s / 1e9
