"""One measurement, from the options of a user to its record."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from catalog.errors import SettingError, unknown_name
from catalog.models import ModelRecord
from catalog.progress import Progress
from gpu_reference.devices import check_device
from gpu_reference.measuring.bench import Bench, Suite
from gpu_reference.measuring.sections import sections_of
from gpu_reference.measuring.suite import Tell, measured_so_far, partial_path, run_suite
from gpu_reference.records import MeasurementRecord
from gpu_reference.records.machine import source_commit, source_digest, these_versions, this_machine
from gpu_reference.records.record import MeasuredModel, MeasuredTrace, now
from predictor.policies.material import Material
from predictor.policies.parts import Predictors
from predictor.predictions.digest import trace_digest

MINUTES: dict[Suite, float] = {"quick": 4.0, "full": 7.5}
"""After which nothing more is begun, by default: what runs then is a row, of some 20 s at most in the full suite."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What is to be measured.

    Attributes:
        model: whose sizes.
        suite: ``quick`` or ``full``.
        device: cpu or cuda.
        command: that remakes the record.
        seed: of everything drawn.
        material: what is decoded; ``None``: nothing is.
        minutes: since ``began``, after which nothing more is begun; the default of the suite where ``None``.
        began: by `time.monotonic`; before the trace was read and kernels were compiled, where that is to count.
        only, without: names of sections that alone are measured, or that are left out.
        fresh: whether what an interrupted measurement has left is thrown away.
    """

    model: ModelRecord
    suite: Suite
    device: str
    command: str
    seed: int = 0
    material: Material | None = None
    minutes: float | None = None
    began: float = field(default_factory=time.monotonic)
    only: Collection[str] = ()
    without: Collection[str] = ()
    fresh: bool = False

    def check(self) -> None:
        """Refuse what cannot be measured.

        Raises:
            ForestageError: naming the option and the remedy.
        """
        check_device(self.device)
        names = [plan.name for plan in sections_of(self.material)]
        for option in ("only", "without"):
            for name in getattr(self, option):
                if name not in names:
                    raise unknown_name(option, name, names)
        if self.only and self.without:
            raise SettingError("without", "with 'only' nothing else is measured; give one of the two")
        if self.material is not None:
            self._check_fits(self.material)

    def _check_fits(self, material: Material) -> None:
        """Raise unless the trace is one of the model's shape."""
        trace, model = material.test, self.model
        for name, has, needed in (
            ("layers with experts", model.moe_layers, trace.layers),
            ("experts", model.experts, trace.experts),
            ("experts a token", model.top_k, trace.top_k),
        ):
            if has != needed:
                raise SettingError("model", f"{model.name} has {has} {name}, the trace {needed}; choose the trace's")
        if model.vocabulary is None:
            raise SettingError("model", f"{model.name} has no vocabulary in the catalogue, so it cannot decode")

    def header(self) -> MeasurementRecord:
        """The record before anything is measured."""
        model = self.model
        return MeasurementRecord(
            command=self.command,
            date=now(),
            suite=self.suite,
            device=self.device,
            commit=source_commit(),
            sources=source_digest(),
            machine=this_machine(self.device),
            versions=these_versions(),
            model=MeasuredModel(
                name=model.name,
                layers=model.moe_layers,
                experts=model.experts,
                top_k=model.top_k,
                hidden=model.hidden,
                expert_intermediate=model.expert_intermediate,
                expert_matrices=model.expert_matrices,
                activation=model.activation,
                expert_bias=model.expert_bias,
                formats={model.expert_weight_format: model.expert_bytes},
            ),
            trace=None if self.material is None else _decoded_trace(self.material),
            predictors={} if self.material is None else dict(sorted(self.material.digests.items())),
            seed=self.seed,
            sections=(),
            micro=(),
            decode=(),
        )


def measure(
    measurement: Measurement, out: Path, *, tell: Tell = lambda line: None, progress: Progress | None = None
) -> MeasurementRecord:
    """Measure, or go on where an interrupted measurement for ``out`` ended, and write the record to ``out``.

    Raises:
        ForestageError: if the machine does not have the device, a section is not known, what an interrupted measurement
            has left was measured otherwise, or the device is lost (see `gpu_reference.measuring.suite.run_suite`).
    """
    measurement.check()
    sections = sections_of(measurement.material)
    header = measurement.header()
    if measurement.fresh:
        partial_path(out).unlink(missing_ok=True)
    kept = measured_so_far(out, header)
    if kept is not None:
        tell(f"going on from {partial_path(out)}: {len(kept.sections)} of {len(sections)} sections are measured")
    minutes = MINUTES[measurement.suite] if measurement.minutes is None else measurement.minutes
    bench = Bench(
        device=measurement.device,
        suite=measurement.suite,
        model=measurement.model,
        seed=measurement.seed,
        predictors=Predictors() if measurement.material is None else measurement.material.predictors,
        deadline=measurement.began + 60 * minutes,
    )
    return run_suite(
        bench,
        sections,
        header if kept is None else kept,
        out,
        left_out=_chosen(measurement),
        tell=tell,
        progress=progress,
    )


def _chosen(measurement: Measurement) -> Callable[[str], str | None]:
    def left_out(name: str) -> str | None:
        if measurement.only and name not in measurement.only:
            return "not asked for: --only names others"
        return "left out: --without names it" if name in measurement.without else None

    return left_out


def _decoded_trace(material: Material) -> MeasuredTrace:
    trace = material.test
    return MeasuredTrace(
        name=Path(trace.origin).name,
        model=trace.metadata.model,
        tokens=trace.tokens,
        sequences=trace.sequences,
        digest=trace_digest(trace),
    )
