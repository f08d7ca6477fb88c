"""What each row of a comparison looks like in every figure of the whole system."""

from typing import Any

from study.figures.style import BLUE, BOUND, GREEN, ORANGE, PURPLE, SKY, VERMILION, YELLOW

LINES: dict[str, dict[str, Any]] = {
    "LRU": {"color": BLUE, "marker": "o"},
    "decayed frequency": {"color": GREEN, "marker": "^"},
    "ST-MoE prefetch": {"color": PURPLE, "marker": "v"},
    "activation-aware (MoE-Infinity)": {"color": YELLOW, "marker": "P"},
    "learned prefetch": {"color": ORANGE, "marker": "D"},
    "learned eviction": {"color": SKY, "marker": "s"},
    "learned": {"color": VERMILION, "marker": "o", "linewidth": 2.4},
    "perfect prefetch": {"color": BOUND, "linestyle": ":", "alpha": 0.8},
    "Belady + perfect prefetch": {"color": BOUND, "linestyle": "--", "alpha": 0.8},
    "static placement": {"color": BLUE, "marker": "o"},
    "background, frequency": {"color": GREEN, "marker": "^"},
    "background, learned": {"color": VERMILION, "marker": "o", "linewidth": 2.4},
    "background, oracle of next use": {"color": BOUND, "linestyle": ":", "alpha": 0.8},
    "background, oracle of uses": {"color": BOUND, "linestyle": "--", "alpha": 0.8},
}
ALL_RESIDENT: dict[str, Any] = {"color": BOUND, "linestyle": (0, (1, 3)), "alpha": 0.8}

FILLS = {
    "LRU": "#cfe3f1",
    "decayed frequency": "#c9ead9",
    "ST-MoE prefetch": "#ead6e2",
    "activation-aware (MoE-Infinity)": "#f6f1b8",
    "learned prefetch": "#f8dfae",
    "learned eviction": "#d3ebf9",
    "learned": VERMILION,
    "static placement": "#e5e7eb",
    "background, frequency": YELLOW,
    "background, learned": ORANGE,
}
"""Colours of the map's cells; of the learned rows strong ones, dark in grey too."""

SHORT = {
    "LRU": "LRU",
    "decayed frequency": "freq.",
    "ST-MoE prefetch": "ST-MoE",
    "activation-aware (MoE-Infinity)": "activation",
    "learned prefetch": "l. prefetch",
    "learned eviction": "l. eviction",
    "learned": "learned",
    "static placement": "static",
    "background, frequency": "host + freq.",
    "background, learned": "host + learned",
}
"""Rows as written into the map's cells."""
