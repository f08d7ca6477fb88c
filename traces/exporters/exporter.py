"""What the registry knows of a format that recordings are written in."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from catalog.config import StrictModel
from catalog.errors import ForestageError
from traces.batch import BatchSchedule
from traces.load import ExpertLoad
from traces.trace import RoutingTrace

Progress = Callable[[int, int], None]
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
"""What a format may be unable to say, by name, with the words for it."""

OF_TOKENS = frozenset({"gate_weights", "gate_weight_kind", "ranked", "phase", "token_hash", "labels", "batch"})
"""Facts that nothing without tokens can say."""


class ExportOptions(StrictModel):
    """The options of ``forestage trace export``; ``None`` where not given.

    Attributes:
        ids: of a table: chosen experts as one ``list`` a row (the default), or ``wide``, a column a place.
        model_layers: transformer layers of the model, where the catalogue does not know it.
        devices: over which experts are placed.
        redundant: replicas beyond one of each expert, a layer.
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
    """What is exported.

    Attributes:
        recording: routing, or loads.
        schedule: the batch that a trace's tokens are served in, where its file has one.
    """

    recording: RoutingTrace | ExpertLoad
    schedule: BatchSchedule | None = None

    @property
    def trace(self) -> RoutingTrace:
        """The routing; for formats that are written from nothing else."""
        assert isinstance(self.recording, RoutingTrace)
        return self.recording


@dataclass(frozen=True)
class Exporter:
    """A format to write.

    Attributes:
        name: as given to ``--format``; an importer of that name, where there is one, reads it back.
        description: one line for the help.
        suffixes: endings of the file's name, each a way of writing it.
        check: raises where the format cannot say what the source holds, or an option is missing; before anything is
            written.
        write: writes the files at the path (already checked), and returns them, the named one first.
        lost: names of ``FACTS`` that the source states and the files do not.
        uses: fields of ``ExportOptions`` that the format has a use for.
        takes_loads: sources may be loads.
        reader: the importer that reads the file back, and options that say what the file does not; ``None`` where no
            importer does.
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
    """Names of ``FACTS`` that ``source`` states (one without gate weights loses none)."""
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
    """What ``source`` states, but for the facts that a format keeps."""
    return tuple(fact for fact in stated_facts(source) if fact not in kept)


def shape_options(source: Source, *, model: bool = True, top_k: bool = True) -> tuple[str, ...]:
    """``trace import``'s options for what a file of loads or rows does not say."""
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
    """Raise if a row of ``trace`` was not recorded: ``format`` has no way to say so.

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
