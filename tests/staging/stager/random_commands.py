"""Stagers and commands at random, for the tests that drive two forms of the stager side by side."""

from hypothesis import strategies as st

from staging.stager.answers import Kind, Why
from staging.stager.directory import NONE
from staging.stager.limits import FOREVER, StagerLimits, StagerSettings

WIDE_BITS = 32


@st.composite
def stagers(draw, most_channels=2, wide=False):
    """Limits and settings, with no place at all and places for everything among them; ``wide``: the largest times."""
    layers, experts = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    slots, event = draw(st.integers(1, 3)), draw(st.integers(1, min(3, experts)))
    shared = draw(st.booleans())
    most = experts * layers if shared else experts
    shares = tuple(draw(st.lists(st.integers(0, most), min_size=1, max_size=1)))
    if not shared:
        shares = tuple(draw(st.lists(st.integers(0, most), min_size=layers, max_size=layers)))
    wide = wide and draw(st.booleans())
    limits = StagerLimits(
        layers=layers,
        experts=experts,
        places=sum(shares) + draw(st.integers(0, 2)),
        spare=draw(st.integers(0, 3)),
        queue_depth=slots * event + draw(st.integers(0, 2)),
        channels=draw(st.integers(1, most_channels)),
        sequence_slots=slots,
        event_experts=event,
        value_bits=WIDE_BITS if wide else 8,
        scale_bits=24,
        stamp_bits=draw(st.sampled_from([2, 3, 4, 48])),
        lanes=draw(st.integers(1, 5)),
    )
    scales = st.just((1 << 24) - 1) if wide else st.integers(0, 3)
    registers = StagerSettings(
        shares=shares,
        value_scale=draw(scales),
        chance_scale=draw(scales),
        price=draw(scales),
        horizon=draw(st.sampled_from([2, 5, FOREVER])),
        by_recency=draw(st.booleans()),
        background=draw(st.booleans()),
        retries=draw(st.integers(0, 2)),
    )
    return limits, registers


class Chooser:
    """One command after the other, at random among those that are allowed; told what each did (``heard``).

    A command ``demand_residents`` is ``demand`` with ``resident_only``.
    """

    def __init__(self, limits, generator):
        self.limits, self.random = limits, generator
        self.running = []  # (layer, experts) of each sequence slot
        self.lost = set()  # keys of demands that were given up, as their transfers failed
        self.deadline = 0

    def some(self, most):
        """Distinct experts."""
        count = int(self.random.integers(0, min(most, self.limits.experts) + 1))
        return self.random.permutation(self.limits.experts)[:count].tolist()

    def layer(self):
        return int(self.random.integers(self.limits.layers))

    def numbers(self, low, high, count):
        """From ``low`` to ``high``, or the extremes where these are wide."""
        if self.limits.value_bits < WIDE_BITS:
            return self.random.integers(low, high + 1, count).tolist()
        half = 1 << (WIDE_BITS - 1)
        extremes = [-half, half - 1] if low < 0 else [0, 2 * half - 1]
        return self.random.choice(extremes, count).tolist()

    def next(self, moving):
        """(command, its arguments), or ``None`` where that which was drawn is not allowed; ``moving``: by channel."""
        choice = self.random.integers(10)
        busy = [c for c, key in enumerate(moving) if key != NONE]
        if choice == 0:
            return "set_values", (self.layer(), self.numbers(-3, 3, self.limits.experts))
        if choice == 1 and len(self.running) < self.limits.sequence_slots:
            asked = self.layer(), self.some(self.limits.event_experts)
            if self.random.random() < 0.2:
                return "demand_residents", asked
            self.running.append(asked)
            return "demand", asked
        if choice == 2:
            experts = self.some(4)
            chances = self.numbers(0, 2, len(experts))
            ahead = FOREVER if self.random.random() < 0.1 else max(0, self.deadline + int(self.random.integers(-1, 7)))
            return "prefetch", (self.layer(), experts, chances, ahead)
        if choice in (3, 4) and len(busy) < self.limits.channels:
            return "grant", ()
        if choice in (5, 6) and busy:
            return ("preempt" if choice == 5 else "arrive"), (int(self.random.choice(busy)),)
        if choice == 7 and self.running:
            return "release", self.running.pop(int(self.random.integers(len(self.running))))
        if choice == 8:
            self.deadline += int(self.random.integers(0, 2))
            return "expire", (self.deadline,)
        if choice == 9 and busy and self.random.random() < 0.6:
            return "fail", (int(self.random.choice(busy)),)
        return None

    def heard(self, command, arguments, step):
        """What the command did."""
        if command == "demand_residents":
            hits = [action.key % self.limits.experts for action in step.actions if action.kind is Kind.HIT]
            self.running.append((arguments[0], hits))
        self.lost -= {action.key for action in step.actions if action.kind is Kind.WAIT}
        self.lost |= {action.key for action in step.actions if action.why is Why.FAILED and action.kind is Kind.DROP}


def tell(form, command, arguments, **options):
    """The answer of a stager with the twin's methods."""
    if command == "demand_residents":
        return form.demand(*arguments, resident_only=True)
    return getattr(form, command)(*arguments, **options)
