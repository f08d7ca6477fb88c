"""Routing as JSON Lines, a line a token and layer: three field lists in use.

* *request*: ``type`` (``"route"``), ``req_id``, ``token_idx``, ``layer``, ``topk_ids``, ``topk_weights``;
* *problem*: ``dataset``, ``problem_id``, ``layer``, ``experts``, ``gating_probs``, ``token_idx``;
* *selection*: ``record_type`` (``"routing_selection"``), ``phase`` (``"prefill"``, ``"decode"``), ``layer``,
  ``token_position``, ``token_id``, ``selected_experts``, ``selected_probabilities``.

Weights and ``token_id`` may be absent. Lines of another ``type`` or ``record_type`` are left out, and further keys are
left alone. A sequence is a ``req_id``, or a ``dataset`` and ``problem_id``; a selection names none, and a new sequence
begins where the position and layer of the file's first selection come again. The first two lists tell no phase: the
user does, or all is prefill.
"""

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from catalog.config import describe_validation_error
from catalog.errors import ForestageError
from traces.importers.assembly.routing_rows import LARGEST, LARGEST_ID, NO_TOKEN, RoutingRows
from traces.importers.assembly.row_trace import ROW_OPTIONS, trace_of_rows
from traces.importers.assembly.text_file import read_lines
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.trace import PHASES, PhaseName, RoutingTrace

Whole = Annotated[int, Field(ge=0, le=LARGEST, strict=True)]
Id = Annotated[int, Field(ge=0, le=LARGEST_ID, strict=True)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Name = Annotated[int, Field(strict=True)] | Annotated[str, Field(strict=True)]

NAME = "jsonl_routes"


class RouteLine(BaseModel):
    """One token's choice in one layer; a variant gives its own names to the fields and adds what marks a sequence."""

    position: Whole
    layer: Whole
    ids: list[Id] = Field(min_length=1)
    weights: list[Weight] | None = None
    phase: PhaseName | None = None
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
    phase: PhaseName
    position: Whole = Field(validation_alias="token_position")
    ids: list[Id] = Field(validation_alias="selected_experts", min_length=1)
    weights: list[Weight] | None = Field(None, validation_alias="selected_probabilities")
    token: Annotated[int, Field(ge=0, le=2**32 - 1, strict=True)] | None = Field(None, validation_alias="token_id")


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
    rows, datasets = read_rows(path, options, report)
    labels = [(dataset, dataset) for dataset in datasets]
    return trace_of_rows(rows, labels, options, report, origin=path, format=NAME)


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


def read_rows(path: Path, options: ImportOptions, report: Report) -> tuple[RoutingRows, list[str | None]]:
    """The rows of ``path``, and the dataset of each sequence (``None`` where the file names none).

    Raises:
        ForestageError: naming the line and field that is not as the variant has it, or a phase given that it tells.
    """
    rows = RoutingRows("position")
    rows.begin(path)
    sequences = _Sequences()
    variant: type[RouteLine] | None = None
    others = 0
    for number, line in read_lines(path, report):
        if not line.strip():
            continue
        variant = variant or _variant(path, number, line)
        if variant is SelectionLine and options.phase is not None:
            raise ForestageError(f"{path}: --phase: the lines tell the phase themselves; leave it out")
        route = None if variant is None else _parse(path, number, line, variant)
        if route is None:
            others += 1
            continue
        rows.add(
            number,
            sequence=sequences.number(route),
            position=route.position,
            layer=route.layer,
            ids=route.ids,
            weights=route.weights,
            phase=PHASES[route.phase or options.phase or "prefill"],
            token=NO_TOKEN if route.token is None else route.token,
        )
    if others:
        report.warn(f"{path}: {others} lines of another kind left out")
    if variant not in (None, SelectionLine) and options.phase is None:
        report.warn(f"{path}: the lines tell no phases; all tokens count as prefill (--phase decode)")
    return rows, sequences.datasets


def _object(path: Path, number: int, line: str) -> dict[str, object]:
    """A line as a JSON object."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ForestageError(f"{path}: line {number}: not valid JSON ({error}); is the file cut off?") from error
    if not isinstance(value, dict):
        raise ForestageError(f"{path}: line {number}: a JSON {type(value).__name__}; expected an object")
    return value


def _variant(path: Path, number: int, line: str) -> type[RouteLine] | None:
    """The variant that a line is of; ``None`` for a line of another kind."""
    value = _object(path, number, line)
    found = next((variant for key, variant in VARIANTS.items() if key in value), None)
    if found is None and "type" not in value:
        raise ForestageError(
            f"{path}: line {number}: has none of the keys {', '.join(VARIANTS)}; no known variant of routing lines"
        )
    return found


def _parse(path: Path, number: int, line: str, variant: type[RouteLine]) -> RouteLine | None:
    """A line as ``variant``; ``None`` for one of another kind."""
    try:
        return variant.model_validate_json(line)
    except ValidationError as error:
        value = _object(path, number, line)
        key, routing = KINDS.get(variant, ("", ""))
        if isinstance(value.get(key), str) and value[key] != routing:
            return None
        raise ForestageError(f"{path}: line {number}: {describe_validation_error(variant, error)}") from error


IMPORTER = Importer(
    NAME,
    "JSON Lines, a line a token and layer (req_id, problem_id or routing_selection)",
    sniff,
    read,
    ROW_OPTIONS | {"phase"},
)
