"""Products split over pseudo-channels, and experts over a stack: who has what, and what is counted."""

import pytest

from catalog import ForestageError, load_catalog
from pim_model.dram.devices import find_device
from pim_model.gemv.closed_form import GemvClocks
from pim_model.gemv.expert import ExpertShape, run_expert, slices_of
from pim_model.gemv.product import Kernel, in_turn, product, token_parts, unit_for
from pim_model.unit.program import ExpertKind, WeightFormat, expert_program
from pim_model.unit.schedule import UnitCommand, schedule

BF16, INT8, MXFP4 = WeightFormat
HBM2 = find_device("HBM2-PIM")
QWEN = ExpertShape(hidden=2048, intermediate=768, kind=ExpertKind.SWIGLU, bias=False)


def test_a_product_of_one_pseudo_channel_is_its_closed_form_and_its_fraction_by_hand() -> None:
    result = product(HBM2, Kernel.PINGPONG, out_features=768, in_features=2048)
    # 768 · 2048 · 2 bytes at 64 bytes a clock.
    assert result.weight_bytes == 3145728
    assert result.fraction_of_limit == pytest.approx(3145728 / 64 / result.compute_cycles)
    assert result.mean_fraction_of_limit == result.fraction_of_limit
    assert (result.weight_reads, result.bus_phases, result.rows) == (1, 1, 768)
    # MXFP4: 4 bits and an eighth of a bit more a weight, INT8: 4 bytes a row more.
    assert product(HBM2, Kernel.PINGPONG, out_features=768, in_features=2048, weight_format=MXFP4).weight_bytes == (
        768 * 1024 + 768 * 64
    )


def test_the_slowest_pseudo_channel_counts() -> None:
    # 130 rows over 2: 65 each, as 130 over 2 with shared buses; 129: one has 65.
    even, odd = (
        product(HBM2, Kernel.PINGPONG, out_features=rows, in_features=512, pseudo_channels=2) for rows in (130, 129)
    )
    assert even.rows == odd.rows == 65
    assert even.compute_cycles == odd.compute_cycles
    assert even.bus_phases == 2
    # The limit is that of both.
    assert even.fraction_of_limit == pytest.approx(130 * 512 * 2 / (2 * 64 * even.compute_cycles))


def test_more_tokens_than_a_read_serves_read_the_weights_again() -> None:
    assert token_parts(4, BF16) == [4]
    assert token_parts(9, BF16) == [4, 4, 1]
    assert token_parts(3, MXFP4) == [1, 1, 1]
    one = product(HBM2, Kernel.PINGPONG, out_features=256, in_features=256, tokens=4)
    two = product(HBM2, Kernel.PINGPONG, out_features=256, in_features=256, tokens=8)
    assert (one.weight_reads, two.weight_reads) == (1, 2)
    assert two.compute_cycles == 2 * one.compute_cycles + one.readout_cycles
    # The published part's kernel has no second token.
    samsung = product(HBM2, Kernel.SAMSUNG, out_features=256, in_features=256, tokens=4)
    assert samsung.weight_reads == 4


def test_refreshes_go_on_from_one_kernel_to_the_next() -> None:
    seen = []

    def kernel(due: int | None) -> GemvClocks:
        seen.append(due)
        return GemvClocks(900, 100)

    assert in_turn([kernel] * 4, 1500)(1500) == GemvClocks(3900, 100)
    # 1500 − 1000; the next would be 500 before, so a whole interval later: 500 − 1000 + 1500; …
    assert seen == [1500, 500, 1000, 1500]
    assert in_turn([kernel] * 2, 1500)(None) == GemvClocks(1900, 100)


def test_a_short_product_that_begins_after_a_refresh_meets_none_but_its_mean_does() -> None:
    result = product(HBM2, Kernel.PINGPONG, out_features=96, in_features=1024, refresh=True)
    free = product(HBM2, Kernel.PINGPONG, out_features=96, in_features=1024)
    assert result.compute_cycles == free.compute_cycles < HBM2.trefi_ck
    assert 0.86 < result.mean_fraction_of_limit / free.fraction_of_limit < 0.93


def test_products_that_cannot_be_are_refused() -> None:
    def refused(message: str, device: str = "HBM2-PIM", kernel: Kernel = Kernel.PINGPONG, **changed: object) -> None:
        with pytest.raises(ForestageError, match=message):
            product(find_device(device), kernel, **({"out_features": 8, "in_features": 8} | changed))  # type: ignore[arg-type]

    refused("out_features: is 0", out_features=0)
    refused("in_features: is -1", in_features=-1)
    refused("tokens: is 0", tokens=0)
    refused("pseudo_channels: 17; a stack of HBM2-PIM has 16", pseudo_channels=17)
    refused("multiplies 16-bit floats", kernel=Kernel.SAMSUNG, weight_format=INT8)
    refused("buffer holds at most 16384", in_features=16385)
    refused("no compute at its banks", device="HBM2")


@pytest.mark.parametrize(
    ("intermediate", "channels", "weight_format", "slices"),
    [
        (768, 16, BF16, {48: 16}),
        (1408, 32, INT8, {44: 32}),
        (770, 16, BF16, {49: 2, 48: 14}),
        (10, 16, BF16, {1: 10}),
        # Shared scales: 90 blocks of 32 over 32 pseudo-channels.
        (2880, 32, MXFP4, {96: 26, 64: 6}),
        (768, 32, MXFP4, {32: 24}),
        (70, 2, MXFP4, {64: 1, 6: 1}),
    ],
)
def test_an_expert_is_split_as_evenly_as_its_format_lets_it_be(
    intermediate: int, channels: int, weight_format: WeightFormat, slices: dict[int, int]
) -> None:
    assert slices_of(intermediate, channels, weight_format) == slices
    assert sum(size * number for size, number in slices.items()) == intermediate


def test_an_experts_clocks_are_those_of_its_slice() -> None:
    run = run_expert(HBM2, QWEN, BF16, 2, refresh=False)
    clocks = []
    for phase in (0, 1):
        unit = unit_for(HBM2, 2048, 2, phase)
        exact = schedule(expert_program(unit, 2048, 48, BF16, ExpertKind.SWIGLU, tokens=2), unit)
        clocks.append((exact.compute_ck, exact.compute_ck + exact.readout_ck))
    assert run.compute_cycles == max(compute for compute, _ in clocks)
    assert run.compute_cycles + run.readout_cycles == max(total for _, total in clocks)
    # Two vectors of 2048 BF16 in, two of 2048 FP32 out, at 16 bytes a clock.
    assert (run.input_cycles, run.output_cycles) == (2 * 4096 // 16, 2 * 8192 // 16)
    assert run.time_s == pytest.approx(run.cycles * 1e-9)
    assert run.weight_bytes == 3 * 2048 * 768 * 2
    assert run.bound_s < run.compute_cycles * 1e-9


def test_what_costs_energy_is_what_the_schedule_issues() -> None:
    run = run_expert(HBM2, QWEN, INT8, 2, refresh=False)
    unit = unit_for(HBM2, 2048, 2, 0)
    exact = schedule(expert_program(unit, 2048, 48, INT8, ExpertKind.SWIGLU, tokens=2), unit)
    assert run.events.activations == 16 * exact.count(UnitCommand.ACT)
    assert run.events.in_bank_bytes == 16 * exact.count(UnitCommand.PIM) * 256
    assert run.events.base_die_bytes == 16 * 32 * (exact.count(UnitCommand.LDI) + exact.count(UnitCommand.RDA))
    assert run.events.all_bank_refreshes == 0
    # No padding in these shapes: 3 · 2048 · 768 weights, two tokens.
    assert run.events.multiply_adds == 3 * 2048 * 768 * 2
    assert (run.events.host_write_bytes, run.events.host_read_bytes) == (16 * 2 * 4096, 16 * 2 * 8192)


def test_with_refresh_energy_and_time_are_means() -> None:
    run, free = (run_expert(HBM2, QWEN, BF16, 1, refresh=refresh) for refresh in (True, False))
    unit_ck = run.compute_cycles + run.readout_cycles
    assert run.events.all_bank_refreshes == pytest.approx(16 * unit_ck / HBM2.trefi_ck)
    assert run.events.activations > free.events.activations
    assert 0.86 < free.compute_cycles / run.compute_cycles < 0.93
    assert run.fraction_of_limit < run.bound_fraction


def test_experts_that_the_unit_cannot_run_are_refused() -> None:
    catalog = load_catalog()
    assert ExpertShape.of(catalog.find_model("gpt-oss-20b")).kind is ExpertKind.GPT_OSS
    with pytest.raises(ForestageError, match=r"activation: relu with 2 matrices"):
        ExpertShape.of(catalog.find_model("Switch-base-128"))
    with pytest.raises(ForestageError, match="tokens: is 0"):
        run_expert(HBM2, QWEN, BF16, 0)
    with pytest.raises(ForestageError, match="pseudo_channels: 20"):
        run_expert(HBM2, QWEN, BF16, 1, pseudo_channels=20)
