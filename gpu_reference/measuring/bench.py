"""What every section of a suite measures with: device, sizes, clock, and the figures it gives."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from catalog.models import ModelRecord
from gpu_reference.measuring.clock import Clock, Effort, Work
from gpu_reference.records.decode import Decode
from gpu_reference.records.micro import Micro, MicroKind, Setting
from gpu_reference.records.summary import Summary
from predictor.policies.parts import Predictors

Suite = Literal["quick", "full"]

EFFORTS: dict[Suite, Effort] = {
    "quick": Effort(warm_runs=1, least_runs=3, most_runs=15, most_s=0.12),
    "full": Effort(warm_runs=3, least_runs=7, most_runs=30, most_s=0.3),
}


class Skipped(Exception):
    """A section has no meaning on this device or with what was given; its message is the reason, in one line."""


class WrongResultError(Exception):
    """What was to be timed computes something else than the same in float64; its message says by how much."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """See the module's description.

    Attributes:
        device: where experts are held and computed.
        suite: how much is measured.
        model: whose sizes.
        seed: of everything drawn.
        predictors: trained ones, where given.
        deadline: of `time.monotonic`, after which nothing more is begun.
        clock: of the device.
        host_clock: of work on the host's processor.
    """

    device: str
    suite: Suite
    model: ModelRecord
    seed: int = 0
    predictors: Predictors = field(default_factory=Predictors)
    deadline: float = float("inf")
    clock: Clock = field(init=False)
    host_clock: Clock = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "clock", Clock(self.device, EFFORTS[self.suite]))
        object.__setattr__(self, "host_clock", Clock("cpu", EFFORTS[self.suite]))

    @property
    def on_cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.clock.on_cuda

    @property
    def is_full(self) -> bool:
        """Whether all sizes are measured."""
        return self.suite == "full"

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self.deadline

    def generator(self, device: str | None = None) -> torch.Generator:
        """Random numbers on ``device`` (the bench's own by default), the same in every section."""
        return torch.Generator(self.device if device is None else device).manual_seed(self.seed)

    def micro(
        self,
        kind: MicroKind,
        work: Work,
        *,
        queued: int = 1,
        by_device: bool = False,
        size: int | None = None,
        error: float | None = None,
        **settings: Setting,
    ) -> Micro:
        """One figure.

        Args:
            kind: of work.
            work: launches the n-th piece of all runs together.
            queued: pieces launched after each other.
            by_device: by events, where the device has them.
            size: bytes of one piece.
            error: of the result, checked before.
            settings: of the kind, without clock and queued.
        """
        clock = "device" if by_device and self.on_cuda else "host"
        seconds = self.clock.by_device(work, queued) if clock == "device" else self.clock.by_host(work, queued)
        return figure(kind, seconds, clock=clock, queued=queued, size=size, error=error, **settings)


def figure(
    kind: MicroKind,
    seconds: Summary,
    *,
    clock: str,
    queued: int = 1,
    size: int | None = None,
    error: float | None = None,
    **settings: Setting,
) -> Micro:
    """A micro-measurement whose time was taken already."""
    return Micro(
        kind=kind,
        settings={**settings, "clock": clock, "queued": queued},
        seconds=seconds,
        bytes=size,
        relative_error=error,
    )


Figures = Iterator[Micro | Decode]


@dataclass(frozen=True)
class SectionPlan:
    """A section of a suite.

    Attributes:
        name: in records.
        measure: gives its figures one by one; raises `Skipped` where it has no meaning.
    """

    name: str
    measure: Callable[[Bench], Figures]


def relative_error(found: torch.Tensor, exact: NDArray[np.float64]) -> float:
    """Frobenius norm of the difference between ``found`` and ``exact`` over that of ``exact`` (float64)."""
    difference = found.detach().to("cpu", torch.float64).numpy() - exact
    return float(np.linalg.norm(difference) / np.linalg.norm(exact))


def checked(what: str, found: torch.Tensor, exact: NDArray[np.float64], most: float) -> float:
    """The relative error of ``found``.

    Raises:
        WrongResultError: if it is not below ``most`` (NaN is not either), naming ``what``.
    """
    error = relative_error(found, exact)
    if not error < most:
        raise WrongResultError(f"{what}: wrong by {error:.2e} against float64, allowed are {most:.0e}")
    return error


def check_same(what: str, found: torch.Tensor, wanted: torch.Tensor) -> float:
    """0.0, as the bytes of a copy are its source's.

    Raises:
        WrongResultError: if they are not, naming ``what``.
    """
    if not torch.equal(found.cpu(), wanted.cpu()):
        raise WrongResultError(f"{what}: not what was copied")
    return 0.0
