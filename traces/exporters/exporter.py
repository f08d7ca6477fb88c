"""The description of an export format, and what its functions are given."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from catalog.config import StrictModel
from catalog.errors import ForestageError
from catalog.progress import Progress
from traces.batch import BatchSchedule
from traces.expert_load import ExpertLoad
from traces.trace import RoutingTrace

"""Called with (done, total) tokens while a file is written."""

FACTS: dict[str, str] = {
    "tokens": "which token chose what",
    "gate_weights": "gate weights",
    "gate_weight_kind": "what the gate weights are",
    "ranked": "whether ids are in rank order",
    "phase": "phases",
    "token_hash": "the tokens' identities",
    "labels": "domains and datasets",
    "steps": "the single steps (their sum is written)",
    "steps_ordered": "whether the steps are in order",
    "batch": "the batch schedule",
    "model": "the model's name",
    "experts": "the number of experts",
    "top_k": "experts a token",
    "layer_map": "the model's index of each layer",
    "source": "where it was recorded",
    "licence": "the licence",
    "synthetic": "that it is synthetic",
}
"""Facts that a format may be unable to express: name → words for it."""

OF_TOKENS = frozenset({"gate_weights", "gate_weight_kind", "ranked", "phase", "token_hash", "labels", "batch"})
"""Facts that are lost where tokens are."""


class ExportOptions(StrictModel):
    """The options of ``forestage trace export``; ``None`` if not given.

    Attributes:
        ids: for a table: chosen experts as one ``list`` per row (the default), or ``wide``: one column per choice.
        model_layers: transformer layers of the model, if the catalogue does not know it.
        devices: number of devices on which experts are placed.
        redundant: replicas per layer beyond the first of each expert.
    """

    ids: Literal["list", "wide"] | None = None
    model_layers: int | None = Field(default=None, ge=1)
    devices: int | None = Field(default=None, ge=1)
    redundant: int | None = Field(default=None, ge=0)

    def given(self) -> tuple[str, ...]:
        """Names of the options that were given."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) is not None)


@dataclass(frozen=True, eq=False)
class Source:
    """The recording to export.

    Attributes:
        recording: a trace, or expert loads.
        schedule: the trace's batch schedule, if its file has one.
    """

    recording: RoutingTrace | ExpertLoad
    schedule: BatchSchedule | None = None

    @property
    def trace(self) -> RoutingTrace:
        """The trace, for formats that take nothing else."""
        assert isinstance(self.recording, RoutingTrace)
        return self.recording


@dataclass(frozen=True)
class Exporter:
    """A format to write.

    Attributes:
        name: as given to ``--format``; an importer of the same name, if there is one, reads it back.
        description: one line for the command's help.
        suffixes: allowed endings of the file's name; each may select a way of writing.
        check: called before anything is written; raises if the format cannot express the source or an option is
            missing.
        write: writes the files at the path (already checked), and returns them, the named one first.
        lost: returns the names of ``FACTS`` that the source states and the files do not.
        uses: fields of ``ExportOptions`` that the format uses.
        takes_loads: whether sources may be expert loads.
        reader: returns the name of the importer that reads the file back, and options that supply what the file lacks;
            ``None`` if no importer does.
    """

    name: str
    description: str
    suffixes: tuple[str, ...]
    check: Callable[[Source, Path, ExportOptions], None]
    write: Callable[[Source, Path, ExportOptions, Progress], tuple[Path, ...]]
    lost: Callable[[Source, Path, ExportOptions], tuple[str, ...]]
    uses: frozenset[str] = frozenset()
    takes_loads: bool = False
    reader: Callable[[Source, Path, ExportOptions], tuple[str, ...]] | None = None


def stated_facts(source: Source) -> tuple[str, ...]:
    """Names of ``FACTS`` that ``source`` states (without gate weights, it does not state them)."""
    recording = source.recording
    always = ("model", "experts", "layer_map", "source", "licence")
    if isinstance(recording, ExpertLoad):
        stated = {*always}
        stated |= {"steps", "steps_ordered"} if recording.steps > 1 else set()
        stated |= {"top_k"} if recording.metadata.top_k is not None else set()
    else:
        stated = {*always, "tokens", "phase", "labels", "ranked", "top_k"}
        stated |= {"gate_weights", "gate_weight_kind"} if recording.gate_weights is not None else set()
        stated |= {"token_hash"} if recording.token_hash is not None else set()
        stated |= {"batch"} if source.schedule is not None else set()
    stated |= {"synthetic"} if recording.metadata.synthetic else set()
    return tuple(fact for fact in FACTS if fact in stated)


def lost_but(source: Source, *kept: str) -> tuple[str, ...]:
    """The facts that ``source`` states, except those ``kept`` by the format."""
    return tuple(fact for fact in stated_facts(source) if fact not in kept)


def shape_options(source: Source, *, model: bool = True, top_k: bool = True) -> tuple[str, ...]:
    """The options that ``trace import`` needs because a file of loads or rows does not state them."""
    meta = source.recording.metadata
    named = ("--model", meta.model) if model else ()
    chosen = ("--top-k", str(meta.top_k)) if top_k and meta.top_k is not None else ()
    return (*named, "--experts", str(meta.experts), *chosen, "--layers", ",".join(spans(meta.layer_map)))


def spans(layers: tuple[int, ...]) -> list[str]:
    """Ascending layers as ``3-60`` or ``5``."""
    found: list[list[int]] = []
    for layer in layers:
        if found and found[-1][1] == layer - 1:
            found[-1][1] = layer
        else:
            found.append([layer, layer])
    return [str(first) if first == last else f"{first}-{last}" for first, last in found]


def require_recorded(trace: RoutingTrace, format: str, remedy: str) -> None:
    """Raise if a row of ``trace`` was not recorded, because ``format`` cannot mark it.

    Raises:
        ForestageError: naming the first such row.
    """
    if not trace.metadata.has_unrecorded:
        return
    first = 0
    for chunk in trace.chunks():
        missing = ~chunk.recorded()
        if missing.any():
            token, layer = (int(i) for i in divmod(int(missing.argmax()), trace.layers))
            raise ForestageError(
                f"{trace.origin}: token {first + token}, layer {trace.metadata.layer_map[layer]} was not recorded, "
                f"which the format {format} cannot say; {remedy}"
            )
        first += chunk.tokens
