"""The stages from sums to answers, each by itself, against its rule in the twin."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("amaranth", reason="needs the extra 'hardware'")

from predictor.measure.ranking import best_experts
from predictor.row_network.merging import merged_chance
from rtl.prefetch.net.scores import relu
from rtl.prefetch.net.scores.best import BestExperts
from rtl.prefetch.net.scores.dot_product import DotProduct, sum_bits
from rtl.prefetch.net.scores.hidden import HiddenWords
from rtl.prefetch.net.scores.merge import ChanceMerger
from rtl.prefetch.net.scores.relu import ReluStage
from rtl.prefetch.net.scores.score import ScoreStage
from rtl.prefetch.net.scores.values import ValueRow
from tests.rtl.simulate import simulate

I32_MAX, I32_MIN = 2**31 - 1, -(2**31)
EXTREMES = (I32_MIN, I32_MIN + 1, -256, -1, 0, 1, 127, 128, 255, 256, I32_MAX)


def rounded(value: int, shift: int) -> int:
    return (value + (1 << shift >> 1)) >> shift


def test_relu_adds_rounds_shifts_and_clips() -> None:
    dut = ReluStage(11, 32)  # a whole group of lanes, and one that is not
    generator = np.random.default_rng(0)
    words = []
    for n in range(120):
        sums = [int(v) for v in generator.integers(-(1 << (n % 31)), (1 << (n % 31)) + 1, 11)]
        words.append((sums, [int(v) for v in generator.integers(-300, 300, 11)], int(generator.integers(0, 12))))
    for shift in (0, 1, 8, 30):
        words.append((list(EXTREMES), [EXTREMES[-1 - n] for n in range(11)], shift))
        words.append((list(EXTREMES), list(EXTREMES), shift))
    got = []

    async def bench(ctx: Any) -> None:
        for n in range(len(words) + 1 + relu.LATENCY):
            sums, bias, _ = words[min(max(n - 1, 0), len(words) - 1)]
            ctx.set(dut.shift, words[min(n, len(words) - 1)][2])
            ctx.set(dut.now, sums)
            ctx.set(dut.bias, bias)
            if n > relu.LATENCY:
                got.append([ctx.get(dut.hidden[lane]) for lane in range(11)])
            await ctx.tick()

    simulate(dut, bench)
    assert got == [
        [min(255, max(0, rounded(a + b, shift))) for a, b in zip(sums, bias, strict=True)]
        for sums, bias, shift in words
    ]


@pytest.mark.parametrize("lanes", [1, 2, 3, 8, 13, 64])
def test_a_product_leaves_in_every_clock_after_its_latency(lanes: int) -> None:
    dut = DotProduct(lanes)
    generator = np.random.default_rng(lanes)
    hidden = generator.integers(0, 256, (30, lanes))
    weights = generator.integers(-128, 128, (30, lanes))
    hidden[:2], weights[0], weights[1] = 255, -128, 127
    got = []

    async def bench(ctx: Any) -> None:
        for n in range(30 + dut.latency):
            ctx.set(dut.hidden, hidden[n % 30].tolist())
            ctx.set(dut.weights, weights[n % 30].tolist())
            if n >= dut.latency:
                got.append(ctx.get(dut.sum))
            await ctx.tick()

    simulate(dut, bench)
    assert got == (hidden * weights).sum(axis=1).tolist()
    assert got[0] >= -(1 << (sum_bits(lanes) - 1))


@pytest.mark.parametrize("ring", [1, 2, 3, 5])
def test_hidden_words_come_again_and_again(ring: int) -> None:
    dut = HiddenWords(8, ring)
    generator = np.random.default_rng(ring)

    async def bench(ctx: Any) -> None:
        for passes in (*range(1, ring + 1), *range(ring, 0, -1)):
            words = generator.integers(0, 256, passes).tolist()
            ctx.set(dut.passes, passes)
            for step in range(3 * passes):
                for _ in range(int(generator.integers(0, 2))):  # a wait
                    ctx.set(dut.step, 0)
                    await ctx.tick()
                ctx.set(dut.step, 1)
                ctx.set(dut.load, step < passes)
                ctx.set(dut.given, words[step] if step < passes else 7)
                await ctx.tick()
                assert ctx.get(dut.front) == words[step % passes]

    simulate(dut, bench)


Answer = tuple[Sequence[int], int, int, int, int]
"""Sums of its passes, bias, shift, adapted bias, shift of that."""


def scored(answers: Sequence[Answer]) -> list[int]:
    """Give the stage the passes of all ``answers`` one after the other, some after a gap; their scores."""
    dut = ScoreStage(23)
    passes = []
    for count, answer in enumerate(answers):
        for n in range(len(answer[0])):
            passes += [(answer, -1)] * (count % 3 == 1 and n > 0) + [(answer, n)]
    got = []

    async def bench(ctx: Any) -> None:
        for n in range(len(passes) + ScoreStage.AHEAD + ScoreStage.LATENCY):
            (_, bias, shift, _, _), _ = passes[min(n, len(passes) - 1)]
            ctx.set(dut.output_bias, bias)
            ctx.set(dut.shift, shift)
            (sums, _, _, adapted, adaptation), place = passes[min(max(n - ScoreStage.AHEAD, 0), len(passes) - 1)]
            ctx.set(dut.valid, place >= 0)
            ctx.set(dut.sum, sums[place])
            ctx.set(dut.first, place == 0)
            ctx.set(dut.adapted, adapted)
            ctx.set(dut.adaptation, adaptation)
            done = n - ScoreStage.AHEAD - ScoreStage.LATENCY
            if done >= 0 and passes[done][1] == len(passes[done][0][0]) - 1:
                got.append(ctx.get(dut.score))
            await ctx.tick()

    simulate(dut, bench)
    return got


def test_scores_are_summed_rounded_moved_and_clipped() -> None:
    generator = np.random.default_rng(3)
    answers: list[Answer] = []
    for n in range(150):
        sums = [int(v) for v in generator.integers(-(2**16), 2**16, n % 4 + 1)]
        adapted = int(generator.integers(-(2**24) + 1, 2**24))
        shift, adaptation = int(generator.integers(2, 9)), int(generator.integers(0, 25)) * (n % 3 > 0)
        answers.append((sums, int(generator.integers(-5000, 5000)), shift, adapted, adaptation))
    limit = 2**24 - 1
    for shift in (0, 4, 30):  # every clip is hit, from both sides, at both ends of what the width check lets in
        for bias, adapted in ((I32_MAX - 2**22 - 2**29, limit), (-(2**31) + 2**22, -limit), (0, limit), (0, -limit)):
            answers.append(([2**22 - 1], bias, shift, adapted, 1))
            answers.append(([-(2**22)], bias, shift, adapted, 30))
    expected = []
    for sums, bias, shift, adapted, adaptation in answers:
        value = rounded(sum(sums) + bias, shift) + 2048 + (adapted >> adaptation if adaptation else 0)
        expected.append(min(4095, max(1, value)))
    assert {1, 4095} < set(expected)
    assert scored(answers) == expected


def test_chances_are_merged_as_the_twin_says() -> None:
    dut = ChanceMerger()
    generator = np.random.default_rng(4)
    ends = (0, 1, 2, 255, 256, 32767, 32768, 65279, 65534, 65535)
    pairs = [(a, b) for a in ends for b in ends] + generator.integers(0, 65536, (400, 2)).tolist()
    got = []

    async def bench(ctx: Any) -> None:
        for n in range(len(pairs) + ChanceMerger.LATENCY):
            chance, other = pairs[min(n, len(pairs) - 1)]
            ctx.set(dut.chance, chance)
            ctx.set(dut.other, other)
            if n >= ChanceMerger.LATENCY:
                got.append(ctx.get(dut.merged))
            await ctx.tick()

    simulate(dut, bench)
    assert got == [merged_chance(*pair) for pair in pairs]


@pytest.mark.parametrize("places", [1, 3, 8])
def test_the_best_are_those_of_the_ranking(places: int) -> None:
    dut = BestExperts(5, places)
    generator = np.random.default_rng(places)

    async def bench(ctx: Any) -> None:
        for trial in range(40):
            experts = int(generator.integers(1, 33))
            chances = generator.integers(0, (3, 40, 65536)[trial % 3], experts).astype(np.int32)
            threshold = int(generator.integers(1, (3, 20, 60000)[trial % 3]))
            ctx.set(dut.threshold, threshold)
            for expert, chance in enumerate(chances.tolist()):
                if generator.random() < 0.2:
                    ctx.set(dut.valid, 0)
                    ctx.set(dut.clear, 0)
                    await ctx.tick()
                ctx.set(dut.valid, 1)
                ctx.set(dut.clear, expert == 0)
                ctx.set(dut.expert, expert)
                ctx.set(dut.chance, chance)
                await ctx.tick()
            ctx.set(dut.valid, 0)
            ctx.set(dut.clear, 0)
            best = np.zeros(places, np.int16)
            count = min(best_experts(chances, threshold, best), places)
            assert ctx.get(dut.count) == count
            assert [ctx.get(dut.experts[n]) for n in range(count)] == best[:count].tolist()
            assert [ctx.get(dut.chances[n]) for n in range(count)] == chances[best[:count]].tolist()

    simulate(dut, bench)


def test_a_threshold_of_nothing_is_caught() -> None:
    dut = BestExperts(5, 2)

    async def bench(ctx: Any) -> None:
        ctx.set(dut.valid, 1)
        await ctx.tick()
        await ctx.tick()

    with pytest.raises(AssertionError, match="the threshold is 0"):
        simulate(dut, bench)


@pytest.mark.parametrize(("experts", "questions", "lanes"), [(4, 1, 2), (5, 3, 4), (32, 4, 16)])
def test_values_add_up_and_are_read_in_groups(experts: int, questions: int, lanes: int) -> None:
    dut = ValueRow(experts=experts, questions=questions, lanes=lanes)
    generator = np.random.default_rng(experts)

    async def bench(ctx: Any) -> None:
        for trial in range(4):
            chances = generator.integers(0, 65536, questions * experts)
            if trial == 0:
                chances[:] = 65535  # the widest sums
            for n in range(len(chances) + 1):
                ctx.set(dut.coming, n < len(chances))
                ctx.set(dut.expert, n % experts)
                ctx.set(dut.valid, n > 0)
                ctx.set(dut.chance, int(chances[max(n - 1, 0)]))
                ctx.set(dut.first, n - 1 < experts)
                ctx.set(dut.last, n - 1 >= (questions - 1) * experts)
                await ctx.tick()
            ctx.set(dut.valid, 0)
            await ctx.tick().repeat(ValueRow.LATENCY - 1)
            got = []
            for group in range(-(-experts // lanes)):
                ctx.set(dut.read, 1)
                ctx.set(dut.group, group)
                await ctx.tick()
                word, bits = ctx.get(dut.values), len(dut.values) // lanes
                got += [word >> bits * n & ((1 << bits) - 1) for n in range(lanes)]
            assert got[:experts] == chances.reshape(questions, experts).sum(axis=0).tolist()

    simulate(dut, bench)
