"""What a user may say of a foreign file that does not say it itself."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from catalog.config import StrictModel
from catalog.errors import ForestageError
from traces.schema import PhaseName


class ImportOptions(StrictModel):
    """The options of ``forestage trace import``; ``None`` where not given.

    Attributes:
        model: name of the model; the catalogue gives its experts, top-k and layers where it knows the name.
        experts: routed experts a layer.
        top_k: experts a token uses (of a run cut to fewer than the model's: those of the run).
        layers: the model's index of each recorded MoE layer, ascending.
        expert_map: a file that maps physical experts to logical ones (``traces.importers.assembly.expert_map``).
        gate_weights: what the model makes of the chosen experts' scores: ``normalised`` over them, or left raw
            (``softmax``, ``sigmoid``).
        select: what a router's choice is the k largest of, where a file holds logits: the ``logits`` themselves, their
            ``softmax`` (the same order, if no bias is added) or their ``sigmoid``.
        selection_bias: a file of the bias ``[layers, experts]`` that is added for the choice alone; ``none``: there is
            none.
        groups, top_groups: experts stand in so many groups, and the choice is made within so many of them.
        phase: of all tokens, or of the sequences that do not say, for a format that does not tell it.
        domain: label of the sequences, for a format that labels none.
        dataset: what the sequences are stratified by, likewise.
        source, licence: where it was recorded, and what may be done with it.
        drop_constant: runs of at least so many identical rows within a sequence are left out.
        columns: role → the column that plays it, for a generic table.
        separator: between a table's columns, where it is not told by the text.
        files: what each file of a folder is: a ``sequence``, a ``layer`` or a ``rank``.
        stack: which half of an encoder-decoder model is imported.
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
    """Columns by role from texts like ``ids=expert_ids``; ``None`` where there are none.

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
        ForestageError: if ``text`` is no such list.
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
