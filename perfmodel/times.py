"""A simulation's times: of the catalogue's machine, made here, or of a measured one (`perfmodel.measured`)."""

from dataclasses import dataclass

import numpy as np

from catalog.catalogue import Catalog
from perfmodel.config import SimulationConfig
from perfmodel.costs_of import resolve_costs
from perfmodel.durations import durations
from perfmodel.in_memory import in_memory_durations
from perfmodel.workload import Durations, Workload
from perfmodel.workload_of import check_times, workload
from predictor.policies.parts import Part
from predictor.policies.plan import Missing


@dataclass(frozen=True, eq=False, kw_only=True)
class Times:
    """What the engines take of one part of a trace.

    Attributes:
        workload, durations: see their classes; the latter where experts lie in the host's memory.
        in_memory: where they lie in a memory that computes; ``None``: there is none.
        model: whose sizes are used.
        link_gb_per_s: of the host link.
    """

    workload: Workload
    durations: Durations
    model: str
    link_gb_per_s: float
    in_memory: Durations | None = None


def catalogue_times(part: Part, config: SimulationConfig, *, host: bool, catalog: Catalog | None = None) -> Times:
    """The times of ``part`` on the machine of ``config``.

    Args:
        part: what is simulated.
        config: machine, link and host.
        host: whether the host may compute; then it must be known.
        catalog: the shipped one by default.

    Raises:
        ForestageError: where configuration, trace and catalogue do not fit each other.
    """
    costs, layers = resolve_costs(part.trace, config, catalog)
    engine_ps = round(config.engine_cycles * 1e3 / costs.machine.engine_clock_ghz)
    asked = np.full((len(part.steps), part.trace.layers), engine_ps, np.int64)
    work = workload(part.trace, part.steps, part.needed, costs, layers, asked)
    taken = durations(
        costs,
        config,
        most_tokens=part.most_tokens,
        largest_step=part.largest_step,
        missing=Missing.HOST if host else Missing.FETCH,
        catalog=catalog,
    )
    check_times(work, taken)
    in_memory = None
    if config.in_memory is not None:
        in_memory = in_memory_durations(
            costs,
            config,
            config.in_memory,
            most_tokens=part.most_tokens,
            largest_step=part.largest_step,
            catalog=catalog,
        )
        check_times(work, in_memory)
    return Times(
        workload=work,
        durations=taken,
        model=costs.model.name,
        link_gb_per_s=costs.link_bytes_per_s / 1e9,
        in_memory=in_memory,
    )
