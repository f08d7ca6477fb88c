"""One run of the whole engine under Verilator: its build, its stimulus, its logs."""

from pathlib import Path

from amaranth.lib import data

from cocotb_tests.models import AXI4_CHECKER, AXI4_RAM
from cocotb_tests.prefetch_engine.stimulus import MOST_EVENTS
from predictor.engine.limits import PrefetchEngineLimits
from rtl.prefetch.payloads import event_layout, notice_layout, prediction_layout, stager_shape
from rtl.prefetch.stager.layouts import action_layout, command_layout, done_layout
from rtl.prefetch.table_port import table_limits

_FOLDER = Path(__file__).parent


def log_layouts(limits: PrefetchEngineLimits) -> dict[str, data.Layout]:
    """What the bench logs, by name."""
    shape = stager_shape(limits)
    return {
        "events": event_layout(limits),
        "notices": notice_layout(limits),
        "commands": command_layout(shape),
        "actions": action_layout(shape),
        "done": done_layout(shape),
        "predictions": prediction_layout(limits),
    }


def bench_verilog(limits: PrefetchEngineLimits, engine: str, *, control_bits: int) -> str:
    """The bench's sources in one text, top module ``bench``: widths, models, runner, the engine, the top."""
    layouts = log_layouts(limits)
    defines = {
        "CONTROL_BITS": control_bits,
        "ADDRESS_BITS": limits.link.address_bits,
        "MOST_EVENTS": MOST_EVENTS,
        "EVENT_BITS": layouts["events"].size,
        "EVENT_FIRST_BIT": layouts["events"]["first"].offset,
        "NOTICE_BITS": layouts["notices"].size,
        "COMMAND_BITS": layouts["commands"].size,
        "ACTION_BITS": layouts["actions"].size,
        "DONE_BITS": layouts["done"].size,
        "PREDICTION_BITS": layouts["predictions"].size,
    }
    lines = [f"`define {name} {value}" for name, value in defines.items()]
    sources = [AXI4_RAM, AXI4_CHECKER, _FOLDER / "runner.sv", _FOLDER / "bench.sv"]
    return "\n".join([*lines, engine, *(path.read_text(encoding="utf-8") for path in sources)])


_ = table_limits
