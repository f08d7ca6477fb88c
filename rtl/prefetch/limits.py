"""Limits of the prefetch engine's parts, from those of the engine."""

from predictor.engine.limits import BEAT_BYTES, PrefetchEngineLimits
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
