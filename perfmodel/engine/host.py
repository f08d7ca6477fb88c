"""The host's processor: computes missing experts where they lie, one after the other.

It reads the same memory as the link: while the link moves, it has only ``host_shared_rate``. The rate is constant
between changes, so the work left is settled at each change, in integers (a rate in 10⁶ bytes a second, times
picoseconds, is 10⁻⁶ bytes).
"""

from collections import deque
from collections.abc import Sequence

from perfmodel.engine.clock import NEVER, Clock
from perfmodel.workload import Durations


class HostProcessor:
    """Works for one layer at a time.

    Attributes:
        due_ps: when it begins, or its expert ends (``NEVER``: nothing to do, or a rate of 0).
        result_ps: when the device has the result of the layer; ``NEVER`` until its last expert has ended.
        busy_ps: time from beginnings to ends.
    """

    def __init__(self, clock: Clock, durations: Durations) -> None:
        self._clock = clock
        self._durations = durations
        self._link_moves = False
        self._waiting: deque[int] = deque()  # tokens of the experts to come
        self._began_ps = 0
        self._tokens: int | None = None  # of the expert that runs
        self._left = 0  # its work left, 10⁻⁶ bytes, at ``_since_ps``
        self._since_ps = 0
        self.due_ps = NEVER
        self.result_ps = NEVER
        self.busy_ps = 0

    def compute(self, tokens_of: Sequence[int]) -> None:
        """A gate leaves these experts to it, each chosen by so many tokens; it begins once their inputs are there."""
        assert self._tokens is None, "the layer before still computes"
        assert not self._waiting, "the layer before still waits"
        assert self.result_ps == NEVER, "the result of the layer before was not taken"
        self._waiting.extend(tokens_of)
        self.due_ps = self._clock.now_ps + self._durations.host_before_ps

    def act(self) -> None:
        """It begins, or its expert has ended."""
        now = self._clock.now_ps
        assert now == self.due_ps, "it acts when something is due"
        if self._tokens is None:
            self._began_ps = now
        if self._waiting:
            self._tokens, self._left, self._since_ps = self._waiting.popleft(), self._durations.host_work, now
            self._expect_end()
        else:
            self._tokens, self.due_ps = None, NEVER
            self.busy_ps += now - self._began_ps
            self.result_ps = now + self._durations.host_after_ps

    def take_result(self) -> None:
        """The device has the result."""
        assert self.result_ps == self._clock.now_ps, "the result is taken when it comes"
        self.result_ps = NEVER

    def link_moves(self, moves: bool) -> None:
        """From now on the link moves something, or nothing."""
        if self._tokens is not None:
            # What ended in this very instant has nothing left; its last picosecond may not have been needed in full.
            self._left = max(0, self._left - self._rate() * (self._clock.now_ps - self._since_ps))
            self._since_ps = self._clock.now_ps
        self._link_moves = moves
        if self._tokens is not None:
            self._expect_end()

    def _rate(self) -> int:
        assert self._tokens is not None
        of_memory = self._durations.host_shared_rate if self._link_moves else self._durations.host_free_rate
        return min(int(self._durations.host_most_rate[self._tokens]), of_memory)

    def _expect_end(self) -> None:
        rate = self._rate()
        if self._left == 0:
            self.due_ps = self._since_ps
        elif rate == 0:
            self.due_ps = NEVER
        else:
            self.due_ps = self._since_ps + -(-self._left // rate)
