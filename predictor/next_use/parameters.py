"""What a next-use predictor looks at, how large it is, and how it is trained."""

from typing import Any, Self

from pydantic import Field, model_validator

from catalog.config import StrictModel

MAX_HISTORY_SHIFT = 10
"""2^10 events: longer than most sequences last."""

MAX_CONTEXT = 8
"""Identities in a key: a longer context is hardly ever met again."""

MAX_FOLLOW = 64
"""Tokens after a match that a window may reach."""

MAX_ENTRIES = 1 << 20
"""Of a context table, and of the log."""

WITHOUT_IDENTITY: dict[str, Any] = {"contexts": (), "neighbour_shifts": (3, 5)}
"""Other defaults, for a trace without token identity: more of the neighbours' past, in the room of what followed."""

MAX_SEED = (1 << 62) - 1
"""PyTorch takes no more than 64 bits, to which the number of a layer is added."""


class NextUseParameters(StrictModel):
    """The predictor's shape; the defaults are those measured in docs/next-use.md.

    Attributes:
        horizons: for each ``n``, the chance of being wanted within the next ``n`` tokens is predicted; ascending. The
            priority of an expert is the sum of its chances.
        hidden: width of the sum.
        lookahead: 0: asked once the target layer's own gate is known, about the tokens after this one. ``d`` ≥ 1: asked
            when the gate ``d`` layers below it is known, about this token and those after it.
        layers_back: of this token, the nearest layer that is known and so many below it.
        previous_below, previous_above: of the token before, the target layer and so many below and above it.
        history_shifts: of the target layer, averages over the past that forget over ``2^shift`` tokens.
        neighbours: layers below and above the target whose past counts too.
        neighbour_shifts: the same for these.
        contexts: numbers of last token identities by which an earlier place of the same text is found
            (``predictor.next_use.matches``); ascending. Without any, or without windows, identity is not looked at.
        context_entries: of the table of each, a power of two.
        follow: windows of tokens ``(first, last)`` after the matched one, whose choices of the target layer count; 0 is
            the matched token itself.
        log_tokens: newest tokens whose routing is kept to be read there, a power of two.
    """

    horizons: tuple[int, ...] = (2, 4, 8, 16)
    hidden: int = Field(default=64, ge=1, le=1024)
    lookahead: int = Field(default=0, ge=0)
    layers_back: int = Field(default=6, ge=0)
    previous_below: int = Field(default=1, ge=0)
    previous_above: int = Field(default=4, ge=0)
    history_shifts: tuple[int, ...] = (2, 3, 5, 7)
    neighbours: int = Field(default=2, ge=0)
    neighbour_shifts: tuple[int, ...] = (3,)
    contexts: tuple[int, ...] = (1, 2, 3)
    context_entries: int = Field(default=4096, ge=1, le=MAX_ENTRIES)
    follow: tuple[tuple[int, int], ...] = ((1, 1), (2, 2), (3, 4), (5, 8))
    log_tokens: int = Field(default=4096, ge=1, le=MAX_ENTRIES)

    @model_validator(mode="after")
    def _check_lists(self) -> Self:
        if not self.horizons or self.horizons[0] < 1 or list(self.horizons) != sorted(set(self.horizons)):
            raise ValueError(f"horizons {self.horizons}: give ascending numbers of tokens, 1 or more")
        for name in ("history_shifts", "neighbour_shifts"):
            shifts = getattr(self, name)
            if list(shifts) != sorted(set(shifts)) or not all(1 <= shift <= MAX_HISTORY_SHIFT for shift in shifts):
                raise ValueError(f"{name} {shifts}: give ascending numbers in 1…{MAX_HISTORY_SHIFT}")
        contexts = self.contexts
        if list(contexts) != sorted(set(contexts)) or not all(1 <= length <= MAX_CONTEXT for length in contexts):
            raise ValueError(f"contexts {contexts}: give ascending numbers in 1…{MAX_CONTEXT}")
        for first, last in self.follow:
            if not 0 <= first <= last <= MAX_FOLLOW:
                raise ValueError(f"follow ({first}, {last}): give the first and the last token, in 0…{MAX_FOLLOW}")
        for name in ("context_entries", "log_tokens"):
            if getattr(self, name).bit_count() != 1:
                raise ValueError(f"{name} {getattr(self, name)}: give a power of two")
        return self

    @property
    def looks_at_identity(self) -> bool:
        """Whether it asks for the identity of tokens."""
        return bool(self.contexts and self.follow)

    @classmethod
    def for_trace(cls, given: dict[str, Any], *, identity: bool, origin: str) -> Self:
        """The fields ``given``, all others at the defaults for a trace that records token ``identity`` or does not.

        Raises:
            ForestageError: as ``parse``.
        """
        return cls.parse(given if identity else {**WITHOUT_IDENTITY, **given}, origin=origin)


class NextUseTraining(StrictModel):
    """How it is trained.

    Attributes:
        epochs: at most.
        patience: stop a layer after so many epochs without a better validation loss.
        batch_tokens: of a step.
        learning_rate: at its peak.
        weight_decay: AdamW's.
        validation_share: of the training sequences, kept from training to stop by.
        most_tokens: where the training sequences have more, whole sequences are drawn until there are so many.
        seed: of the draws, the initial weights and the order.
    """

    epochs: int = Field(default=5, ge=1)
    patience: int = Field(default=2, ge=1)
    batch_tokens: int = Field(default=512, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    validation_share: float = Field(default=0.08, gt=0, lt=1)
    most_tokens: int = Field(default=200_000, ge=1)
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
