"""The scores unit: one matrix for both heads, from the sums of a target to the answers PREFETCH and VALUES."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, ValueLike, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory as Ram
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.row_network.integers import CHANCE_BINS, CHANCE_SHIFT
from predictor.row_network.limits import NetLimits
from predictor.row_network.program import Memory
from predictor.row_network.score_cycles import (
    CHANCE_CLOCKS,
    LEAST_PASSES,
    MERGE_CLOCKS,
    RELU_CLOCKS,
    SCORE_CLOCKS,
    VALUE_CLOCKS,
    dot_product_clocks,
)
from rtl.checks import always, always_stable, always_within, implies
from rtl.pipeline import stages
from rtl.prefetch.net.scores import layouts
from rtl.prefetch.net.scores.adaptation import Adaptation
from rtl.prefetch.net.scores.best import BestExperts
from rtl.prefetch.net.scores.bias import BiasReader
from rtl.prefetch.net.scores.dot_product import WEIGHT_BITS, DotProduct, sum_bits
from rtl.prefetch.net.scores.hidden import HiddenWords
from rtl.prefetch.net.scores.layouts import HEADS, NEXT_LAYER, NEXT_USE, counting
from rtl.prefetch.net.scores.memory import LoadedMemory
from rtl.prefetch.net.scores.merge import CHANCE_BITS, ChanceMerger
from rtl.prefetch.net.scores.relu import HIDDEN_BITS, ReluStage
from rtl.prefetch.net.scores.score import TOTAL_BITS, ScoreStage
from rtl.prefetch.net.scores.values import ValueRow, value_bits
from rtl.product import product

SUM_BITS = 32
"""Of a sum of rows."""


class ScoresUnit(wiring.Component):
    """Scores targets, one after the other, a pass in every clock; `score_cycles` says when what happens.

    A command is told in ``commands``; the words of its sums follow in ``sums``, the first two clocks later or more.
    Every answer runs through one pipeline: hidden units, product, score, chance, merged chance. Of a command that is
    the ``last`` of the slots that run together comes an answer: of next-layer ``prefetch``, of next-use ``values``. A
    command whose kind of answer still waits, or is under way, is not accepted.

    Args:
        limits: of the net.
        prefetched: experts of a PREFETCH answer, at most.
        value_lanes: values of a VALUES answer that are read together, a power of two.

    Members:
        load: what comes over the load bus.
        experts: of a layer.
        wanted: experts of a PREFETCH answer, at most; ``threshold``: their smallest chance, at least 1. Both are those
            of the clock that accepts the command.
        commands, sums, adapt: what is to be done. ``adapt`` waits until every chance of the next-layer commands before
            is kept; a next-layer command waits for the end of a walk; one that comes with ``adapt`` goes first.
        prefetch, values: the answers.
        read_values, values_group, values_row: what a VALUES answer stands for, from it is offered until it is taken;
            a group in the clock after it was asked for.
        scored: every score.
        busy: a command or a walk is in work.

    Attributes:
        memories: of each kind and head, which the load bus fills.
    """

    def __init__(self, limits: NetLimits, *, prefetched: int = 8, value_lanes: int = 16) -> None:
        self._limits, self._prefetched, self._value_lanes = limits, prefetched, value_lanes
        if limits.experts < LEAST_PASSES:
            raise ValueError(f"a layer has at least {LEAST_PASSES} experts")
        self._bias = BiasReader(limits)
        self.memories = {(Memory.BIAS, head): memory for head, memory in enumerate(self._bias.memories)}
        for head, own in enumerate(limits.heads):
            sizes = {
                Memory.OUTPUT: (WEIGHT_BITS * limits.word_lanes(head), layouts.output_words(limits, head)),
                Memory.OUTPUT_BIAS: (TOTAL_BITS, limits.layers * layouts.answers_max(limits, head)),
                Memory.CHANCES: (CHANCE_BITS, limits.layers * own.questions * CHANCE_BINS),
            }
            for which, (bits, depth) in sizes.items():
                self.memories[which, head] = LoadedMemory(limits, bits, depth)
        values = value_bits(limits.next_use.questions) * value_lanes
        super().__init__(
            {
                "load": In(layouts.load_layout(limits)),
                "experts": In(range(limits.experts + 1)),
                "wanted": In(range(prefetched + 1)),
                "threshold": In(CHANCE_BITS, init=1),
                "commands": In(stream.Signature(layouts.score_layout(limits))),
                "sums_valid": In(1),
                "sums": In(layouts.sums_layout(limits)),
                "adapt": In(stream.Signature(layouts.adapt_layout(limits))),
                "prefetch": Out(stream.Signature(layouts.prefetch_layout(limits, prefetched))),
                "values": Out(stream.Signature(layouts.values_layout(limits))),
                "read_values": In(1),
                "values_group": In(counting(-(-limits.experts // value_lanes))),
                "values_row": Out(values),
                "scored": Out(layouts.scored_layout(limits)),
                "busy": Out(1),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        limits = self._limits
        multiplied = RELU_CLOCKS  # clocks from a pass to its product
        total = multiplied + dot_product_clocks(limits.lanes)  # to its sum, seen by the score stage
        score = total + SCORE_CLOCKS
        chance = score + CHANCE_CLOCKS
        merged = chance + MERGE_CLOCKS

        # --- A command's passes ---
        issued = Signal(self._pass_layout())
        at = stages(m, "pass", issued, merged + VALUE_CLOCKS, reset_less=False)
        """What every pass is about, so many clocks after it."""
        command = Signal(layouts.score_layout(limits))
        active = Signal()
        m.submodules.adaptation = adaptation = Adaptation(
            rows=limits.slots * limits.layers, rows_of_slot=limits.layers, experts=limits.experts
        )
        begun = Signal()  # in the clock before a command was accepted
        m.d.sync += begun.eq(self.commands.valid & self.commands.ready)
        self._issue(m, issued, command, active, adaptation.busy, begun)

        # --- Hidden units ---
        m.submodules.bias = bias = self._bias
        m.submodules.relu = relu = ReluStage(limits.lanes, SUM_BITS)
        m.submodules.hidden = hidden = HiddenWords(
            HIDDEN_BITS * limits.lanes, max(limits.words(head) for head in range(HEADS))
        )
        m.d.comb += [
            bias.load.eq(self.load),
            bias.begin.eq(begun),
            bias.head.eq(command.head),
            bias.address.eq(command.bias),
            bias.step.eq(self.sums_valid),
            relu.shift.eq(command.hidden_shift),
            relu.now.eq(self.sums.sums),
            relu.bias.eq(bias.word),
            hidden.step.eq(at[multiplied - 1].valid),
            hidden.load.eq(at[multiplied - 1].begins),
            hidden.passes.eq(at[multiplied - 1].passes),
            hidden.given.eq(relu.hidden),
        ]

        # --- The matrix ---
        m.submodules.dot_product = dot_product = DotProduct(limits.lanes)
        weights = Signal(WEIGHT_BITS * limits.lanes)
        word = self._read(m, Memory.OUTPUT, at[multiplied - 2], at[multiplied - 2].output)
        m.d.sync += weights.eq(word)
        m.d.comb += [dot_product.hidden.eq(hidden.front), dot_product.weights.eq(weights)]

        # --- Scores ---
        m.submodules.score = stage = ScoreStage(sum_bits(limits.lanes))
        output_bias = Signal(TOTAL_BITS)
        early = total - ScoreStage.AHEAD
        word = self._read(m, Memory.OUTPUT_BIAS, at[early - 2], at[early - 2].answers)
        m.d.sync += output_bias.eq(word)
        reads = at[total - Adaptation.READ_CLOCKS]
        m.d.comb += [
            stage.valid.eq(at[total].valid),
            stage.sum.eq(dot_product.sum),
            stage.first.eq(at[total].first),
            stage.output_bias.eq(output_bias),
            stage.shift.eq(at[early].score_shift),
            stage.adaptation.eq(at[total].adaptation),
            stage.adapted.eq(adaptation.adapted),
            adaptation.read.eq(reads.valid & reads.last & (reads.adaptation != 0)),
            adaptation.read_row.eq(reads.row),
            adaptation.read_expert.eq(reads.expert),
        ]

        # --- Chances, and those of the slots before ---
        bin_bits = (CHANCE_BINS - 1).bit_length()
        own, other = Signal(CHANCE_BITS), Signal(CHANCE_BITS)
        entry = (at[score].chances << bin_bits) | (stage.score >> CHANCE_SHIFT)
        word = self._read(m, Memory.CHANCES, at[score], entry, where=at[score].last)
        m.d.sync += own.eq(word)
        m.submodules.merger = merger = ChanceMerger()
        rows = limits.layers + limits.next_use.questions
        expert_bits = len(issued.expert)
        m.submodules.so_far = so_far = Ram(shape=unsigned(CHANCE_BITS), depth=rows << expert_bits, init=[])
        read, write = so_far.read_port(), so_far.write_port()
        finishes = at[merged].valid & at[merged].last
        m.d.comb += [
            read.en.eq(at[score].valid & at[score].last & ~at[score].opens),
            read.addr.eq((at[score].merged_row << expert_bits) | at[score].expert),
            merger.chance.eq(other),
            merger.other.eq(own),
            write.en.eq(finishes),
            write.addr.eq((at[merged].merged_row << expert_bits) | at[merged].expert),
            write.data.eq(merger.merged),
        ]
        m.d.sync += other.eq(Mux(at[chance - 1].opens, 0, read.data))
        self._show_score(m, stage.score, own, at[chance])

        # --- Adaptation ---
        kept = at[chance]
        self._adapt(m, adaptation, active & (command.head == NEXT_LAYER), at[:chance])
        m.d.comb += [
            adaptation.keep.eq(kept.valid & kept.last & (kept.head == NEXT_LAYER)),
            adaptation.keep_row.eq(kept.row),
            adaptation.keep_expert.eq(kept.expert),
            adaptation.chance.eq(own),
        ]

        # --- Answers ---
        m.submodules.best = best = BestExperts(expert_bits, self._prefetched)
        m.submodules.row = row = ValueRow(
            experts=limits.experts, questions=limits.next_use.questions, lanes=self._value_lanes
        )
        closes = finishes & at[merged].closes
        wanted, threshold = Signal.like(self.wanted), Signal.like(self.threshold)
        asked = self.commands.payload
        with m.If(self.commands.ready & asked.last & (asked.head == NEXT_LAYER)):
            m.d.sync += [wanted.eq(self.wanted), threshold.eq(self.threshold)]
        m.d.comb += [
            best.valid.eq(closes & (at[merged].head == NEXT_LAYER)),
            best.clear.eq(best.valid & (at[merged].expert == 0)),
            best.expert.eq(at[merged].expert),
            best.chance.eq(merger.merged),
            best.threshold.eq(threshold),
            row.coming.eq(at[merged - 1].valid),
            row.expert.eq(at[merged - 1].expert),
            row.valid.eq(closes & (at[merged].head == NEXT_USE)),
            row.chance.eq(merger.merged),
            row.first.eq(at[merged].first_question),
            row.last.eq(at[merged].last_question),
            row.read.eq(self.read_values),
            row.group.eq(self.values_group),
            self.values_row.eq(row.values),
        ]
        for n in range(self._prefetched):
            with m.If(n < self.prefetch.payload.count):
                m.d.comb += [
                    self.prefetch.payload.experts[n].eq(best.experts[n]),
                    self.prefetch.payload.chances[n].eq(best.chances[n]),
                ]
        m.d.comb += self.prefetch.payload.count.eq(Mux(best.count > wanted, wanted, best.count))
        with m.If(self.prefetch.valid & self.prefetch.ready):
            m.d.sync += self.prefetch.valid.eq(0)
        with m.If(best.valid & at[merged].final):
            m.d.sync += [self.prefetch.valid.eq(1), self.prefetch.payload.layer.eq(at[merged].target)]
        told = at[merged + VALUE_CLOCKS - 1]
        with m.If(self.values.valid & self.values.ready):
            m.d.sync += self.values.valid.eq(0)
        with m.If(told.valid & told.final & told.closes & (told.head == NEXT_USE)):
            m.d.sync += [self.values.valid.eq(1), self.values.payload.layer.eq(told.target)]

        under_way = Signal()  # a pass
        m.d.sync += under_way.eq(Cat(one.valid for one in at[:-1]).any())
        m.d.comb += self.busy.eq(active | adaptation.busy | under_way)
        always_stable(
            m, "prefetch_answer", valid=self.prefetch.valid, ready=self.prefetch.ready,
            payload=self.prefetch.payload.as_value(),
        )  # fmt: skip
        always_stable(
            m, "values_answer", valid=self.values.valid, ready=self.values.ready,
            payload=self.values.payload.as_value(),
        )  # fmt: skip
        always(m, ~(best.valid & self.prefetch.valid), "scores: an answer comes while one waits")
        always(m, ~(row.valid & self.values.valid), "scores: values come while some wait")
        return m

    def _pass_layout(self) -> data.StructLayout:
        """What is known of a pass all along its way.

        Members:
            first, last: of its answer; ``final``: the command's last.
            begins: its hidden units are new.
            opens, closes: the command is of the first, of the last of the slots that run together.
            row: of the adaptation; ``merged_row``: of the chances so far; ``chances``: of the table of chances.
            output, answers: address of its weights, of its answer's bias.
        """
        limits = self._limits
        command = layouts.score_layout(limits)
        same = ("head", "slot", "target", "passes", "score_shift", "adaptation", "output", "answers", "chances")
        flags = (
            "valid", "first", "last", "final", "begins", "opens", "closes", "first_question", "last_question",
        )  # fmt: skip
        return data.StructLayout(
            {
                **dict.fromkeys(flags, 1),
                **{name: command[name].shape for name in same},
                "expert": counting(limits.experts),
                "answer": counting(max(layouts.answers_max(limits, head) for head in range(HEADS))),
                "row": counting(limits.slots * limits.layers),
                "merged_row": counting(limits.layers + limits.next_use.questions),
            }
        )

    def _issue(
        self, m: Module, issued: data.View, command: data.View, active: Signal, walking: Signal, begun: Signal
    ) -> None:
        """Accept commands and issue their passes."""
        limits = self._limits
        told = self.commands.payload
        word = Signal.like(command.passes)
        question = Signal.like(command.questions)
        due = Signal(HEADS)  # a kind's answer is under way or waits
        accepted = Signal()
        m.d.comb += [
            self.commands.ready.eq(
                ~active & ~(told.last & due.bit_select(told.head, 1)) & ~((told.head == NEXT_LAYER) & walking)
            ),
            accepted.eq(self.commands.valid & self.commands.ready),
        ]
        first_answer = Signal()
        m.d.comb += [
            issued.valid.eq(active & (~first_answer | self.sums_valid)),
            issued.begins.eq(issued.valid & first_answer),
            issued.first.eq(word == 0),
            issued.last.eq(word + 1 == command.passes),
            issued.first_question.eq(question == 0),
            issued.last_question.eq(question + 1 == command.questions),
            issued.final.eq(issued.last & issued.last_question & (issued.expert + 1 == self.experts)),
            issued.opens.eq(command.first),
            issued.closes.eq(command.last),
            issued.row.eq(product(command.slot, limits.layers) + command.target),
            issued.merged_row.eq(Mux(command.head == NEXT_USE, limits.layers + question, command.target)),
            issued.chances.eq(command.chances + question),
        ]
        for name in ("head", "slot", "target", "passes", "score_shift", "adaptation"):
            m.d.comb += getattr(issued, name).eq(getattr(command, name))
        counters = {name: Signal.like(getattr(issued, name), name=name) for name in ("output", "answers", "answer")}
        expert = Signal.like(issued.expert)
        m.d.comb += issued.expert.eq(expert)
        for name, counter in counters.items():
            m.d.comb += getattr(issued, name).eq(counter)
        with m.If(issued.valid):
            m.d.sync += [counters["output"].eq(counters["output"] + 1), word.eq(word + 1)]
            with m.If(issued.last):
                m.d.sync += [
                    word.eq(0),
                    first_answer.eq(0),
                    counters["answers"].eq(counters["answers"] + 1),
                    counters["answer"].eq(counters["answer"] + 1),
                    expert.eq(expert + 1),
                ]
                with m.If(expert + 1 == self.experts):
                    m.d.sync += [expert.eq(0), question.eq(question + 1)]
            with m.If(issued.final):
                m.d.sync += active.eq(0)
        with m.If(self.prefetch.valid & self.prefetch.ready):
            m.d.sync += due[NEXT_LAYER].eq(0)
        with m.If(self.values.valid & self.values.ready):
            m.d.sync += due[NEXT_USE].eq(0)
        # Whoever tells a command may find out late that he does: what it says is kept whenever it might be taken.
        with m.If(~active):
            m.d.sync += [
                command.eq(told), first_answer.eq(1), word.eq(0), question.eq(0), expert.eq(0),
                counters["output"].eq(told.output), counters["answers"].eq(told.answers), counters["answer"].eq(0),
            ]  # fmt: skip
        with m.If(accepted):
            m.d.sync += active.eq(1)
            with m.If(told.last):
                m.d.sync += due.bit_select(told.head, 1).eq(1)

        fills = Signal()  # the bias of the first word is on its way
        m.d.sync += fills.eq(begun)
        comes = self.sums_valid
        waits = active & first_answer & ~begun & ~fills
        always(m, implies(comes, waits), "scores: sums that no command waits for")
        always(m, implies(comes, self.sums.head == command.head), "scores: sums of the other head")
        always(m, implies(comes, self.sums.word == word), "scores: words of sums out of their order")
        always(m, implies(comes, self.sums.last == issued.last), "scores: more or fewer words of sums than passes")
        always(m, implies(accepted, told.passes != 0), "scores: a command of no passes")
        always(m, implies(accepted, told.questions != 0), "scores: a command of no questions")
        always(
            m, implies(accepted & (told.head == NEXT_LAYER), told.questions == 1), "scores: next-layer asks two things"
        )
        always(m, implies(accepted & (told.head == NEXT_USE), told.adaptation == 0), "scores: next-use does not adapt")
        always_within(m, told.slot, 0, limits.slots - 1, "scores: a slot that there is not", where=accepted)
        always_within(m, told.target, 0, limits.layers - 1, "scores: a layer that there is not", where=accepted)
        always_within(
            m, self.experts, LEAST_PASSES, limits.experts, "scores: too many or too few experts", where=accepted
        )

    def _read(self, m: Module, which: Memory, one: data.View, address: ValueLike, *, where: ValueLike = 1) -> Value:
        """What the memory of pass ``one``'s head holds at ``address``: a value that is there in the next clock."""
        words, behind = [], Signal(name=f"{which.name.lower()}_head")
        m.d.sync += behind.eq(one.head)
        for head in range(HEADS):
            m.submodules[f"{which.name.lower()}{head}"] = memory = self.memories[which, head]
            m.d.comb += [
                memory.load.eq(self.load),
                memory.selected.eq((self.load.head == head) & (self.load.memory == which)),
                memory.read.eq(one.valid & where & (one.head == head)),
                memory.address.eq(address),
            ]
            words.append(memory.word)
        return Mux(behind == NEXT_USE, words[NEXT_USE], words[NEXT_LAYER])

    def _adapt(self, m: Module, adaptation: Adaptation, asked: Value, passes: list[data.View]) -> None:
        """Accept what the adaptation is told: of ``passes``, the chances are not kept yet in the next clock."""
        told = self.adapt.payload
        under_way = Signal()
        m.d.sync += under_way.eq(Cat(one.valid & (one.head == NEXT_LAYER) for one in passes).any())
        goes_first = self.commands.valid & self.commands.ready & (self.commands.payload.head == NEXT_LAYER)
        accepted = Signal()
        m.d.comb += [
            self.adapt.ready.eq(~adaptation.busy & ~asked & ~under_way & ~goes_first),
            accepted.eq(self.adapt.valid & self.adapt.ready),
            adaptation.start.eq(accepted & (told.kind == layouts.AdaptKind.ADAPT)),
            adaptation.forget.eq(accepted & (told.kind == layouts.AdaptKind.CLEAR)),
            adaptation.slot.eq(told.slot),
            adaptation.row.eq(product(told.slot, self._limits.layers) + told.layer),
            adaptation.experts.eq(self.experts),
        ]
        chosen = 0
        for rank in range(self._limits.top_k):
            chosen = chosen | Mux(rank < told.count, 1 << told.experts[rank], 0)
        m.d.comb += adaptation.chosen.eq(chosen)

    def _show_score(self, m: Module, score: Value, chance: Value, one: data.View) -> None:
        """Show every score when its chance is known."""
        late = stages(m, "score", score, CHANCE_CLOCKS, reset_less=False)[-1]
        m.d.comb += [
            self.scored.valid.eq(one.valid & one.last),
            self.scored.score.eq(late),
            self.scored.chance.eq(chance),
        ]
        for name in ("head", "slot", "target", "answer"):
            m.d.comb += getattr(self.scored, name).eq(getattr(one, name))
