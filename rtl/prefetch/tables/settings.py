"""What the table predictor is told at run time: one number or choice each, a field of ``EngineConfiguration``.

Register files give them addresses; codes and defaults are ``predictor.st_moe.parameters``'. This module needs no
Amaranth.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from predictor.st_moe.parameters import (
    AGGREGATION_CODES,
    CONFIDENCE_MAX,
    REPLACEMENT_CODES,
    EngineConfiguration,
    EngineLimits,
)
from rtl.bus.register_map import Access, Field


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A register that is one number or one choice, a field of ``EngineConfiguration``.

    Attributes:
        name: the field's, and that of the register file's ``settings``.
        low, high: smallest (0 or 1) and largest value; any other is refused. ``high`` follows from the engine's limits.
        codes: names of values, where it is a choice.
        locked: writable only while the engine is off and not busy; the others take effect at the next event.
        meaning: a line for the register table.
    """

    name: str
    low: Literal[0, 1] = 0
    high: Callable[[EngineLimits], int]
    codes: dict[str, int] | None = None
    locked: bool = False
    meaning: str

    def field(self, limits: EngineLimits) -> Field:
        """The field of its register; after reset it holds the configuration's default, or else the largest value."""
        high = self.high(limits)
        configured = EngineConfiguration.model_fields[self.name]
        default = high if configured.is_required() else configured.default
        return Field(
            name=self.name,
            meaning=self.meaning,
            access=Access.SETTING,
            width=high.bit_length(),
            reset=default if self.codes is None else self.codes[str(default)],
            minimum=self.low,
            maximum=high,
            codes=self.codes or {},
        )


SETTINGS = (
    Setting(name="experts", low=1, high=lambda x: x.experts_max, locked=True, meaning="experts of a layer"),
    Setting(name="layers", low=1, high=lambda x: x.layers_max, locked=True, meaning="MoE layers"),
    Setting(name="top_k", low=1, high=lambda x: x.top_k_max, locked=True, meaning="experts of an event"),
    Setting(
        name="candidates",
        low=1,
        high=lambda x: x.candidates_max,
        locked=True,
        meaning="candidates in use of a table row",
    ),
    Setting(
        name="lookahead",
        low=1,
        high=lambda x: x.layers_max - 1,
        locked=True,
        meaning="layers from the event's layer to the predicted one",
    ),
    Setting(
        name="threshold",
        low=1,
        high=lambda x: (1 << x.score_bits) - 1,
        meaning="smallest score that is requested",
    ),
    Setting(
        name="ht_confidence",
        high=lambda _: CONFIDENCE_MAX,
        meaning="what the history table adds to a score",
    ),
    Setting(
        name="aggregation",
        high=lambda _: max(AGGREGATION_CODES.values()),
        codes=AGGREGATION_CODES,
        meaning="how the confidences of several rows combine",
    ),
    Setting(
        name="replacement",
        high=lambda _: max(REPLACEMENT_CODES.values()),
        codes=REPLACEMENT_CODES,
        meaning="order in which needed experts replace given-up candidates: the event's (ranked) or reversed",
    ),
    Setting(
        name="replacement_confidence",
        high=lambda _: CONFIDENCE_MAX,
        meaning="confidence of a candidate that has just replaced another",
    ),
    Setting(
        name="issue_limit",
        high=lambda x: x.experts_max,
        meaning="most experts issued for one token and layer",
    ),
    Setting(
        name="domains",
        low=1,
        high=lambda x: x.domains_max,
        locked=True,
        meaning="table banks in use, one for each domain",
    ),
)
