"""The sources of packages, and the digest that tells whether one has changed."""

import hashlib
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path


def package_root(package: str) -> Path:
    """The folder of ``package``, or the file of a module that is none; it need not be imported."""
    spec = find_spec(package)
    if spec is None or not spec.origin:
        raise ModuleNotFoundError(f"{package}: a package without a file")
    path = Path(spec.origin)
    return path.parent if path.name == "__init__.py" else path


def sources_digest(root: Path, suffixes: Collection[str]) -> str:
    """SHA-256 (hex) of every file with one of ``suffixes`` in the folder ``root``, path and content; or of the file."""
    digest = hashlib.sha256()
    files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.suffix in suffixes)
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root.parent).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
