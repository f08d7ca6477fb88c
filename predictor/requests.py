"""Check the request for an evaluation before anything is profiled or scored."""

from collections.abc import Sequence
from pathlib import Path

from predictor import registry
from predictor.base import check_lookahead
from predictor.measure.ranking import check_limit
from traces import RoutingTrace


def check_request(
    trace: RoutingTrace, predictors: Sequence[str | Path], *, limits: Sequence[int], lookahead: int | None
) -> None:
    """Refuse limits, a lookahead or predictors that do not fit ``trace``, before the first predictor is measured.

    Args:
        trace: the trace to evaluate on.
        predictors: names of kinds, or files.
        limits: issue limits.
        lookahead: layers ahead; ``None``: a file's own, 1 for a kind.

    Raises:
        ForestageError: naming the limit, the lookahead, the kind or the file.
    """
    for name in predictors:
        if registry.is_saved(name):
            registry.load_or_fit(name, trace, lookahead=lookahead).check_trace(trace)
        else:
            registry.profiled_kind(str(name))
            check_lookahead(1 if lookahead is None else lookahead, trace.layers)
    for limit in limits:
        check_limit(limit, trace.experts)
