"""Run the sections of a suite: each is fenced, and what has been measured is kept.

A section that fails is recorded with its reason, its device memory is freed, and the next one runs. After each section
the record so far is saved beside the one to be written; the same command goes on from there.
"""

import contextlib
import gc
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from catalog.config import StrictModel
from catalog.errors import ForestageError
from gpu_reference.measuring.bench import Bench, SectionPlan, Skipped
from gpu_reference.records import MeasurementRecord
from gpu_reference.records.decode import Decode
from gpu_reference.records.machine import GIB
from gpu_reference.records.micro import Micro
from gpu_reference.records.record import Section

Tell = Callable[[str], None]
"""Says one line to the user."""

IDENTITY = (
    "schema_version", "suite", "device", "commit", "sources", "machine", "versions", "model", "trace", "predictors",
    "seed",
)  # fmt: skip
"""Fields that must agree for a measurement to go on."""


def partial_path(out: Path) -> Path:
    """Where the record so far is kept while ``out`` is being measured."""
    return out.with_name(out.name + ".partial")


def measured_so_far(out: Path, header: MeasurementRecord) -> MeasurementRecord | None:
    """What an interrupted measurement for ``out`` has left; ``None`` if nothing.

    Args:
        out: the record to be written.
        header: this measurement's, without sections.

    Raises:
        ForestageError: if what is there was measured otherwise, naming the field.
    """
    path = partial_path(out)
    if not path.exists():
        return None
    kept = MeasurementRecord.load(path)
    for name in IDENTITY:
        before, here = getattr(kept, name), getattr(header, name)
        if before != here:
            where, before, here = _difference(name, before, here)
            raise ForestageError(
                f"{path}: {where}: was measured with {before}, this is {here}; give --fresh to begin "
                "anew, or another --out"
            )
    return kept


def run_suite(
    bench: Bench,
    plans: Sequence[SectionPlan],
    header: MeasurementRecord,
    out: Path,
    *,
    left_out: Callable[[str], str | None] = lambda name: None,
    tell: Tell = lambda line: None,
    progress: Callable[[int, int], None] | None = None,
) -> MeasurementRecord:
    """Measure every section of ``plans`` that ``header`` does not have yet, and write the record.

    Args:
        bench: with what.
        plans: the sections, the most important first.
        header: the record so far.
        out: where it goes; the record so far lies beside it (`partial_path`) until it is complete.
        left_out: why the user leaves out a section, by name; ``None``: it is wanted.
        tell: called with a line about each section that is not done.
        progress: called with (sections, all sections).

    Raises:
        ForestageError: if the device is lost (the record so far is kept), or a file cannot be written.
    """
    record = header
    for number, plan in enumerate(plans):
        if plan.name not in {section.name for section in record.sections}:
            reason = left_out(plan.name)
            figures: list[Micro | Decode] = []
            if reason is not None:
                section = Section(name=plan.name, state="skipped", reason=reason, took_s=0.0)
            else:
                section, figures = run_section(bench, plan)
                if section.state != "done":
                    tell(f"{section.name}: {section.state}: {section.reason}")
            record = record.model_copy(
                update={
                    "sections": (*record.sections, section),
                    "micro": (*record.micro, *(one for one in figures if isinstance(one, Micro))),
                    "decode": (*record.decode, *(one for one in figures if isinstance(one, Decode))),
                }
            )
            record.save(partial_path(out))
            if section.state == "failed":
                check_device_answers(bench, section)
        if progress is not None:
            progress(number + 1, len(plans))
    record.save(out)
    partial_path(out).unlink(missing_ok=True)
    return record


def run_section(bench: Bench, plan: SectionPlan) -> tuple[Section, list[Micro | Decode]]:
    """One section's state and figures; whatever it raises, but an interruption, is its reason."""
    figures: list[Micro | Decode] = []
    started = time.monotonic()
    state, reason = "done", None
    if bench.is_over:
        return Section(name=plan.name, state="skipped", reason="time: it was over before", took_s=0.0), []
    measuring = plan.measure(bench)
    try:
        for one in measuring:
            figures.append(one)
            if bench.is_over:
                state, reason = "cut", f"time: it was over after {len(figures)} figures"
                break
    except Skipped as skipped:
        state, reason = ("cut" if figures else "skipped"), _one_line(skipped)
    except torch.OutOfMemoryError as error:
        state, reason = "failed", out_of_memory_text(bench, error)
    except MemoryError as error:
        state, reason = "failed", f"out of host memory ({_one_line(error)}); take smaller sizes"
    except Exception as error:
        state, reason = "failed", f"{type(error).__name__}: {_one_line(error)}"
    finally:
        measuring.close()  # type: ignore[attr-defined]
        del measuring
        free(bench)
    took_s = round(time.monotonic() - started, 3)
    return Section.model_validate({"name": plan.name, "state": state, "reason": reason, "took_s": took_s}), figures


def free(bench: Bench) -> None:
    """Give the device's memory back that nothing uses any more; a device that is lost is left to others to find."""
    gc.collect()
    if bench.on_cuda:
        with contextlib.suppress(RuntimeError):
            # A capture that fails leaves its own stream as the current one (`torch.cuda.graph.__exit__`).
            torch.cuda.set_stream(torch.cuda.default_stream(bench.device))
            torch.cuda.empty_cache()


def check_device_answers(bench: Bench, section: Section) -> None:
    """Raise where the device computes nothing any more, as after a faulty kernel: only a new process gets it back.

    Raises:
        ForestageError: naming the section, and saying to run the command again.
    """
    try:
        torch.ones(1, device=bench.device).add_(1).cpu()
        bench.clock.synchronise()
    except RuntimeError as error:
        raise ForestageError(
            f"device {bench.device}: lost in section {section.name} ({section.reason}); run the same command again: it "
            "goes on with the next section"
        ) from error


def out_of_memory_text(bench: Bench, error: Exception) -> str:
    """What there is, in one line."""
    if not bench.on_cuda:
        return f"out of memory: {_one_line(error)}"
    free_bytes, all_bytes = torch.cuda.mem_get_info(bench.device)
    return (
        f"out of memory on the device: {free_bytes / GIB:.1f} of {all_bytes / GIB:.1f} GiB are free; end what else "
        f"uses it, or take a smaller model ({_one_line(error)})"
    )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:299] + "…"


def _difference(name: str, before: object, here: object) -> tuple[str, object, object]:
    """The first field within ``name`` that differs, with both values."""
    ours, theirs = (vars(value) if isinstance(value, StrictModel) else value for value in (before, here))
    if isinstance(ours, dict) and isinstance(theirs, dict):
        inner = next(key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key))
        return f"{name}.{inner}", ours.get(inner), theirs.get(inner)
    return name, before, here
