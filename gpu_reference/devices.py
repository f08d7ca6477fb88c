"""The device on which PyTorch computes."""

from collections.abc import Iterator
from contextlib import contextmanager

from catalog.errors import SettingError


def check_device(name: str) -> None:
    """Raise unless PyTorch knows device ``name`` (cpu, cuda, cuda:1) and this machine has it.

    Raises:
        ForestageError: naming the device and what to choose.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingError(
            "device",
            "is none that PyTorch knows; choose cpu or cuda",
            message=f"device: {name!r} is none that PyTorch knows; choose cpu or cuda",
        ) from error
    there = {"cpu": 1, "cuda": torch.cuda.device_count()}.get(device.type, 0)
    if (device.index or 0) >= there:
        remedy = "is not on this machine; choose cpu" + (" or cuda" if there else "")
        raise SettingError("device", remedy, message=f"device: {name!r} {remedy}")


def default_device() -> str:
    """``cuda`` if there is one, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one CPU thread inside this context.

    The shipped model's matrices are too small for several threads, and threads that wait for each other are many times
    slower if other work keeps a core busy.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
