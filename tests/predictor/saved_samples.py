"""A predictor that is kept in a file, for tests of what reads such files."""

import json
from pathlib import Path
from typing import Any, ClassVar, Self

from predictor.baselines.popularity import PopularityPredictor
from predictor.baselines.profile import selection_rates
from predictor.next_layer.recipes import NextLayerConfig
from traces import RoutingTrace


class KeptPopularity(PopularityPredictor):
    """Popularity that is trained once."""

    name: ClassVar[str] = "learned"
    trained_on = "sequences of another trace"
    model = "elsewhere"

    @classmethod
    def load(cls, path: Path, lookahead: int | None = None) -> Self:
        held = json.loads(path.read_text())
        own = NextLayerConfig(nearest=held["lookahead"], farthest=held["lookahead"])
        own.check_serves(own.nearest if lookahead is None else lookahead, str(path))
        trace = RoutingTrace.load(held["trace"])
        return cls(selection_rates(trace), top_k=trace.top_k, lookahead=held["lookahead"])

    def describe(self) -> dict[str, Any]:
        return {"sram_bytes_per_layer": 123}


def keep(path: Path, trace: RoutingTrace, *, lookahead: int = 1) -> Path:
    """A file at ``path`` that ``KeptPopularity`` loads: popularity in ``trace``."""
    kept = path.with_suffix(".trace")
    trace.save(kept)
    path.write_text(json.dumps({"trace": str(kept), "lookahead": lookahead}))
    return path
