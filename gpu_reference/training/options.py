"""The options of training, and the learning-rate schedule that follows from them."""

import math

from pydantic import Field

from catalog.config import StrictModel


class TrainingOptions(StrictModel):
    """How the small model is trained.

    Attributes:
        seed: seed of the initial weights, the order of documents and the order of windows.
        context: tokens in a training window.
        batch: windows in a step, half from each domain.
        tokens: token budget; training ends when it is reached.
        minutes: wall-clock budget, likewise; the schedule follows the budget of which the larger part is used.
        learning_rate: peak learning rate.
        final_learning_rate: learning rate at the end of the budget.
        warmup: share of the budget in which the learning rate rises.
        weight_decay: weight decay of matrices.
        clip: largest norm of a step's gradient.
        balance: weight of the load-balancing loss.
        validate_every: steps between two validations.
        validation_windows: held-out windows of each domain in a validation.
        save_every: steps between two saved states.
        bf16: whether to train under bfloat16 autocast; it was not faster on the CPU tried.
        device: a torch device.
    """

    seed: int = Field(default=0, ge=0)
    context: int = Field(default=256, ge=2)
    batch: int = Field(default=8, ge=2, multiple_of=2)
    tokens: int = Field(default=8_000_000, ge=1)
    minutes: float = Field(default=110.0, gt=0)
    learning_rate: float = Field(default=1.5e-3, gt=0)
    final_learning_rate: float = Field(default=1.0e-4, ge=0)
    warmup: float = Field(default=0.02, gt=0, lt=1)
    weight_decay: float = Field(default=0.1, ge=0)
    clip: float = Field(default=1.0, gt=0)
    balance: float = Field(default=0.01, ge=0)
    validate_every: int = Field(default=250, ge=1)
    validation_windows: int = Field(default=48, ge=1)
    save_every: int = Field(default=250, ge=1)
    bf16: bool = False
    device: str = "cpu"


def learning_rate_at(progress: float, options: TrainingOptions) -> float:
    """Return the learning rate at ``progress`` (0 … 1 of the budget): linear warm-up, then a cosine."""
    if progress < options.warmup:
        return options.learning_rate * max(progress, options.warmup / 50) / options.warmup
    along = min((progress - options.warmup) / (1 - options.warmup), 1.0)
    span = options.learning_rate - options.final_learning_rate
    return options.final_learning_rate + span * 0.5 * (1 + math.cos(math.pi * along))
