"""The prover by itself: what holds for ever, what holds for a while, what breaks, and what would prove nothing."""

from pathlib import Path

import pytest
from amaranth.hdl import Assume, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.checks import always, always_stable, implies
from rtl.formal.environment import offers
from rtl.formal.proof import Method, prove


class Stage(wiring.Component):
    """A register between two streams."""

    i: In(stream.Signature(4))
    o: Out(stream.Signature(4))

    def __init__(self, *, withdraws: bool = False) -> None:
        self._withdraws = withdraws
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.i.ready.eq(~self.o.valid | self.o.ready)
        with m.If(self.i.ready):
            m.d.sync += [self.o.valid.eq(self.i.valid), self.o.payload.eq(self.i.payload)]
        if self._withdraws:
            waited = Signal(range(4))
            with m.If(self.o.valid & ~self.o.ready):
                m.d.sync += waited.eq(waited + 1)
            with m.If(waited == 3):
                m.d.sync += self.o.valid.eq(0)
        always_stable(m, "o", valid=self.o.valid, ready=self.o.ready, payload=self.o.payload)
        return m


class Counter(wiring.Component):
    """Counts to 9 and stays there; what else its register could hold nobody says."""

    step: In(2)
    odd: In(1)
    at: Out(4)

    def __init__(self, *, said: bool) -> None:
        self._said = said
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = Signal(4)
        with m.If((self.step != 0) & (count != 9)):
            m.d.sync += count.eq(count + 1)
        m.d.comb += self.at.eq(count)
        always(m, count != 15, "counter: at its end")
        if self._said:
            always(m, count <= 9, "counter: too far")
        return m


def test_a_handshake_holds_for_ever_and_faults_in_it_are_noticed() -> None:
    verdict = prove(Stage(), "stage", depth=5, faults=8, enough_noticed=2)
    assert (verdict.unbounded, verdict.checks, verdict.noticed) == (True, 2, 2)


def test_what_breaks_is_named_with_its_cycle_and_shown_as_waves(tmp_path: Path) -> None:
    waves = tmp_path / "waves.vcd"
    verdict = prove(Stage(withdraws=True), "stage", depth=8, waves=waves)
    # Offered in cycle 1, so it has waited in 1, 2 and 3 and is gone in 5.
    assert (verdict.refuted, verdict.cycle) == (("o: withdrawn before it was taken",), 5)
    assert not verdict.holds
    assert "$var" in waves.read_text()


def test_what_breaks_later_than_the_depth_is_not_said_to_hold_for_ever() -> None:
    verdict = prove(Stage(withdraws=True), "stage", depth=4)
    assert (verdict.holds, verdict.unbounded) == (True, False)


def test_an_induction_needs_to_be_told_what_states_have_in_common() -> None:
    assert not prove(Counter(said=False), "counter", depth=4).unbounded
    assert prove(Counter(said=True), "counter", depth=4).unbounded


def test_an_invariant_is_found_where_an_induction_is_not_told() -> None:
    verdict = prove(Counter(said=False), "counter", depth=4, method=Method.REACHABILITY, faults=8, fault_depth=20)
    assert verdict.unbounded
    assert (verdict.induction, verdict.open) == (None, ())
    assert verdict.invariant is not None
    assert 0 < verdict.noticed < verdict.faults == 8


def test_what_breaks_later_than_the_depth_is_reached_and_named(tmp_path: Path) -> None:
    waves = tmp_path / "waves.vcd"
    stage = Stage(withdraws=True)
    verdict = prove(stage, "stage", depth=4, method=Method.REACHABILITY, faults=8, waves=waves)
    assert (verdict.refuted, verdict.cycle) == (("o: withdrawn before it was taken",), 5)
    assert (verdict.invariant, verdict.faults) == (None, 0)
    assert "$var" in waves.read_text()


def test_an_invariant_rests_on_the_assumptions() -> None:
    def claim(m: Module, dut: Stage) -> None:
        always_stable(m, "i", valid=dut.i.valid, ready=dut.i.ready, payload=dut.i.payload)

    def offered(m: Module, dut: Stage) -> None:
        offers(m, "i", dut.i)

    reachability = Method.REACHABILITY
    assert prove(Stage(), "stage", depth=0, method=reachability, assumptions=offered, claims=claim).unbounded
    assert not prove(Stage(), "stage", depth=0, method=reachability, claims=claim).holds


@pytest.mark.parametrize("depth", [4, 5])
def test_both_solvers_notice_a_fault_within_the_same_cycles(depth: int) -> None:
    by_z3 = prove(Counter(said=True), "counter", depth=depth, faults=12)
    by_abc = prove(Counter(said=True), "counter", depth=depth, faults=12, fault_depth=depth)
    assert 0 < by_z3.noticed == by_abc.noticed < 12


def test_assumptions_are_taken_for_granted_and_claims_are_proved() -> None:
    def even(m: Module, dut: Counter) -> None:
        always(m, ~dut.odd, "odd", claim=Assume)

    def claim(m: Module, dut: Counter) -> None:
        always(m, implies(dut.step == 3, ~dut.odd), "both")

    assert prove(Counter(said=True), "counter", depth=3, assumptions=even, claims=claim).unbounded
    assert prove(Counter(said=True), "counter", depth=3, claims=claim).refuted == ("both",)


def test_a_source_that_keeps_the_rule_offers_stably() -> None:
    def claim(m: Module, dut: Stage) -> None:
        always_stable(m, "i", valid=dut.i.valid, ready=dut.i.ready, payload=dut.i.payload)

    assert prove(Stage(), "stage", depth=3, assumptions=lambda m, d: offers(m, "i", d.i), claims=claim).unbounded
    assert not prove(Stage(), "stage", depth=3, claims=claim).holds


def test_assumptions_that_nothing_satisfies_prove_nothing() -> None:
    def never(m: Module, dut: Counter) -> None:
        always(m, dut.step > dut.step, "never", claim=Assume)

    with pytest.raises(ValueError, match="counter: the assumptions contradict each other"):
        prove(Counter(said=True), "counter", depth=3, assumptions=never)


def test_a_circuit_without_checks_proves_nothing() -> None:
    class Silent(wiring.Component):
        a: In(1)

        def elaborate(self, platform: object) -> Module:
            return Module()

    with pytest.raises(ValueError, match="no check"):
        prove(Silent(), "silent")
