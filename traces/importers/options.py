"""The options by which a user states facts that a foreign file does not state."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from catalog.config import StrictModel
from catalog.errors import ForestageError
from traces.schema import PhaseName


class ImportOptions(StrictModel):
    """The options of ``forestage trace import``; ``None`` if not given.

    Attributes:
        model: name of the model; if the catalogue knows it, it gives experts, top-k and layers.
        experts: routed experts per layer.
        top_k: experts that a token uses in the recording (a run may use fewer than the model).
        layers: the model's index of each recorded MoE layer, ascending.
        expert_map: a file that maps physical experts to logical ones (``traces.importers.assembly.expert_map``).
        gate_weights: how the weights follow from the chosen experts' scores: ``normalised`` over them, or raw
            (``softmax``, ``sigmoid``).
        select: for a file of logits, the scores of which a router chooses the k largest: the ``logits`` themselves,
            their ``softmax`` (the same order, if no bias is added) or their ``sigmoid``.
        selection_bias: a file with the bias ``[layers, experts]`` that is added only for the choice; ``none``: there is
            no bias.
        groups, top_groups: number of groups of experts, and number of groups from which experts are chosen.
        phase: phase of all tokens, or of sequences without one, if the format does not state it.
        domain: label of the sequences, if the format has no labels.
        dataset: label by which splits are stratified, if the format has none.
        source, licence: where the recording was made, and its licence.
        drop_constant: leave out runs of at least so many identical rows within a sequence.
        columns: role → its column, for a generic table.
        separator: separator of a table's columns, if it cannot be found from the text.
        files: what each file of a folder is: a ``sequence``, a ``layer`` or a ``rank``.
        stack: the half of an encoder-decoder model to import.
    """

    model: str | None = Field(default=None, min_length=1)
    experts: int | None = Field(default=None, ge=1)
    top_k: int | None = Field(default=None, ge=1)
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    expert_map: Path | None = None
    gate_weights: Literal["normalised", "softmax", "sigmoid"] | None = None
    select: Literal["logits", "softmax", "sigmoid"] | None = None
    selection_bias: Path | None = None
    groups: int | None = Field(default=None, ge=1)
    top_groups: int | None = Field(default=None, ge=1)
    phase: PhaseName | None = None
    domain: str | None = Field(default=None, min_length=1)
    dataset: str | None = Field(default=None, min_length=1)
    source: str | None = Field(default=None, min_length=1)
    licence: str | None = Field(default=None, min_length=1)
    drop_constant: int | None = Field(default=None, ge=2)
    columns: dict[str, str] | None = None
    separator: str | None = Field(default=None, min_length=1)
    files: Literal["sequence", "layer", "rank"] | None = None
    stack: Literal["encoder", "decoder"] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "ImportOptions":
        if self.top_k is not None and self.experts is not None and self.top_k > self.experts:
            raise ValueError(f"--top-k {self.top_k}: more than the {self.experts} of --experts; correct one of them")
        layers = self.layers
        if layers is not None and (not layers or any(b <= a for a, b in pairwise(layers))):
            raise ValueError("--layers: name each layer once, ascending, as 0,2,5-7")
        return self

    def given(self) -> tuple[str, ...]:
        """Names of the options that were given."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) is not None)


def option_name(field: str) -> str:
    """An option as it is typed: ``expert_map`` is ``--expert-map``, ``columns`` is ``--column``, given once each."""
    return "--column" if field == "columns" else f"--{field.replace('_', '-')}"


def parse_columns(settings: Sequence[str]) -> dict[str, str] | None:
    """Role → column, from texts like ``ids=expert_ids``; ``None`` if there are none.

    Raises:
        ForestageError: for a text without ``=``, or a role that is given twice.
    """
    columns: dict[str, str] = {}
    for setting in settings:
        role, equals, name = setting.partition("=")
        if not equals or not role or not name:
            raise ForestageError(f"--column {setting}: write role=name, as ids=expert_ids")
        if role in columns:
            raise ForestageError(f"--column {setting}: the role {role} was given before ({columns[role]})")
        columns[role] = name
    return columns or None


def parse_layers(text: str) -> tuple[int, ...]:
    """Layer indices from ``3-60`` or ``0,2,5-7``.

    Raises:
        ForestageError: if ``text`` is not such a list.
    """
    layers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.strip().isdecimal() or (dash and not last.strip().isdecimal()):
            raise ForestageError(f"--layers {text}: write layer indices as 3-60 or 0,2,5-7")
        stop = int(last if dash else first)
        if stop > 100_000:
            raise ForestageError(f"--layers {text}: no model has {stop} layers")
        layers.extend(range(int(first), stop + 1))
    return tuple(layers)
