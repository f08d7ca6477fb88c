"""The device that PyTorch computes on."""

from catalog.errors import ForestageError


def check_device(name: str) -> None:
    """Raise unless PyTorch knows device ``name`` (cpu, cuda, cuda:1) and this machine has it.

    Raises:
        ForestageError: naming the device and what to choose.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ForestageError(f"device: {name!r} is none that PyTorch knows; choose cpu or cuda") from error
    there = {"cpu": 1, "cuda": torch.cuda.device_count()}.get(device.type, 0)
    if (device.index or 0) >= there:
        raise ForestageError(f"device: {name!r} is not on this machine; choose cpu" + (" or cuda" if there else ""))
