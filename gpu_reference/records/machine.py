"""The machine on which something was measured, the versions of what ran on it, and the sources that did."""

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
from importlib import import_module, metadata
from pathlib import Path

from pydantic import Field

from catalog.config import StrictModel
from catalog.sources import package_root, sources_digest

VERSIONED = ("numpy", "numba", "torch", "triton", "transformers")
"""Distributions on which a measurement may depend."""

PACKAGES = ("catalog", "traces", "staging", "predictor", "gpu_reference", "study")
"""Packages whose sources a measurement runs."""

UNKNOWN_COMMIT = "unknown"

GIB = 1 << 30


class Machine(StrictModel):
    """A machine; what could not be found out is ``None``.

    Attributes:
        processor: its name, from the operating system.
        cores: processors that the operating system lists.
        usable_cores: those that this process may run on.
        threads: PyTorch's, when the measurement began.
        memory_gib: host memory that this process may use (a container's limit, where it has one), 2³⁰ bytes.
        gpu, gpu_memory_gib: name and memory of the device; ``None`` where a CPU was measured.
        driver, cuda: versions of the GPU's driver and of the CUDA that PyTorch was built for.
        pcie: generation and lanes of the GPU's link as it was when asked, such as ``gen5 x16``.
    """

    processor: str
    cores: int = Field(ge=1)
    usable_cores: int = Field(ge=1)
    threads: int = Field(ge=1)
    memory_gib: float | None = Field(gt=0, allow_inf_nan=False)
    gpu: str | None
    gpu_memory_gib: float | None = Field(gt=0, allow_inf_nan=False)
    driver: str | None
    cuda: str | None
    pcie: str | None


def this_machine(device: str = "cpu") -> Machine:
    """The machine on which this process runs, with its GPU where ``device`` is one."""
    import torch

    gpu: dict[str, str | float | None] = dict.fromkeys(("gpu", "gpu_memory_gib", "driver", "cuda", "pcie"))
    if torch.device(device).type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        gpu["gpu"], gpu["gpu_memory_gib"] = properties.name, round(properties.total_memory / GIB, 1)
        gpu["cuda"] = torch.version.cuda
        gpu["driver"], gpu["pcie"] = _driver_and_pcie(str(getattr(properties, "uuid", "")))
    return Machine.model_validate(
        {
            "processor": _processor(),
            "cores": os.cpu_count() or 1,
            "usable_cores": usable_cores(),
            "threads": torch.get_num_threads(),
            "memory_gib": _memory_gib(),
            **gpu,
        }
    )


def usable_cores() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def these_versions() -> dict[str, str]:
    """Versions of Python and of every distribution of `VERSIONED` that is installed."""
    versions = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def source_digest() -> str:
    """SHA-256 (hex) of the sources of `PACKAGES`: it tells them apart where there is no git."""
    digests = [sources_digest(package_root(package), (".py", ".toml")) for package in PACKAGES]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def source_commit(folder: Path | None = None) -> str:
    """The git commit of the source tree, ``-dirty`` where tracked files differ from it; else `UNKNOWN_COMMIT`.

    Args:
        folder: of the sources; this package's by default.
    """
    folder = package_root("gpu_reference") if folder is None else folder
    commit = _said("git", "-C", str(folder), "rev-parse", "HEAD")
    # An installed package may lie inside another project's tree: only a tree that has this file counts.
    if not commit or not _said("git", "-C", str(folder), "ls-files", "__init__.py"):
        return UNKNOWN_COMMIT
    changed = _said("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no")
    return UNKNOWN_COMMIT if changed is None else commit + ("-dirty" if changed else "")


def _driver_and_pcie(uuid: str) -> tuple[str | None, str | None]:
    """The driver's version and the link of the GPU ``uuid``, from NVML, or else from nvidia-smi."""
    try:
        pynvml = import_module("pynvml")  # comes with nvidia-ml-py
    except ModuleNotFoundError:
        return _from_nvidia_smi(uuid)
    try:
        pynvml.nvmlInit()
        try:
            driver = pynvml.nvmlSystemGetDriverVersion()
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}".encode() if uuid else b"")
            generation = pynvml.nvmlDeviceGetCurrPcieLinkGeneration(handle)
            lanes = pynvml.nvmlDeviceGetCurrPcieLinkWidth(handle)
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return _from_nvidia_smi(uuid)
    return driver if isinstance(driver, str) else driver.decode(), f"gen{generation} x{lanes}"


def _from_nvidia_smi(uuid: str) -> tuple[str | None, str | None]:
    query = ["--query-gpu=driver_version,pcie.link.gen.current,pcie.link.width.current", "--format=csv,noheader"]
    said = _said("nvidia-smi", *([f"--id=GPU-{uuid}"] if uuid else []), *query)
    fields = [field.strip() for field in (said or "").splitlines()[:1][0].split(",")] if said else []
    if len(fields) != 3:
        return None, None
    driver, generation, lanes = fields
    return driver, f"gen{generation} x{lanes}" if generation.isdigit() and lanes.isdigit() else None


def _said(*command: str) -> str | None:
    """What ``command`` prints, stripped; ``None`` where it is not there or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    """The processor's name, from the operating system."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_gib() -> float | None:
    """Host memory that this process may use, 2³⁰ bytes."""
    found: list[int] = []
    with contextlib.suppress(AttributeError, OSError, ValueError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(limit).read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if text.isdigit():
            found.append(int(text))
    return round(min(found) / GIB, 1) if found else None
