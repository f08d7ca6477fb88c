"""Run the stages of a study in order, and keep each result so that an interrupted study continues where it stopped."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressDisplay

from catalog.files import write_text
from catalog.progress import Progress
from catalog.sources import package_root, sources_digest
from study.config import StudyConfig
from study.output import messages
from traces import RoutingTrace

PACKAGES = (
    "catalog",
    "traces",
    "staging",
    "predictor",
    "pim_model",
    "rtl",
    "cocotb_tests",
    "perfmodel",
    "gpu_reference",
    "study",
)

SUFFIXES = (".py", ".toml", ".vlt", ".html")
"""Of sources that results depend on."""


@dataclass
class StudyContext:
    """The data that every stage may use.

    Attributes:
        trace, trace_path, config, out: the trace and its file, the study's configuration and its folder.
        results: name of a stage that has run → its result.
        model_config: the ``config.json`` that describes the trace's model, if one was given.
        left_out: name of a stage that is not run → why; decided before the first stage runs.
        key: of everything on which a result depends; results kept under another are not reused.
    """

    trace: RoutingTrace
    trace_path: Path
    config: StudyConfig
    out: Path
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    model_config: Path | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    key: str = ""

    @property
    def trace_name(self) -> str:
        """The trace's path for a command: relative if it is below the current folder."""
        path = self.trace_path.resolve()
        here = Path.cwd()
        return str(path.relative_to(here)) if path.is_relative_to(here) else str(self.trace_path)


@dataclass(frozen=True)
class Stage:
    """One step of the study; ``run`` returns plain JSON values and writes other files under ``context.out``."""

    name: str
    title: str
    run: Callable[[StudyContext, Progress], dict[str, Any]]
    outputs: tuple[str, ...] = ()
    """Files under the study's folder that must still exist if a kept result is to be reused."""


def code_fingerprint() -> str:
    """SHA-256 over the sources of all packages: a kept result is reused only by the code that made it."""
    digests = " ".join(sources_digest(package_root(package), SUFFIXES) for package in PACKAGES)
    return hashlib.sha256(digests.encode()).hexdigest()


def file_fingerprint(path: Path) -> str:
    """SHA-256 of a file, or of the files in a folder; an ``.npz`` includes the labels file beside it."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
    else:
        labels = path.with_name(path.name.removesuffix(".npz") + ".sequences.jsonl")
        files = [path, *([labels] if path.suffix == ".npz" and labels.is_file() else [])]
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def kept(context: StudyContext, stage: str, part: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A part of a long stage's result, kept until the stage ends: as an interrupted run of the same key left it, or
    computed.
    """
    path = _parts_folder(context, stage) / f"{part}.json"
    remembered = _remembered(path, context.key)
    if remembered is not None:
        return remembered
    result = compute()
    write_text(path, json.dumps({"key": context.key, "result": result}) + "\n")
    return result


def _parts_folder(context: StudyContext, stage: str) -> Path:
    return context.out / "stages" / f"{stage}.parts"


def _remove_parts(context: StudyContext, stage: str) -> None:
    """Remove what `kept` wrote, and nothing else."""
    folder = _parts_folder(context, stage)
    if folder.is_dir():
        for path in folder.glob("*.json"):
            path.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()


def run_stages(stages: tuple[Stage, ...], context: StudyContext) -> None:
    """Run ``stages`` in order and put each result into ``context.results``.

    A result in the folder with the context's key is reused. Each result is written as soon as its stage ends.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description:<44}"), BarColumn(), TimeElapsedColumn())
    with ProgressDisplay(*columns, console=messages, transient=True, disable=not messages.is_terminal) as progress:
        for number, stage in enumerate(stages, start=1):
            label = f"[{number}/{len(stages)}] {stage.title}"
            path = context.out / "stages" / f"{stage.name}.json"
            remembered = (
                _remembered(path, context.key) if all((context.out / o).exists() for o in stage.outputs) else None
            )
            if remembered is not None:
                context.results[stage.name] = remembered
                messages.print(f"[dim]{label}: kept from the earlier run[/dim]", highlight=False)
                continue
            task = progress.add_task(label, total=None)
            started = time.perf_counter()

            def advance(done: int, total: int, task: Any = task) -> None:
                progress.update(task, completed=done, total=total)

            result = stage.run(context, advance)
            elapsed_s = time.perf_counter() - started
            document = {"key": context.key, "elapsed_s": round(elapsed_s, 3), "result": result}
            write_text(path, json.dumps(document, indent=1) + "\n")
            context.results[stage.name] = json.loads(json.dumps(result))
            _remove_parts(context, stage.name)
            progress.remove_task(task)
            messages.print(f"{label}: [bold]{elapsed_s:.1f} s[/bold]", highlight=False)


def _remembered(path: Path, key: str) -> dict[str, Any] | None:
    """The result stored at ``path`` if it was made with ``key``."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document["result"] if isinstance(document, dict) and document.get("key") == key else None
