"""What a trace says of itself."""

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from catalog.config import StrictModel

GateWeightKind = Literal["none", "normalised", "softmax", "sigmoid", "unknown"]
"""What gate weights are: ``normalised`` over the chosen experts (they sum to 1), raw ``softmax`` over all experts, raw
``sigmoid`` scores, ``unknown``; ``none`` where the trace has no weights."""

GATE_WEIGHT_KINDS: tuple[str, ...] = get_args(GateWeightKind)

MAX_EXPERTS = 65_535
"""65,535 is the u16 that marks an unrecorded row."""


PARQUET_KEY = "forestage"
"""Of a Parquet table's key-value metadata: a trace's own, as JSON."""


class FittedFigure(StrictModel):
    """How a synthetic trace met one figure, means over the layers (or pairs of layers) that have it.

    Attributes:
        target: of the recorded trace, carried to the shape of the synthetic one.
        achieved: measured on the synthetic trace.
        worst_layer: the largest difference, achieved less target, of a single layer.
    """

    target: float
    achieved: float
    worst_layer: float

    @property
    def error(self) -> float:
        """Achieved over target, less 1 (0 where the target is 0)."""
        return self.achieved / self.target - 1 if self.target else 0.0


class SynthesisFit(StrictModel):
    """What a synthetic trace was fitted to, and how well it fits.

    Attributes:
        model, source: as the recorded trace's metadata say.
        layers, experts, top_k, tokens: its shape.
        seed: of the generator.
        figures: by name; ``traces.synthesis.measure`` defines them.
    """

    model: str
    source: str
    layers: int
    experts: int
    top_k: int
    tokens: int
    seed: int
    figures: dict[str, FittedFigure]


class TraceMetadata(StrictModel):
    """Facts about a whole trace.

    Attributes:
        model: name of the model, as its publisher writes it where known (``openai/gpt-oss-20b``).
        experts: routed experts a layer (shared experts are not in a trace).
        top_k: experts chosen a token and layer.
        layer_map: the model's layer index of each recorded MoE layer, ascending.
        ranked: ids are in the router's order, best first.
        gate_weight_kind: what ``gate_weights`` are; ``none`` exactly where there are none.
        source: where the routing was recorded (repository and commit, command, paper).
        licence: SPDX name, or what is known.
        synthetic: made by a generator, not by a model.
        synthesis: the generator's fit, where `forestage trace synthesise` made the trace.
        has_unrecorded: some rows were not recorded; each of their ids is the dtype's maximum.
    """

    model: str = Field(min_length=1)
    experts: int = Field(ge=1, le=MAX_EXPERTS)
    top_k: int = Field(ge=1)
    layer_map: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    ranked: bool
    gate_weight_kind: GateWeightKind
    source: str = Field(min_length=1)
    licence: str = Field(min_length=1)
    synthetic: bool = False
    synthesis: SynthesisFit | None = None
    has_unrecorded: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> "TraceMetadata":
        if self.top_k > self.experts:
            raise ValueError(f"top_k ({self.top_k}) exceeds experts ({self.experts})")
        if any(later <= earlier for earlier, later in zip(self.layer_map, self.layer_map[1:], strict=False)):
            raise ValueError("layer_map must be strictly ascending")
        if self.synthesis is not None and not self.synthetic:
            raise ValueError("synthesis is stated, but synthetic is false")
        return self
