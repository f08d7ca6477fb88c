"""Stream an expert's weights out of memory: over the pins to a host, or to compute at the banks."""

from typing import Any

from catalog import load_catalog
from catalog.progress import Progress
from pim_model.dram.devices import Access, find_device
from pim_model.dram.expert_stream import slice_bytes, stream
from pim_model.energy import find_energy, stream_energy
from study import needs
from study.blocks import Command, Section, Table, Text, rows
from study.numbers import count, percent, size
from study.stages import Stage, StudyContext
from study.subjects.base import Subject

TITLE = "Streaming an expert's weights"

READS = (Access.HOST_READ, Access.IN_BANK)


def run(context: StudyContext, progress: Progress) -> dict[str, Any]:
    """Stream one expert over all pseudo-channels of one stack, for every device and each of its ways of reading."""
    sizes_of = context.config.system.sizes_of
    assert sizes_of is not None, "left out without"
    return stream_expert(sizes_of)


def stream_expert(model: str) -> dict[str, Any]:
    """Cycles, rate and energy of one expert of catalogue model ``model`` from one stack of every device.

    The expert is split evenly over the stack's pseudo-channels; each is scheduled command by command.

    Raises:
        ForestageError: if the catalogue has no such model.
    """
    catalog = load_catalog()
    record, energy = catalog.find_model(model), find_energy()
    streams = []
    for device_record in catalog.dram:
        device = find_device(device_record.name)
        for access in READS:
            if access is Access.IN_BANK and device.pim is None:
                continue
            channels = device.pseudo_channels
            one = stream(device, slice_bytes(record.expert_bytes, channels), access)
            cost = stream_energy(one, device, energy)
            streams.append(
                {
                    "device": device.name,
                    "access": access.value,
                    "pseudo_channels": channels,
                    "cycles_ck": one.cycles_ck,
                    "time_s": one.time_ns * 1e-9,
                    "gb_per_s": one.gb_per_s * channels,
                    "efficiency": one.efficiency,
                    "energy_j": cost.total_pj * channels * 1e-12,
                    "energy_not_counted": list(cost.not_counted),
                }
            )
    return {"model": record.name, "expert_bytes": record.expert_bytes, "energy": energy.name, "streams": streams}


def section(context: StudyContext) -> Section:
    """Show time and energy of one expert by device."""
    result = context.results["memory"]
    return Section(
        id="memory",
        title=TITLE,
        blocks=(
            Text(
                f"One expert of {result['model']} ({size(result['expert_bytes'])}) from one memory stack, split "
                "evenly over its pseudo-channels, every command scheduled under all timing constraints. Host read: "
                "over the pins; in-bank read: to compute at the banks, all in step, as HBM-PIM does (blocks on HBM3 "
                f"and later are an assumption: only the HBM2 part is in print). Energies: {result['energy']}; sources "
                "differ about threefold for in-bank access." + _not_counted(result["streams"])
            ),
            Table(
                columns=("device", "read", "pseudo-channels", "cycles", "time", "rate", "of peak", "energy"),
                rows=rows(
                    [
                        (
                            s["device"],
                            "in-bank" if s["access"] == Access.IN_BANK.value else "host",
                            count(s["pseudo_channels"]),
                            count(s["cycles_ck"]),
                            f"{1e6 * s['time_s']:.1f} µs",
                            f"{s['gb_per_s']:.0f} GB/s",
                            percent(s["efficiency"]),
                            f"{1e3 * s['energy_j']:.2f} mJ",
                        )
                        for s in result["streams"]
                    ]
                ),
                text_columns=(0, 1),
            ),
            Command(f"forestage pim expert-stream --model {result['model']}"),
        ),
    )


def _not_counted(streams: list[dict[str, Any]]) -> str:
    """What the energies leave out, as a sentence."""
    parts = {part.replace("_", " ") for one in streams for part in one["energy_not_counted"]}
    return f" That set has no figure for {', '.join(sorted(parts))}, which is not counted." if parts else ""


SUBJECT = Subject(Stage("memory", "Memory: streaming an expert", run), section, title=TITLE, lacks=needs.known_sizes)
