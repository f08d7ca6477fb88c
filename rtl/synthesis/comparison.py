"""How a synthesis differs from an earlier one, block by block."""

from catalog.config import StrictModel
from catalog.errors import ForestageError
from rtl.synthesis.figures import Synthesis


class Change(StrictModel):
    """A figure that is another than before.

    Attributes:
        block: The block; empty for the unit's own; ``total`` where ``total`` is set.
        total: Whether it is of the whole.
        figure: Its name.
        before, after: Its values; ``None`` where there is no such block or figure.
    """

    block: str
    total: bool = False
    figure: str
    before: float | None
    after: float | None

    @property
    def sign(self) -> str:
        """▲ where it grew, ▼ where it shrank."""
        return "▲" if (self.after or 0) > (self.before or 0) else "▼"


def changes(before: Synthesis, after: Synthesis, origin: str) -> list[Change]:
    """Every figure that differs, of the whole first.

    Raises:
        ForestageError: the two are not of the same unit, target and parameters; ``origin`` is where ``before`` is from.
    """
    for what in ("unit", "target", "parameters"):
        old, new = getattr(before, what), getattr(after, what)
        if old != new:
            raise ForestageError(f"{origin}: {what}: is of {old}, this is of {new}; give a record of the same")
    found = _differences("", _whole(before), _whole(after), total=True)
    for name in dict.fromkeys(block.name for block in (*after.blocks, *before.blocks)):
        old, new = (
            next((b.figures | {"instances": b.instances} for b in s.blocks if b.name == name), {})
            for s in (before, after)
        )
        found += _differences(name, old, new)
    return found


def _whole(synthesis: Synthesis) -> dict[str, float]:
    whole = dict(synthesis.total)
    if synthesis.sram_bits:
        whole["sram_bits"] = synthesis.sram_bits
    if synthesis.path is not None:
        whole["longest_path_ns"] = synthesis.path.ns
    if synthesis.fmax_mhz is not None:
        whole["fmax_mhz"] = synthesis.fmax_mhz
    return whole


def _differences(block: str, before: dict[str, float], after: dict[str, float], *, total: bool = False) -> list[Change]:
    return [
        Change(block=block, total=total, figure=figure, before=before.get(figure), after=after.get(figure))
        for figure in dict.fromkeys((*before, *after))
        if before.get(figure) != after.get(figure)
    ]
