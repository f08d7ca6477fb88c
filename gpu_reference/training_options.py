"""What training depends on beside the corpus and the model's shape, and the schedule that follows from it."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Everything that training depends on beside the corpus and the shape of the model."""

    seed: int = 0
    context: int = 256
    """Tokens in a training window."""
    batch: int = 8
    """Windows in a step, half of each domain."""
    tokens: int = 12_000_000
    """Token budget: training ends when it is reached."""
    minutes: float = 110.0
    """Wall-clock budget in minutes: training ends when it is reached; the schedule follows whichever is further on."""
    learning_rate: float = 1.5e-3
    """Peak learning rate."""
    final_learning_rate: float = 1.0e-4
    """Learning rate at the end of the budget."""
    warmup: float = 0.02
    """Part of the budget with a rising learning rate."""
    weight_decay: float = 0.1
    clip: float = 1.0
    """Largest norm of a step's gradient."""
    balance: float = 0.01
    """Weight of the router's load-balancing loss."""
    validate_every: int = 250
    """Steps between two validations."""
    validation_windows: int = 48
    """Windows of each domain in a validation."""
    save_every: int = 250
    """Steps between two saved states."""
    bf16: bool = False
    """Whether to train under bfloat16 autocast; slower on the CPUs tried."""
    device: str = "cpu"


def learning_rate_at(progress: float, options: TrainingOptions) -> float:
    """Return the learning rate at ``progress`` (0 … 1 of the budget): linear warm-up, then a cosine."""
    if progress < options.warmup:
        return options.learning_rate * max(progress, options.warmup / 50) / options.warmup
    along = min((progress - options.warmup) / (1 - options.warmup), 1.0)
    span = options.learning_rate - options.final_learning_rate
    return options.final_learning_rate + span * 0.5 * (1 + math.cos(math.pi * along))
