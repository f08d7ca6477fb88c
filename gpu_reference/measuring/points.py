"""Where decoding is measured: share of experts held, batch, regime and format; and which rows come first there."""

from dataclasses import dataclass

from gpu_reference.experts.layout import Format
from gpu_reference.records.decode import Regime

TOKENS, MANY_TOKENS = 160, 256
"""Timed at a point, at least: so many that rows can be compared; more where the comparison matters most."""


@dataclass(frozen=True)
class Point:
    """What a section of rows measures.

    Attributes:
        share: of all experts, held on the device.
        batch: sequences at once.
        regime: of experts and link.
        format: of the experts; ``None``: the model's own, or MXFP4.
        tokens: timed in the full suite, about.
    """

    share: float
    batch: int
    regime: Regime
    format: Format | None = None
    tokens: int = TOKENS

    @property
    def name(self) -> str:
        """Of the section."""
        form = "" if self.format is None else f" in {self.format}"
        return f"decode: {self.regime}{form}, share {self.share:g}, batch {self.batch}"

    def is_first(self, row: str) -> bool:
        """Whether ``row`` is measured in the point's first section, and not in the one of further rows."""
        return row in FIRST_ROWS and (self.format is None or row in FEWEST_ROWS)


SHOWN = (
    *(Point(share, 1, "real sizes", tokens=MANY_TOKENS) for share in (0.25, 0.5)),
    *(Point(share, 1, "real sizes", "bf16") for share in (0.25, 0.5)),
    Point(0.25, 1, "small experts"),
)
"""The points that matter most."""

POINTS = (
    *SHOWN,
    *(Point(share, 1, "real sizes") for share in (0.125, 0.75)),
    *(Point(0.25, batch, "real sizes") for batch in (4, 16)),
    Point(0.25, 1, "throttled"),
    Point(0.5, 1, "small experts"),
    *(Point(0.5, batch, "real sizes") for batch in (4, 16)),
    Point(0.5, 1, "throttled"),
)
"""In the order of importance."""

FEWEST_ROWS = (
    "LRU", "learned", "decayed frequency", "static placement", "background, learned", "background, frequency",
    "Belady + perfect prefetch",
)  # fmt: skip
"""Rows in the order of importance, of experts in another format."""

FIRST_ROWS = (*FEWEST_ROWS, "activation-aware (MoE-Infinity)", "ST-MoE prefetch", "perfect prefetch")
"""Rows in the order of importance; others follow when all points have these."""
