"""What the scores unit is told and what it answers, for a net's limits."""

from amaranth.hdl import Shape, unsigned
from amaranth.lib import data, enum

from predictor.row_network.limits import NetLimits
from predictor.row_network.program import Memory
from rtl.prefetch.net.scores.merge import CHANCE_BITS
from rtl.prefetch.net.scores.relu import BIAS_BITS, SHIFT_BITS
from rtl.prefetch.net.scores.score import SCORE_BITS

PART_BITS = 512
"""Data of the load bus: a wider word comes in parts, the low one first."""
LOAD_ADDRESS_BITS = 24
HEADS = 2
NEXT_LAYER, NEXT_USE = range(HEADS)


class AdaptKind(enum.Enum, shape=1):  # type: ignore[call-arg]
    """What the adaptation is told."""

    ADAPT = 0
    CLEAR = 1


def counting(most: int) -> Shape:
    """The shape of 0 … ``most`` − 1, of one bit at least."""
    return Shape.cast(range(max(2, most)))


def answers_max(limits: NetLimits, head: int) -> int:
    """Most answers of a layer."""
    return limits.heads[head].questions * limits.experts


def output_words(limits: NetLimits, head: int) -> int:
    """Words of the memory of a head's matrix."""
    return limits.layers * answers_max(limits, head) * limits.words(head)


def score_layout(limits: NetLimits) -> data.StructLayout:
    """A target to score.

    Members:
        head: 0: next-layer, 1: next-use.
        slot, target: whose sums of which layer.
        first, last: of the slots that run together.
        passes: words of the sums.
        questions: answers of an expert; 1 of next-layer.
        hidden_shift, score_shift, adaptation, bias, output, answers: as `program.LAYER`.
        chances: row of the table of chances, `program.LAYER`'s ``chances`` in rows of ``CHANCE_BINS``.
    """
    heads = range(HEADS)
    return data.StructLayout(
        {
            "head": 1,
            "slot": counting(limits.slots),
            "target": counting(limits.layers),
            "first": 1,
            "last": 1,
            "passes": range(max(limits.words(head) for head in heads) + 1),
            "questions": range(max(head.questions for head in limits.heads) + 1),
            "hidden_shift": unsigned(SHIFT_BITS),
            "score_shift": unsigned(SHIFT_BITS),
            "adaptation": unsigned(SHIFT_BITS),
            "bias": counting(max(limits.layers * limits.words(head) for head in heads)),
            "output": counting(max(output_words(limits, head) for head in heads)),
            "answers": counting(max(limits.layers * answers_max(limits, head) for head in heads)),
            "chances": counting(max(limits.layers * head.questions for head in limits.heads)),
        }
    )


def sums_layout(limits: NetLimits) -> data.StructLayout:
    """A word of the sums of the target that was told last.

    Members:
        head: whose.
        word: its place, ascending from 0.
        last: it is the last one.
        sums: of each lane; those beyond the head's are of no account.
    """
    sums = data.ArrayLayout(Shape(32, signed=True), limits.lanes)
    words = max(limits.words(head) for head in range(HEADS))
    return data.StructLayout({"head": 1, "word": counting(words), "last": 1, "sums": sums})


def load_layout(limits: NetLimits) -> data.StructLayout:
    """A word that is loaded into a memory of a head, or a part of one: the low ones come first.

    Members:
        memory: a `program.Memory`.
    """
    parts = limits.lanes * BIAS_BITS // PART_BITS
    return data.StructLayout(
        {
            "valid": 1,
            "head": 1,
            "memory": range(max(Memory) + 1),
            "address": LOAD_ADDRESS_BITS,
            "part": counting(parts),
            "data": PART_BITS,
        }
    )


def adapt_layout(limits: NetLimits) -> data.StructLayout:
    """A gate's choice of ``count`` experts of a slot's layer to adapt to, or a slot to forget."""
    return data.StructLayout(
        {
            "kind": AdaptKind,
            "slot": counting(limits.slots),
            "layer": counting(limits.layers),
            "count": range(limits.top_k + 1),
            "experts": data.ArrayLayout(counting(limits.experts), limits.top_k),
        }
    )


def prefetch_layout(limits: NetLimits, prefetched: int) -> data.StructLayout:
    """The answer PREFETCH: the best experts of a layer to come, largest chance first.

    Members:
        layer: theirs.
        count: so many; may be 0.
        experts, chances: 0 beyond ``count``.
    """
    return data.StructLayout(
        {
            "layer": counting(limits.layers),
            "count": range(prefetched + 1),
            "experts": data.ArrayLayout(counting(limits.experts), prefetched),
            "chances": data.ArrayLayout(unsigned(CHANCE_BITS), prefetched),
        }
    )


def values_layout(limits: NetLimits) -> data.StructLayout:
    """The answer VALUES: the row of values is that of ``layer``."""
    return data.StructLayout({"layer": counting(limits.layers)})


def scored_layout(limits: NetLimits) -> data.StructLayout:
    """A score and its chance, before it is merged; for whoever observes the net."""
    answers = max(answers_max(limits, head) for head in range(HEADS))
    return data.StructLayout(
        {
            "valid": 1,
            "head": 1,
            "slot": counting(limits.slots),
            "target": counting(limits.layers),
            "answer": counting(answers),
            "score": unsigned(SCORE_BITS),
            "chance": unsigned(CHANCE_BITS),
        }
    )
