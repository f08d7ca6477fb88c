"""Host memory that decoding needs, checked before any of it is taken: a system that runs out ends the process."""

from dataclasses import dataclass

from catalog.errors import ForestageError
from gpu_reference.decoder.memory import GB

MOST_OF_FREE = 0.8
"""Of the memory that is free, so much is taken at most."""


@dataclass(frozen=True, kw_only=True)
class Needed:
    """What is to be made; 0 for what is there already, or lies on a GPU.

    Attributes:
        model: whose experts.
        expert_bytes: of one expert.
        experts: in host memory.
        places: experts that the device, where it is the processor itself, holds besides.
        beside: places that the stager has in any case, as spare ones and for landing.
        decoder_bytes: of the decoder's weights and caches.
    """

    model: str
    expert_bytes: int
    experts: int
    places: int = 0
    beside: int = 0
    decoder_bytes: int = 0

    @property
    def nbytes(self) -> int:
        """In all."""
        return (self.experts + self.places + self.beside) * self.expert_bytes + self.decoder_bytes


def check_room(needed: Needed, free: int | None) -> None:
    """Refuse what does not fit into `MOST_OF_FREE` of the ``free`` bytes; ``None``: the system does not say.

    Raises:
        ForestageError: naming what is needed, and what would fit.
    """
    if free is None or needed.nbytes <= MOST_OF_FREE * free:
        return
    budget = int(MOST_OF_FREE * free)
    one, parts = needed.expert_bytes, []
    for count, what in ((needed.experts, "experts"), (needed.places + needed.beside, "places for experts")):
        if count:
            parts.append(f"{count} {what} {count * one / GB:.1f} GB")
    if needed.decoder_bytes:
        parts.append(f"the decoder {needed.decoder_bytes / GB:.1f} GB")
    without = budget - needed.experts * one - needed.decoder_bytes
    fitting = without // one - needed.beside
    if needed.places and fitting > 0:
        remedy = f"{fitting} experts held would fit; leave this section out (--without)"
    else:
        most = max(0, budget - needed.decoder_bytes) / GB
        remedy = (
            f"{most:.1f} GB of experts would fit, those held included; measure a smaller model (--model), or on a "
            "machine with more memory"
        )
    raise ForestageError(
        f"host memory: {needed.model}: {', '.join(parts)}; {budget / GB:.1f} GB may be taken of {free / GB:.1f} GB "
        f"that are free; {remedy}"
    )
