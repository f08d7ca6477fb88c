"""Bus models of ready/valid streams: a producer, a consumer, and the protocol's rule.

They are sampled once a cycle by one coroutine, which is much faster than a coroutine each. Order within a cycle:
``drive``, the clock's edge, ``sample``.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


class StreamProducer:
    """Offers payloads in order; once offered, a payload stays until it is taken.

    Attributes:
        taken: payloads handed over.
    """

    def __init__(self, dut: Any, stream: str, payloads: NDArray[np.uint8], pattern: NDArray[np.bool_]) -> None:
        """``payloads`` u8 ``[n, bytes]``, little-endian; ``pattern``, repeated, says when one may be offered."""
        self._valid, self._ready = getattr(dut, f"{stream}__valid"), getattr(dut, f"{stream}__ready")
        self._payload = getattr(dut, f"{stream}__payload")
        self._waiting = [int.from_bytes(payload.tobytes(), "little") for payload in payloads[::-1]]
        self._pattern = pattern.tolist()
        self._offered = False
        self.taken = 0
        self._valid.value = 0

    def drive(self, cycle: int) -> None:
        """Set the stream for ``cycle``."""
        if not self._offered and self._waiting and self._pattern[cycle % len(self._pattern)]:
            self._offered = True
            self._valid.value = 1
            self._payload.value = self._waiting[-1]

    def sample(self, ready: bool) -> bool:
        """Whether the payload was taken in the cycle that ends."""
        if not (self._offered and ready):
            return False
        self._waiting.pop()
        self.taken += 1
        self._offered = False
        self._valid.value = 0  # unless the next ``drive`` offers another
        return True


class StreamConsumer:
    """Takes payloads, ready where its pattern says so."""

    def __init__(self, dut: Any, stream: str, pattern: NDArray[np.bool_]) -> None:
        """``pattern``, repeated, says in which cycles it is ready."""
        self._ready = getattr(dut, f"{stream}__ready")
        self._pattern = pattern.tolist()
        self.ready = self._pattern[0]
        self._ready.value = int(self.ready)

    def drive(self, cycle: int) -> None:
        """Set the stream for ``cycle``."""
        ready = self._pattern[cycle % len(self._pattern)]
        if ready != self.ready:
            self.ready = ready
            self._ready.value = int(ready)


class StableUntilReady:
    """The rule of every ready/valid channel: what is offered stays, unchanged, until it is taken."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.violations: list[str] = []
        self._pending: int | None = None

    def sample(self, cycle: int, valid: bool, ready: bool, payload: int) -> None:
        """Check the cycle that ends."""
        if self._pending is not None and not valid:
            self.violations.append(f"cycle {cycle}: {self.name} withdrew its payload")
        elif self._pending is not None and payload != self._pending:
            self.violations.append(f"cycle {cycle}: {self.name} changed its payload from {self._pending:#x}")
        self._pending = payload if valid and not ready else None
