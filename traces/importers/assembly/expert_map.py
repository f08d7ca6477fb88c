"""Expert maps: the logical expert of which each physical expert is a copy.

Servers that balance experts keep several copies of some: a *physical* expert is one such copy. The maps read here are
those of DeepSeek's EPLB (``phy2log [layers, physical]``, or ``log2phy [layers, logical, copies]`` with −1
where there are fewer copies) and SGLang's (``physical_to_logical_map``, ``last_physical_to_logical_map``), in any file
of ``traces.importers.assembly.array_file``; and the JSON of vLLM-Ascend and MindIE (what vLLM-Ascend's expert-load
balancer exports): ``{"moe_layer_count", "layer_list": [{"layer_id", "device_count", "device_list": [{"device_id",
"device_expert": [logical expert of each physical expert]}]}]}``. In it, physical experts are numbered from device
to device, as in vLLM-Ascend's ``log2phy``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, ValidationError

from catalog.config import describe_validation_error
from catalog.errors import ForestageError
from traces.importers.assembly.array_file import UNNAMED, read_arrays
from traces.importers.assembly.text_file import open_text, starting_bytes
from traces.metadata import MAX_EXPERTS
from traces.validation import counted_from_one, names_first

PHYSICAL_TO_LOGICAL = ("phy2log", "physical_to_logical_map", "last_physical_to_logical_map")
LOGICAL_TO_PHYSICAL = "log2phy"

MAX_LAYOUT_CHARACTERS = 1 << 28

Number = Annotated[int, Field(ge=0, lt=MAX_EXPERTS, strict=True)]


class DeviceExperts(BaseModel):
    """The physical experts of one device, in order."""

    device_id: Number
    device_expert: list[Number] = Field(min_length=1)


class LayerDevices(BaseModel):
    """The devices of one MoE layer."""

    layer_id: Number
    device_count: Number
    device_list: list[DeviceExperts] = Field(min_length=1)


class DeviceLayout(BaseModel):
    """The file of vLLM-Ascend; other keys are ignored."""

    moe_layer_count: Number
    layer_list: list[LayerDevices] = Field(min_length=1)


@dataclass(frozen=True, eq=False)
class ExpertMap:
    """An expert map that has been checked.

    Attributes:
        logical: i32 ``[layers, physical]``: the logical expert of each physical one; every logical expert from 0 to
            the largest has a copy in every layer.
        origin: the file, for errors.
    """

    logical: npt.NDArray[np.int32]
    origin: str

    @property
    def layers(self) -> int:
        """Number of layers."""
        return self.logical.shape[0]

    @property
    def physical(self) -> int:
        """Physical experts per layer."""
        return self.logical.shape[1]

    @property
    def experts(self) -> int:
        """Logical experts per layer."""
        return int(self.logical.max()) + 1

    def apply(self, ids: npt.NDArray[np.integer], place: str) -> npt.NDArray[np.int32]:
        """Logical ids of physical ``ids [tokens, layers, top_k]``; −1 stays −1.

        Raises:
            ForestageError: naming ``place``, if the number of layers differs or an id is beyond the physical experts.
        """
        if ids.shape[1] != self.layers:
            raise ForestageError(f"{place}: {ids.shape[1]} layers, but the expert map {self.origin} has {self.layers}")
        bad = np.argwhere((ids < -1) | (ids >= self.physical))
        if len(bad):
            token, layer, choice = (int(i) for i in bad[0])
            raise ForestageError(
                f"{place}: ids[{token}, {layer}]: {int(ids[token, layer, choice])}; the expert map {self.origin} has "
                f"physical experts 0 to {self.physical - 1}"
                + counted_from_one(int(ids.max()), self.physical, has_first=names_first(ids))
            )
        layer_index = np.arange(self.layers)[None, :, None]
        return np.where(ids < 0, np.int32(-1), self.logical[layer_index, np.maximum(ids, 0)])


def read_expert_map(path: Path, experts: int | None = None) -> ExpertMap:
    """The map in ``path``.

    Args:
        path: the file.
        experts: routed experts a layer, where the user says (``--experts``).

    Raises:
        ForestageError: if the file holds none, or one that is wrong or of another number of experts.
    """
    found = _map_in(path)
    if experts is not None and experts != found.experts:
        raise ForestageError(
            f"{found.origin}: maps to {found.experts} logical experts, but --experts says {experts}; give the map of "
            "this model, or correct --experts"
        )
    return found


def _map_in(path: Path) -> ExpertMap:
    """The map in ``path``, of whatever number of experts."""
    if is_device_layout(starting_bytes(path, 1 << 12)):
        return _read_device_layout(path)
    arrays = read_arrays(path)
    maps = [
        check_map(arrays[name], f"{path}: {name}" if name else str(path))
        for name in (*PHYSICAL_TO_LOGICAL, UNNAMED)
        if name in arrays
    ]
    if LOGICAL_TO_PHYSICAL in arrays:
        maps.append(check_map(_inverse(arrays[LOGICAL_TO_PHYSICAL], f"{path}: log2phy"), f"{path}: log2phy"))
    for other in maps[1:]:
        if not np.array_equal(other.logical, maps[0].logical):
            first = maps[0].origin.removeprefix(f"{path}: ")
            raise ForestageError(f"{other.origin}: contradicts {first}; leave one of them out")
    if maps:
        return maps[0]
    known = ", ".join((*PHYSICAL_TO_LOGICAL, LOGICAL_TO_PHYSICAL))
    raise ForestageError(f"{path}: holds no expert map; known are {known} (found: {', '.join(arrays) or 'nothing'})")


def check_map(logical: npt.NDArray[Any], origin: str) -> ExpertMap:
    """Check the map ``logical [layers, physical]``.

    Raises:
        ForestageError: naming ``origin``, if it is not such an array or leaves a logical expert without a copy.
    """
    if logical.ndim != 2 or logical.dtype.kind not in "iu" or not logical.size:
        raise ForestageError(f"{origin}: {logical.dtype} {list(logical.shape)}; expected integers [layers, physical]")
    if logical.min() < 0 or logical.max() >= MAX_EXPERTS:
        raise ForestageError(f"{origin}: values must be logical experts from 0 on")
    experts = int(logical.max()) + 1
    for layer, row in enumerate(logical):
        missing = np.setdiff1d(np.arange(experts), row)
        if len(missing):
            raise ForestageError(
                f"{origin}: layer {layer} has no copy of expert {missing[0]} of {experts}"
                + (counted_from_one(experts, experts) if logical.min() == 1 else "")
            )
    return ExpertMap(logical.astype(np.int32), origin)


def is_device_layout(start: bytes) -> bool:
    """Whether a file that starts so is vLLM-Ascend's map of experts to devices."""
    return start.lstrip().startswith(b"{") and any(
        b'"%s"' % key in start for key in (b"layer_list", b"moe_layer_count")
    )


def _read_device_layout(path: Path) -> ExpertMap:
    """The map of vLLM-Ascend in ``path``."""
    with open_text(path) as (text, _):
        document = text.read(MAX_LAYOUT_CHARACTERS)
    try:
        layout = DeviceLayout.model_validate_json(document)
    except ValidationError as error:
        raise ForestageError(f"{path}: {describe_validation_error(DeviceLayout, error)}") from error
    layers = sorted(layout.layer_list, key=lambda layer: layer.layer_id)
    if [layer.layer_id for layer in layers] != list(range(layout.moe_layer_count)):
        raise ForestageError(
            f"{path}: layer_list: layer_id {', '.join(str(layer.layer_id) for layer in layers[:8])}; expected 0 to "
            f"{layout.moe_layer_count - 1} (moe_layer_count {layout.moe_layer_count})"
        )
    rows = []
    for layer in layers:
        devices = sorted(layer.device_list, key=lambda device: device.device_id)
        if [device.device_id for device in devices] != list(range(layer.device_count)):
            raise ForestageError(
                f"{path}: layer_id {layer.layer_id}: device_list: expected device_id 0 to {layer.device_count - 1}, "
                "once each"
            )
        rows.append([expert for device in devices for expert in device.device_expert])
        if len(rows[-1]) != len(rows[0]):
            raise ForestageError(
                f"{path}: layer_id {layer.layer_id}: {len(rows[-1])} experts on its devices; layer 0 has {len(rows[0])}"
            )
    return check_map(np.array(rows, dtype=np.int64), f"{path}: layer_list")


def _inverse(physical: npt.NDArray[Any], origin: str) -> npt.NDArray[np.int64]:
    """``[layers, physical]`` from ``[layers, logical, copies]``, in which −1 means no copy."""
    if physical.ndim != 3 or physical.dtype.kind not in "iu" or not physical.size:
        raise ForestageError(
            f"{origin}: {physical.dtype} {list(physical.shape)}; expected integers [layers, logical, copies]"
        )
    count = int(physical.max()) + 1
    if count < 1 or count > MAX_EXPERTS or physical.min() < -1:
        raise ForestageError(f"{origin}: values must be physical experts from 0 on, or -1")
    logical = np.full((len(physical), count), -1, dtype=np.int64)
    for layer in range(len(physical)):
        expert, copy = np.nonzero(physical[layer] >= 0)
        places = physical[layer, expert, copy]
        if len(places) != count or len(np.unique(places)) != count:
            raise ForestageError(f"{origin}: layer {layer}: physical experts 0 to {count - 1} must each appear once")
        logical[layer, places] = expert
    return logical
