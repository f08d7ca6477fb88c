"""The host's processor, or the memory itself: computes missing experts where they lie.

Experts lie in groups, which work at once, each on one expert after the other and all equally fast; so the group with
the most to do decides when the layer's result is there, and it is the one that is followed. Of the host's processor
there is one.

The link reads the same memory: while it moves, the rate is only ``host_shared_rate``. The rate is constant
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
        self._after_ps = 0  # from the end of the last to the layer's result
        self.due_ps = NEVER
        self.result_ps = NEVER
        self.busy_ps = 0

    def compute(self, tokens_of: Sequence[tuple[int, int]]) -> None:
        """A gate leaves these experts to it, each chosen by so many tokens; it begins once their inputs are there.

        Args:
            tokens_of: expert and tokens, in gate order.
        """
        assert self._tokens is None, "the layer before still computes"
        assert not self._waiting, "the layer before still waits"
        assert self.result_ps == NEVER, "the result of the layer before was not taken"
        self._waiting.extend(self._longest_group(tokens_of))
        self._after_ps = self._durations.host_after_ps
        self._after_ps += sum(tokens for _, tokens in tokens_of) * self._durations.host_token_ps
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
            self.result_ps = now + self._after_ps

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

    def _longest_group(self, tokens_of: Sequence[tuple[int, int]]) -> list[int]:
        """Tokens of the experts of the group that takes longest while the link is idle; of equals the first."""
        groups: list[list[int]] = [[] for _ in range(self._durations.host_groups)]
        for expert, tokens in tokens_of:
            groups[expert % len(groups)].append(tokens)
        work, rates = self._durations.host_work, self._durations.host_free_rate.tolist()
        return max(groups, key=lambda group: sum(-(-work // rates[tokens]) for tokens in group))

    def _rate(self) -> int:
        assert self._tokens is not None
        rates = self._durations.host_shared_rate if self._link_moves else self._durations.host_free_rate
        return int(rates[self._tokens])

    def _expect_end(self) -> None:
        rate = self._rate()
        if self._left == 0:
            self.due_ps = self._since_ps
        elif rate == 0:
            self.due_ps = NEVER
        else:
            self.due_ps = self._since_ps + -(-self._left // rate)
