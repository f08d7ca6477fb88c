"""What documents of results share: JSON values, and the time per output token."""

from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from perfmodel.units import PS_PER_S


class Result(BaseModel):
    """A frozen document."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TokenTime(Result):
    """Time per output token over the decode tokens, seconds; a percentile is the time of an actual token."""

    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float

    @classmethod
    def of(cls, token_ps: list[int]) -> Self:
        """From the duration of each decode token."""
        p50, p95, p99 = np.percentile(np.asarray(token_ps, np.int64), [50, 95, 99], method="inverted_cdf").tolist()
        return cls(
            mean_s=sum(token_ps) / len(token_ps) / PS_PER_S,
            p50_s=p50 / PS_PER_S,
            p95_s=p95 / PS_PER_S,
            p99_s=p99 / PS_PER_S,
        )
