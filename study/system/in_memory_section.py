"""The section of experts that run in memory: from how many tokens on one loses, and what it does for a system."""

import json
from typing import Any

from perfmodel.comparison import Comparison, Line
from perfmodel.expert_times import ExpertTimes
from perfmodel.outcome import Outcome
from predictor.policies.rows import FETCH, HOST, IN_MEMORY, LRU, STATIC, STATIC_IN_MEMORY
from study.blocks import Block, Command, Note, Row, Section, Table, Text, picture
from study.figures.system.experts import expert_over_tokens
from study.numbers import count, seconds, size, tokens_of
from study.stages import StudyContext
from study.system.answer import fastest
from study.system.commands import in_memory_remaking
from study.system.expert_tables import COLUMNS, cells, lost_in_words
from study.system.words import listed, memory_in_words, share_text

TITLE = "Experts in memory"


def section(context: StudyContext) -> Section:
    """The section, of the stage's result."""
    result = context.results["in-memory"]
    experts = ExpertTimes.model_validate_json(json.dumps(result["experts"]))
    batches = [_Batch(one) for one in result["batches"]]
    blocks: list[Block] = [
        Text(_what(context, experts)),
        Text(" ".join(lost_in_words(experts))),
        picture(
            expert_over_tokens(experts),
            "in-memory-expert",
            f"One expert of {experts.model} by the number of tokens that chose it, both axes logarithmic. Dots: from "
            "there on it is slower alone in memory than in that place; ring: from there on one more in a busy memory "
            "is slower than on the device.",
        ),
        Table(
            columns=COLUMNS,
            rows=tuple(Row(cells(row)) for row in experts.times),
            caption="From the gate to the result on the device. One more in memory: what an expert adds to a layer "
            "while every group of pseudo-channels is busy. Fetched: over an idle link, and computed on the device.",
        ),
        Text(_systems(batches)),
        _by_batch(batches),
        Note(_assumptions(experts)),
        Note(_measured(result, share_text(context.config.system.capacity_fraction))),
        Command(in_memory_remaking(context, [batch.batch for batch in batches])),
    ]
    return Section(id="in-memory", title=TITLE, blocks=tuple(blocks))


def _measured(result: dict[str, Any], held: str) -> str:
    """On which tokens."""
    told = [
        f"{tokens_of(one['tokens'], one['sequences'])} with {count(one['batch'])} at once (settings chosen on "
        f"{count(one['tuning_tokens'])} training tokens)"
        for one in result["batches"]
    ]
    decoded = ", prompts as if they were decoded" if result["prompts_decoded"] else ""
    return f"Simulated: {listed(told)}{decoded}; {held} of the experts held, but where none is."


class _Batch:
    """The result at one batch."""

    def __init__(self, of: dict[str, Any]) -> None:
        self.batch: int = of["batch"]
        self.point = Comparison.model_validate_json(json.dumps(of["point"]))
        self.none_held = Outcome.model_validate_json(json.dumps(of["none_held"]))


def _best(point: Comparison, family: str, *, computes: bool | None = None) -> Line:
    """The row of ``family`` that was fastest on the tuning tokens, oracles left out; ``computes``: of those that do."""
    lines = [
        line
        for line in point.lines
        if line.family == family and not line.is_oracle and computes in (None, line.policy.missing.may_compute)
    ]
    return min(lines, key=lambda line: line.tuning_s)


def _what(context: StudyContext, experts: ExpertTimes) -> str:
    rows = f"{experts.slice_rows} of its intermediate rows" if experts.slice_rows > 1 else "one intermediate row"
    return (
        f"All experts lie in {memory_in_words(experts.in_memory)}, which compute them there; "
        f"{experts.link_gb_per_s:g} GB/s lead to the {experts.machine}, which holds "
        f"{share_text(context.config.system.capacity_fraction)} of them. An expert of {experts.model} "
        f"({size(experts.expert_bytes)}, {size(experts.stored_expert_bytes)} as it lies there) is spread over "
        f"{experts.pseudo_channels} pseudo-channels, at most {rows} in each, and {experts.groups} such groups work at "
        f"once. The weights are read once for {experts.tokens_per_read} token"
        f"{'s' * (experts.tokens_per_read > 1)} ({experts.weight_format}): a pass takes "
        f"{seconds(experts.pass_s[-1])}, and more tokens take more passes, while the device reads weights once."
    )


def _systems(batches: list[_Batch]) -> str:
    """What the memory does for a system: at each batch, against the best without it."""
    told = []
    for batch in batches:
        own = _best(batch.point, IN_MEMORY, computes=True)
        rivals = [line for line in batch.point.lines if line.family in (FETCH, HOST) and not line.is_oracle]
        rival = fastest(rivals)
        assert rival is not None, "LRU at least"
        ratio = rival.outcome.tpot.mean_s / own.outcome.tpot.mean_s
        resident = batch.point.all_resident_s / own.outcome.tpot.mean_s
        told.append(
            f"With {count(batch.batch)} sequence{'s' * (batch.batch > 1)} at once, “{own.name}” takes "
            f"{seconds(own.outcome.tpot.mean_s)} a step, {ratio:.2f}\u202f× as fast as the fastest without that memory "
            f"(“{rival.name}”) and {resident:.2f}\u202f× as fast as every expert on the device."
        )
    return " ".join(told)


def _by_batch(batches: list[_Batch]) -> Table:
    """Time per step by batch: bounds and rivals, then what runs in memory."""
    places: list[tuple[str, Any]] = [
        ("every expert on the device", lambda one: (one.point.all_resident_s, "")),
        ("LRU, fetched from the host", lambda one: _of(one.point.line(LRU))),
        ("fastest that fetches from the host", lambda one: _named(_best(one.point, FETCH))),
        (f"{STATIC}, the host computes", lambda one: _of(one.point.line(STATIC))),
        ("fastest where the host computes", lambda one: _named(_best(one.point, HOST))),
        ("fastest that fetches from that memory", lambda one: _named(_best(one.point, IN_MEMORY, computes=False))),
        ("all in memory, none held", lambda one: (one.none_held.tpot.mean_s, "")),
        (STATIC_IN_MEMORY, lambda one: _of(one.point.line(STATIC_IN_MEMORY))),
        ("fastest where the memory computes", lambda one: _named(_best(one.point, IN_MEMORY, computes=True))),
    ]
    rows = []
    for name, of in places:
        told = [of(batch) for batch in batches]
        texts = tuple(seconds(time_s) + (f"\n{said}" if said else "") for time_s, said in told)
        rows.append(Row((name, *texts), pale=name == places[0][0]))
    return Table(
        columns=("", *(f"{count(batch.batch)} at once" for batch in batches)),
        rows=tuple(rows),
        caption="Mean time of a step of so many sequences at once. The fastest of a kind is the one that was fastest "
        "on training tokens, oracles left out. Every expert on the device is the bound of what computes there alone; "
        "memory that computes beside it can be faster. Fetched from that memory: what the same stacks behind the same "
        "link bring if they compute nothing.",
    )


def _of(line: Line) -> tuple[float, str]:
    return line.outcome.tpot.mean_s, ""


def _named(line: Line) -> tuple[float, str]:
    return line.outcome.tpot.mean_s, line.name


def _assumptions(experts: ExpertTimes) -> str:
    """What of this nobody has published, or is taken for granted."""
    of = experts.in_memory
    adds = {
        "device": "the device adds the pseudo-channels' outputs, which all cross the link",
        "stack": "each stack adds its pseudo-channels' outputs (no adders for this are built here)",
    }[of.partial_sums]
    refresh = "as a mean over when a pass begins" if of.refresh else "left out"
    return (
        f"Assumptions. No {of.dram} with compute at its banks is on sale: of such blocks only HBM2's are in print, and "
        f"timings and blocks of later devices are this project's (docs/pim.md). {count(of.stacks)} stacks of "
        f"{of.stack_gb:g} GB (Sieve's 8 hold 96 GB with compute, half of what they hold without); what they cost "
        f"beyond that is not counted. {of.latency_us:g} µs one way; {adds}; inputs cross once a layer. Clocks are "
        f"those of this project's unit, refresh {refresh}; two pseudo-channels share their command buses; no limit of "
        "power slows all banks at once. While a transfer reads a group, that group waits for each row that is read; "
        "the mean over all groups is what the simulation has. The device takes weights in the order in which they lie "
        "there. Energy is not counted."
    )
