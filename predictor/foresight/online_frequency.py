"""The decayed use counters while a model runs."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from predictor.base import ExpertIds
from predictor.foresight.online import Gates, Prediction
from staging.frequency import COUNTER_BITS, DEFAULT_SHIFT, DecayedCounters


class FrequencyValues:
    """`frequency_values.decayed_frequency` of single requests: counters live on from sequence to sequence.

    A pass's gate is one event of its distinct experts, whose counters are known at once.

    Args:
        layers, experts: of the model.
        shift: of the decay.

    Raises:
        SettingError: for a shift outside the counters' range.
    """

    most = (1 << COUNTER_BITS) - 1
    values_after_pass = False

    def __init__(self, layers: int, experts: int, shift: int = DEFAULT_SHIFT) -> None:
        self._counters = DecayedCounters(layers, experts, shift)
        self._gates = Gates(layers)

    def start_sequence(self) -> None:
        """See `online.OnlineForesight`."""
        self._gates.forget()

    def start_token(self, identity: int | None) -> Sequence[Prediction]:
        """See `online.OnlineForesight`."""
        self._gates.begin()
        return ()

    def observe(self, layer: int, ids: ExpertIds | None) -> None:
        """See `online.OnlineForesight`."""
        self._gates.pass_by(layer)
        if ids is not None:
            self._counters.observe(layer, ids)

    def values(self, layer: int) -> NDArray[np.int32] | None:
        """See `online.OnlineForesight`."""
        return self._counters.values[layer]

    def predictions(self, layer: int) -> Sequence[Prediction]:
        """See `online.OnlineForesight`."""
        return ()

    def start_pass(self, identities: NDArray[np.int64] | None, tokens: int) -> None:
        """See `online.OnlineForesight`."""
        self._gates.begin()

    def observe_pass(self, layer: int, ids: ExpertIds, recorded: NDArray[np.bool_] | None = None) -> None:
        """See `online.OnlineForesight`."""
        self._gates.pass_by(layer)
        distinct = np.unique(ids if recorded is None else ids[recorded])
        if len(distinct):
            self._counters.observe(layer, distinct)

    def end_pass(self) -> None:
        """See `online.OnlineForesight`."""
        self._gates.end()
