"""Which sequences a predictor is trained on."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from catalog.config import StrictModel
from catalog.errors import ForestageError
from traces import RoutingTrace, split

SHARE_SEED = 0


class Selection(StrictModel):
    """Sequences by part and label.

    Attributes:
        part: ``train``: those of ``traces.split(seed=0)``; ``all``: for a trace that nothing is tested on.
        domains, datasets: only sequences with one of these labels; none named: all.
        without_domains, without_datasets: labels left out.
        share: of what is left, drawn by a fixed seed: what more sequences are worth.
    """

    part: Literal["train", "all"] = "train"
    domains: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    without_domains: tuple[str, ...] = ()
    without_datasets: tuple[str, ...] = ()
    share: float = Field(default=1.0, gt=0, le=1)

    def indices(self, trace: RoutingTrace) -> NDArray[np.int64]:
        """The selected sequences, ascending.

        Raises:
            ForestageError: for a label that the trace does not have, or if fewer than two sequences are left.
        """
        chosen = split(trace)[0] if self.part == "train" else np.arange(trace.sequences)
        kept = np.ones(trace.sequences, np.bool_)
        for field, labels in (("domains", trace.domains), ("datasets", trace.datasets)):
            only, without = getattr(self, field), getattr(self, f"without_{field}")
            _check_labels(field, (*only, *without), labels)
            of_trace = np.array(labels)
            if only:
                kept &= np.isin(of_trace, only)
            kept &= ~np.isin(of_trace, without)
        chosen = chosen[kept[chosen]]
        drawn = np.random.default_rng(SHARE_SEED).permutation(chosen)[: round(self.share * len(chosen))]
        chosen = np.sort(drawn)
        if len(chosen) < 2:
            raise ForestageError(f"selection: {len(chosen)} training sequence(s) left; at least 2 are needed")
        return chosen

    def describe(self, trace: RoutingTrace, name: str) -> str:
        """The selection in words, ``name`` being the trace's."""
        count = len(self.indices(trace))
        words = f"{count} training sequences of {name} (split seed 0)" if self.part == "train" else f"all of {name}"
        for field, word in (
            ("domains", "domains"), ("datasets", "datasets"),
            ("without_domains", "without domains"), ("without_datasets", "without datasets"),
        ):  # fmt: skip
            labels: tuple[Any, ...] = getattr(self, field)
            if labels:
                words += f", {word} {', '.join(labels)}"
        if self.share < 1:
            words += f", a drawn share of {self.share:g}"
        return words


def _check_labels(field: str, asked: Sequence[str], labels: Sequence[str]) -> None:
    unknown = sorted(set(asked) - set(labels))
    if unknown:
        known = sorted(set(labels))
        shown = ", ".join(known[:8]) + (", …" if len(known) > 8 else "")
        raise ForestageError(f"{field}: the trace has none called {unknown[0]!r}; it has {shown}")
