"""What a row network looks at, how large it is, and how it is trained; the heads' recipes add what they alone need."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from catalog.config import StrictModel
from catalog.errors import ForestageError, unknown_name

MAX_DECAY = 12
"""Largest decay shift: beyond, a decayed sum would need more than the fractional bits it has (``integers``)."""
MAX_NGRAM = 8
"""Most tokens that a key of an n-gram table is made of: more are hardly ever met again."""
MAX_WINDOW = 64
"""Tokens after a match that a continuation window may reach."""
MAX_ENTRIES = 1 << 20
"""Of an n-gram table, and of the log."""
MAX_LOOKAHEAD = 64


class NetworkConfig(StrictModel):
    """Context window and size: parameters of the design space.

    Attributes:
        nearest, farthest: the lookaheads that the network serves, in layers: asked about target ``l`` when the gate of
            layer ``l − d`` is known, for any ``d`` of ``nearest … farthest``; 0: when the target's own gate is known.
        hidden: width of the sum and of the ReLU.
        layers_back: layers of this token that feed a target ``l``, so many in all: ``l − nearest`` and those before it.
            Of these, the ones nearer than the lookahead asked for are not known yet and feed nothing.
        previous: one entry ``(below, above)`` a previous token, the latest first: its layers ``l − below … l + above``
            feed the target.
        decays: one entry ``(shift, reach)`` an exponentially decayed sum over all previous tokens of the sequence, of
            the layers ``l − reach … l + reach``: each token adds ``2^−shift`` of the difference, so that a token's
            weight halves in about ``0.7 · 2^shift`` tokens.
        identity_rows: rows of token identity: the most frequent tokens of the training part have one each, the last
            one is for all others; 0: identity has no rows.
        identities: tokens whose identity feeds a target: this one, the previous one, …
        ngram_tables: one entry an n-gram table of the sequence, a number of tokens n, ascending: it names the latest
            earlier token at which the last n tokens, that one included, were the same as now.
        ngram_entries: entries of each n-gram table, a power of two: a later token takes the entry of an earlier one.
        ngram_by: what stands for a token in the n-gram tables: its identity, or, for traces that record none, the set
            of experts that its layer 0 chose. Then the tables are looked up when that gate is known.
        at_match: whether what the target layer chose at the token that an n-gram table names feeds the target; a source
            for each table.
        continuation_windows: ``(first, last)``: what the target layer chose in the tokens ``first … last`` after the
            one that the longest matching n-gram names feeds the target; 0 is that token itself.
        log_tokens: newest tokens whose routing is kept to be read there, a power of two.
        ranks: whether the better ranks of a gate's choice weigh more, by shifts: 4, 2, …, 2, 1; ``None``: where the
            trace's ids are ranked.
    """

    nearest: int = Field(default=1, ge=0, le=MAX_LOOKAHEAD)
    farthest: int = Field(default=1, ge=0, le=MAX_LOOKAHEAD)
    hidden: int = Field(default=128, ge=1, le=4096)
    layers_back: int = Field(default=5, ge=0)
    previous: tuple[tuple[int, int], ...] = ((1, 1),)
    decays: tuple[tuple[int, int], ...] = ((2, 0), (4, 0))
    identity_rows: int = Field(default=4096, ge=0)
    identities: int = Field(default=2, ge=0, le=8)
    ngram_tables: tuple[int, ...] = (1, 2, 3)
    ngram_entries: int = Field(default=4096, ge=1, le=MAX_ENTRIES)
    ngram_by: Literal["identity", "routing"] = "identity"
    at_match: bool = True
    continuation_windows: tuple[tuple[int, int], ...] = ()
    log_tokens: int = Field(default=4096, ge=1, le=MAX_ENTRIES)
    ranks: bool | None = None

    @field_validator("previous")
    @classmethod
    def _reaches(cls, reaches: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        if any(below < 0 or above < 0 for below, above in reaches):
            raise ValueError("layers below and above are 0 or more")
        return reaches

    @field_validator("decays")
    @classmethod
    def _decays(cls, decays: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        if any(not 1 <= shift <= MAX_DECAY or reach < 0 for shift, reach in decays):
            raise ValueError(f"give (shift, reach): a shift is 1 to {MAX_DECAY}, a reach 0 or more")
        return decays

    @field_validator("ngram_tables")
    @classmethod
    def _lengths(cls, lengths: tuple[int, ...]) -> tuple[int, ...]:
        if list(lengths) != sorted(set(lengths)) or any(not 1 <= length <= MAX_NGRAM for length in lengths):
            raise ValueError(f"give ascending numbers of tokens in 1…{MAX_NGRAM}")
        return lengths

    @field_validator("continuation_windows")
    @classmethod
    def _windows(cls, windows: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        if any(not 0 <= first <= last <= MAX_WINDOW for first, last in windows):
            raise ValueError(f"give the first and the last token of each, in 0…{MAX_WINDOW}")
        return windows

    @field_validator("ngram_entries", "log_tokens")
    @classmethod
    def _power_of_two(cls, entries: int) -> int:
        if entries & (entries - 1):
            raise ValueError("not a power of two")
        return entries

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.identity_rows == 1 or bool(self.identity_rows) != bool(self.identities):
            raise ValueError("identity_rows (at least 2) and identities go together; set both, or both to 0")
        if self.nearest > self.farthest:
            raise ValueError(f"nearest {self.nearest} is beyond farthest {self.farthest}; exchange them")
        return self

    @property
    def questions(self) -> int:
        """Answers for each expert: chances that the network gives of it."""
        return 1

    @property
    def distances(self) -> int:
        """Lookaheads served."""
        return self.farthest - self.nearest + 1

    @property
    def looks_for_matches(self) -> bool:
        """Whether n-gram tables and the log are used."""
        return bool(self.ngram_tables and (self.at_match or self.continuation_windows))

    @property
    def reads_text(self) -> bool:
        """Whether what a token shows is read from far memory: n-gram tables and log, or identity rows."""
        return self.looks_for_matches or self.identities > 0

    @property
    def looks_at_identity(self) -> bool:
        """Whether tokens must have an identity."""
        return bool(self.identities or (self.looks_for_matches and self.ngram_by == "identity"))

    def check_serves(self, lookahead: int, origin: str) -> None:
        """Raise unless the network answers for this lookahead.

        Raises:
            ForestageError: naming the lookaheads that it serves.
        """
        if not self.nearest <= lookahead <= self.farthest:
            raise ForestageError(
                f"{origin}: trained for lookahead {lookaheads_text(self)}, not {lookahead}; ask for its own, or train "
                "anew"
            )


class TrainingConfig(StrictModel):
    """How a network is trained.

    Attributes:
        epochs: passes over the training sequences; the learning rate rises and falls once over them.
        patience: epochs without a better figure on the validation sequences after which training stops.
        batch: tokens a step.
        learning_rate: peak of AdamW.
        identity_rate: peak rate of the identity rows (SparseAdam), as a multiple of ``learning_rate``; they are
            touched once in a while, the others in every step.
        weight_decay: of AdamW.
        dropout: share of the inputs (a source's chosen experts) that are hidden from the sum.
        hidden_dropout: share of hidden units dropped.
        nearness: where several lookaheads are served, each token is asked at one of them in an epoch, drawn
            with weights of 1 for the nearest, 2^−nearness for the next, 3^−nearness …; 0: all are drawn alike.
        validation: share of the training sequences kept aside for early stopping, quantisation and calibration.
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
    nearness: float = Field(default=0.5, ge=0, le=8)
    validation: float = Field(default=0.08, gt=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=1 << 31)


def lookaheads_text(config: NetworkConfig) -> str:
    """The lookaheads served, for a reader: ``1``, or ``1…8``."""
    if config.nearest == config.farthest:
        return str(config.nearest)
    return f"{config.nearest}…{config.farthest}"


def parse_lookaheads(text: str, *, least: int) -> tuple[int, int]:
    """(nearest, farthest) of ``D`` or ``D-E``.

    Raises:
        ForestageError: for anything else, or a lookahead below ``least`` or beyond ``MAX_LOOKAHEAD``.
    """
    ends = text.split("-")
    if len(ends) > 2 or not all(end.isascii() and end.isdecimal() for end in ends):
        raise ForestageError(f"--lookahead {text}: give a number of layers, or two as in 1-8")
    nearest, farthest = int(ends[0]), int(ends[-1])
    if not least <= nearest <= farthest <= MAX_LOOKAHEAD:
        raise ForestageError(f"--lookahead {text}: give layers in {least}…{MAX_LOOKAHEAD}, the nearest first")
    return nearest, farthest


class Recipe(StrictModel):
    """A network and its training; each head's recipe says of which kinds."""

    predictor: NetworkConfig = NetworkConfig()
    training: TrainingConfig = TrainingConfig()

    def replaced(self, values: dict[str, Any], *, origin: str) -> Self:
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
        return type(self)(
            predictor=type(self.predictor).parse(parts["predictor"], origin=origin),
            training=type(self.training).parse(parts["training"], origin=origin),
        )

    def at(self, nearest: int, farthest: int, *, origin: str) -> Self:
        """This recipe for the lookaheads ``nearest … farthest``; raises as ``replaced``."""
        return self.replaced({"nearest": nearest, "farthest": farthest}, origin=origin)
