"""Limits of the prefetch engine's parts, from those of the engine."""

from typing import Any

from predictor.engine.limits import BEAT_BYTES, HeadsLimits, PrefetchEngineLimits
from predictor.row_network.limits import HeadLimits, word_lanes
from predictor.row_network.text_traffic import TextLimits
from predictor.st_moe.parameters import EngineLimits


def table_limits(limits: PrefetchEngineLimits) -> EngineLimits:
    """Of an engine's table predictor."""
    return EngineLimits(
        experts_max=limits.experts_max,
        layers_max=limits.layers_max,
        top_k_max=limits.top_k_max,
        candidates_max=limits.candidates_max,
        slots_max=limits.slots_max,
        domains_max=limits.domains_max,
    )


def text_limits(limits: PrefetchEngineLimits) -> TextLimits:
    """Of an engine's unit of the memory of the text; a word for the net has a beat at least."""
    return TextLimits(
        slots=limits.slots_max,
        layers_max=limits.layers_max,
        experts_max=limits.experts_max,
        top_k_max=limits.top_k_max,
        row_beats_max=-(-limits.net.hidden_max // BEAT_BYTES),
        lanes=max(BEAT_BYTES, limits.net.lanes),
        address_bits=max(32, limits.link.address_bits),
    )


def named_experts(limits: PrefetchEngineLimits) -> int:
    """The most experts that a command to an engine's stager names: those of a gate, or of a prediction."""
    return max(limits.net.prefetched_max, limits.top_k_max)


PLACES_PER_LAYER = 8
"""Experts of a layer that the staging buffer holds, where nothing else is asked."""


def sized_engine(given: dict[str, int], *, lanes: int | None = None, learned: bool = True) -> PrefetchEngineLimits:
    """An engine of another size: what is not given follows from what is, in the proportions of the default engine.

    Places follow the layers (``PLACES_PER_LAYER``), queue and spare places the slots and the top-k, candidates the
    top-k, the nets' memories of rows the layers, experts and lanes.

    Args:
        given: of ``PrefetchEngineLimits``, by name.
        lanes: of the net.
        learned: whether it has nets.

    Raises:
        SettingError: naming the field that is out of range.
    """
    default = PrefetchEngineLimits()
    names = ("slots_max", "layers_max", "experts_max", "top_k_max")
    slots, layers, experts, top_k = (given.get(name, getattr(default, name)) for name in names)
    pins = slots * top_k
    net, keys = default.net.model_dump(), layers * experts
    if lanes is not None:
        net["lanes"] = lanes
    for head in ("next_layer", "next_use"):
        net[head]["row_words"] = _row_words(getattr(default.net, head), keys, net["lanes"])
    values: dict[str, Any] = {
        "candidates_max": top_k,
        "places": min(PLACES_PER_LAYER, experts) * layers,
        "spare": max(default.spare, pins),
        "queue_depth": max(default.queue_depth, pins),
        **given,
        "learned": learned,
        "net": net,
    }
    return PrefetchEngineLimits.parse_settings(values, origin="prefetch engine")


def nets_for(*, layers: int, experts: int) -> HeadsLimits:
    """The default engine's nets, with room for the rows of a larger model."""
    default = PrefetchEngineLimits().net
    return default.model_copy(
        update={
            name: head.model_copy(
                update={"row_words": max(head.row_words, _row_words(head, layers * experts, default.lanes))}
            )
            for name, head in (("next_layer", default.next_layer), ("next_use", default.next_use))
        }
    )


def _row_words(head: HeadLimits, keys: int, lanes: int) -> int:
    """A head's words of rows: so many of each expert as in the default engine."""
    default = PrefetchEngineLimits()

    def words(of: int) -> int:
        return -(-head.hidden // max(1, word_lanes(head.hidden, of)))

    return -(
        -head.row_words * keys * words(lanes) // (default.layers_max * default.experts_max * words(default.net.lanes))
    )
