"""The loads in a table: rows of a layer, an expert and a count, or of a layer and the counts of all its experts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog import load_catalog
from catalog.errors import ForestageError
from traces.importers.assembly.cells import number_lists, numbers, whole
from traces.importers.assembly.row_format import LARGEST, LARGEST_ID
from traces.importers.assembly.spool import Spool
from traces.importers.assembly.table_source import Batch
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.validation import counted_from_one

SHARED_OUT = 64
"""Choices for each expert before it is odd that the first has none."""

COUNT = np.dtype(
    [("step", np.int64), ("layer", np.int64), ("expert", np.int64), ("count", np.float64), ("line", np.int64)]
)
"""One count of a table."""

MAX_CELLS = 1 << 27
"""Of counts, steps × layers × experts: they are held in memory as f64, 1 GiB."""


class CountTable:
    """The counts of one file (or of several that are steps or layers of one recording)."""

    def __init__(self) -> None:
        self._counts = Spool(COUNT)
        self._origin: list[tuple[int, Path, str]] = []
        self.width: int | None = None

    def add(self, batches: Iterator[Batch], *, layer: int | None = None, step: int | None = None) -> None:
        """Take a table's rows.

        Args:
            batches: the table.
            layer, step: of all rows, where the file tells it.

        Raises:
            ForestageError: naming the file, line and column of a cell that is no such number.
        """
        for batch in batches:
            if not self._origin or self._origin[-1][1] != batch.origin:
                self._origin.append((self._counts.rows, batch.origin, batch.row_name))
            cells = batch.cells

            def column(role: str, told: int | None, largest: int, batch: Batch = batch) -> npt.NDArray[np.int64]:
                if told is not None or role not in batch.cells:
                    return np.full(len(batch), told or 0, dtype=np.int64)
                return whole(batch.cells[role][0], batch.place(role), largest)

            layers, steps = column("layer", layer, LARGEST), column("step", step, LARGEST)
            if "expert" in cells:
                if len(cells["count"]) > 1:
                    raise ForestageError(
                        f"{batch.row(0)}: several columns of counts, but one of experts; name one of them"
                    )
                experts = whole(cells["expert"][0], batch.place("expert"), LARGEST_ID)
                counts = numbers(cells["count"][0], batch.place("count"))
                width = 1
            else:
                table = number_lists(cells["count"], batch.place("count"), "counts")
                width = table.shape[1]
                if self.width not in (None, width):
                    raise ForestageError(f"{batch.row(0)}: {width} counts; the rows before have {self.width}")
                self.width = width
                experts, counts = np.tile(np.arange(width), len(table)), table.reshape(-1)
            made = np.zeros(len(counts), dtype=COUNT)
            made["step"], made["layer"] = np.repeat(steps, width), np.repeat(layers, width)
            made["expert"], made["count"], made["line"] = experts, counts, np.repeat(batch.numbers, width)
            self._counts.append(made)

    def arrays(self) -> npt.NDArray[Any]:
        """All counts ``COUNT [counts]``, by step, layer and expert.

        Raises:
            ForestageError: naming the line of a count that comes twice.
        """
        counts = self._counts.array()
        order = np.lexsort((counts["expert"], counts["layer"], counts["step"]))
        ordered = counts[order]
        keys = np.stack([ordered[name] for name in ("step", "layer", "expert")], axis=1)
        twice = np.flatnonzero((keys[1:] == keys[:-1]).all(axis=1))
        if len(twice):
            row = int(twice[0]) + 1
            step, layer, expert = keys[row].tolist()
            raise ForestageError(
                f"{self._place(int(order[row]), ordered[row])}: layer {layer}, expert {expert}: came before, in "
                f"{self._place(int(order[row - 1]), ordered[row - 1])} (step {step}); name what tells them apart with "
                "--column step="
            )
        return ordered

    def _place(self, place: int, row: Any) -> str:
        """The file and line of a count."""
        _, origin, row_name = next(part for part in reversed(self._origin) if part[0] <= place)
        return f"{origin}: {row_name} {row['line']}"


def known_experts(options: ImportOptions, layers: list[int], largest: int, origin: Path) -> int:
    """Routed experts a layer of loads whose rows name experts one by one, so that those without a load may be missing.

    Args:
        options: what the user says.
        layers: the layers that have loads.
        largest: the largest expert.
        origin: the file or folder, for the error.

    Raises:
        ForestageError: if neither the user nor the catalogue tells, or an expert is beyond them.
    """
    experts = options.experts
    catalog = load_catalog()
    if experts is None and options.model is not None:
        record = catalog.match_shape(options.model)
        experts = None if record is None else record.experts
    elif experts is None:
        fitting = {
            record.experts
            for record in catalog.models
            if set(layers) == set(record.layer_map) and largest < record.experts
        }
        experts = next(iter(fitting)) if len(fitting) == 1 else None
    if experts is None:
        raise ForestageError(
            f"{origin}: experts: the largest is {largest}, but more may be without a load; give --experts, or a model "
            "of the catalogue with --model"
        )
    if largest >= experts:
        raise ForestageError(
            f"{origin}: expert {largest}: the model has experts 0 to {experts - 1}" + counted_from_one(largest, experts)
        )
    return experts


def warn_of_first_expert(counts: npt.NDArray[Any], experts: int, origin: Path, report: Report) -> None:
    """Warn where expert 0 has no load though there was much to share out: ids may count from 1."""
    loaded = counts[counts["count"] > 0]
    if counts["count"].sum() >= SHARED_OUT * experts and not (loaded["expert"] == 0).any():
        report.warn(f"{origin}: expert 0 has no load in any layer{counted_from_one(experts, experts)}")


def dense(counts: npt.NDArray[Any], experts: int, origin: Path) -> tuple[npt.NDArray[np.float64], tuple[int, ...]]:
    """``[steps, layers, experts]`` of counts ``COUNT``, 0 where there is none, and the layers.

    Raises:
        ForestageError: if there are more than fit into memory.
    """
    steps, step = np.unique(counts["step"], return_inverse=True)
    layers, layer = np.unique(counts["layer"], return_inverse=True)
    if len(steps) * len(layers) * experts > MAX_CELLS:
        raise ForestageError(
            f"{origin}: {len(steps)} steps of {len(layers)} layers and {experts} experts are more than {MAX_CELLS} "
            "counts; import them in parts"
        )
    made = np.zeros((len(steps), len(layers), experts))
    made[step, layer, counts["expert"]] = counts["count"]
    return made, tuple(layers.tolist())
