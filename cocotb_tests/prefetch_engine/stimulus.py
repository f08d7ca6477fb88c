"""What the bench's runner offers: events as words of a file."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from cocotb_tests.prefetch_engine.logs import words_text
from predictor.engine.events import EventArrays, EventKind
from predictor.engine.limits import PrefetchEngineLimits
from rtl.bus.payload_bits import StructLayout, pack
from rtl.prefetch.payloads import event_layout

MOST_EVENTS = 1 << 18
"""Of one run; a longer stimulus is run in pieces."""


def word_layout(limits: PrefetchEngineLimits) -> StructLayout:
    """A word of the runner's file: the event, and whether the engine must refuse it."""
    return StructLayout({"event": event_layout(limits), "bad": 1})


def events_text(
    limits: PrefetchEngineLimits,
    events: EventArrays,
    *,
    bad: NDArray[np.bool_] | None = None,
    noise: np.random.Generator | None = None,
) -> str:
    """The runner's file.

    Args:
        limits: of the engine.
        events: in order.
        bad: bool ``[events]``, those that the engine must refuse; ``None``: none.
        noise: fills the places of experts that the engine must ignore; 0 where ``None``.

    Raises:
        ForestageError: for no event, more than the runner's memory holds, or more experts than a gate carries.
    """
    if not 1 <= len(events.kind) <= MOST_EVENTS:
        raise ForestageError(f"stimulus: {len(events.kind)} events; a run holds 1 to {MOST_EVENTS}; give it in pieces")
    top_k = events.experts.shape[1]
    if top_k > limits.top_k_max:
        raise ForestageError(f"stimulus: gates of {top_k} experts; the engine is generated for {limits.top_k_max}")
    names = ("kind", "slot", "layer", "first", "last", "starts_sequence", "known", "identity", "row", "domain")
    columns: dict[str, NDArray[Any]] = {f"event.{name}": getattr(events, name) for name in names}
    experts = np.zeros((len(events.kind), limits.top_k_max), np.int64)
    if noise is not None:
        experts[:] = noise.integers(0, limits.experts_max, experts.shape)
    named = (events.kind == EventKind.GATE) & events.known
    experts[named, :top_k] = events.experts[named]
    columns |= {f"event.experts.{nth}": experts[:, nth] for nth in range(limits.top_k_max)}
    if bad is not None:
        columns["bad"] = bad
    return words_text(pack(word_layout(limits), columns, len(events.kind)))
