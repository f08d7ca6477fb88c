"""Verilog of every top module."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from amaranth.back import verilog

from catalog.files import write_text
from pim_model.tile import TileParameters
from predictor.st_moe.parameters import EngineParameters
from rtl.pim import tile as pim_tile
from rtl.prefetch.engine import PrefetchEngine


@lru_cache(maxsize=4)
def prefetch_engine_verilog(parameters: EngineParameters) -> str:
    """The prefetch engine as Verilog, top module ``prefetch_engine``; the same text on every machine."""
    # Source locations would name the folders of this machine.
    return verilog.convert(
        PrefetchEngine(parameters), name="prefetch_engine", emit_src=False, strip_internal_attrs=True
    )


TOPS: dict[str, Callable[[EngineParameters], str]] = {
    "pim_tile": lambda _: pim_tile.generate_verilog(TileParameters()),
    "prefetch_engine": prefetch_engine_verilog,
}
"""Top modules by name, and what writes each."""


def generate(out: Path, parameters: EngineParameters) -> list[Path]:
    """Write ``NAME.v`` of every top module into ``out``; returns the paths in order of name.

    Raises:
        ForestageError: if ``out`` cannot be written.
    """
    texts = {name: verilog_of(parameters) for name, verilog_of in sorted(TOPS.items())}
    paths = []
    for name, text in texts.items():
        path = Path(out) / f"{name}.v"
        write_text(path, text)
        paths.append(path)
    return paths
