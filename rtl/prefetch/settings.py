"""What the engine's registers tell its parts."""

from amaranth.hdl import unsigned
from amaranth.lib import data

from predictor.engine.events import DOMAIN_BITS, ROW_BITS
from predictor.engine.limits import PrefetchEngineLimits
from predictor.engine.settings import Mode
from rtl.prefetch.payloads import CHANCE_BITS, stager_shape
from rtl.prefetch.stager.layouts import settings_layout as stager_settings_layout

MODE_BITS = max(Mode).bit_length()


def core_settings_layout(limits: PrefetchEngineLimits) -> data.StructLayout:
    """``PrefetchEngineSettings``; its parts' settings are theirs.

    Everything but ``stager.background`` holds still while an event is in work.
    """
    return data.StructLayout(
        {
            "mode": unsigned(MODE_BITS),
            "layers": range(limits.layers_max + 1),
            "experts": range(limits.experts_max + 1),
            "top_k": range(limits.top_k_max + 1),
            "domains": range((1 << DOMAIN_BITS) + 1),
            "identity_rows": unsigned(ROW_BITS),
            "next_layer": 1,
            "next_use": 1,
            "distance": range(limits.layers_max),
            "prefetched": range(limits.net.prefetched_max + 1),
            "threshold": unsigned(CHANCE_BITS),
            "elsewhere": 1,
            "stager": stager_settings_layout(stager_shape(limits)),
        }
    )
