"""Time per output token of each policy, by share of experts held, batch and regime, on a trace's routing.

A policy with free settings has them chosen by measuring on tuning tokens, of the training part, never on the measured
ones. That is coarser than `predictor.policies.tuning`: each candidate at its first prices alone, once for each regime,
in the first share and batch that is measured there.
"""

import gc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Literal

import numpy as np
import torch

from gpu_reference.decoder.decoder import Decoder
from gpu_reference.decoder.graphs import GraphedDecoder
from gpu_reference.decoder.memory import free_bytes
from gpu_reference.decoder.shape import DecoderShape
from gpu_reference.experts.compute import kernels
from gpu_reference.experts.layout import ExpertLayout, Format
from gpu_reference.measuring.bench import Bench, Figures, SectionPlan, Skipped, Suite, WrongResultError
from gpu_reference.measuring.experts import formats, small_layout
from gpu_reference.measuring.room import Needed, check_room
from gpu_reference.offload.foresight import Expected, ListeningForesight
from gpu_reference.offload.host_store import HostExperts
from gpu_reference.offload.opened import offloaded_experts, resident_experts
from gpu_reference.offload.places import LANDING
from gpu_reference.offload.replay import AnyDecoder, ReplayRun, replay
from gpu_reference.offload.routing import ReplayPlan
from gpu_reference.records.decode import Decode, Regime, Regimen, TracePart, Tuning
from gpu_reference.records.machine import usable_cores
from gpu_reference.records.summary import Summary
from predictor.foresight.online import OnlineForesight
from predictor.policies.material import Material, has_decode, part_of_steps
from predictor.policies.online import online_foresight
from predictor.policies.parts import Part, Predictors, part_of
from predictor.policies.plan import Missing
from predictor.policies.policy import Eviction, Policy, Prefetch, plan_of
from predictor.policies.rows import HOST, Candidate, Row, rows_of
from predictor.row_network.kernels import UNKNOWN
from staging.results import Scope
from staging.static import hottest
from traces import PREFILL

SCOPE: Scope = "global"

THROTTLE = 4
"""The throttled link has this part of the bandwidth that was measured at the beginning."""

RESIDENT = "all on the device"
"""The row of the run with every expert on the device: the floor of every other."""

FIRST_ROWS = (
    "LRU", "learned", "decayed frequency", "static placement", "background, learned", "background, frequency",
    "Belady + perfect prefetch", "activation-aware (MoE-Infinity)", "learned prefetch", "learned eviction",
    "perfect prefetch", "ST-MoE prefetch",
)  # fmt: skip
"""Rows in the order of importance; others follow."""


Told = Literal["none", "arrays", "online"]


class RowsFailedError(Exception):
    """Some rows could not be measured; the others are there."""


@dataclass(frozen=True)
class Point:
    """What a section of rows measures.

    Attributes:
        share: of all experts, held on the device.
        batch: sequences at once.
        regime: of experts and link.
        format: of the experts; ``None``: the model's own, or MXFP4.
    """

    share: float
    batch: int
    regime: Regime
    format: Format | None = None

    @property
    def name(self) -> str:
        """Of the section."""
        form = "" if self.format is None else f" in {self.format}"
        return f"decode: {self.regime}{form}, share {self.share:g}, batch {self.batch}"


POINTS = (
    *(Point(share, 1, "real sizes") for share in (0.25, 0.5)),
    Point(0.25, 1, "small experts"),
    *(Point(share, 1, "real sizes", "bf16") for share in (0.25, 0.5)),
    *(Point(share, 1, "real sizes") for share in (0.125, 0.75)),
    *(Point(0.25, batch, "real sizes") for batch in (4, 16)),
    Point(0.25, 1, "throttled"),
    Point(0.5, 1, "small experts"),
    *(Point(0.5, batch, "real sizes") for batch in (4, 16)),
    Point(0.5, 1, "throttled"),
)
"""In the order of importance."""


@dataclass
class Setting:
    """What rows share: kept from section to section, as making 10 GB of experts takes seconds.

    Attributes:
        batch: of the decoder's slots.
        host: all experts.
        decoder: with slots and context for the parts.
        regimen: what experts and link are.
        tuned: the policy chosen for each row of a regime, and how.
        warmed: rows that have run before.
    """

    batch: int = 0
    host: HostExperts | None = None
    decoder: AnyDecoder | None = None
    regimen: Regimen | None = None
    tuned: dict[tuple[Regime, Format | None, str], tuple[Policy, Tuning | None]] = field(default_factory=dict)
    warmed: set[str] = field(default_factory=set)

    def drop(self) -> None:
        """Give memory back."""
        self.decoder = None
        if self.host is not None:
            self.host.close()
        self.host = None
        self.batch = 0
        gc.collect()


def decode_sections(material: Material | None) -> tuple[SectionPlan, ...]:
    """The sections of all `POINTS`."""
    setting = Setting()

    def section(point: Point) -> SectionPlan:
        def measure(bench: Bench) -> Figures:
            if material is None:
                raise Skipped("no trace was given: --trace or --package")
            if not bench.is_full and point not in POINTS[:1]:
                raise Skipped("the quick suite decodes at one point alone")
            yield from decoded(bench, material, point, setting)

        return SectionPlan(point.name, measure)

    return tuple(map(section, POINTS))


@dataclass(frozen=True)
class RowMeasured:
    """How a row was measured: fields of `Decode`."""

    name: str
    policy: Policy
    tuning: Tuning | None = None
    foresight: Told = "none"
    matches_resident: bool | None = None


def decoded(bench: Bench, material: Material, point: Point, setting: Setting) -> Figures:
    """Every row at ``point``, the most important first, after the run with every expert on the device.

    Rows whose experts the host computes have fewer steps, and the outputs of all others must be those of that run.

    Raises:
        RowsFailedError: when all others are measured, naming the rows that failed and why.
    """
    failures: list[str] = []
    order = {name: place for place, name in enumerate(FIRST_ROWS)}
    references: dict[int, str] = {}
    parts = Parts(bench, material, point.batch)
    _prepare(bench, material, point, setting, parts)
    test, _ = parts.of(Purpose.TEST)
    everywhere = test.trace.layers * test.trace.experts
    rows = sorted(rows_of(test, host=True), key=lambda row: order.get(row.name, len(order)))
    resident = Row(RESIDENT, HOST, (Candidate(Policy(eviction=Eviction.STATIC, missing=Missing.HOST)),))
    for row in (resident, *rows):
        host = row.family == HOST and row is not resident
        part, record = parts.of(Purpose.HOST_TEST if host else Purpose.TEST)
        try:
            if row is resident:
                if row.name not in setting.warmed:
                    _resident(bench, setting, parts.of(Purpose.TUNING)[0])
                    setting.warmed.add(row.name)
                run, measured = _resident(bench, setting, part), RowMeasured(RESIDENT, row.candidates[0].policy)
                references[len(part.steps)] = run.digest
            else:
                policy, tuning = _tuned(bench, material, point, setting, row, parts)
                if row.name not in setting.warmed:  # what is compiled at its first use is not in the measured steps
                    before, _ = parts.of(Purpose.HOST_TUNING if host else Purpose.TUNING)
                    _run(bench, material, point, setting, before, policy)
                    setting.warmed.add(row.name)
                run, told = _run(bench, material, point, setting, part, policy)
                reference = None if host else references.get(len(part.steps))
                if reference not in (None, run.digest):
                    raise WrongResultError("its output is not that of the run with every expert on the device")
                measured = RowMeasured(row.name, policy, tuning, told, None if reference is None else True)
        except Exception as error:  # a row that fails leaves the others
            failures.append(f"{row.name}: {type(error).__name__}: {error}")
            continue
        yield _row(
            bench,
            setting,
            point,
            record,
            run,
            measured,
            places=everywhere if row is resident else places_of(point, test),
            everywhere=everywhere,
            predictors=material.predictors,
        )
    if failures:
        raise RowsFailedError("; ".join(failures))


class Purpose(Enum):
    """What steps are decoded for."""

    TEST = "test"
    HOST_TEST = "test of rows that compute on the host"
    TUNING = "tuning"
    HOST_TUNING = "tuning of rows that compute on the host"


STEPS: dict[Suite, dict[Purpose, tuple[int, int]]] = {
    "quick": {
        Purpose.TEST: (2, 8),
        Purpose.HOST_TEST: (1, 3),
        Purpose.TUNING: (1, 3),
        Purpose.HOST_TUNING: (1, 1),
    },
    "full": {
        Purpose.TEST: (8, 160),
        Purpose.HOST_TEST: (4, 40),
        Purpose.TUNING: (8, 48),
        Purpose.HOST_TUNING: (2, 10),
    },
}
"""Steps before, not timed, and steps timed."""


class Parts:
    """The steps that are decoded for each purpose, with what is known ahead of them; those before are not timed."""

    def __init__(self, bench: Bench, material: Material, batch: int) -> None:
        self._bench, self._material, self._batch = bench, material, batch
        self._made: dict[Purpose, tuple[Part, TracePart]] = {}

    def of(self, purpose: Purpose) -> tuple[Part, TracePart]:
        """Made when first asked for.

        Raises:
            ForestageError: if the trace has fewer steps.
        """
        if purpose not in self._made:
            tuning = purpose in (Purpose.TUNING, Purpose.HOST_TUNING)
            source = self._material.tuning if tuning else self._material.test
            warm, timed = STEPS[self._bench.suite][purpose]
            cut, steps = part_of_steps(source, batch=self._batch, steps=warm + timed)
            flags = steps.timed.copy()
            flags[np.flatnonzero(flags)[:warm]] = False
            part = part_of(cut, replace(steps, timed=flags), self._material.predictors)
            record = TracePart(
                sequences=tuple(range(source.sequences)),
                batch=self._batch,
                warm_steps=warm,
                steps=timed,
                tokens=part.timed_tokens,
            )
            self._made[purpose] = part, record
        return self._made[purpose]


def places_of(point: Point, part: Part) -> int:
    """Experts that the device holds."""
    return max(1, round(point.share * part.trace.layers * part.trace.experts))


def layout_of(bench: Bench, point: Point) -> ExpertLayout:
    """Of the experts at ``point``."""
    if point.regime == "small experts":
        return small_layout(bench)
    return ExpertLayout.of(bench.model, formats(bench)[0] if point.format is None else point.format)


def _prepare(bench: Bench, material: Material, point: Point, setting: Setting, parts: Parts) -> None:
    """Experts and decoder for ``point``."""
    layout = layout_of(bench, point)
    layer_map = material.test.metadata.layer_map
    plans = [ReplayPlan(parts.of(purpose)[0]) for purpose in Purpose]
    slots, max_context = max(plan.slots for plan in plans), max(plan.max_context for plan in plans)
    if setting.host is not None and setting.host.layout != layout:
        setting.drop()
    if setting.batch != point.batch:
        setting.decoder = None
    _check_room(bench, layout, point, setting, parts, slots, max_context)
    if setting.host is None:
        setting.host = HostExperts.random(
            layout, len(layer_map), bench.model.experts, seed=bench.seed, device=torch.device(bench.device)
        )
    if setting.decoder is None:
        decoder = Decoder.random(
            bench.model,
            layer_map,
            device=bench.device,
            dtype=torch.bfloat16,
            slots=slots,
            max_context=max_context,
            seed=bench.seed,
        )
        setting.decoder = decoder
        if bench.on_cuda:
            setting.decoder = GraphedDecoder(decoder, tokens=point.batch)
            setting.decoder.prepare()
    setting.batch = point.batch
    setting.regimen = Regimen(
        name=point.regime,
        expert_intermediate=layout.shape.intermediate,
        expert_bytes=layout.nbytes,
        format=layout.format,
        throttle_gb_per_s=_throttle_gb_per_s(bench, setting) if point.regime == "throttled" else None,
    )


def _check_room(
    bench: Bench, layout: ExpertLayout, point: Point, setting: Setting, parts: Parts, slots: int, max_context: int
) -> None:
    """Refuse what the host's memory does not hold; a GPU says itself that it has too little.

    Raises:
        ForestageError: naming what would fit.
    """
    test, _ = parts.of(Purpose.TEST)
    trace, decoder_bytes = test.trace, 0
    if setting.decoder is None and not bench.on_cuda:
        shape = DecoderShape.of(bench.model, trace.metadata.layer_map)
        decoder_bytes = shape.fixed_bytes(torch.bfloat16)
        decoder_bytes += shape.cache_bytes(torch.bfloat16, slots=slots, max_context=max_context)
    needed = Needed(
        model=f"{bench.model.name} in {layout.format}",
        expert_bytes=layout.nbytes,
        experts=0 if setting.host is not None else trace.layers * trace.experts,
        places=0 if bench.on_cuda else places_of(point, test),
        beside=0 if bench.on_cuda else trace.experts + LANDING,
        decoder_bytes=decoder_bytes,
    )
    check_room(needed, free_bytes(torch.device("cpu")))


def _throttle_gb_per_s(bench: Bench, setting: Setting) -> float:
    """A part of what the link moves: one expert after the other into one place, measured now."""
    assert setting.host is not None
    blocks = setting.host.blocks
    there = torch.empty_like(blocks[0], device=bench.device)
    seconds = bench.clock.by_host(lambda n: there.copy_(blocks[n % len(blocks)], non_blocking=True), queued=8)
    return float(f"{blocks[0].nbytes / seconds.median / 1e9 / THROTTLE:.2g}")


def _resident(bench: Bench, setting: Setting, part: Part) -> ReplayRun:
    assert setting.host is not None
    assert setting.decoder is not None
    experts = resident_experts(setting.host, torch.device(bench.device), kernel=kernel_of(bench, setting))
    return replay(part, setting.decoder, experts, seed=bench.seed)


def kernel_of(bench: Bench, setting: Setting) -> str:
    """The device's expert kernel: Triton's where there is one."""
    assert setting.host is not None
    return "triton" if "triton" in kernels(setting.host.layout, bench.device) else "torch"


def _tuned(
    bench: Bench, material: Material, point: Point, setting: Setting, row: Row, parts: Parts
) -> tuple[Policy, Tuning | None]:
    """The row's policy, chosen on the tuning tokens unless it was before for these experts and this link."""
    policies = list(_priced(row.candidates))
    if len(policies) == 1:
        return policies[0], None
    key = point.regime, point.format, row.name
    if key not in setting.tuned:
        part, record = parts.of(Purpose.HOST_TUNING if row.family == HOST else Purpose.TUNING)
        times: list[float] = []
        for policy in policies:
            if times and bench.is_over:
                break
            times.append(float(_run(bench, material, point, setting, part, policy)[0].step_s.mean()))
        tuning = Tuning(part=record, share=point.share, tried=len(times))
        setting.tuned[key] = policies[int(np.argmin(times))], tuning
    return setting.tuned[key]


def _priced(candidates: Iterable[Candidate]) -> Iterator[Policy]:
    for candidate in candidates:
        for price in candidate.prices:
            yield candidate.policy.model_copy(update={"price": price})


def _run(
    bench: Bench, material: Material, point: Point, setting: Setting, part: Part, policy: Policy
) -> tuple[ReplayRun, Told]:
    """One replay; predictors listen where one sequence is decoded at a time, and an oracle reads arrays."""
    assert setting.host is not None
    assert setting.decoder is not None
    trace = part.trace
    places = places_of(point, part)
    plan = plan_of(
        policy,
        layers=trace.layers,
        experts=trace.experts,
        most_needed=part.most_needed,
        places=places,
        scope=SCOPE,
        hottest=hottest(material.uses, places, SCOPE),
        values=part.values,
        predictions=part.predictions,
    )
    told: Told = "none" if plan.values is None and plan.predictions is None else "arrays"
    foresight = None
    if told == "arrays" and not policy.is_oracle and point.batch == 1:
        source = online_foresight(policy, material.predictors, layers=trace.layers, experts=trace.experts)
        assert source is not None, "the policy is told something"
        foresight, told = PartListening(source, part), "online"
    assert setting.regimen is not None
    with offloaded_experts(
        plan,
        setting.host,
        torch.device(bench.device),
        foresight=foresight,
        kernel=kernel_of(bench, setting),
        host_threads=host_threads(),
        link_gb_per_s=setting.regimen.throttle_gb_per_s,
        most_tokens=part.most_tokens,
        dtype=torch.bfloat16,
    ) as experts:
        run = replay(part, setting.decoder, experts, seed=bench.seed)
    return run, told


def host_threads() -> int:
    """Of the processor that computes experts: all but one, which launches the device's work."""
    return max(1, usable_cores() - 1)


class PartListening(ListeningForesight):
    """A listening foresight that is told the tokens of a part's steps, one sequence at a time."""

    def __init__(self, source: OnlineForesight, part: Part) -> None:
        super().__init__(source, part.trace.layers, part.trace.top_k)
        self._part = part

    def begin_step(self, step: int) -> Iterable[Expected]:
        """See `Foresight`."""
        steps, trace, sequences = self._part.steps, self._part.trace, self._part.sequence_of_step
        rows = steps.tokens[steps.offsets[step] : steps.offsets[step + 1]]
        hashes = np.full(len(rows), UNKNOWN) if trace.token_hash is None else trace.token_hash[rows]
        starts = step == 0 or sequences[step] != sequences[step - 1]
        is_pass = trace.phase[rows[0]] == PREFILL and has_decode(trace)
        self.announce(hashes.tolist(), starts=bool(starts), is_pass=bool(is_pass))
        return super().begin_step(step)


def _row(
    bench: Bench,
    setting: Setting,
    point: Point,
    part: TracePart,
    run: ReplayRun,
    row: RowMeasured,
    *,
    places: int,
    everywhere: int,
    predictors: Predictors,
) -> Decode:
    statistics = run.statistics
    looks = row.policy.prefetch in (Prefetch.LEARNED, Prefetch.PERFECT)
    assert setting.regimen is not None
    return Decode(
        row=row.name,
        policy=row.policy,
        tuning=row.tuning,
        scope=SCOPE,
        share=places / everywhere,
        places=places,
        regimen=setting.regimen,
        part=part,
        mode="graph" if isinstance(setting.decoder, GraphedDecoder) else "eager",
        kernel=kernel_of(bench, setting),
        foresight=row.foresight,
        distances=predictors.distances if looks else (),
        prefetched=predictors.prefetched if looks else 0,
        host_threads=0 if row.policy.missing is Missing.FETCH else host_threads(),
        tpot_s=Summary.of(run.step_s.tolist()),
        hit_rate=statistics.hit_rate,
        moved_bytes=statistics.moved_bytes,
        stall_s=statistics.stall_s,
        link_busy_s=statistics.link_busy_s,
        counts=vars(statistics.counts),
        output_digest=run.digest,
        matches_resident=row.matches_resident,
    )
