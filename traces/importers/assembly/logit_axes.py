"""Router logits that were saved with other axes than transformers returns them with.

transformers returns a tensor ``[batch · sequence, experts]`` a layer. Read are, where nothing is left to guess:

* tensors with an axis of the batch, ``[batch, sequence, experts]``: of one sequence, or with the ``input_ids`` or the
  ``attention_mask`` whose shape they have;
* one tensor of all layers, ``[layers, tokens, experts]`` or ``[tokens, layers, experts]``: as ``--layers`` says, or as
  the model has layers, if the grid beside it has the other axis's number of tokens. Without either it might be one
  layer's batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog import ModelRecord, load_catalog
from catalog.errors import ForestageError
from traces.importers.options import ImportOptions

Array = npt.NDArray[Any]
Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class RawPass:
    """A pass as it stands in the file.

    Attributes:
        shapes: of each layer's entry, ``None`` of a dense one.
        logits: an entry, read when asked for.
        grids: what stands beside it, by name.
    """

    shapes: list[Shape | None]
    logits: Callable[[int], Array]
    grids: dict[str, Any]


def unstacked(stack: Array, grids: dict[str, Any], options: ImportOptions, place: str) -> RawPass:
    """The pass whose layers stand in one tensor.

    Args:
        stack: the tensor.
        grids: what stands beside it, by name.
        options: tell the layers, or the model.
        place: for errors.

    Raises:
        ForestageError: if nothing tells on which axis the layers are.
    """
    if stack.ndim != 3 or 0 in stack.shape:
        raise ForestageError(
            f"{place}: one tensor {list(stack.shape)}; expected a tuple of a tensor [batch · sequence, experts] a MoE "
            "layer"
        )
    record = None if options.model is None else load_catalog().match_shape(options.model)
    axis = _layers_axis(stack.shape, grids, options, record, place)
    stack = np.moveaxis(stack, axis, 0)
    dense: set[int] = set()
    if record is not None and options.layers is None and len(stack) == record.layers:
        dense = {layer for layer in set(range(record.layers)) - set(record.layer_map) if _is_empty(stack[layer])}
    shapes: list[Shape | None] = [None if layer in dense else stack.shape[1:] for layer in range(len(stack))]
    return RawPass(shapes, lambda layer: stack[layer], grids)


def _layers_axis(
    shape: Shape, grids: dict[str, Any], options: ImportOptions, record: ModelRecord | None, place: str
) -> int:
    """Which axis of a tensor of three the layers are on."""
    sizes: set[int] = set()
    if options.layers is not None:
        sizes = {len(options.layers)}
    elif record is not None:
        sizes = {record.layers, record.moe_layers}
    counts = {grid.size for grid in grids.values() if isinstance(grid, np.ndarray) and grid.ndim == 2}
    fitting = [axis for axis in (0, 1) if shape[axis] in sizes]
    settled = [axis for axis in fitting if shape[1 - axis] in counts]
    if len(settled) == 1:
        return settled[0]
    if len(fitting) == 1 and options.layers is not None and not counts:
        return fitting[0]
    layers = f"0-{shape[0] - 1}" if record is None else f"{record.layer_map[0]}-{record.layer_map[-1]}"
    raise ForestageError(
        f"{place}: one tensor {list(shape)}, and nothing tells whether its axes are layers and tokens, or a batch of "
        f"one layer; save a tuple of a tensor [tokens, experts] a layer, tuple(router_logits); or input_ids "
        f"[batch, sequence] beside it; or say the layers with --layers (as {layers})"
    )


def flattened(part: RawPass, grids: Sequence[Array], place: str) -> RawPass:
    """The pass without axes of a batch.

    Args:
        part: the pass.
        grids: ``[batch, …]``, the pass's own and those of the whole file.
        place: for errors.

    Raises:
        ForestageError: if a batch has no grid beside it, or one of another batch.
    """
    if {len(shape) for shape in part.shapes if shape is not None} != {3}:
        return part
    shapes = list(part.shapes)
    for layer, shape in enumerate(part.shapes):
        if shape is None or 0 in shape:
            continue
        batch, width, experts = shape
        if batch > 1 and not grids:
            raise ForestageError(
                f"{place} of layer {layer}: {list(shape)}: a batch of {batch} sequences, and nothing tells which of "
                f"its rows are padding; save input_ids and attention_mask [{batch}, {width}] beside it, or one "
                "sequence a file"
            )
        if any(len(grid) != batch for grid in grids):
            raise ForestageError(
                f"{place} of layer {layer}: {list(shape)}: a batch of {batch}, but input_ids or attention_mask "
                f"beside it are of {len(grids[0])} sequences"
            )
        shapes[layer] = (batch * width, experts)

    def logits(layer: int) -> Array:
        values = part.logits(layer)
        return values.reshape(-1, values.shape[-1])

    return replace(part, shapes=shapes, logits=logits)


def _is_empty(values: Array) -> bool:
    """Whether a dense layer's place holds nothing."""
    return not values.any() or bool(np.isnan(values).all())
