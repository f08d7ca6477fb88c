"""Names of predictors → their kinds."""

from typing import Any

from catalog.errors import unknown_name
from predictor.base import Predictor
from predictor.markov import SpatialMarkovPredictor, TemporalMarkovPredictor
from predictor.popularity import PopularityPredictor
from predictor.previous_token import PreviousTokenPredictor
from predictor.st_moe import StMoePredictor
from traces import RoutingTrace

_KINDS: dict[str, type[Predictor]] = {
    kind.name: kind
    for kind in (
        PopularityPredictor,
        PreviousTokenPredictor,
        SpatialMarkovPredictor,
        TemporalMarkovPredictor,
        StMoePredictor,
    )
}


def names() -> tuple[str, ...]:
    """Names of all kinds, in the order in which reports list them."""
    return tuple(_KINDS)


def kind(name: str) -> type[Predictor]:
    """The class of the predictor called ``name``.

    Raises:
        ForestageError: naming the nearest known name.
    """
    if name not in _KINDS:
        raise unknown_name("predictor", name, _KINDS)
    return _KINDS[name]


def fit(name: str, trace: RoutingTrace, *, lookahead: int = 1, parameters: dict[str, Any] | None = None) -> Predictor:
    """Fit the predictor called ``name`` to a training trace.

    Raises:
        ForestageError: for an unknown name or parameter (the nearest known one is named), or a value out of range.
    """
    chosen = kind(name)
    # Refused here with one line, before the profile is computed.
    chosen.parameters_model.parse(parameters or {}, origin=f"predictor '{name}'")
    return chosen.fit(trace, lookahead=lookahead, **(parameters or {}))


def resolved_parameters(name: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    """``parameters`` with the kind's defaults filled in, as JSON values.

    Raises:
        ForestageError: as ``fit``.
    """
    model = kind(name).parameters_model.parse(parameters or {}, origin=f"predictor '{name}'")
    return model.model_dump(mode="json")
