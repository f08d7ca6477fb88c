"""Bus models of AXI4-Stream, for designs whose streams carry the canonical names.

They are sampled once a cycle by one coroutine; order within a cycle: ``drive``, the clock's edge, ``sample``.
"""

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cocotb_tests.streams import StableUntilReady


class AxiStreamSource:
    """Offers beats in order; once offered, a beat stays until it is taken.

    Attributes:
        taken: cycle in which each beat was taken.
    """

    def __init__(self, dut: Any, name: str, pattern: NDArray[np.bool_]) -> None:
        """``pattern``, repeated, says in which cycles a beat may be offered anew."""
        self._data, self._last = getattr(dut, f"{name}__tdata"), getattr(dut, f"{name}__tlast")
        self._valid, self._ready = getattr(dut, f"{name}__tvalid"), getattr(dut, f"{name}__tready")
        self._pattern: list[bool] = pattern.tolist()
        self._waiting: deque[tuple[int, int]] = deque()
        self._offered = False
        self._valid.value = 0
        self.taken: list[int] = []

    def send(self, beats: NDArray[np.uint8], last: NDArray[np.uint8]) -> None:
        """Queue beats, u8 ``[beats, bytes]`` little-endian, and their TLAST."""
        for beat, is_last in zip(beats, last.tolist(), strict=True):
            self._waiting.append((int.from_bytes(beat.tobytes(), "little"), int(is_last)))

    @property
    def left(self) -> int:
        """Beats that have not been taken."""
        return len(self._waiting)

    def drive(self, cycle: int) -> None:
        """Set the stream for ``cycle``."""
        if not self._offered and self._waiting and self._pattern[cycle % len(self._pattern)]:
            self._offered = True
            self._data.value, self._last.value = self._waiting[0]
            self._valid.value = 1

    def sample(self, cycle: int) -> None:
        """See, at the end of ``cycle``, whether the beat was taken."""
        if self._offered and self._ready.value:
            self._waiting.popleft()
            self.taken.append(cycle)
            self._offered = False
            # ``drive`` of the next cycle may offer the next one.
            self._valid.value = 0


class AxiStreamSink:
    """Takes beats, ready where its pattern says so, and remembers them.

    Attributes:
        taking: whether it is ever ready.
    """

    def __init__(self, dut: Any, name: str, pattern: NDArray[np.bool_]) -> None:
        """``pattern``, repeated, says in which cycles it is ready."""
        self._data, self._last = getattr(dut, f"{name}__tdata"), getattr(dut, f"{name}__tlast")
        self._valid, self._ready = getattr(dut, f"{name}__tvalid"), getattr(dut, f"{name}__tready")
        self._keep = getattr(dut, f"{name}__tkeep")
        self._pattern: list[bool] = pattern.tolist()
        self._is_ready = False
        self._ready.value = 0
        self.taking = True
        self._beats: list[tuple[int, int, int, int]] = []
        self._rule = StableUntilReady(name)

    @property
    def count(self) -> int:
        """Beats taken since the last ``take``."""
        return len(self._beats)

    @property
    def violations(self) -> list[str]:
        """Breaches of the protocol by the transmitter."""
        return self._rule.violations

    def drive(self, cycle: int) -> None:
        """Set ready for ``cycle``."""
        ready = self.taking and self._pattern[cycle % len(self._pattern)]
        if ready != self._is_ready:
            self._ready.value = int(ready)
            self._is_ready = ready

    def sample(self, cycle: int) -> None:
        """Take, at the end of ``cycle``, what is offered."""
        valid = bool(self._valid.value)
        if not valid:
            self._rule.sample(cycle, False, self._is_ready, 0)
            return
        data, keep, last = self._data.value.to_unsigned(), self._keep.value.to_unsigned(), int(self._last.value)
        self._rule.sample(cycle, True, self._is_ready, (data << 8 | keep) << 1 | last)
        if self._is_ready:
            self._beats.append((cycle, data, keep, last))

    def take(self) -> dict[str, NDArray[Any]]:
        """Cycles, data (at most 64 bits), TKEEP and TLAST of the beats since the last call."""
        cycles, data, keep, last = zip(*self._beats, strict=True) if self._beats else ((), (), (), ())
        self._beats = []
        return {
            "cycle": np.array(cycles, np.int64),
            "data": np.array(data, np.uint64),
            "keep": np.array(keep, np.int64),
            "last": np.array(last, np.int64),
        }
