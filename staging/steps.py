"""What a device runs one after the other: steps, each some tokens that go through the layers together.

* decode, one request at a time: each decode token is a step; consecutive prompt tokens of a sequence are one (a *pass*);
* a batch (``traces.batch``): the decode tokens of each step of the schedule; its prompt tokens are a step before them;
* verification of drafts: so many consecutive decode tokens of one sequence, as speculative decoding checks them. All of
  them count as accepted, as the trace holds no others.

A step is *timed* where it decodes. Prompt steps only warm caches.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, kw_only=True)
class Steps:
    """The steps over a trace, in order.

    Attributes:
        tokens: i64, the tokens (rows of the trace) of each step, concatenated.
        offsets: i64 ``[steps + 1]`` into ``tokens``.
        timed: bool ``[steps]``, whether a step decodes.
        sequential: whether the tokens of a step follow each other in one sequence (passes, verification): later ones are
            then routed before what the step itself routed is known.
    """

    tokens: NDArray[np.int64]
    offsets: NDArray[np.int64]
    timed: NDArray[np.bool_]
    sequential: bool

    def __len__(self) -> int:
        return len(self.timed)


@dataclass(frozen=True, eq=False, kw_only=True)
class StepExperts:
    """The distinct experts that each (step, layer) needs, in the order of first choice.

    Attributes:
        experts: i32 ``[uses]``.
        tokens_of: i32 ``[uses]``, how many of the step's tokens chose it.
        offsets: i64 ``[steps · layers + 1]`` into both; an empty range where nothing was recorded.
    """

    experts: NDArray[np.int32]
    tokens_of: NDArray[np.int32]
    offsets: NDArray[np.int64]
