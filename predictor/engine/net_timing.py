"""When the row networks answer, as their unit is specified (``predictor.row_network.cycles``), with the memory of the
text beside it.

The text takes an event as soon as it is offered, even where the net is still busy with the one before; it begins to
work on a token in the cycle after, where it has nothing else to do, and offers END ``text_cycles.cycles`` later. Here it is taken to offer all before END as fast as the
net adds it up; where the net is slower, its answer to a TOKEN comes later than said here. Answers to GATEs do not
depend on the text, but where layer 0's choice stands for identity.
"""

import numpy as np
from numpy.typing import NDArray

from predictor.engine.events import NO_ROW, Gate, Token
from predictor.engine.timing import Answered
from predictor.row_network.cycles import Item, NetCycles, NetSchedule
from predictor.row_network.text_cycles import cycles
from predictor.row_network.text_traffic import TextLimits, TextSettings, TextTraffic


class NetTiming:
    """See the module's description.

    Args:
        schedule: of the loaded programs.
        slots, layers: sequences that run together; of the model.
        limits, settings: of the memory of the text.
        latency: of the memory that it lies in.
        identity_rows: i8 ``[rows, identities, layers, hidden]``, where tokens have any.
    """

    def __init__(
        self,
        schedule: NetSchedule,
        *,
        slots: int,
        layers: int,
        limits: TextLimits,
        settings: TextSettings,
        latency: int,
        identity_rows: NDArray[np.int8] | None = None,
    ) -> None:
        self._schedule = schedule
        self._limits, self._settings, self._latency = limits, settings, latency
        self._text = TextTraffic(limits, settings, identity_rows)
        self._text_free = 0
        self._held = [[False] * layers for _ in range(slots)]

    def token(self, event: Token, now: int, offered: int) -> Answered:
        """See ``PredictorTiming``."""
        if event.starts_sequence:
            self._held[event.slot] = [False] * len(self._held[event.slot])
        row = NO_ROW if event.row is None else event.row
        work = self._text.token(event.slot, starts=event.starts_sequence, identity=event.identity, row=row)
        end = max(offered + 1, self._text_free) + cycles(work, self._limits, self._settings, self._latency)
        self._text_free = end
        text = (Item(offered=end - now),)
        return _answered(self._schedule.token(starts=event.starts_sequence, closes=event.last, text=text))

    def gate(self, event: Gate, now: int, offered: int) -> Answered:
        """See ``PredictorTiming``."""
        known, held = event.experts is not None, self._held[event.slot]
        held[event.layer] |= known
        text = None
        for work in self._text.gate(event.slot, event.layer, event.experts):
            end = max(offered + 1, self._text_free) + cycles(work, self._limits, self._settings, self._latency)
            self._text_free = end
            if event.layer == 0 and self._settings.by_routing and text is None:
                text = (Item(offered=end - now),)
        return _answered(
            self._schedule.gate(event.layer, known=known, held=held[event.layer], closes=event.last, text=text)
        )


def _answered(cycles: NetCycles) -> Answered:
    return Answered(cycles.prefetches, cycles.values, cycles.next)
