"""What a learned predictor looks at, how large it is, and how it is trained."""

import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from catalog.config import StrictModel
from catalog.errors import ForestageError, unknown_name

MAX_DECAY = 12
"""Largest decay shift: beyond, a decayed sum would need more than the fractional bits it has (``tables``)."""
MAX_TAGGED = 8
"""Most tokens that the key of a tagged table is made of."""


class LearnedConfig(StrictModel):
    """Context window and size: parameters of the design space.

    Attributes:
        hidden: width of the sum and of the ReLU.
        layers_back: layers of this token that feed a target ``l``: ``l − lookahead`` and the ones before it.
        previous: one entry a previous token, the latest first: its layers ``l − reach … l + reach`` feed the target.
        decays: one entry an exponentially decayed sum over all previous tokens of the sequence: each token adds
            ``2^−decay`` of the difference, so that a token's weight halves in about ``0.7 · 2^decay`` tokens.
        decay_reach: the decayed sums are fed by layers ``l − reach … l + reach``.
        identity_rows: rows of token identity: the most frequent tokens of the training part have one each, the last
            one is for all others; 0: identity is not used.
        identities: tokens whose identity feeds a target: this one, the previous one, …
        tagged: one entry a *tagged table* of the sequence, a number of tokens n: what the layer chose when the last n
            tokens, this one included, were last the same as now feeds the target.
        tagged_by: what stands for a token in the tagged tables: its identity, or, for traces that record none, the set
            of experts that its layer 0 chose. Then the tables are looked up when that gate is known, for targets at or
            above the lookahead.
        tagged_entries: entries of each tagged table, a power of two: a later token takes the entry of an earlier one.
        ranks: whether the better ranks of a gate's choice weigh more, by shifts: 4, 2, …, 2, 1; ``None``: where the
            trace's ids are ranked.
        adaptation: whether a bias an expert may be learnt anew in every sequence, while decoding.
    """

    hidden: int = Field(default=128, ge=1, le=4096)
    layers_back: int = Field(default=5, ge=0)
    previous: tuple[int, ...] = (1,)
    decays: tuple[int, ...] = (2, 4)
    decay_reach: int = Field(default=0, ge=0)
    identity_rows: int = Field(default=4096, ge=0)
    identities: int = Field(default=2, ge=0, le=8)
    tagged: tuple[int, ...] = (1, 2, 3)
    tagged_by: Literal["identity", "routing"] = "identity"
    tagged_entries: int = Field(default=4096, ge=1, le=1 << 20)
    ranks: bool | None = None
    adaptation: bool = True

    @field_validator("previous")
    @classmethod
    def _reaches(cls, reaches: tuple[int, ...]) -> tuple[int, ...]:
        if any(reach < 0 for reach in reaches):
            raise ValueError("a reach is 0 or more")
        return reaches

    @field_validator("decays")
    @classmethod
    def _decays(cls, decays: tuple[int, ...]) -> tuple[int, ...]:
        if any(not 1 <= decay <= MAX_DECAY for decay in decays):
            raise ValueError(f"a decay is 1 to {MAX_DECAY}")
        return decays

    @field_validator("tagged")
    @classmethod
    def _lengths(cls, lengths: tuple[int, ...]) -> tuple[int, ...]:
        if any(not 1 <= length <= MAX_TAGGED for length in lengths):
            raise ValueError(f"a number of tokens is 1 to {MAX_TAGGED}")
        return lengths

    @field_validator("tagged_entries")
    @classmethod
    def _power_of_two(cls, entries: int) -> int:
        if entries & (entries - 1):
            raise ValueError("not a power of two")
        return entries

    @model_validator(mode="after")
    def _identity(self) -> Self:
        if self.identity_rows == 1 or bool(self.identity_rows) != bool(self.identities):
            raise ValueError("identity_rows (at least 2) and identities go together; set both, or both to 0")
        return self

    @property
    def looks_at_identity(self) -> bool:
        """Whether tokens must have an identity."""
        return bool(self.identities or (self.tagged and self.tagged_by == "identity"))


class TrainingConfig(StrictModel):
    """How the tables are trained.

    Attributes:
        epochs: passes over the training sequences; the learning rate rises and falls once over them.
        patience: epochs without a better validation recall after which training stops.
        batch: tokens a step.
        learning_rate: peak of AdamW.
        identity_rate: peak rate of the identity rows (SparseAdam), as a multiple of ``learning_rate``; they are
            touched once in a while, the others in every step.
        weight_decay: of AdamW.
        dropout: share of the chosen experts that are hidden from the sum.
        hidden_dropout: share of hidden units dropped.
        loss: ``bce``: each expert is a yes-or-no question; ``softmax``: the chosen ones share a cross-entropy (ranking
            of chosen above not chosen); ``pairwise``: a logistic loss on every pair of a chosen and another expert.
        gate_weighting: how much more a miss on a heavy expert costs: a chosen expert weighs
            ``1 + gate_weighting · (top_k · weight − 1)``.
        validation: share of the training sequences kept aside for early stopping and quantisation.
        seed: of everything drawn.
    """

    epochs: int = Field(default=8, ge=1)
    patience: int = Field(default=3, ge=1)
    batch: int = Field(default=1024, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    identity_rate: float = Field(default=3.0, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    hidden_dropout: float = Field(default=0.15, ge=0, lt=1)
    loss: Literal["bce", "softmax", "pairwise"] = "bce"
    gate_weighting: float = Field(default=0.0, ge=0, le=1)
    validation: float = Field(default=0.08, gt=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=1 << 31)


class Recipe(StrictModel):
    """A predictor and its training: what a file given to ``--config`` holds."""

    predictor: LearnedConfig = LearnedConfig()
    training: TrainingConfig = TrainingConfig()

    def replaced(self, values: dict[str, Any], *, origin: str) -> "Recipe":
        """This recipe with single fields of either part replaced; their names are distinct.

        Raises:
            ForestageError: for an unknown field (the nearest known one is named) or a value out of range.
        """
        parts = {"predictor": self.predictor.model_dump(), "training": self.training.model_dump()}
        for name, value in values.items():
            part = next((part for part in parts.values() if name in part), None)
            if part is None:
                raise unknown_name("parameter", name, [key for part in parts.values() for key in part])
            part[name] = value
        return Recipe(
            predictor=LearnedConfig.parse(parts["predictor"], origin=origin),
            training=TrainingConfig.parse(parts["training"], origin=origin),
        )


_NO_IDENTITY: dict[str, Any] = {"identity_rows": 0, "identities": 0}

RECIPES: dict[str, Recipe] = {
    "deployed": Recipe(),
    "no-identity": Recipe(predictor=LearnedConfig(**_NO_IDENTITY, tagged_by="routing")),
    "few-tokens": Recipe(
        predictor=LearnedConfig(**_NO_IDENTITY, tagged=(), previous=(2,)),
        training=TrainingConfig(epochs=14, dropout=0.4, hidden_dropout=0.2, learning_rate=4e-3),
    ),
    "ablation": Recipe(predictor=LearnedConfig(hidden=64), training=TrainingConfig(epochs=5, hidden_dropout=0.0)),
    "unbounded": Recipe(
        predictor=LearnedConfig(
            hidden=384, layers_back=8, previous=(2,), decays=(1, 3, 5), decay_reach=1, identity_rows=8192
        ),
        training=TrainingConfig(epochs=6, hidden_dropout=0.3),
    ),
}
"""Named recipes. ``deployed`` holds at most 64 KiB of SRAM a layer for a model of 32 experts; ``few-tokens`` is for
traces of some ten thousand tokens without identity; ``ablation`` is what changes are measured against."""


def read_recipe(name_or_path: str) -> Recipe:
    """A named recipe, or the one in a TOML file with the tables ``[predictor]`` and ``[training]``.

    Raises:
        ForestageError: if it is neither, or the file is faulty.
    """
    if name_or_path in RECIPES:
        return RECIPES[name_or_path]
    path = Path(name_or_path)
    if not path.is_file():
        if path.suffix != ".toml":
            raise unknown_name("recipe", name_or_path, RECIPES)
        raise ForestageError(f"{path}: no such file; name a recipe ({', '.join(RECIPES)}) or a TOML file")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ForestageError(f"{path}: not a readable TOML file ({error})") from error
    return Recipe.parse(values, origin=str(path))
