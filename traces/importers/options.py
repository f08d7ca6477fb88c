"""What a user may say of a foreign file that does not say it itself."""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from catalog.config import StrictModel
from catalog.errors import ForestageError
from traces.trace import PhaseName


class ImportOptions(StrictModel):
    """The options of ``forestage trace import``; ``None`` where not given.

    Attributes:
        model: name of the model; the catalogue gives its experts, top-k and layers where it knows the name.
        experts: routed experts a layer.
        top_k: experts a token uses (of a run cut to fewer than the model's: those of the run).
        layers: the model's index of each recorded MoE layer, ascending.
        expert_map: a file that maps physical experts to logical ones (``traces.importers.expert_map``).
        gate_weights: what the model makes of the chosen experts' softmax: ``normalised`` over them, or left raw
            (``softmax``).
        phase: of all tokens, or of the sequences that do not say, for a format that does not tell it.
        domain: label of the sequences, for a format that labels none.
        dataset: what the sequences are stratified by, likewise.
    """

    model: str | None = Field(default=None, min_length=1)
    experts: int | None = Field(default=None, ge=1)
    top_k: int | None = Field(default=None, ge=1)
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    expert_map: Path | None = None
    gate_weights: Literal["normalised", "softmax"] | None = None
    phase: PhaseName | None = None
    domain: str | None = Field(default=None, min_length=1)
    dataset: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> "ImportOptions":
        layers = self.layers
        if layers is not None and (not layers or any(b <= a for a, b in pairwise(layers))):
            raise ValueError("layers must be named once each, ascending")
        return self

    def given(self) -> tuple[str, ...]:
        """Names of the options that were given."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) is not None)


def option_name(field: str) -> str:
    """An option as it is typed: ``expert_map`` is ``--expert-map``."""
    return f"--{field.replace('_', '-')}"


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
