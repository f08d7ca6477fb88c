"""The configuration of a study: frozen, resolved, and written beside the results."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from catalog.config import StrictModel
from catalog.toml_text import read_toml
from perfmodel.in_memory_config import InMemory
from predictor.base import IssueLimit

NO_LEARNED = "none"
"""Value of ``StudyConfig.learned`` that leaves out the learned predictor."""

Rate = Annotated[float, Field(ge=1e-3, le=100_000)]
"""GB/s or TFLOPS, as `perfmodel.config` bounds them."""


def distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """``values``, for a validator.

    Raises:
        ValueError: if one is named twice.
    """
    if len(set(values)) < len(values):
        raise ValueError("each may be named once")
    return values


class SystemStudyConfig(StrictModel):
    """The whole-system part of a study."""

    sizes_of: str | None = Field(
        default=None,
        description="Catalogue model whose weight sizes are used; none takes the trace's own model. "
        "The report says whose sizes they are where they differ.",
    )
    machine: str = Field(default="A100-80GB", description="Catalogue machine")
    host_gb_per_s: Rate | None = Field(
        default=None,
        description="Bandwidth of the host's memory that can be used, GB/s; none takes the machine's, or a desktop's "
        "where the catalogue does not know it",
    )
    host_tflops: Rate | None = Field(
        default=None, description="Arithmetic that the host's processor reaches, TFLOPS; none as for host_gb_per_s"
    )
    capacity_fraction: float = Field(
        default=0.5, gt=0, le=1, description="Share of all experts held where one share is shown in detail"
    )
    capacity_fractions: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(0.125, 0.25, 0.375, 0.5, 0.75), min_length=1, description="Shares of all experts that the device holds"
    )
    link_gb_per_s: tuple[Rate, ...] = Field(
        default=(16.0, 32.0, 64.0, 128.0, 256.0, 512.0),
        min_length=1,
        description="Host-link bandwidths of the first map of winners, GB/s",
    )
    map_host_gb_per_s: tuple[Rate, ...] = Field(
        default=(60.0, 120.0, 300.0, 500.0),
        min_length=1,
        description="Bandwidths of the host's memory of the second map of winners, over the machine's own link, GB/s",
    )
    tokens: int | None = Field(
        default=None, ge=1, description="Tokens simulated, about: the first test sequences; none takes all"
    )
    tuning_tokens: int = Field(
        default=4096, ge=1, description="Training tokens, about, on which each policy's free settings are chosen"
    )
    map_tokens: int = Field(
        default=2000,
        ge=1,
        description="Tokens simulated at each point of the maps, likewise, and no more to choose free settings on",
    )

    in_memory: InMemory = Field(
        default=InMemory(), description="The memory that computes, in the section of experts in memory"
    )
    in_memory_batches: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(1, 4, 16), min_length=1, description="Sequences served at once in that section"
    )

    @field_validator("capacity_fractions", "link_gb_per_s", "map_host_gb_per_s", "in_memory_batches")
    @classmethod
    def _distinct(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        return distinct(values)

    @property
    def map_tuning_tokens(self) -> int:
        """Training tokens, about, on which free settings are chosen at a point of the maps."""
        return min(self.tuning_tokens, self.map_tokens)


class StudyConfig(StrictModel):
    """A whole study."""

    seed: int = Field(default=0, ge=0, description="Seed of the event bits that the hardware must ignore")
    lookahead: int = Field(default=1, ge=1, description="Layers between the gate that is known and the target layer")
    issue: tuple[IssueLimit, ...] = Field(
        default=(2, 4, 6, 8, 12),
        min_length=1,
        description="Issue limits at which recall is given; those beyond a layer's experts are left out",
    )
    predictors: tuple[str, ...] = Field(
        default=("popularity", "previous-token", "markov-temporal", "markov-spatial", "st-moe"), min_length=1
    )
    learned: str = Field(
        default="auto",
        description="Recipe of the learned predictor, or a TOML file; auto: deployed, or no-identity where the trace "
        "records no token identity; none: leave out everything that is trained",
    )
    next_use: dict[str, Any] = Field(
        default={}, description="Settings of the next-use predictor and its training in place of the defaults"
    )
    cache_fractions: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(0.25, 0.375, 0.5, 0.625, 0.75),
        min_length=1,
        description="Per-layer cache sizes, as shares of the experts",
    )
    replay_tokens: int = Field(default=500, ge=1, description="Tokens replayed through the tables' RTL in lock-step")
    engine_tokens: int = Field(
        default=0,
        ge=0,
        description="Tokens replayed through the whole prefetch engine in mode learned; 0: none, as its simulation "
        "takes minutes to build",
    )
    system: SystemStudyConfig = SystemStudyConfig()

    @field_validator("predictors", "issue", "cache_fractions")
    @classmethod
    def _distinct(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return distinct(values)


def load_study_config(path: Path | None) -> StudyConfig:
    """The configuration in the TOML file ``path``, or the default.

    Raises:
        ForestageError: naming the file and the field.
    """
    return StudyConfig() if path is None else StudyConfig.parse(read_toml(path), origin=str(path))
