"""The clock that all parts read: integer picoseconds."""

NEVER = 1 << 200
"""The time of what does not come; later than any sum of times."""


class Clock:
    """``now_ps`` never goes back."""

    def __init__(self) -> None:
        self.now_ps = 0

    def advance(self, to_ps: int) -> None:
        """It is ``to_ps`` now.

        Raises:
            RuntimeError: if nothing is left to come (``NEVER``).
        """
        if to_ps >= NEVER:
            raise RuntimeError(f"nothing is left to happen after {self.now_ps} ps, and steps are left")
        assert to_ps > self.now_ps, "an instant is over, and something of it or before it is due"
        self.now_ps = to_ps
