"""What leaves the prefetch engine for whoever runs the layers."""

from dataclasses import dataclass

from predictor.engine.described import DescribedEnum


class NoticeKind(DescribedEnum):
    """What somebody is told."""

    HERE = 0, "a demanded expert is resident, at this place"
    ELSEWHERE = 1, "a demanded expert is missing, and is to be computed where it lies"
    ARRIVED = 2, "an expert has arrived at this place, whether or not it is demanded"
    FAILED = 3, "a demand is given up: its transfers failed too often"
    READY = 4, "nothing that the layer's gate demanded is outstanding any more"


@dataclass(frozen=True, slots=True)
class Notice:
    """See ``NoticeKind``; what a kind does not have is 0.

    Attributes:
        kind: what.
        slot: whose gate asked (of ARRIVED: 0; it is for all).
        layer: of the expert, or of the gate.
        expert: which.
        wanted: of ARRIVED: some gate waited for it.
        place: in the staging buffer; ``places + spare``: the landing place of experts without one.
    """

    kind: NoticeKind
    slot: int = 0
    layer: int = 0
    expert: int = 0
    place: int = 0
    wanted: bool = False
