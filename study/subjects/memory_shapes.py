"""Products of published experts' shapes in memory: device by shape by format by tokens, with refresh and without."""

from typing import Any

from catalog import load_catalog
from pim_model.dram.devices import find_device
from pim_model.gemv.product import Kernel, product
from pim_model.unit.program import WeightFormat

SHAPES = {
    "gpt-oss-20b": ((2880, 2880),),
    "Qwen3-30B-A3B": ((768, 2048), (2048, 768)),
    "DeepSeek-V2-Lite": ((1408, 2048), (2048, 1408)),
}
"""Model → the shapes of its experts' matrices: rows, columns."""


def shapes_in_memory(devices: list[str] | None = None, pseudo_channels: int = 1) -> list[dict[str, Any]]:
    """A row for each device with blocks, kernel, shape, format and number of tokens of one read of the weights.

    Args:
        devices: Names; None: all of the catalogue that compute at their banks.
        pseudo_channels: Over which the rows are split, or as many as the device has if that is fewer.

    Raises:
        ForestageError: an unknown device, or one without blocks.
    """
    names = [record.name for record in load_catalog().dram if record.pim] if devices is None else devices
    cases = [(Kernel.SAMSUNG, WeightFormat.BF16, 1)]
    for weight_format in WeightFormat:
        tokens = [1 << power for power in range(weight_format.most_tokens.bit_length())]
        cases += [(Kernel.PINGPONG, weight_format, number) for number in tokens]
    return [
        _row(name, model, shape, *case, pseudo_channels)
        for name in names
        for case in cases
        for model, shapes in SHAPES.items()
        for shape in shapes
    ]


def _row(
    name: str,
    model: str,
    shape: tuple[int, int],
    kernel: Kernel,
    weight_format: WeightFormat,
    tokens: int,
    pseudo_channels: int,
) -> dict[str, Any]:
    device = find_device(name)
    channels = min(pseudo_channels, device.pseudo_channels)
    free, refreshed = (
        product(
            device,
            kernel,
            out_features=shape[0],
            in_features=shape[1],
            pseudo_channels=channels,
            weight_format=weight_format,
            tokens=tokens,
            refresh=refresh,
        )
        for refresh in (False, True)
    )
    return {
        "device": name,
        "kernel": kernel.value,
        "model": model,
        "out_features": shape[0],
        "in_features": shape[1],
        "pseudo_channels": channels,
        "format": weight_format.name.lower(),
        "tokens": tokens,
        "compute_cycles": free.compute_cycles,
        "readout_cycles": free.readout_cycles,
        "fraction_of_limit": free.fraction_of_limit,
        "bound_fraction": free.bound_fraction,
        "refreshed_compute_cycles": refreshed.compute_cycles,
        "refreshed_mean_fraction": refreshed.mean_fraction_of_limit,
        "refreshed_bound_fraction": refreshed.bound_fraction,
    }
