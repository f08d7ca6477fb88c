"""All experts of a model in host memory: where they are fetched from, and where the host's processor computes them."""

from __future__ import annotations

from pathlib import Path

import torch

from catalog.errors import ForestageError
from gpu_reference.experts.layout import ExpertLayout, Format
from gpu_reference.experts.shape import ExpertShape
from gpu_reference.moe_layer import checkpoint_layers, read_experts
from gpu_reference.offload.blocks import aligned_blocks

MADE_AT_ONCE = 64
"""Random experts made on a device before they are copied to the host."""


class HostExperts:
    """Blocks u8 ``[layers · experts, nbytes]``, the key of one being ``layer · experts + expert``.

    Args:
        layout: of each.
        layers, experts: of the model.
        pinned: page-locked, so that a GPU reads them while the host goes on. PyTorch's own pinned memory comes in
            powers of two, which would waste up to half of it, so ordinary memory is registered with the driver.

    Attributes:
        blocks: one tensor for each key, which alias the memory.

    Raises:
        ForestageError: if the memory cannot be had, or not be pinned.
    """

    def __init__(self, layout: ExpertLayout, layers: int, experts: int, *, pinned: bool) -> None:
        self.layout = layout
        self.layers = layers
        self.experts = experts
        count = layers * experts
        try:
            rows = aligned_blocks(count, layout.nbytes, torch.device("cpu"))
        except RuntimeError as error:
            raise ForestageError(
                f"host memory: {count} experts take {count * layout.nbytes / 1e9:.1f} GB, which this machine cannot "
                "give; choose smaller experts or another format"
            ) from error
        self._registered = 0
        self._memory = rows
        if pinned:
            self._register()
        self.blocks: list[torch.Tensor] = list(rows.unbind())

    def _register(self) -> None:
        storage = self._memory.untyped_storage()
        # Touched by all threads first: the driver alone would take many seconds to have the system clear 38 GB.
        self._memory.zero_()
        code = int(torch.cuda.cudart().cudaHostRegister(storage.data_ptr(), storage.nbytes(), 0))
        if code:
            raise ForestageError(
                f"host memory: the driver cannot pin {storage.nbytes() / 1e9:.1f} GB (CUDA error {code}); raise the "
                "limit of locked memory (ulimit -l), or choose smaller experts"
            )
        self._registered = storage.data_ptr()

    def close(self) -> None:
        """Give pinned memory back; nothing may be copied from it any more."""
        if self._registered:
            torch.cuda.synchronize()
            torch.cuda.cudart().cudaHostUnregister(self._registered)
            self._registered = 0

    @classmethod
    def of_checkpoint(cls, checkpoint: Path, format: Format, *, pinned: bool) -> HostExperts:
        """The experts of a checkpoint folder, quantised to ``format``.

        Raises:
            ForestageError: if a file is missing or malformed.
        """
        layers = checkpoint_layers(checkpoint)
        found: HostExperts | None = None
        for layer in range(layers):
            gate_up, down = read_experts(checkpoint, layer)
            experts, double, hidden = gate_up.shape
            if found is None:
                shape = ExpertShape(hidden=hidden, intermediate=double // 2, matrices=3, activation="swiglu")
                found = cls(ExpertLayout(shape, format), layers, experts, pinned=pinned)
            for expert in range(experts):
                found.blocks[layer * experts + expert].copy_(found.layout.pack(gate_up[expert], down[expert]))
        assert found is not None, "a checkpoint has layers"
        return found

    @classmethod
    def random(cls, layout: ExpertLayout, layers: int, experts: int, *, seed: int, device: torch.device) -> HostExperts:
        """Random experts, made on ``device``, some at a time; pinned if that is a GPU.

        Raises:
            ForestageError: as the class.
        """
        found = cls(layout, layers, experts, pinned=device.type == "cuda")
        count = layers * experts
        for first in range(0, count, MADE_AT_ONCE):
            made = layout.random(min(MADE_AT_ONCE, count - first), seed=seed + first, device=device)
            for block, source in zip(found.blocks[first:], made, strict=False):
                block.copy_(source)  # one by one: rows with gaps between them would go through other memory
        return found
