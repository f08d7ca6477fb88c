"""Measured rows beside what the system model predicts of them: the same steps, the same policy, measured constants."""

import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from catalog.progress import Progress
from gpu_reference.records import MeasurementRecord
from gpu_reference.records.decode import Decode
from perfmodel.measured import measured_times
from perfmodel.results import Result
from perfmodel.run import Run
from perfmodel.simulator import Simulator
from perfmodel.units import PS_PER_S
from predictor.foresight.arrays import Predictions
from predictor.policies.material import Material, part_of_steps
from predictor.policies.parts import Part, Predictors, part_of
from predictor.policies.policy import Eviction, Policy
from predictor.predictions.digest import trace_digest
from staging.steps import Steps
from study.reference.constants import constants_of
from traces import RoutingTrace
from traces.selection import select_sequences

WITHIN = 0.1
"""The error that the model aims at."""


class Beside(Result):
    """One figure, measured and predicted.

    Attributes:
        measured, predicted: see there.
        error: predicted over measured, less 1; ``None`` where 0 was measured.
    """

    measured: float
    predicted: float
    error: float | None

    @classmethod
    def of(cls, measured: float, predicted: float) -> "Beside":
        """Both, with the error."""
        error = predicted / measured - 1 if measured else (0.0 if predicted == 0 else None)
        return cls(measured=measured, predicted=predicted, error=error)


class ComparedRow(Result):
    """A measured row.

    Attributes:
        row, policy: its name, and the policy.
        regime, batch, share, mode, format, kernel: how it was decoded.
        steps: timed.
        tpot_s: mean time of a step.
        spread: of the measured steps: interquartile range over median.
        hit_rate: at the gate.
        moved: experts over the link, a step, whole transfers.
        moved_bytes: a step.
        mean_s: what the mean of all rows of its regime and batch would say of it: the null.
        left_out: why nothing is predicted, in one line; ``None`` where it is.
    """

    row: str
    policy: Policy
    regime: str
    batch: int
    share: float
    mode: str
    format: str
    kernel: str
    steps: int
    tpot_s: Beside | None
    measured_tpot_s: float
    spread: float
    hit_rate: Beside | None
    moved: Beside | None
    moved_bytes: Beside | None
    mean_s: Beside | None
    left_out: str | None


class Errors(Result):
    """Errors over rows, as shares.

    Attributes:
        rows: compared.
        within: of these, by no more than `WITHIN`.
        median, largest: of the errors' sizes.
        mean: of the signed errors: whether the model is too slow (above 0) or too fast.
    """

    rows: int
    within: int
    median: float
    largest: float
    mean: float

    @classmethod
    def of(cls, errors: Sequence[float]) -> "Errors":
        """Over ``errors``, at least one."""
        sizes = [abs(error) for error in errors]
        return cls(
            rows=len(sizes),
            within=sum(size <= WITHIN for size in sizes),
            median=statistics.median(sizes),
            largest=max(sizes),
            mean=statistics.fmean(errors),
        )


class RecordComparison(Result):
    """All rows of a record.

    Attributes:
        record: the file's name.
        device: what was measured: the GPU's name, or the processor's.
        date, model, trace: of the record.
        rows: by regime, batch, share and policy.
        tpot: errors of the time per output token; ``None`` where no row could be compared.
        mean: those of the null: every row takes the mean of the measured rows of its regime and batch.
    """

    record: str
    device: str
    date: str
    model: str
    trace: str
    rows: tuple[ComparedRow, ...]
    tpot: Errors | None
    mean: Errors | None


@dataclass(frozen=True)
class Simulated:
    """The run of a row's counted steps, and the simulator of it."""

    simulator: Simulator
    run: Run
    counted: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class DecodedPart:
    """What a row decoded, to be simulated.

    Attributes:
        part: its steps are timed from the first decode step on, as steps before the counted ones ran in earnest, too;
            nothing was predicted for them.
        counted: bool ``[steps]``, those that the record's figures are of.
    """

    part: Part
    counted: NDArray[np.bool_]

    @classmethod
    def of(cls, trace: RoutingTrace, steps: Steps, warm_steps: int, known: Predictors, policy: Policy) -> "DecodedPart":
        """``steps`` of ``trace`` as the runtime decodes them, the first ``warm_steps`` timed ones not counted."""
        counted = steps.timed.copy()
        counted[np.flatnonzero(counted)[:warm_steps]] = False
        part = part_of(trace, replace(steps, timed=counted), known, only=policy)
        predictions = {kind: _in_steps(told, counted) for kind, told in part.predictions.items()}
        return cls(replace(part, steps=steps, predictions=predictions), counted)

    @property
    def first(self) -> int:
        """The first step that is counted."""
        return int(np.flatnonzero(self.counted)[0])


def compare_record(
    record: MeasurementRecord, name: str, material: Material, progress: Progress | None = None
) -> RecordComparison:
    """Predict every decoded row of ``record``.

    Args:
        record: measured.
        name: the record's file, for errors.
        material: that was decoded, with the predictors of then.
        progress: called with (rows done, rows).

    Raises:
        ForestageError: if the record has no decoded row, or the material is not the record's.
    """
    check_material(record, name, material)
    parts: dict[Hashable, DecodedPart] = {}
    rows = []
    for done, row in enumerate(record.decode):
        if progress is not None:
            progress(done, len(record.decode))
        try:
            rows.append(_beside(row, _predict(record, row, material, parts)))
        except ForestageError as error:
            rows.append(_beside(row, None, left_out=str(error)))
    return _summary(record, name, rows)


def check_material(record: MeasurementRecord, name: str, material: Material) -> None:
    """Refuse what was not decoded.

    Raises:
        ForestageError: naming the trace or the predictor that differs.
    """
    if record.trace is None or not record.decode:
        raise ForestageError(f"{name}: decode: no row was decoded; measure with a trace, or give another record")
    if trace_digest(material.test) != record.trace.digest:
        raise ForestageError(
            f"{name}: trace: {record.trace.tokens} tokens of {record.trace.name} were decoded, and these are "
            f"{material.test.tokens} others ({material.test.origin}); give the trace or package that was measured"
        )
    for predictor, digest in record.predictors.items():
        given = material.digests.get(predictor)
        if given != digest:
            what = "is not given" if given is None else "is another"
            raise ForestageError(
                f"{name}: predictors: {predictor} {what} than the one measured with (SHA-256 {digest[:12]}…); give that"
            )


def decoded_part(row: Decode, material: Material) -> DecodedPart:
    """What ``row`` decoded, with what was known ahead of it.

    Raises:
        ForestageError: if the material does not have its steps, or a predictor does not fit.
    """
    part, known = row.part, material.predictors
    if row.distances:
        known = replace(known, distances=row.distances, prefetched=row.prefetched or known.prefetched)
    trace = select_sequences(material.test, part.sequences)
    cut, steps = part_of_steps(trace, batch=part.batch, steps=part.warm_steps + part.steps)
    found = DecodedPart.of(cut, steps, part.warm_steps, known, row.policy)
    tokens = int(np.diff(steps.offsets)[found.counted].sum())
    if tokens != part.tokens:
        raise ForestageError(
            f"part: {part.steps} steps of {part.batch} sequences at once have {tokens} tokens here, {part.tokens} were "
            "measured; compare with the version of Forestage that measured"
        )
    return found


def _in_steps(told: Predictions, steps: NDArray[np.bool_]) -> Predictions:
    """Those of some ``steps`` (bool) alone."""
    return replace(told, experts=np.where(steps[:, None, None, None], told.experts, np.int16(-1)))


def contexts_of(trace: RoutingTrace) -> NDArray[np.int64]:
    """Tokens that each token of ``trace`` looks at, itself among them: those before its sequence's first were there."""
    firsts = trace.sequence_offsets[trace.sequence_index()]
    within: NDArray[np.int64] = np.arange(trace.tokens) - firsts
    return within + np.asarray(trace.position)[firsts] + 1


def _predict(
    record: MeasurementRecord, row: Decode, material: Material, parts: dict[Hashable, DecodedPart]
) -> Simulated:
    """What the system model says of ``row``.

    Raises:
        ForestageError: where a measurement is missing, or what the policy needs to know.
    """
    policy = row.policy
    key = (row.part.model_dump_json(), row.distances, row.prefetched, policy.eviction, policy.prefetch)
    if key not in parts:
        parts[key] = decoded_part(row, material)
    decoded = parts[key]
    part = decoded.part
    constants = constants_of(record, row, part.trace.layers)
    times = measured_times(part, contexts_of(part.trace), constants)
    simulator = Simulator(part, times, material.uses, places=row.places, scope=row.scope)
    # With every expert there nothing is ever missing, and a host that could compute need not have been measured.
    resident = row.places == part.trace.layers * part.trace.experts
    run = simulator.run(Policy(eviction=Eviction.LRU) if resident else policy, first=decoded.first)
    return Simulated(simulator, run, decoded.counted)


def _beside(row: Decode, found: Simulated | None, left_out: str | None = None) -> ComparedRow:
    """The row with what was predicted, but for the null."""
    steps, counts = row.part.steps, row.counts
    figures: dict[str, Beside | None] = dict.fromkeys(("tpot_s", "hit_rate", "moved", "moved_bytes"))
    if found is not None:
        run, durations = found.run, found.simulator.durations
        moved, bytes_ = _moved(vars(run.counts)), row.regimen.expert_bytes
        predicted_bytes = moved * durations.expert_bytes + run.counts.abandoned_bytes
        assert durations.expert_bytes == bytes_, "the same experts"
        step_s = float(run.step_ps[found.counted].mean()) / PS_PER_S
        figures["tpot_s"] = Beside.of(row.tpot_s.mean, step_s)
        figures["hit_rate"] = Beside.of(row.hit_rate, run.counts.hits / run.counts.lookups)
        figures["moved"] = Beside.of(_moved(counts) / steps, moved / steps)
        figures["moved_bytes"] = Beside.of(row.moved_bytes / steps, predicted_bytes / steps)
    return ComparedRow(
        row=row.row,
        policy=row.policy,
        regime=row.regimen.name,
        batch=row.part.batch,
        share=row.share,
        mode=row.mode,
        format=row.regimen.format,
        kernel=row.kernel,
        steps=steps,
        measured_tpot_s=row.tpot_s.mean,
        spread=row.tpot_s.spread / row.tpot_s.median if row.tpot_s.median else 0.0,
        mean_s=None,
        left_out=left_out,
        **figures,
    )


def _moved(counts: Mapping[str, int]) -> int:
    """Whole transfers, in experts."""
    return sum(counts.get(name, 0) for name in ("demands", "late", "ahead"))


def _summary(record: MeasurementRecord, name: str, rows: list[ComparedRow]) -> RecordComparison:
    """With the null: each row takes the mean of what was measured in its regime, with its batch."""
    measured: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        measured.setdefault((row.regime, row.batch), []).append(row.measured_tpot_s)
    means = {group: statistics.fmean(times) for group, times in measured.items()}
    rows = [
        row.model_copy(update={"mean_s": Beside.of(row.measured_tpot_s, means[row.regime, row.batch])}) for row in rows
    ]
    compared = [row for row in rows if row.tpot_s is not None]
    assert record.trace is not None, "checked"
    return RecordComparison(
        record=name,
        device=record.machine.gpu or record.machine.processor,
        date=record.date,
        model=record.model.name,
        trace=record.trace.name,
        rows=tuple(sorted(rows, key=lambda row: (row.regime, row.batch, row.share, row.mode, row.format, row.row))),
        tpot=_errors([row.tpot_s for row in compared]),
        mean=_errors([row.mean_s for row in compared]),
    )


def _errors(figures: Sequence[Beside | None]) -> Errors | None:
    errors = [figure.error for figure in figures if figure is not None and figure.error is not None]
    return Errors.of(errors) if errors else None
