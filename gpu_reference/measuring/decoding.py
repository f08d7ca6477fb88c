"""Time per output token of each policy, by share of experts held, batch and regime, on a trace's routing.

A policy with free settings has them chosen by measuring on tuning tokens, of the training part, never on the measured
ones. That is coarser than `predictor.policies.tuning`: each candidate at its first prices alone, once for each regime,
in the first share, batch and format that is measured there (where the host computes, for each format).
"""

import gc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from gpu_reference.decoder.decoder import Decoder
from gpu_reference.decoder.graphs import GraphedDecoder
from gpu_reference.decoder.memory import free_bytes
from gpu_reference.decoder.shape import DecoderShape
from gpu_reference.experts.compute import kernels
from gpu_reference.experts.layout import ExpertLayout, Format
from gpu_reference.measuring.bench import Bench, Figures, SectionPlan, Skipped, WrongResultError
from gpu_reference.measuring.experts import formats, small_layout
from gpu_reference.measuring.points import FIRST_ROWS, POINTS, Point
from gpu_reference.measuring.room import Needed, check_room
from gpu_reference.measuring.steps import Parts, Purpose, fitting_steps, timed_steps
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
from predictor.policies.material import Material, has_decode
from predictor.policies.online import online_foresight
from predictor.policies.parts import Part, Predictors
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

TOO_SLOW = 2.0
"""Times the fastest candidate's step: one that takes longer is not tried at other prices."""

FURTHER = ": further rows"
"""In the names of sections."""

RESIDENT = "all on the device"
"""The row of the run with every expert on the device: the floor of every other."""

Told = Literal["none", "arrays", "online"]


class RowsFailedError(Exception):
    """Some rows could not be measured; the others are there."""


@dataclass
class Setting:
    """What rows share: kept from section to section, as making 10 GB of experts takes seconds.

    Attributes:
        batch: of the decoder's slots.
        host: all experts.
        decoder: with slots and context for the parts.
        regimen: what experts and link are.
        tuned: the policy chosen for each row of a regime (and, where the host computes, a format), and how.
        warmed: rows that have run before.
        step_s: what a step took where the host computes, by point and row.
        references: by point and timed steps, the output of the run with every expert on the device.
    """

    batch: int = 0
    host: HostExperts | None = None
    decoder: AnyDecoder | None = None
    regimen: Regimen | None = None
    tuned: dict[tuple[Regime, Format | None, str], tuple[Policy, Tuning | None]] = field(default_factory=dict)
    warmed: set[str] = field(default_factory=set)
    step_s: dict[tuple[Point, str], float] = field(default_factory=dict)
    references: dict[Point, tuple[int, str]] = field(default_factory=dict)

    def drop(self) -> None:
        """Give memory back."""
        self.decoder = None
        if self.host is not None:
            self.host.close()
        self.host = None
        self.batch = 0
        gc.collect()


def decode_sections(material: Material | None) -> tuple[SectionPlan, ...]:
    """The sections of all `POINTS`: the first rows of each, and then the further ones."""
    setting = Setting()

    def section(point: Point, *, further: bool) -> SectionPlan:
        def measure(bench: Bench) -> Figures:
            if material is None:
                raise Skipped("no trace was given: --trace or --package")
            if not bench.is_full and (further or point not in POINTS[:1]):
                raise Skipped("the quick suite decodes at one point alone")
            yield from decoded(bench, material, point, setting, further=further)

        return SectionPlan(f"{point.name}{FURTHER if further else ''}", measure)

    return tuple(section(point, further=further) for further in (False, True) for point in POINTS)


@dataclass(frozen=True)
class RowMeasured:
    """How a row was measured: fields of `Decode`."""

    name: str
    policy: Policy
    tuning: Tuning | None = None
    foresight: Told = "none"
    matches_resident: bool | None = None


def decoded(bench: Bench, material: Material, point: Point, setting: Setting, *, further: bool = False) -> Figures:
    """The first rows at ``point``, after the run with every expert on the device; or the ``further`` rows.

    All but those whose experts the host computes must have the outputs of that run. Rows that take long have fewer
    steps: all alike where experts are fetched, each by itself where the host computes them.

    Raises:
        RowsFailedError: when all others are measured, naming the rows that failed and why.
    """
    failures: list[str] = []
    order = {name: place for place, name in enumerate(FIRST_ROWS)}
    parts = Parts(bench, material, point)
    _prepare(bench, material, point, setting, parts)
    if point not in setting.references:
        try:
            floor = _floor(bench, setting, point, parts, material)
        except Exception as error:  # as of any row
            failures.append(f"{RESIDENT}: {type(error).__name__}: {error}")
        else:
            if not further:
                yield floor
    steps, reference = setting.references.get(point, (None, None))
    test, _ = parts.of(Purpose.TEST, steps)
    rows = sorted(rows_of(test, host=True), key=lambda row: order.get(row.name, len(order)))
    for row in rows:
        if point.is_first(row.name) is further:
            continue
        try:
            yield _measured_row(bench, material, point, setting, row, parts, steps, reference)
        except Exception as error:  # a row that fails leaves the others
            failures.append(f"{row.name}: {type(error).__name__}: {error}")
    if failures:
        raise RowsFailedError("; ".join(failures))


def _floor(bench: Bench, setting: Setting, point: Point, parts: Parts, material: Material) -> Decode:
    """The run with every expert on the device; how long a step takes says how many there are."""
    before = _resident(bench, setting, parts.of(Purpose.HOST_TUNING)[0])
    usual = timed_steps(bench.suite, Purpose.TEST, point)
    steps = fitting_steps(bench.suite, usual, float(before.step_s.mean()))
    part, record = parts.of(Purpose.TEST, steps)
    run = _resident(bench, setting, part)
    setting.references[point] = steps, run.digest
    everywhere = part.trace.layers * part.trace.experts
    measured = RowMeasured(RESIDENT, Policy(eviction=Eviction.STATIC, missing=Missing.HOST))
    return _row(bench, setting, record, run, measured, everywhere, everywhere, material.predictors)


def _measured_row(
    bench: Bench,
    material: Material,
    point: Point,
    setting: Setting,
    row: Row,
    parts: Parts,
    steps: int | None,
    reference: str | None,
) -> Decode:
    """One row: tuned, warmed up, and measured over ``steps``; where it fetches, with the ``reference`` output."""
    policy, tuning = _tuned(bench, material, point, setting, row, parts)
    host = row.family == HOST
    if (point, row.name) not in setting.step_s if host else row.name not in setting.warmed:
        # What is compiled at its first use is not in the measured steps.
        before, _ = parts.of(Purpose.HOST_TUNING if host else Purpose.TUNING)
        taken = _run(bench, material, point, setting, before, policy)[0].step_s
        setting.step_s[point, row.name] = float(taken.mean())
        setting.warmed.add(row.name)
    if host:
        usual = timed_steps(bench.suite, Purpose.HOST_TEST, point)
        steps = fitting_steps(bench.suite, usual, setting.step_s[point, row.name])
    part, record = parts.of(Purpose.HOST_TEST if host else Purpose.TEST, steps)
    run, told = _run(bench, material, point, setting, part, policy)
    compared = None if host else reference
    if compared not in (None, run.digest):
        raise WrongResultError("its output is not that of the run with every expert on the device")
    measured = RowMeasured(row.name, policy, tuning, told, None if compared is None else True)
    everywhere = part.trace.layers * part.trace.experts
    return _row(bench, setting, record, run, measured, places_of(point, part), everywhere, material.predictors)


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
    """The row's policy, chosen on the tuning tokens unless it was before for these experts and this link.

    A candidate that is far behind at its first price is not tried at others.
    """
    first = [candidate.policy.model_copy(update={"price": candidate.prices[0]}) for candidate in row.candidates]
    if len(first) == 1 and len(row.candidates[0].prices) == 1:
        return first[0], None
    host = row.family == HOST
    key = point.regime, point.format if host else None, row.name
    if key in setting.tuned:
        return setting.tuned[key]
    part, record = parts.of(Purpose.HOST_TUNING if host else Purpose.TUNING)
    times: list[float] = []
    tried: list[Policy] = []

    def measure(policies: Iterable[Policy]) -> None:
        for policy in policies:
            if times and bench.is_over:
                return
            times.append(float(_run(bench, material, point, setting, part, policy)[0].step_s.mean()))
            tried.append(policy)

    measure(first)
    near = [at for at, taken in enumerate(times) if taken <= TOO_SLOW * min(times)]
    measure(_priced(row.candidates[at] for at in near))
    best = int(np.argmin(times))
    setting.tuned[key] = tried[best], Tuning(part=record, share=point.share, tried=len(times))
    if host:
        setting.step_s[point, row.name] = times[best]
    return setting.tuned[key]


def _priced(candidates: Iterable[Candidate]) -> Iterator[Policy]:
    """With each price but the first."""
    for candidate in candidates:
        for price in candidate.prices[1:]:
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
    part: TracePart,
    run: ReplayRun,
    row: RowMeasured,
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
