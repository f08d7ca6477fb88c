"""The metadata of a trace."""

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
"""Key under which a Parquet table's metadata keep the trace's own, as JSON."""


class FittedFigure(StrictModel):
    """How closely a synthetic trace meets one figure; means over the layers (or pairs of layers) that have it.

    Attributes:
        target: the recorded trace's value, transferred to the shape of the synthetic one.
        achieved: the value measured on the synthetic trace.
        worst_layer: the largest difference (achieved − target) in a single layer.
    """

    target: float
    achieved: float
    worst_layer: float

    @property
    def error(self) -> float:
        """achieved / target − 1; 0 if the target is 0."""
        return self.achieved / self.target - 1 if self.target else 0.0


class SynthesisFit(StrictModel):
    """What a synthetic trace was fitted to, and how well it fits.

    Attributes:
        model, source: the recorded trace's.
        layers, experts, top_k, tokens: the recorded trace's shape.
        seed: the generator's seed.
        figures: name → figure; ``traces.synthesis.measure`` defines them.
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
        experts: routed experts per layer (shared experts are not in a trace).
        top_k: experts chosen per token and layer.
        layer_map: the model's layer index of each recorded MoE layer, ascending.
        ranked: whether ids are in the router's order, best first.
        gate_weight_kind: what ``gate_weights`` are; ``none`` exactly where there are none.
        source: where the routing was recorded (repository and commit, command, paper).
        licence: SPDX name, or what is known.
        synthetic: whether a generator, not a model, made it.
        synthesis: the generator's fit, if `forestage trace synthesise` made the trace.
        has_unrecorded: whether some rows were not recorded; each of their ids is the dtype's maximum.
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
