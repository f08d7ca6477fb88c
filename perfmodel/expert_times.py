"""One expert by the number of tokens that chose it: in memory, on the device, fetched, and on the host's processor."""

import numpy as np
from numpy.typing import NDArray

from catalog.catalogue import Catalog, load_catalog
from perfmodel.config import SimulationConfig
from perfmodel.costs import BF16_BYTES, CostModel
from perfmodel.durations import durations, transfer_ps
from perfmodel.host import host_of
from perfmodel.in_memory import ExpertMemory
from perfmodel.in_memory_config import InMemory
from perfmodel.results import Result
from perfmodel.units import PS_PER_S
from predictor.policies.plan import Missing

MOST_TOKENS = 4096
"""Up to which a rival is looked for."""

SHOWN = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class ExpertTime(Result):
    """Seconds of an expert that ``tokens`` tokens chose, from the gate to its result on the device.

    Attributes:
        tokens: that chose it.
        in_memory_s: alone in memory: inputs and latency there, the unit's passes, partial outputs and latency back.
        in_memory_more_s: what one more expert adds to a layer while every group of the memory is busy.
        resident_s: on the device, its weights there.
        fetched_s: fetched from that memory, and computed on the device.
        host_fetched_s: likewise from the host's memory, over the host link.
        host_s: by the host's processor; ``None``: not known.
    """

    tokens: int
    in_memory_s: float
    in_memory_more_s: float
    resident_s: float
    fetched_s: float
    host_fetched_s: float
    host_s: float | None


class Lost(Result):
    """From how many tokens on an expert in memory is slower than elsewhere; ``None``: at none up to `MOST_TOKENS`.

    Attributes:
        to_resident, to_fetched, to_host_fetched, to_host: than an `ExpertTime` of that name, alone in memory;
            ``to_host`` is also ``None`` where the host is not known.
        more_to_resident: than on the device, where every group of the memory is busy.
    """

    to_resident: int | None
    to_fetched: int | None
    to_host_fetched: int | None
    to_host: int | None
    more_to_resident: int | None


class ExpertTimes(Result):
    """See the module's description.

    Attributes:
        model, machine: whose expert, beside which device.
        in_memory: the memory.
        weight_format, tokens_per_read: of its unit.
        pseudo_channels, groups: of an expert, and of the memory.
        slice_rows: intermediate rows of the largest slice.
        pass_s: of a pass of 1 … ``tokens_per_read`` tokens.
        expert_bytes, stored_expert_bytes: of the model's format, and what an expert takes in memory.
        link_gb_per_s: between memory and device.
        times: at the tokens that were asked for.
        lost: see `Lost`.
    """

    model: str
    machine: str
    in_memory: InMemory
    weight_format: str
    tokens_per_read: int
    pseudo_channels: int
    groups: int
    slice_rows: int
    pass_s: list[float]
    expert_bytes: int
    stored_expert_bytes: int
    link_gb_per_s: float
    times: list[ExpertTime]
    lost: Lost


def expert_times(
    model: str, config: SimulationConfig, *, tokens: tuple[int, ...] = SHOWN, catalog: Catalog | None = None
) -> ExpertTimes:
    """The times of one expert of ``model`` under ``config``.

    Args:
        model: its name in the catalogue.
        config: machine, link, host, and the memory (``in_memory``, which must be given).
        tokens: that are shown, each 1 to `MOST_TOKENS`.
        catalog: the shipped one by default.

    Raises:
        ForestageError: where model, machine and memory do not fit each other.
    """
    assert config.in_memory is not None, "a memory is given"
    catalog = load_catalog() if catalog is None else catalog
    costs = CostModel(catalog.find_model(model), catalog.machines.find(config.machine), config.link_gb_per_s)
    memory = ExpertMemory.of(config.in_memory, costs, catalog)
    host = host_of(config, costs.machine, catalog)
    known = host is not None and host.flops_per_s is not None
    takes = durations(
        costs, config, most_tokens=MOST_TOKENS, largest_step=1,
        missing=Missing.HOST if known else Missing.FETCH, catalog=catalog,
    )  # fmt: skip
    counts = np.arange(1, MOST_TOKENS + 1)
    latency_ps = config.in_memory.latency_us * 1e6
    passes_ps = np.array([memory.expert_ps(n) for n in counts.tolist()])
    inputs_ps = np.array([memory.input_ps(n) for n in counts.tolist()])
    resident_ps = takes.expert_ps[1:]
    of: dict[str, NDArray[np.float64]] = {
        "in_memory_s": (2 * latency_ps + inputs_ps + passes_ps + counts * memory.output_ps()) / PS_PER_S,
        "in_memory_more_s": (passes_ps / memory.groups + counts * memory.output_ps()) / PS_PER_S,
        "resident_s": resident_ps / PS_PER_S,
        "fetched_s": (transfer_ps(costs.expert_bytes, memory.link_bytes_per_s) + resident_ps) / PS_PER_S,
        "host_fetched_s": (int(takes.chunk_ps[-1]) + resident_ps) / PS_PER_S,
    }
    if known:
        assert host is not None, "it is known"
        vector_ps = costs.model.hidden * BF16_BYTES * PS_PER_S / costs.link_bytes_per_s
        work_ps = takes.host_work / takes.host_free_rate[1:]
        of["host_s"] = (2 * (host.latency_ps + counts * vector_ps) + work_ps) / PS_PER_S
    return ExpertTimes(
        model=costs.model.name,
        machine=costs.machine.name,
        in_memory=config.in_memory,
        weight_format=memory.weight_format.name.lower(),
        tokens_per_read=memory.tokens_per_read,
        pseudo_channels=memory.pseudo_channels,
        groups=memory.groups,
        slice_rows=memory.slice_rows,
        pass_s=[memory.expert_ps(n) / PS_PER_S for n in range(1, memory.tokens_per_read + 1)],
        expert_bytes=costs.expert_bytes,
        stored_expert_bytes=memory.stored_expert_bytes,
        link_gb_per_s=memory.link_bytes_per_s / 1e9,
        times=[
            ExpertTime.model_validate(
                {"tokens": n, "host_s": None, **{name: float(at[n - 1]) for name, at in of.items()}}
            )
            for n in tokens
        ],
        lost=Lost(
            to_resident=_lost(of["in_memory_s"], of["resident_s"]),
            to_fetched=_lost(of["in_memory_s"], of["fetched_s"]),
            to_host_fetched=_lost(of["in_memory_s"], of["host_fetched_s"]),
            to_host=_lost(of["in_memory_s"], of["host_s"]) if known else None,
            more_to_resident=_lost(of["in_memory_more_s"], of["resident_s"]),
        ),
    )


def _lost(own: NDArray[np.float64], other: NDArray[np.float64]) -> int | None:
    """The least number of tokens from which on ``own`` is slower, at every number up to the most."""
    keeps_up = np.flatnonzero(own <= other)
    if not len(keeps_up):
        return 1
    first = int(keeps_up[-1]) + 2
    return first if first <= len(own) else None
