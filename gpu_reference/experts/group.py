"""Several experts in one call, each with rows of its own: what of a layer is there is launched together.

Every expert's output has the bits that `gpu_reference.experts.compute.expert_kernel` of the same name gives, whatever
it is launched with. The kernel ``triton`` takes several experts in one launch; the others take them one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from catalog.errors import ForestageError
from gpu_reference.experts.compute import Kernel, check_rows, expert_kernel, placed
from gpu_reference.experts.layout import ALIGNMENT, ExpertLayout
from gpu_reference.experts.piece import Piece

Group = Callable[[Sequence[Piece], torch.Tensor, torch.Tensor], None]
"""From pieces and x ``[n, hidden]``, f32 or bf16, writes the pieces' rows of an output ``[m, hidden]`` of x's type.
No two pieces may have a row of the output in common."""


def expert_group(layout: ExpertLayout, device: torch.device | str, name: str | None = None) -> Group:
    """The kernel ``name`` (``torch``, if none is given) for groups of ``layout``'s experts on ``device``.

    Raises:
        ForestageError: as `expert_kernel`; from the group itself: a piece's rows do not exist, or what is
            given does not fit.
    """
    kernel = expert_kernel(layout, device, name)
    if name != "triton":
        return one_by_one(kernel)
    from gpu_reference.experts.triton_kernels import ROW_BITS, TritonGroup  # Triton is not on every machine

    launch, where = TritonGroup(layout), torch.device(device)

    def run(pieces: Sequence[Piece], x: torch.Tensor, output: torch.Tensor) -> None:
        check_pieces(pieces, x, output)
        for piece in pieces:
            check_rows(layout, piece.block, x, where)
        # The compiler would make other code, which may sum in another order, of what lies elsewhere.
        for what, tensor in (("output", output), *(("block", piece.block) for piece in pieces)):
            if tensor.data_ptr() % ALIGNMENT or not tensor.is_contiguous():
                raise ForestageError(f"expert group: {what}: give one piece from a multiple of {ALIGNMENT} bytes on")
        if max(len(x), len(output)) >= 1 << ROW_BITS:
            raise ForestageError(f"expert group: {max(len(x), len(output))} rows; give fewer than {1 << ROW_BITS}")
        launch(pieces, placed(x.contiguous()), output)

    return run


def one_by_one(kernel: Kernel) -> Group:
    """The group that calls ``kernel`` for each piece."""

    def run(pieces: Sequence[Piece], x: torch.Tensor, output: torch.Tensor) -> None:
        check_pieces(pieces, x, output)
        for piece in pieces:
            output[piece.at : piece.at + piece.rows] = kernel(piece.block, x[piece.first : piece.first + piece.rows])

    return run


def check_pieces(pieces: Sequence[Piece], x: torch.Tensor, output: torch.Tensor) -> None:
    """Refuse pieces with rows that do not exist, which a GPU would read or write elsewhere.

    Raises:
        ForestageError: naming them.
    """
    if output.dtype != x.dtype or output.shape[1:] != x.shape[1:] or output.device != x.device:
        raise ForestageError(
            f"expert group: output is {output.dtype} {list(output.shape)} on {output.device}; give {x.dtype} "
            f"[rows, {x.shape[1]}] on {x.device}"
        )
    for piece in pieces:
        if min(piece.first, piece.rows, piece.at) < 0 or piece.first + piece.rows > len(x):
            raise ForestageError(f"expert group: rows {piece.first} + {piece.rows} of {len(x)} rows of x")
        if piece.at + piece.rows > len(output):
            raise ForestageError(f"expert group: rows {piece.at} + {piece.rows} of {len(output)} rows of the output")
