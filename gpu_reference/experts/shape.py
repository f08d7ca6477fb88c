"""The sizes of an expert."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.errors import ForestageError
from catalog.models import Activation, ModelRecord

GATED: tuple[Activation, ...] = ("swiglu", "gpt_oss_swiglu", "geglu")
"""Activations that take a gate and an up matrix; the others take an up matrix alone."""


@dataclass(frozen=True, kw_only=True)
class ExpertShape:
    """``y = down(activation(gate_up · x + bias)) + bias``.

    Attributes:
        hidden: width of input and output.
        intermediate: inner width.
        matrices: 3 (gate, up, down) or 2 (up, down).
        activation: the function between the matrices.
        bias: all matrices have a bias.

    Raises:
        ForestageError: a width below 1, or an activation that takes another number of matrices.
    """

    hidden: int
    intermediate: int
    matrices: int
    activation: Activation
    bias: bool = False

    def __post_init__(self) -> None:
        for name in ("hidden", "intermediate"):
            if getattr(self, name) < 1:
                raise ForestageError(f"expert: {name}: {getattr(self, name)} is below 1")
        needed = 3 if self.activation in GATED else 2
        if self.matrices != needed:
            raise ForestageError(
                f"expert: activation '{self.activation}' takes {needed} matrices, not {self.matrices}; correct the "
                "model's activation or expert_matrices"
            )

    @classmethod
    def of(cls, model: ModelRecord, *, intermediate: int | None = None) -> ExpertShape:
        """The shape of ``model``'s routed experts; ``intermediate`` in place of the model's makes them smaller.

        Raises:
            ForestageError: as the class.
        """
        return cls(
            hidden=model.hidden,
            intermediate=model.expert_intermediate if intermediate is None else intermediate,
            matrices=model.expert_matrices,
            activation=model.activation,
            bias=model.expert_bias,
        )

    @property
    def inner_rows(self) -> int:
        """Rows of the first matrix: gate rows, then up rows, where there is a gate."""
        return (self.matrices - 1) * self.intermediate

    @property
    def weights(self) -> int:
        """Elements of the matrices, biases not counted."""
        return self.matrices * self.hidden * self.intermediate

    @property
    def flops(self) -> int:
        """Operations of one expert on one token, two per multiply-add."""
        return 2 * self.weights
