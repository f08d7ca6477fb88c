"""The protocol checker beside a bus names each breach: signals are falsified on their way to it, one at a time."""

from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")

from cocotb_tests.transfers import moves
from cocotb_tests.transfers.moves import MemoryTiming, move
from staging.transfer.bursts import Descriptor
from staging.transfer.limits import TransferLimits

# Not the limits of other tests, whose bench is the true one.
LIMITS = TransferLimits(data_bytes=8, burst_beats=32, outstanding=2, landing_beats=64, descriptors=2)

FALSE_SIGNALS = {
    "araddr": ("araddr ^ 2", "ar: not whole beats"),
    "arlen": ("arlen ^ 8'(now)", "ar: not kept until taken"),
    "arburst": ("2'b00", "ar: not INCR"),
    "arsize": ("3'd2", "ar: not whole beats"),
    "arid": ("1'b1", "ar: another identifier than 0"),
    "rid": ("1'b1", "r: of another identifier"),
    "rlast": ("~rlast", "r: rlast at another beat than the last"),
    "rvalid": ("1'b1", "r: answers nothing"),
    "rready": ("1'b0", "r: not kept until taken"),
    "awlen": ("awlen ^ 8'(now)", "aw: not kept until taken"),
    "awaddr": ("awaddr | 64'hff8", "aw: a burst crosses 4 KiB"),
    "awvalid": ("1'b0", "w: data of no burst"),
    "wlast": ("~wlast", "w: wlast at another beat than the last"),
    "wdata": ("wdata ^ 64'(now)", "w: not kept until taken"),
    "bvalid": ("1'b1", "b: answers no burst that is complete"),
    "bready": ("1'b0", "b: not kept until taken"),
    "bid": ("1'b1", "b: of another identifier"),
}
"""What the checker sees in place of each signal, and what it says of that."""


def falsified(text: str) -> str:
    """The bench whose checkers see the false signal that the plusarg ``false`` numbers, 0 for none."""
    before, far, rest = text.partition(".breaches(far_breaches)")
    checkers, end, after = rest.partition("assign breaches")
    for number, (signal, (value, _)) in enumerate(FALSE_SIGNALS.items(), start=1):
        false = f".{signal}(false == {number} ? $bits({signal})'({value}) : {signal})"
        for separator in (",", "\n"):
            checkers = checkers.replace(f".{signal}{separator}", false + separator)
    choice = """int unsigned false, now;
      initial if (!$value$plusargs("false=%d", false)) false = 0;
      always @(posedge clk) now <= rst ? 0 : now + 1;
    """
    return before.replace("  dma dma (", f"{choice}\n  dma dma (") + far + checkers + end + after


@pytest.fixture
def breaches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> partial[list[str]]:
    bench = tmp_path / "bench.sv"
    bench.write_text(falsified(moves.BENCH.read_text()))
    monkeypatch.setattr(moves, "BENCH", bench)
    true_run = moves.run

    def said(number: int) -> list[str]:
        def run(*arguments, plusargs, **options):  # type: ignore[no-untyped-def]
            return true_run(*arguments, plusargs=[*plusargs, f"+false={number}"], **options)

        monkeypatch.setattr(moves, "run", run)
        timing = MemoryTiming(latency=5, waits=128)
        descriptors = [Descriptor(4096 * n + 3, 4096 * n, 700) for n in range(6)]
        return [line.split(maxsplit=1)[1] for line in move(LIMITS, descriptors, far=timing, staging=timing).breaches]

    return partial(said)


def test_true_signals_breach_no_rule(breaches: partial[list[str]]) -> None:
    assert breaches(0) == []


@pytest.mark.parametrize("signal", FALSE_SIGNALS)
def test_a_false_signal_is_a_breach_with_a_name(signal: str, breaches: partial[list[str]]) -> None:
    assert FALSE_SIGNALS[signal][1] in breaches(list(FALSE_SIGNALS).index(signal) + 1)
