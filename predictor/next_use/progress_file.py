"""Finished layers of a training that is under way, so that one that was interrupted goes on where it was."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from catalog.files import atomic_path
from predictor.next_use.parameters import NextUseParameters, NextUseTraining
from predictor.next_use.tables import ARRAYS
from traces import RoutingTrace

LayerArrays = dict[str, NDArray[np.integer]]


class FinishedLayers:
    """A folder of one small file a layer, under a name that the trace and every setting are part of.

    Args:
        folder: where all trainings of one destination keep theirs.
        trace: the training sequences.
        parameters, training: the settings; with any other value nothing is found.
    """

    def __init__(
        self, folder: Path, trace: RoutingTrace, parameters: NextUseParameters, training: NextUseTraining
    ) -> None:
        digest = hashlib.sha256((parameters.model_dump_json() + training.model_dump_json()).encode())
        digest.update(np.asarray(trace.sequence_offsets).tobytes())
        for part in trace.chunks():
            digest.update(part.expert_ids.tobytes())
            if part.token_hash is not None:
                digest.update(np.asarray(part.token_hash).tobytes())
        self._folder = folder
        self._name = digest.hexdigest()[:16]

    def load(self, layer: int) -> LayerArrays | None:
        """The layer's integers, or ``None`` where it is not finished (or its file damaged)."""
        try:
            arrays = load_file(self._path(layer))
        except (OSError, SafetensorError):
            return None
        return arrays if set(arrays) == set(ARRAYS) else None

    def save(self, layer: int, arrays: LayerArrays) -> None:
        """Keep a finished layer."""
        with atomic_path(self._path(layer)) as temporary:
            save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, temporary)

    def remove(self) -> None:
        """Forget all layers: the training is done."""
        for path in self._folder.glob(f"{self._name}-*.safetensors"):
            path.unlink()
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _path(self, layer: int) -> Path:
        return self._folder / f"{self._name}-{layer}.safetensors"
