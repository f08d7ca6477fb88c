"""Bytes moved for the experts that a predictor issues, at the size of the model's experts.

No expert is assumed to be resident: every issued expert is one transfer. ``staging`` and ``perfmodel`` compute what a
cache saves; here only the predictions count, and how many of them were wasted.
"""

from catalog.catalogue import load_catalog
from catalog.errors import ForestageError
from predictor.base import BatchPredictor
from predictor.measure.bootstrap import Bootstrap, interval
from predictor.measure.metrics import Ratio, Tally, issued_per_layer, wasted_per_layer
from predictor.measure.results import ByLimit, Document, IntervalByLimit, by_limit, intervals_by_limit
from traces import RoutingTrace


class ExpertSize(Document):
    """Bytes of one routed expert (weights, scales, biases; ``None``: not known), and the source of the figure."""

    expert_bytes: int | None
    source: str


class Traffic(Document):
    """Bytes per token over the layers ≥ lookahead, by limit; ``None`` if the size of an expert is not known.

    Attributes:
        size: size of an expert.
        layers: number of layers predicted for a token.
        moved_bytes_per_token: issued experts × their bytes.
        wasted_bytes_per_token: the part of these bytes for experts that were not needed.
        predictor_bytes_per_token: bytes that the predictor itself reads from and writes to far memory, whatever it
            issues; not part of the bytes moved; ``None`` if a file of predictions does not state them.
        moved_intervals, wasted_intervals: 95 % bootstrap intervals over sequences.
    """

    size: ExpertSize
    layers: int
    moved_bytes_per_token: ByLimit
    wasted_bytes_per_token: ByLimit
    predictor_bytes_per_token: int | None
    moved_intervals: IntervalByLimit
    wasted_intervals: IntervalByLimit


def expert_size(trace: RoutingTrace, given_bytes: int | None = None) -> ExpertSize:
    """``given_bytes`` if given, else the size in the catalogue's record of the trace's model.

    Raises:
        ForestageError: if ``given_bytes`` is not positive.
    """
    if given_bytes is not None:
        if given_bytes < 1:
            raise ForestageError(f"expert_bytes: {given_bytes} is no size of an expert; give at least 1")
        return ExpertSize(expert_bytes=given_bytes, source="given")
    record = load_catalog().match_model(trace.metadata.model)
    if record is None:
        return ExpertSize(expert_bytes=None, source=f"the catalogue has no model '{trace.metadata.model}'")
    return ExpertSize(expert_bytes=record.expert_bytes, source=f"catalogue model {record.name}")


def traffic(
    overall: Tally, predictor: BatchPredictor, size: ExpertSize, keys: list[str], bootstrap: Bootstrap
) -> Traffic:
    """The traffic of ``overall [sequences]``, with the names ``keys`` for its limits."""
    layers = predictor.layers - predictor.lookahead
    moved, wasted = issued_per_layer(overall), wasted_per_layer(overall)
    scale = None if size.expert_bytes is None else size.expert_bytes * layers

    def values(ratio: Ratio) -> ByLimit:
        return dict.fromkeys(keys) if scale is None else by_limit(ratio.over(0).values() * scale, keys)

    def intervals(ratio: Ratio) -> IntervalByLimit:
        if scale is None:
            return dict.fromkeys(keys)
        low, high = interval(ratio, bootstrap)
        return intervals_by_limit(low * scale, high * scale, keys)

    return Traffic(
        size=size,
        layers=layers,
        moved_bytes_per_token=values(moved),
        wasted_bytes_per_token=values(wasted),
        predictor_bytes_per_token=predictor.far_bytes_per_token,
        moved_intervals=intervals(moved),
        wasted_intervals=intervals(wasted),
    )
