"""Cycles of the hardware that turns sums into chances (``rtl/prefetch/net/scores``): its stages' latencies, by name.

A *pass* is one multiplication of a word of hidden units with a word of the matrix: an answer takes as many as the
hidden units have words. The passes of a command's first answer follow the words of its sums; those of the others come
in every cycle after.
"""

COMMAND_CLOCKS = 2
"""From a command's acceptance to the first cycle that may show a word of its sums: the first bias is read."""
RELU_CLOCKS = 3
"""Bias and half added; shifted; clipped."""
SCORE_CLOCKS = 4
"""The last pass accumulated; shifted; zero and adapted bias added; clipped."""
CHANCE_CLOCKS = 2
"""The table of chances; its register."""
MERGE_CLOCKS = 3
"""Two partial products; their sum; rounded and added."""
SELECT_CLOCKS = 1
"""Put in its place among the best."""
VALUE_CLOCKS = 2
"""Added to the expert's chances of the questions before; written to the buffer."""
KEEP_CLOCKS = 1
"""An own chance is written to where the adaptation reads it."""
ADAPT_CLOCKS = 4
"""From an expert's address to its adapted bias in the memory: read; difference; sum; clipped and written."""

LEAST_PASSES = 4
"""Of a question, at least: what is merged or added up is in its memory when the next command or question reads it."""
TREE_LEVELS_A_CLOCK = 2


def dot_product_clocks(lanes: int) -> int:
    """From the operands of ``lanes`` lanes to the sum of their products: a clock for the products, two levels of the
    tree of adders in each of the others."""
    return 1 + -(-(lanes - 1).bit_length() // TREE_LEVELS_A_CLOCK)


def chance_clocks(lanes: int) -> int:
    """From an answer's last pass (where it is the first answer: the last word of the sums) to its chance."""
    return RELU_CLOCKS + dot_product_clocks(lanes) + SCORE_CLOCKS + CHANCE_CLOCKS


def command_interval(answers: int, passes: int) -> int:
    """From the cycle that shows a command's last word of sums to the first that accepts the next command."""
    return (answers - 1) * passes + 1


def prefetch_cycle(experts: int, passes: int, *, lanes: int) -> int:
    """From the cycle that shows the last word of sums to the first in which the PREFETCH answer is offered."""
    return (experts - 1) * passes + chance_clocks(lanes) + MERGE_CLOCKS + SELECT_CLOCKS


def values_cycle(experts: int, questions: int, passes: int, *, lanes: int) -> int:
    """From the cycle that shows the last word of sums to the first in which the VALUES answer is offered."""
    return (experts * questions - 1) * passes + chance_clocks(lanes) + MERGE_CLOCKS + VALUE_CLOCKS


def adapt_cycle(experts: int, passes: int, *, lanes: int) -> int:
    """From the cycle that shows the last word of a next-layer command's sums to the first that accepts an adaptation:
    every chance is kept by then."""
    return (experts - 1) * passes + chance_clocks(lanes) + KEEP_CLOCKS


def adapt_interval(experts: int) -> int:
    """From an adaptation's acceptance to the first cycle that accepts another, or a next-layer command."""
    return experts + ADAPT_CLOCKS
