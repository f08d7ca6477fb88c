"""What a next-use predictor looks at, how large it is, and how it is trained."""

from typing import Any

from pydantic import Field, field_validator

from predictor.row_network.config import NetworkConfig, Recipe, TrainingConfig

WITHOUT_IDENTITY: dict[str, Any] = {"ngram_tables": (), "decays": ((2, 0), (3, 2), (5, 2), (7, 0))}
"""Other defaults, for a trace without token identity: more of the neighbours' past, in the room of what followed."""

FEW_TOKENS = 1 << 16
"""A trace with fewer training tokens than this is a small one."""
OF_FEW_TOKENS: dict[str, Any] = {"batch": 256}
"""Other defaults, for a small trace: it gives too few steps of the optimiser in batches of the usual size."""


class NextUseConfig(NetworkConfig):
    """The network's configuration. Lookahead 0: asked once the target layer's own gate is known, about the tokens after
    this one; ``d`` ≥ 1: when the gate ``d`` layers below it is known, about this token and those after it.

    Attributes:
        horizons: for each ``n``, the chance of being wanted within the next ``n`` tokens is predicted; ascending. The
            priority of an expert is the sum of its chances.
    """

    nearest: int = Field(default=0, ge=0, le=64)
    farthest: int = Field(default=0, ge=0, le=64)
    hidden: int = Field(default=64, ge=1, le=4096)
    layers_back: int = Field(default=7, ge=0)
    previous: tuple[tuple[int, int], ...] = ((1, 4),)
    decays: tuple[tuple[int, int], ...] = ((2, 0), (3, 2), (5, 0), (7, 0))
    identity_rows: int = Field(default=0, ge=0)
    identities: int = Field(default=0, ge=0, le=8)
    at_match: bool = False
    continuation_windows: tuple[tuple[int, int], ...] = ((1, 1), (2, 2), (3, 4), (5, 8))
    horizons: tuple[int, ...] = (2, 4, 8, 16)

    @field_validator("horizons")
    @classmethod
    def _horizons(cls, horizons: tuple[int, ...]) -> tuple[int, ...]:
        if not horizons or horizons[0] < 1 or list(horizons) != sorted(set(horizons)):
            raise ValueError("give ascending numbers of tokens, 1 or more")
        return horizons

    @property
    def questions(self) -> int:
        """One for each horizon."""
        return len(self.horizons)


class NextUseTraining(TrainingConfig):
    """How it is trained: the fields of ``TrainingConfig`` with other defaults."""

    epochs: int = Field(default=5, ge=1)
    patience: int = Field(default=2, ge=1)
    batch: int = Field(default=512, ge=1)
    learning_rate: float = Field(default=1e-2, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    hidden_dropout: float = Field(default=0.0, ge=0, lt=1)


class NextUseRecipe(Recipe):
    """A next-use predictor and its training."""

    predictor: NextUseConfig = NextUseConfig()
    training: NextUseTraining = NextUseTraining()


def recipe_for(given: dict[str, Any], *, identity: bool, tokens: int, origin: str) -> NextUseRecipe:
    """The fields ``given``, all others at the defaults for a trace that records token ``identity`` or does not, and has
    so many ``tokens`` in its training part.

    Raises:
        ForestageError: for an unknown field or a value out of range.
    """
    defaults = {**({} if identity else WITHOUT_IDENTITY), **(OF_FEW_TOKENS if tokens < FEW_TOKENS else {})}
    return NextUseRecipe().replaced({**defaults, **given}, origin=origin)
