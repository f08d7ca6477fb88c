"""The figures transferred from a recorded trace to a synthetic one, and how they scale with the shape."""

from dataclasses import dataclass, replace

import numpy as np

from catalog.errors import ForestageError
from traces.synthesis.measure import Figures, Floats, Measurement
from traces.trace import RoutingTrace

MOST_EXPERTS = 4096
"""Most experts: pairs of adjacent layers are counted in matrices of experts × experts."""

MOST_LAYERS = 1024

MOST_PAIR_BYTES = 1 << 30
"""Most bytes for the counts of pairs: 8 × layers × experts²."""

REACHABLE_OVERLAP = 0.95
"""Largest overlap, as a share of a token's experts; more would leave no room for the other figures."""


@dataclass(frozen=True)
class Shape:
    """Number of layers, of experts per layer, and of experts that a token uses."""

    layers: int
    experts: int
    top_k: int

    def check(self) -> None:
        """Raise unless a trace of this shape can be made.

        Raises:
            ForestageError: naming the option.
        """
        if not 1 <= self.layers <= MOST_LAYERS:
            raise ForestageError(f"--layers {self.layers}: give 1 to {MOST_LAYERS}")
        if self.top_k < 1:
            raise ForestageError(f"--top-k {self.top_k}: give 1 or more")
        if not self.top_k < self.experts <= MOST_EXPERTS:
            raise ForestageError(
                f"--experts {self.experts}: give more than the {self.top_k} that a token chooses, and at most "
                f"{MOST_EXPERTS}"
            )
        most = MOST_PAIR_BYTES // (8 * self.experts**2)
        if self.layers > most:
            raise ForestageError(
                f"--layers {self.layers}: with {self.experts} experts a layer, at most {most}: pairs of experts of "
                "adjacent layers are counted"
            )


@dataclass(frozen=True, eq=False)
class Profile:
    """Targets of a synthetic trace of one shape.

    Attributes:
        shape: shape of the synthetic trace.
        figures: targets by layer; the loads ascend.
    """

    shape: Shape
    figures: Figures


def profile_of(trace: RoutingTrace) -> Profile:
    """The profile of ``trace``, at its own shape.

    Raises:
        ForestageError: if every token chooses every expert, or the trace is invalid.
    """
    shape = Shape(trace.layers, trace.experts, trace.top_k)
    if shape.experts == shape.top_k:
        raise ForestageError(
            f"{trace.origin}: top-{shape.top_k} of {shape.experts} experts leaves no choice to imitate"
        )
    figures = Measurement.of(trace).figures()
    return Profile(shape, replace(figures, load=np.sort(figures.load, axis=1)))


def rescale(profile: Profile, shape: Shape) -> Profile:
    """The profile of the same trace at another shape.

    * Layers: layer l of L takes the figures at depth l/(L − 1), by linear interpolation; layer pairs likewise.
    * Experts: the expert of rank r takes the relative load (load / mean) at the same quantile. This keeps, but for
      interpolation, the hottest expert's relative load and log N minus the entropy.
    * Overlaps stay in units of K²/N, mutual information in units of log₂(N/K).

    Raises:
        ForestageError: if the shape cannot be made, or the overlap exceeds the experts that its tokens use.
    """
    shape.check()
    if shape == profile.shape:
        return profile
    old = profile.figures
    load = _resample(_by_depth(old.load, shape.layers), shape.experts)
    load = np.minimum(load, REACHABLE_OVERLAP * shape.experts / shape.top_k)  # a token chooses an expert at most once
    load *= shape.experts / load.sum(axis=1, keepdims=True)
    figures = Figures(
        load=load,
        temporal_overlap=_by_depth(old.temporal_overlap, shape.layers),
        sequence_overlap=_by_depth(old.sequence_overlap, shape.layers),
        domain_overlap=_by_depth(old.domain_overlap, shape.layers),
        mutual_information=_by_depth(old.mutual_information, shape.layers - 1),
    )
    kept = float(np.nanmax(figures.temporal_overlap, initial=0.0)) * shape.top_k / shape.experts
    if kept > REACHABLE_OVERLAP:
        raise ForestageError(
            f"--experts {shape.experts}: with top-{shape.top_k} the overlap of consecutive tokens would have to be "
            f"{kept * shape.top_k:.1f} of {shape.top_k} experts; give more experts or a smaller --top-k"
        )
    return Profile(shape, figures)


def _by_depth(values: Floats, layers: int) -> Floats:
    """``values [layers, …]`` interpolated at the relative depths of another number of layers (0 from none)."""
    if len(values) == 0:
        return np.zeros((max(layers, 0), *values.shape[1:]))
    depth = np.linspace(0, len(values) - 1, layers) if layers > 1 else np.full(max(layers, 0), (len(values) - 1) / 2)
    low = np.floor(depth).astype(int)
    high = np.minimum(low + 1, len(values) - 1)
    part = (depth - low).reshape(-1, *[1] * (values.ndim - 1))
    # Where the depth is whole, the upper neighbour has no weight, even if it is NaN.
    return np.where(part > 0, (1 - part) * values[low] + part * values[high], values[low])


def _resample(rows: Floats, points: int) -> Floats:
    """Ascending ``rows [rows, n]`` interpolated at the mid-quantiles of ``points`` points: ``[rows, points]``."""
    old = (np.arange(rows.shape[1]) + 0.5) / rows.shape[1]
    new = (np.arange(points) + 0.5) / points
    return np.stack([np.interp(new, old, row) for row in rows])
