"""Names of a trace's parts, and the codes used in them."""

from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from traces.metadata import TraceMetadata

PREFILL = 0
DECODE = 1

PhaseName = Literal["prefill", "decode"]
PHASES: dict[PhaseName, int] = {"prefill": PREFILL, "decode": DECODE}
"""Names of the phases in files and commands."""

TOKEN_ARRAYS = ("expert_ids", "gate_weights", "position", "phase", "token_hash")
"""Fields of a trace with one row per token."""

ARRAYS = (*TOKEN_ARRAYS, "sequence_offsets")
"""All array fields of a trace."""

LABELS = {"domain": "domains", "dataset": "datasets"}
"""Kind of label → field of a trace."""


class TraceFields(Protocol):
    """The part of a trace that is checked and written; ``traces.trace.RoutingTrace`` describes the fields."""

    @property
    def tokens(self) -> int:
        """Number of tokens."""

    @property
    def layers(self) -> int:
        """Number of recorded MoE layers."""

    @property
    def top_k(self) -> int:
        """Experts chosen per token and layer."""

    @property
    def experts(self) -> int:
        """Routed experts per layer."""

    @property
    def sequences(self) -> int:
        """Number of sequences."""

    @property
    def unrecorded_id(self) -> int:
        """The id that fills an unrecorded row."""

    @property
    def expert_ids(self) -> npt.NDArray[np.uint8 | np.uint16]:
        """Ids ``[tokens, layers, top_k]``."""

    @property
    def gate_weights(self) -> npt.NDArray[np.float16] | None:
        """Weights ``[tokens, layers, top_k]``."""

    @property
    def sequence_offsets(self) -> npt.NDArray[np.int64]:
        """First token of each sequence, then the number of tokens: ``[sequences + 1]``."""

    @property
    def position(self) -> npt.NDArray[np.int32]:
        """Position of each token."""

    @property
    def phase(self) -> npt.NDArray[np.uint8]:
        """Phase of each token."""

    @property
    def token_hash(self) -> npt.NDArray[np.uint32] | None:
        """Identity of each token."""

    @property
    def domains(self) -> tuple[str, ...]:
        """Label of each sequence."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """Dataset of each sequence."""

    @property
    def metadata(self) -> TraceMetadata:
        """Facts about the whole trace."""


def phase_name(phase: int) -> PhaseName:
    """``prefill`` or ``decode``."""
    return next(name for name, value in PHASES.items() if value == phase)


def id_dtype(experts: int) -> np.dtype[Any]:
    """dtype of ``expert_ids``: u8 below 256 experts, else u16 (the maximum marks an unrecorded row)."""
    return np.dtype(np.uint8 if experts < 256 else np.uint16)
