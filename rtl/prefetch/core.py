"""The engine without its registers: events in, notices out, and what moves between."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from typing_extensions import override

from predictor.engine.counters import EngineCounter
from predictor.engine.events import EngineError, EVENT_ERRORS
from predictor.engine.limits import BEAT_BYTES, PrefetchEngineLimits
from predictor.engine.settings import Mode
from rtl.bus.axi4 import Axi4ReadSignature, Axi4WriteSignature
from rtl.prefetch.arbiter import Arbiter
from rtl.prefetch.dma.link import Link
from rtl.prefetch.front_end import FrontEnd
from rtl.prefetch.notices import Notices
from rtl.prefetch.payloads import (
    HostRequest,
    event_layout,
    host_request_layout,
    notice_layout,
    prediction_layout,
    stager_shape,
)
from rtl.prefetch.settings import core_settings_layout
from rtl.prefetch.stager.layouts import Command, ShareWriteSignature, action_layout, command_layout, done_layout
from rtl.prefetch.stager.stager import Stager
from rtl.prefetch.table_port import TablePort, table_limits
from rtl.prefetch.tables.layouts import SettingsSignature, row_write_layout
from rtl.prefetch.tables.memory import WindowSignature
from rtl.prefetch.tables.predictor import TablePredictor
from rtl.prefetch.tallies import STAGER_TALLIES, StagerTallies, increment_bits
