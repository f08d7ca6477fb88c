"""One expert in one memory stack, beside reading its weights over the pins and computing it on the host's processor."""

from typing import Any

from catalog import DramRecord, ModelRecord, load_catalog
from catalog.errors import SettingError
from pim_model.dram.devices import find_device, pim_blocks
from pim_model.dram.expert_stream import StreamResult, stream
from pim_model.energy import DEFAULT_ENERGY, Energy, energy_of, find_energy, stream_energy
from pim_model.gemv.expert import ExpertShape, run_expert
from pim_model.gemv.product import Kernel, product
from pim_model.unit.program import WeightFormat

TOKENS_SEARCHED = 64
"""Up to how many tokens the point is sought from which on reading over the pins is faster."""


def expert_in_memory(
    model: str | ModelRecord,
    device_name: str,
    weight_format: WeightFormat | None = None,
    tokens: int = 1,
    *,
    refresh: bool = True,
    energy: str = DEFAULT_ENERGY,
) -> dict[str, Any]:
    """Clocks, time, bandwidth and energy of one expert, three ways, each with its bound.

    * *in memory*: `pim_model.gemv.expert`;
    * *over the pins*: a device beside the stack reads the same bytes; what it computes meanwhile is free;
    * *host*: each host memory of the catalogue, whose processor reads the expert once for all tokens: the larger of
      the bytes at its usable bandwidth and the operations at its rate, and its latency there and back.

    Raises:
        ForestageError: an unknown name, or an expert that the unit cannot run.
    """
    catalog = load_catalog()
    record = catalog.find_model(model) if isinstance(model, str) else model
    device, energies = find_device(device_name), find_energy(energy)
    shape = ExpertShape.of(record)
    chosen = format_of(record) if weight_format is None else weight_format
    run = run_expert(device, shape, chosen, tokens, refresh=refresh)
    spent = energy_of(run.events, energies)
    size = run.weight_bytes
    pins = _over_pins(device, shape, chosen)
    pins_s = pins.time_ns * 1e-9
    pins_energy = stream_energy(pins, device, energies)
    peak_s = size / (device.stack_gb_per_s * 1e9)
    flops = 2 * 3 * shape.hidden * shape.intermediate * tokens
    host = []
    for memory in catalog.host_memories:
        compute_s = max(size / memory.usable_bytes_per_s, flops / (memory.compute_tflops * 1e12))
        time_s = compute_s + 2e-6 * memory.latency_us
        host.append(
            {
                "name": f"host {memory.name}",
                "time_s": time_s,
                "gb_per_s": size / time_s / 1e9,
                "bound": {"time_s": size / (memory.memory_gb_per_s * 1e9)},
                "energy_j": None,
            }
        )
    return {
        "model": record.name,
        "device": device.name,
        "format": chosen.name.lower(),
        "tokens": tokens,
        "refresh": refresh,
        "weight_bytes": size,
        "energy": energies.name,
        "in_memory": {
            "name": "in memory",
            "pseudo_channels": run.pseudo_channels,
            "slices": [{"intermediate": part, "pseudo_channels": number} for part, number in run.slices.items()],
            "weight_reads": run.weight_reads,
            "cycles": run.cycles,
            "input_cycles": run.input_cycles,
            "compute_cycles": run.compute_cycles,
            "readout_cycles": run.readout_cycles,
            "output_cycles": run.output_cycles,
            "time_s": run.time_s,
            "gb_per_s": run.gb_per_s,
            "fraction_of_limit": run.fraction_of_limit,
            "bound_fraction": run.bound_fraction,
            **_energy(spent),
            "bound": {
                "name": "  its bound",
                "time_s": run.bound_s,
                "gb_per_s": size * run.weight_reads / run.bound_s / 1e9,
            },
        },
        "over_pins": {
            "name": "over the pins",
            "time_s": pins_s,
            "gb_per_s": size / pins_s / 1e9,
            **_energy(pins_energy, device.pseudo_channels),
            "bound": {"name": "  the pins' peak", "time_s": peak_s, "gb_per_s": device.stack_gb_per_s},
        },
        "host": host,
        "slower_than_pins_from_tokens": _slower_from(device, shape, chosen, refresh, pins_s),
        "tokens_searched": TOKENS_SEARCHED,
    }


def _energy(energy: Energy, times: int = 1) -> dict[str, Any]:
    """Energy in J, ``times`` over, and by part."""
    return {
        "energy_j": 1e-12 * times * energy.total_pj,
        "energy_parts_j": {part: 1e-12 * times * pj for part, pj in energy.parts_pj.items()},
        "energy_not_counted": list(energy.not_counted),
        "energy_assumptions": list(energy.assumptions),
    }


def format_of(record: ModelRecord) -> WeightFormat:
    """The unit's format for a model's weights.

    Raises:
        ForestageError: if it has none.
    """
    known = {known.name.lower(): known for known in WeightFormat}
    if record.expert_weight_format not in known:
        raise SettingError(
            "weight_format",
            f"{record.name} has {record.expert_weight_format} weights, which the PIM unit has not; choose one of "
            f"{', '.join(known)}",
            message=f"model {record.name}: expert_weight_format: {record.expert_weight_format} weights, which the PIM "
            f"unit has not; give --format, one of {', '.join(known)}",
        )
    return known[record.expert_weight_format]


def _over_pins(device: DramRecord, shape: ExpertShape, weight_format: WeightFormat) -> StreamResult:
    """A pseudo-channel's share of the expert's weights, read over its pins."""
    return stream(device, -(-shape.weight_bytes(weight_format) // device.pseudo_channels))


def _slower_from(
    device: DramRecord, shape: ExpertShape, weight_format: WeightFormat, refresh: bool, pins_s: float
) -> int | None:
    """The least number of tokens with which the expert takes longer in memory than its weights over the pins."""
    for tokens in range(1, TOKENS_SEARCHED + 1):
        if run_expert(device, shape, weight_format, tokens, refresh=refresh).time_s > pins_s:
            return tokens
    return None


def roofline(model: str | ModelRecord, device_name: str, tokens: tuple[int, ...] = (1, 2, 4, 8, 16)) -> dict[str, Any]:
    """Rates of one expert in one stack over operations per byte of its weights, and the stack's limits.

    Rates are of the whole expert: input, computation, readout, output, with refresh. ``published`` is the published
    part's kernel on the same number of operations, as one matrix a pseudo-channel, without input and output.

    Raises:
        ForestageError: as ``expert_in_memory``.
    """
    record = load_catalog().find_model(model) if isinstance(model, str) else model
    device, shape = find_device(device_name), ExpertShape.of(record)
    blocks = pim_blocks(device)
    operations = 2 * 3 * shape.hidden * shape.intermediate
    points = []
    for weight_format in WeightFormat:
        for number in tokens:
            run = run_expert(device, shape, weight_format, number)
            points.append(
                {
                    "format": weight_format.name.lower(),
                    "tokens": number,
                    "weight_reads": run.weight_reads,
                    "operations_per_byte": operations * number / run.weight_bytes,
                    "gop_per_s": operations * number / run.time_s / 1e9,
                }
            )
    published = []
    for number in tokens:
        result = product(
            device,
            Kernel.SAMSUNG,
            out_features=3 * shape.intermediate,
            in_features=shape.hidden,
            pseudo_channels=device.pseudo_channels,
            tokens=number,
            refresh=True,
        )
        # Of its mean over the beginnings in tREFI.
        time_s = result.compute_cycles * result.fraction_of_limit / result.mean_fraction_of_limit * device.tck_ns * 1e-9
        published.append(
            {
                "tokens": number,
                "operations_per_byte": operations * number / result.weight_bytes,
                "gop_per_s": operations * number / time_s / 1e9,
            }
        )
    lanes = 16 * blocks.blocks * device.pseudo_channels
    return {
        "model": record.name,
        "device": device.name,
        "published_part": device.name == "HBM2-PIM",
        "pins_gb_per_s": device.stack_gb_per_s,
        "limit_gb_per_s": blocks.bytes_per_ck * device.pseudo_channels / device.tck_ns,
        "peak_gop_per_s": 2 * lanes / device.tck_ns,
        "points": points,
        "published": published,
        "slower_from_tokens": {
            known.name.lower(): _slower_from(
                device, shape, known, True, 1e-9 * _over_pins(device, shape, known).time_ns
            )
            for known in WeightFormat
        },
    }
