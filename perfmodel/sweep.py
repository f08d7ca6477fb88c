"""Policies over a grid of one or two configuration keys."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from catalog.catalogue import Catalog
from catalog.errors import ForestageError
from catalog.progress import Progress
from perfmodel.config import SimulationConfig
from perfmodel.simulate import compute_bounds, simulate
from predictor.issue import IssueSets
from traces import RoutingTrace

MOST_KEYS = 2


def sweep(
    trace: RoutingTrace,
    policies: Sequence[str],
    config: SimulationConfig,
    axes: Mapping[str, Sequence[Any]],
    *,
    issue_sets: IssueSets | None = None,
    engine_cycles: NDArray[Any] | None = None,
    progress: Progress | None = None,
    catalog: Catalog | None = None,
) -> list[dict[str, Any]]:
    """Simulate each policy at each point of the grid.

    Args:
        trace, policies, config, issue_sets, engine_cycles, catalog: as `simulate`.
        axes: one or two configuration keys → their values, in place of those in ``config``. ``lookahead`` cannot be an
            axis, since the issue sets were made for one lookahead.
        progress: called with (points done, points).

    Returns:
        One row per point, in the grid's order: the keys with their values, ``tpot_s`` (policy → mean TPOT, seconds),
        ``link_bytes`` and ``hit_rate`` (by policy), and ``bounds``.

    Raises:
        ForestageError: for no axis, more than two, an unknown key, or a value that the configuration refuses.
    """
    if not 1 <= len(axes) <= MOST_KEYS:
        raise ForestageError(f"sweep: {len(axes)} keys; vary one or two")
    if "lookahead" in axes:
        raise ForestageError("sweep: lookahead: the issue sets were made for one; simulate each with its own")
    points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    # Check every point before any of them runs.
    configs = [SimulationConfig.parse({**_without(config, axes), **point}, origin="sweep") for point in points]
    rows = []
    for number, (point, varied) in enumerate(zip(points, configs, strict=True)):
        results = {
            policy: simulate(trace, policy, varied, issue_sets=issue_sets, engine_cycles=engine_cycles, catalog=catalog)
            for policy in policies
        }
        rows.append(
            {
                **point,
                "tpot_s": {policy: result.tpot.mean_s for policy, result in results.items()},
                "link_bytes": {policy: result.bytes.total for policy, result in results.items()},
                "hit_rate": {policy: result.experts.hit_rate for policy, result in results.items()},
                "bounds": compute_bounds(
                    trace, varied, perfect=results.get("perfect_prefetch"), catalog=catalog
                ).model_dump(),
            }
        )
        if progress is not None:
            progress(number + 1, len(points))
    return rows


def _without(config: SimulationConfig, axes: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """The configuration's values; an axis that gives the capacity replaces every other way of giving it."""
    capacities = {"capacity_experts", "capacity_fraction", "capacity_gb"}
    dropped = capacities if capacities & set(axes) else set()
    return {key: value for key, value in config.model_dump().items() if key not in dropped}
