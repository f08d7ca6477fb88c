"""What must lie in the staging buffer when all is done: the bytes of every expert that was moved to a place, last."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cocotb_tests.models.files import pattern
from cocotb_tests.prefetch_engine.comparison import Comparison
from predictor.engine.commands import CommandKind, Done
from predictor.engine.settings import LinkSettings
from staging.stager.answers import Kind


def compare_staging(
    comparison: Comparison,
    link: LinkSettings,
    twin: Sequence[Done],
    stops: Sequence[int],
    found: tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.uint8]],
) -> None:
    """Byte by byte, and that nothing else was written. Far memory holds ``pattern``.

    A transfer that failed leaves its place open until the next one that is complete there.

    Args:
        comparison: counts the bytes that differ.
        link: where things lie.
        twin: the stager's commands.
        stops: of each PREEMPT, the chunks that were there.
        found: address, mask and word of all that was written.
    """
    places: dict[int, NDArray[np.int16]] = {}
    chunks = iter(stops)
    key = place = first = 0
    kept: dict[int, int] = {}
    for done in twin:
        if done.transfer is not None:
            key, place = done.transfer.key, done.transfer.place
            first = kept.pop(key, 0)
        for action in done.actions:
            if action.kind is Kind.DROP:
                kept.pop(action.key, None)
        if done.kind is CommandKind.ARRIVE:
            _lay(places, link, key, place, first, link.expert_bytes)
        elif done.kind is CommandKind.PREEMPT:
            passed = next(chunks)
            _lay(places, link, key, place, first, passed * link.chunk_bytes)
            if any(action.kind is Kind.PAUSE for action in done.actions):
                kept[key] = passed * link.chunk_bytes
            first = passed * link.chunk_bytes
        elif done.kind is CommandKind.FAIL:
            places[place] = np.full(link.expert_bytes, _OPEN, np.int16)
    addresses, masks, words = found
    written = {int(at): (mask, word) for at, mask, word in zip(addresses, masks, words, strict=True)}
    width = masks.shape[1] if len(masks) else 1
    total = 0
    for number, expected in places.items():
        base = link.staging_base + number * link.staging_stride
        known = np.flatnonzero(expected >= 0)
        total += len(known)
        at = base + known
        cells = [written.get(int(address)) for address in np.unique(at // width * width)]
        if any(cell is None for cell in cells):
            comparison.equal(f"bytes of place {number}", "written", "not written")
            continue
        held = np.concatenate([np.where(mask, word, -1).astype(np.int16) for mask, word in cells])  # type: ignore[misc]
        values = held[at - at[0] // width * width]
        differ = np.flatnonzero(values != expected[known])
        where = f"byte {int(known[differ[0]])} of place {number}" if len(differ) else f"bytes of place {number}"
        comparison.equal(where, 0, len(differ))
    open_bytes = sum(int((expected == _OPEN).sum()) for expected in places.values())
    outside = int(masks.sum()) - total
    comparison.equal("bytes written elsewhere", True, 0 <= outside <= open_bytes)
    comparison.compared["bytes"] = comparison.compared.get("bytes", 0) + total


_OPEN, _UNTOUCHED = -2, -1


def _lay(places: dict[int, NDArray[np.int16]], link: LinkSettings, key: int, place: int, first: int, end: int) -> None:
    """Bytes ``first … end − 1`` of an expert are at its place."""
    if place not in places:
        places[place] = np.full(link.expert_bytes, _UNTOUCHED, np.int16)
    end = min(end, link.expert_bytes)
    if end > first:
        places[place][first:end] = pattern(link.expert_base + key * link.expert_stride + first, end - first)
