"""Named recipes of the next-layer head, and what its recipe adds to a network's."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from catalog.errors import ForestageError, unknown_name
from catalog.toml_text import read_toml
from predictor.row_network.config import NetworkConfig, Recipe, TrainingConfig


class NextLayerConfig(NetworkConfig):
    """The network's configuration, whose nearest lookahead is 1 or more.

    Attributes:
        adaptation: whether a bias an expert may be learnt anew in every sequence, while decoding.
    """

    nearest: int = Field(default=1, ge=1, le=64)
    adaptation: bool = True


class NextLayerTraining(TrainingConfig):
    """How it is trained.

    Attributes:
        loss: ``bce``: each expert is a yes-or-no question; ``softmax``: the chosen ones share a cross-entropy (ranking
            of chosen above not chosen); ``pairwise``: a logistic loss on every pair of a chosen and another expert.
        gate_weighting: how much more a miss on a heavy expert costs: a chosen expert weighs
            ``1 + gate_weighting · (top_k · weight − 1)``.
    """

    loss: Literal["bce", "softmax", "pairwise"] = "bce"
    gate_weighting: float = Field(default=0.0, ge=0, lt=1)


class NextLayerRecipe(Recipe):
    """A predictor and its training: what a file given to ``--config`` holds."""

    predictor: NextLayerConfig = NextLayerConfig()
    training: NextLayerTraining = NextLayerTraining()


_NO_IDENTITY: dict[str, Any] = {"identity_rows": 0, "identities": 0}

RECIPES: dict[str, NextLayerRecipe] = {
    "deployed": NextLayerRecipe(),
    "no-identity": NextLayerRecipe(predictor=NextLayerConfig(**_NO_IDENTITY, ngram_by="routing")),
    "few-tokens": NextLayerRecipe(
        predictor=NextLayerConfig(**_NO_IDENTITY, ngram_tables=(), previous=((2, 2),)),
        training=NextLayerTraining(epochs=14, batch=256, dropout=0.4, hidden_dropout=0.0, learning_rate=4e-3),
    ),
    "ablation": NextLayerRecipe(
        predictor=NextLayerConfig(hidden=64), training=NextLayerTraining(epochs=5, hidden_dropout=0.0)
    ),
    "unbounded": NextLayerRecipe(
        predictor=NextLayerConfig(
            hidden=384,
            layers_back=8,
            previous=((2, 2),),
            decays=((1, 1), (3, 1), (5, 1)),
            identity_rows=8192,
        ),
        training=NextLayerTraining(epochs=6, hidden_dropout=0.3),
    ),
    "any-distance": NextLayerRecipe(
        predictor=NextLayerConfig(farthest=8, layers_back=8, hidden=104), training=NextLayerTraining(epochs=12)
    ),
}
"""Named recipes. ``deployed`` holds at most 64 KiB of SRAM a layer for a model of 32 experts; ``few-tokens`` is for
traces of some ten thousand tokens without identity; ``ablation`` is what changes are measured against;
``any-distance`` answers for every lookahead of 1 … 8 from one bank, in the room of ``deployed``."""


def read_recipe(name_or_path: str) -> NextLayerRecipe:
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
    return NextLayerRecipe.parse(read_toml(path), origin=str(path))
