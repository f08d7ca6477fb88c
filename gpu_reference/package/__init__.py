"""A package: the folder that travels to a machine with a GPU but without network and traces, and what it holds."""

from gpu_reference.package.folder import load_package, write_package
from gpu_reference.package.manifest import MOST_BYTES, Manifest

__all__ = ["MOST_BYTES", "Manifest", "load_package", "write_package"]
