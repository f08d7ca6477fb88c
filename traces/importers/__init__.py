"""Import foreign trace formats, which are recognised by their first bytes or named by the user."""

from dataclasses import dataclass, replace
from pathlib import Path

from catalog.catalogue import configuring_option
from catalog.errors import ForestageError
from catalog.progress import Progress
from traces.expert_load import REFUSAL, ExpertLoad
from traces.importers.assembly import torch_file
from traces.importers.assembly.constant_runs import constant_runs, without
from traces.importers.assembly.suspicious import warn_of_layers, warn_of_trace
from traces.importers.assembly.text_file import UTF_16_MARKS, starting_bytes
from traces.importers.assembly.unrouted_answers import refuse_unrouted
from traces.importers.formats import (
    activation_matrices,
    big_moe_on_edge,
    dynande,
    eplb,
    esft,
    expert_popularity,
    gpt_oss_fingerprint,
    hf_router_logits,
    jsonl_routes,
    llama_cpp_csv,
    llama_cpp_dump,
    megatron,
    moe_beyond,
    npz,
    own,
    sglang_load_csv,
    sglang_per_token,
    sglang_response,
    sglang_stat,
    table,
    tensorrt_llm,
    vllm_offline,
    vllm_response,
)
from traces.importers.formats.big_moe_on_edge import Residency, read_residency
from traces.importers.hints import hint
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions, option_name
from traces.importers.report import Report
from traces.trace import RoutingTrace

__all__ = [
    "FORMATS",
    "OWN_TRACE",
    "ImportOptions",
    "Imported",
    "Importer",
    "Residency",
    "import_recording",
    "import_trace",
    "read_residency",
    "sniff_format",
    "suspicions",
]

SNIFFED_BYTES = 1 << 16
"""Bytes by which a format is recognised: a server's response may have its text before its routing."""

FORMATS: dict[str, Importer] = {
    importer.name: importer
    for importer in (
        own.TRACE,
        own.LOAD,
        sglang_per_token.IMPORTER,
        sglang_stat.IMPORTER,
        sglang_response.IMPORTER,
        vllm_response.IMPORTER,
        vllm_offline.IMPORTER,
        hf_router_logits.IMPORTER,
        eplb.IMPORTER,
        tensorrt_llm.IMPORTER,
        sglang_load_csv.IMPORTER,
        expert_popularity.IMPORTER,
        activation_matrices.IMPORTER,
        llama_cpp_dump.IMPORTER,
        npz.IMPORTER,
        big_moe_on_edge.IMPORTER,
        dynande.IMPORTER,
        esft.IMPORTER,
        gpt_oss_fingerprint.IMPORTER,
        jsonl_routes.IMPORTER,
        llama_cpp_csv.IMPORTER,
        megatron.IMPORTER,
        moe_beyond.IMPORTER,
        table.IMPORTER,
    )
}
"""Formats by name, in the order in which they are tried."""

OWN_TRACE = own.TRACE.name
"""Format name of the project's own traces, which are mapped without conversion."""

EVERY_FORMAT = frozenset({"drop_constant", "source", "licence"})
"""Options for every format: they act on what was read."""


@dataclass(frozen=True, eq=False)
class Imported:
    """An imported source.

    Attributes:
        recording: the routing, or only expert loads.
        format: name in ``FORMATS`` of the format in which it was read.
        warnings: suspicious facts, one line each.
    """

    recording: RoutingTrace | ExpertLoad
    format: str
    warnings: tuple[str, ...]


def sniff_format(source: Path) -> str:
    """The name of the format of ``source``, a file or folder.

    Raises:
        ForestageError: if it cannot be read or has no known format.
    """
    _refuse_no_file(source)
    is_folder = source.is_dir()
    start = b"" if is_folder else starting_bytes(source, SNIFFED_BYTES)
    if not start and not is_folder:
        raise ForestageError(f"{source}: empty file")
    for name, importer in FORMATS.items():
        if (importer.folders if is_folder else importer.files) and importer.sniff(source, start):
            return name
    if torch_file.is_torch_file(start):
        raise ForestageError(
            f"{source}: a PyTorch file, but of no known recording, or damaged; fetch it again, or say what it is with "
            "--format"
        )
    if start.startswith(UTF_16_MARKS):
        raise ForestageError(f"{source}: is text in UTF-16; save it as UTF-8")
    refuse_unrouted(source, start)
    what = "folder of a known trace format" if is_folder else "known trace format"
    raise ForestageError(
        f"{source}: no {what}; known are {', '.join(FORMATS)} (choose one with --format){hint(source, start)}"
    )


def import_recording(
    source: str | Path,
    format: str | None = None,
    options: ImportOptions | None = None,
    progress: Progress | None = None,
) -> Imported:
    """Import ``source`` and check all of it; the project's own files are mapped, others are converted.

    Args:
        source: a file or folder in any known format.
        format: a name in ``FORMATS``; ``None``: recognised from the source.
        options: facts that the source does not state.
        progress: called with (done, total) while reading.

    Raises:
        ForestageError: if the format is unknown, the source is faulty, or an option is missing or has no effect; the
            line names the file, the field and the row.
    """
    path = Path(source)
    options = options or ImportOptions()
    if format is not None and format not in FORMATS:
        raise ForestageError(f"--format {format}: unknown format; known are {', '.join(FORMATS)}")
    if format is None and options.columns is not None:
        format = table.NAME
    _refuse_no_file(path)
    name = sniff_format(path) if format is None else format
    importer = FORMATS[name]
    _check_kind(path, importer)
    for option in options.given():
        if option not in importer.uses | EVERY_FORMAT:
            typed = (options.model and configuring_option(options.model)) if option == "model" else None
            raise ForestageError(
                f"{path}: {typed or option_name(option)}: the format {name} has no use for it; leave it out"
            )
    report = Report() if progress is None else Report(progress)
    recording = importer.read(path, options, report)
    if options.drop_constant is not None:
        recording = _less_constant_runs(recording, path, options.drop_constant, report)
    if options.source is not None or options.licence is not None:
        recording = _with_provenance(recording, options)
    if isinstance(recording, RoutingTrace) and importer is not own.TRACE:
        if options.layers is None:
            warn_of_layers(recording, report)
        warn_of_trace(recording, report, ids_are_computed=importer is hf_router_logits.IMPORTER)
    return Imported(recording, name, tuple(report.warnings))


def suspicions(trace: RoutingTrace) -> tuple[str, ...]:
    """The warnings of ``import_recording`` for a trace that was imported before, one line each."""
    report = Report()
    warn_of_trace(trace, report)
    return tuple(report.warnings)


def import_trace(source: str | Path, format: str | None = None, *, model: str | None = None) -> RoutingTrace:
    """The trace in ``source``: ``import_recording`` for callers that need routing.

    Raises:
        ForestageError: as ``import_recording``, and if the source has only expert loads.
    """
    recording = import_recording(source, format, ImportOptions.parse({"model": model}, origin="--model")).recording
    if isinstance(recording, ExpertLoad):
        raise ForestageError(f"{source}: {REFUSAL}")
    return recording


def _less_constant_runs(recording: RoutingTrace | ExpertLoad, path: Path, least: int, report: Report) -> RoutingTrace:
    """The recording without its runs of at least ``least`` identical rows, which the report counts.

    Raises:
        ForestageError: for expert loads, which have no rows, or if nothing is left.
    """
    if isinstance(recording, ExpertLoad):
        raise ForestageError(f"{path}: --drop-constant: holds expert loads, which have no rows of tokens; leave it out")
    trace = recording.checked()
    runs = constant_runs(trace, least)
    kept = without(trace, runs)
    emptied = trace.sequences - kept.sequences
    report.warn(
        f"{path}: --drop-constant {least}: {runs.tokens} of {trace.tokens} tokens left out (runs of identical rows: "
        f"{len(runs.spans)})" + (f"; nothing is left of {emptied} sequences" if emptied else "")
    )
    return kept


def _with_provenance(recording: RoutingTrace | ExpertLoad, options: ImportOptions) -> RoutingTrace | ExpertLoad:
    """The recording with the user's source and licence."""
    said = {name: value for name in ("source", "licence") if (value := getattr(options, name)) is not None}
    if isinstance(recording, RoutingTrace):
        return replace(recording, metadata=recording.metadata.model_copy(update=said))
    return replace(recording, metadata=recording.metadata.model_copy(update=said))


def _refuse_no_file(path: Path) -> None:
    """Refuse what can be read once only, or waits for a writer: importers read a source several times."""
    if path.exists() and not path.is_dir() and not path.is_file():
        raise ForestageError(
            f"{path}: is a pipe or a device, which can be read only once; write what it gives to a file and name that"
        )


def _check_kind(path: Path, importer: Importer) -> None:
    """Refuse a missing source, and a folder (or file) for a format that is never one."""
    if not path.exists():
        raise ForestageError(f"{path}: no such file")
    if path.is_dir() and not importer.folders:
        raise ForestageError(f"{path}: is a folder; name the file")
    if not path.is_dir() and not importer.files:
        raise ForestageError(f"{path}: is a file; the format {importer.name} is a folder")
