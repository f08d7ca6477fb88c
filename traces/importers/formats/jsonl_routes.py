"""Routing as JSON Lines, a line a token and layer: three field lists in use.

* *request*: ``type`` (``"route"``), ``req_id``, ``token_idx``, ``layer``, ``topk_ids``, ``topk_weights``;
* *problem*: ``dataset``, ``problem_id``, ``layer``, ``experts``, ``gating_probs``, ``token_idx``;
* *selection*: ``record_type`` (``"routing_selection"``), ``phase``, ``layer``, ``token_position``, ``token_id``,
  ``selected_experts``, ``selected_probabilities``: the files of moe-cache-lab (``routing-trace-v1`` and ``-v2``, of its
  ``schemas``), and others like them.

Weights and ``token_id`` may be absent, null or empty. Lines of another ``type`` or ``record_type`` are left out, and
further keys are left alone. A sequence is a ``req_id``, or a ``dataset`` and ``problem_id``; a selection names none,
and a new sequence begins where the position and layer of the file's first selection come again. The first two lists
tell no phase: the user does, or all is prefill.

Before selections may stand a line ``record_type: metadata`` with the model's name (``model_id``), ``num_experts`` and
``experts_per_token``, or, in version 2, ``routing_stages``: these numbers for the encoder and the decoder of a model
that has both. Version 2 says of every selection which ``routing_stage`` it is of, and its ``assignment_state``: a token
that found its expert full is ``unassigned``, and its row *not recorded*. Encoder and decoder have experts of their own
under the same numbers, so one of them is imported.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from catalog.config import describe_validation_error
from catalog.errors import ForestageError
from traces.importers.assembly.json_records import json_object
from traces.importers.assembly.routing_rows import RoutingRows
from traces.importers.assembly.row_format import LARGEST, LARGEST_ID, NO_TOKEN
from traces.importers.assembly.row_trace import ROW_OPTIONS, trace_of_rows
from traces.importers.assembly.stated import check_model, check_number
from traces.importers.assembly.text_file import read_lines
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.schema import DECODE, PHASES, PREFILL
from traces.trace import RoutingTrace

Whole = Annotated[int, Field(ge=0, le=LARGEST, strict=True)]
Id = Annotated[int, Field(ge=0, le=LARGEST_ID, strict=True)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Name = Annotated[int, Field(strict=True)] | Annotated[str, Field(strict=True)]

Count = Annotated[int, Field(ge=1, le=LARGEST_ID + 1, strict=True)]
Stage = Literal["encoder", "decoder"]

NAME = "jsonl_routes"

SELECTION_PHASES = {
    "prefill": PREFILL,
    "prompt": PREFILL,
    "source": PREFILL,
    "decoder_prompt": PREFILL,
    "decode": DECODE,
    "generated": DECODE,
    "decoder_generated": DECODE,
}
"""The phases of selections, of every version."""


class RouteLine(BaseModel):
    """One token's choice in one layer; a variant gives its own names to the fields and adds what marks a sequence."""

    position: Whole
    layer: Whole
    ids: list[Id] = Field(min_length=1)
    weights: list[Weight] | None = None
    token: Annotated[int, Field(ge=0, le=2**32 - 1, strict=True)] | None = None


class RequestLine(RouteLine):
    """A line of the request variant."""

    type: Literal["route"]
    req_id: Name
    position: Whole = Field(validation_alias="token_idx")
    ids: list[Id] = Field(validation_alias="topk_ids", min_length=1)
    weights: list[Weight] | None = Field(None, validation_alias="topk_weights")


class ProblemLine(RouteLine):
    """A line of the problem variant."""

    dataset: Annotated[str, Field(strict=True)]
    problem_id: Name
    position: Whole = Field(validation_alias="token_idx")
    ids: list[Id] = Field(validation_alias="experts", min_length=1)
    weights: list[Weight] | None = Field(None, validation_alias="gating_probs")


class SelectionLine(RouteLine):
    """A line of the selection variant."""

    record_type: Literal["routing_selection"]
    phase: Literal["prefill", "prompt", "source", "decoder_prompt", "decode", "generated", "decoder_generated"]
    routing_stage: Stage | None = None
    assignment_state: Literal["assigned", "unassigned"] = "assigned"
    position: Whole = Field(validation_alias="token_position")
    ids: list[Id] = Field(validation_alias="selected_experts")
    weights: list[Weight] | None = Field(None, validation_alias="selected_probabilities")
    token: Annotated[int, Field(ge=0, le=2**32 - 1, strict=True)] | None = Field(None, validation_alias="token_id")


class StageFacts(BaseModel):
    """Of the encoder or the decoder; further keys are left alone."""

    routing_stage: Stage
    num_experts: Count
    assigned_experts_per_token: Count


class MetadataLine(BaseModel):
    """What stands before selections; further keys are left alone."""

    record_type: Literal["metadata"]
    model_id: Annotated[str, Field(min_length=1, strict=True)] | None = None
    num_experts: Count | None = None
    experts_per_token: Count | None = None
    routing_stages: list[StageFacts] | None = None
    format_version: Annotated[int, Field(le=2)] | str | None = None


VARIANTS: dict[str, type[RouteLine]] = {"req_id": RequestLine, "problem_id": ProblemLine, "record_type": SelectionLine}
"""By a key that only this variant's lines have."""

KINDS = {RequestLine: ("type", "route"), SelectionLine: ("record_type", "routing_selection")}
"""The key and value that tell a routing line from the others of such a file."""


def sniff(path: Path, start: bytes) -> bool:
    """A text that begins with a JSON object and has the key of a variant."""
    del path
    return start.lstrip().startswith(b"{") and any(f'"{key}"'.encode() in start for key in VARIANTS)


def read(path: Path, options: ImportOptions, report: Report) -> RoutingTrace:
    """Import ``path``; a problem's dataset is its domain too.

    Raises:
        ForestageError: naming the line and field that is not as the variant has it, or what an option must say.
    """
    rows, facts, datasets = read_rows(path, options, report)
    return trace_of_rows(
        rows,
        [(dataset, dataset) for dataset in datasets],
        options,
        report,
        origin=path,
        format=NAME,
        experts=facts.experts,
        name=facts.model,
    )


class Facts:
    """What a file says of the whole, from its metadata line on.

    Attributes:
        model: the model's name, ``None`` where the file has none.
        experts, top_k: of the part that is imported.
        stage: the part that is imported, where the file has an encoder and a decoder or says which of them it is.
    """

    def __init__(self, path: Path, options: ImportOptions, report: Report) -> None:
        self._path = path
        self._report = report
        self._options = options
        self._line: int | None = None
        self._stages: dict[str, StageFacts] = {}
        self._stated: MetadataLine | None = None
        self.model: str | None = None
        self.experts: int | None = None
        self.top_k: int | None = None
        self.stage: str | None = options.stack
        self._any_selection = False

    def state(self, number: int, value: dict[str, Any]) -> None:
        """Take the metadata line.

        Raises:
            ForestageError: if it is not as described, contradicts an earlier one or the user's options, or comes after
                a selection.
        """
        place = f"{self._path}: line {number}"
        try:
            stated = MetadataLine.model_validate(value)
        except ValidationError as error:
            raise ForestageError(f"{place}: {describe_validation_error(MetadataLine, error)}") from error
        if self._stated is not None and stated != self._stated:
            raise ForestageError(f"{place}: metadata other than in line {self._line}; import recordings one by one")
        if self._stated is None and self._any_selection:
            raise ForestageError(f"{place}: metadata after selections; import recordings one by one")
        self._line, self._stated = number, stated
        self._stages = {stage.routing_stage: stage for stage in stated.routing_stages or ()}
        if len(self._stages) == 1 and self.stage is None:
            self.stage = next(iter(self._stages))
        self._settle(place, stated)

    def _settle(self, place: str, stated: MetadataLine) -> None:
        """Model, experts and top-k of what is imported, held against the options."""
        if len(self._stages) > 1 and self.stage is None:
            raise ForestageError(self._choose(place))
        of_stage = self._stages.get(self.stage or "")
        if self._stages and of_stage is None:
            raise ForestageError(f"{place}: --stack {self.stage}: the file holds the {next(iter(self._stages))} alone")
        self.model = stated.model_id
        self.experts = stated.num_experts if of_stage is None else of_stage.num_experts
        self.top_k = stated.experts_per_token if of_stage is None else of_stage.assigned_experts_per_token
        # Before the selections are read; in the words that ``recorded_model`` uses again, so that it is told once.
        check_model(self._options, self.model, str(self._path), self._report)
        check_number("--experts", self._options.experts, self.experts, place)
        check_number("--top-k", self._options.top_k, self.top_k, place)

    def takes(self, number: int, route: SelectionLine) -> bool:
        """Whether a selection is of the part that is imported.

        Raises:
            ForestageError: if the part is not known, or the selection is not as the metadata say.
        """
        place = f"{self._path}: line {number}"
        if route.routing_stage is None and self._options.stack is not None:
            raise ForestageError(f"{place}: --stack: the selections are of no encoder or decoder; leave it out")
        if not self._any_selection and self.stage is None:
            self.stage = route.routing_stage
        self._any_selection = True
        if route.routing_stage != self.stage:
            if self._options.stack is None:
                raise ForestageError(self._choose(place))
            return False
        if self.top_k is not None and route.ids and len(route.ids) != self.top_k:
            raise ForestageError(
                f"{place}: selected_experts: {len(route.ids)}, but the metadata say {self.top_k} a token"
            )
        return True

    def _choose(self, place: str) -> str:
        """What to do about a file of an encoder and a decoder."""
        return (
            f"{place}: the file holds an encoder and a decoder, which have experts of their own; choose one with "
            "--stack encoder or --stack decoder"
        )


class _Sequences:
    """Numbers of the sequences, in order of appearance, and the dataset of each (``None`` where none is named)."""

    def __init__(self) -> None:
        self._known: dict[object, int] = {}
        self.datasets: list[str | None] = []
        self._first: tuple[int, int] | None = None

    def number(self, route: RouteLine) -> int:
        """The sequence of a line."""
        if isinstance(route, SelectionLine):
            key: object = self._restarts(route)
        elif isinstance(route, ProblemLine):
            key = (route.dataset, route.problem_id)
        else:
            assert isinstance(route, RequestLine)
            key = route.req_id
        if key not in self._known:
            self._known[key] = len(self._known)
            self.datasets.append(route.dataset if isinstance(route, ProblemLine) else None)
        return self._known[key]

    def _restarts(self, route: SelectionLine) -> int:
        """How often the position and layer of the file's first selection have come again."""
        place = (route.position, route.layer)
        if self._first is None:
            self._first = place
            return 0
        return len(self._known) - (place != self._first)


def read_rows(path: Path, options: ImportOptions, report: Report) -> tuple[RoutingRows, Facts, list[str | None]]:
    """The rows of ``path``, what it says of the whole, and each sequence's dataset (``None`` where it names none).

    Raises:
        ForestageError: naming the line and field that is not as the variant has it, or a phase given that it tells.
    """
    rows = RoutingRows("position")
    rows.begin(path)
    sequences = _Sequences()
    facts = Facts(path, options, report)
    variant: type[RouteLine] | None = None
    others = of_other_stack = 0
    for number, line in read_lines(path, report):
        if not line.strip():
            continue
        variant = variant or _variant(path, number, line)
        if variant is SelectionLine and options.phase is not None:
            raise ForestageError(f"{path}: --phase: the lines tell the phase themselves; leave it out")
        if variant not in (None, SelectionLine) and options.stack is not None:
            raise ForestageError(f"{path}: --stack: the lines are of no encoder or decoder; leave it out")
        route = None if variant is None else _parse(path, number, line, variant)
        if isinstance(route, dict):
            facts.state(number, route)
        elif route is None:
            others += 1
        elif isinstance(route, SelectionLine) and not facts.takes(number, route):
            of_other_stack += 1
        else:
            _add(rows, path, number, route, sequences.number(route), options)
    if others:
        report.warn(f"{path}: {others} lines of another kind left out")
    if of_other_stack:
        report.warn(f"{path}: the {facts.stage} alone is imported (--stack); {of_other_stack} lines left out")
    if rows.unrecorded:
        report.warn(
            f"{path}: {rows.unrecorded} rows (token, layer) are unassigned: the expert chosen was full, and the token "
            "passed it by; they count as not recorded"
        )
    if variant not in (None, SelectionLine) and options.phase is None:
        report.warn(f"{path}: the lines tell no phases; all tokens count as prefill (--phase decode)")
    return rows, facts, sequences.datasets


def _add(rows: RoutingRows, path: Path, number: int, route: RouteLine, sequence: int, options: ImportOptions) -> None:
    """Add one line's row.

    Raises:
        ForestageError: if a selection has no experts though it is assigned, or some though it is not.
    """
    token = NO_TOKEN if route.token is None else route.token
    phase = PHASES[options.phase or "prefill"]
    weights = route.weights
    if isinstance(route, SelectionLine):
        phase = SELECTION_PHASES[route.phase]
        weights = weights or None  # an empty list where no probabilities were recorded
        is_assigned = route.assignment_state == "assigned"
        if is_assigned != bool(route.ids) or (weights and not route.ids):
            state = "assigned, but names no expert" if is_assigned else "unassigned, but names experts"
            raise ForestageError(f"{path}: line {number}: selected_experts: {state}")
        if not is_assigned:
            rows.add_unrecorded(
                number, sequence=sequence, position=route.position, layer=route.layer, phase=phase, token=token
            )
            return
    rows.add(
        number,
        sequence=sequence,
        position=route.position,
        layer=route.layer,
        ids=route.ids,
        weights=weights,
        phase=phase,
        token=token,
    )


def _variant(path: Path, number: int, line: str) -> type[RouteLine] | None:
    """The variant that a line is of; ``None`` for a line of another kind."""
    value = json_object(line, f"{path}: line {number}")
    found = next((variant for key, variant in VARIANTS.items() if key in value), None)
    if found is None and value.get("type", "route") == "route":
        raise ForestageError(
            f"{path}: line {number}: has none of the keys {', '.join(VARIANTS)}; no known variant of routing lines"
        )
    return found


def _parse(path: Path, number: int, line: str, variant: type[RouteLine]) -> RouteLine | dict[str, Any] | None:
    """A line as ``variant``; a metadata line as it stands; ``None`` for one of another kind."""
    try:
        return variant.model_validate_json(line)
    except ValidationError as error:
        value = json_object(line, f"{path}: line {number}")
        key, routing = KINDS.get(variant, ("", ""))
        if variant is SelectionLine and value.get(key) == "metadata":
            return value
        if isinstance(value.get(key), str) and value[key] != routing:
            return None
        raise ForestageError(f"{path}: line {number}: {describe_validation_error(variant, error)}") from error


IMPORTER = Importer(
    NAME,
    "JSON Lines, a line a token and layer (req_id, problem_id or routing_selection)",
    sniff,
    read,
    ROW_OPTIONS | {"phase", "stack"},
)
