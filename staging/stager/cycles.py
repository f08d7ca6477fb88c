"""Clock cycles of the stager's circuit (``rtl.prefetch.stager``), which it meets exactly.

A command takes ``BEGIN_AND_END`` cycles and, one after the other, what follows from what it does; the twin adds these
up where they arise:

* ``TOUCH`` for each entry of the directory that is read, decided on and written;
* ``scan_cycles`` for each look for who gives way, or for the absent expert of most worth, in a group;
* ``look_cycles`` for each look at the queue, whose entries are compared pairwise in a tree, a level a cycle;
* ``CHOOSE`` where it branches on what was found;
* ``WALK`` for each entry of the queue that is visited (``expire``, ``set_values``), and ``CHOOSE`` at the end of it;
* ``values_cycles`` to read, scale and write the values of a layer.
"""

BEGIN_AND_END = 2
"""The cycle in which the command is taken, and that in which it is done."""
TOUCH = 4
"""Read, pick the lane, decide, write."""
CHOOSE = 1
COMPARE = 2
"""Subtract two worths, and compare the gain with the price."""
WALK = 2
"""Take an entry out, and test it."""

_SCAN_STAGES = 4
"""Read; whether the chance counts; worth; the best so far. The levels of the tree come on top."""
_VALUE_STAGES = 4
"""Read; two partial products; their sum; write."""


def scan_cycles(layers: int, experts: int, lanes: int) -> int:
    """Of a look at all entries of a group of ``layers``; a word of ``lanes`` entries is of one layer."""
    return layers * _words(experts, lanes) + _SCAN_STAGES - 1 + _levels(lanes)


def look_cycles(depth: int) -> int:
    """Of a look at a queue of ``depth`` entries, and the one that may be too many."""
    return _levels(depth + 1)


def values_cycles(experts: int, lanes: int) -> int:
    """To take in the values of a layer."""
    return _words(experts, lanes) + _VALUE_STAGES - 1


def clear_cycles(layers: int, experts: int, lanes: int, places: int, word_places: int) -> int:
    """To forget everything: every word of a directory of these limits, and of the free places beside it."""
    return max(layers << _levels(_words(experts, lanes)), -(-places // word_places))


def _words(experts: int, lanes: int) -> int:
    return -(-experts // lanes)


def _levels(leaves: int) -> int:
    """Of a binary tree."""
    return (leaves - 1).bit_length()
