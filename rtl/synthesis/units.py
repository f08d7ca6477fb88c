"""What can be synthesised, by name."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from amaranth.lib import wiring

from catalog import load_catalog
from catalog.errors import unknown_name
from pim_model.unit.events import UnitCounter
from pim_model.unit.parameters import READBACK_LATENCY_CK, UnitParameters
from predictor.engine.counters import EngineCounter
from predictor.engine.limits import PrefetchEngineLimits
from predictor.row_network.limits import NetLimits
from predictor.st_moe.parameters import EngineLimits
from rtl.bus.axi_lite import AxiLiteSlave
from rtl.bus.counters import Counters
from rtl.pim.address_map import ADDRESS_BITS
from rtl.pim.base_die.epilogue import Epilogue
from rtl.pim.base_die.input_buffer import InputBuffer, InputReceiver
from rtl.pim.base_die.output_queue import OutputQueue
from rtl.pim.base_die.planner import Planner
from rtl.pim.base_die.program_control import ProgramControl
from rtl.pim.base_die.sequencer import Sequencer
from rtl.pim.block.block import BankBlock
from rtl.pim.register_file import RegisterFile
from rtl.pim.unit import tag_layout
from rtl.prefetch.address_map import address_bits
from rtl.prefetch.arbiter import Arbiter
from rtl.prefetch.dma.dma import Dma
from rtl.prefetch.dma.landing import Landing
from rtl.prefetch.dma.legaliser import Legaliser
from rtl.prefetch.dma.link import Link
from rtl.prefetch.dma.read_manager import ReadManager
from rtl.prefetch.dma.realigner import Realigner
from rtl.prefetch.dma.write_manager import WriteManager
from rtl.prefetch.front_end import FrontEnd
from rtl.prefetch.limits import table_limits, text_limits
from rtl.prefetch.net.net import Net
from rtl.prefetch.net.scores.adaptation import Adaptation
from rtl.prefetch.net.scores.best import BestExperts
from rtl.prefetch.net.scores.dot_product import DotProduct, sum_bits
from rtl.prefetch.net.scores.merge import ChanceMerger
from rtl.prefetch.net.scores.relu import GROUP, ReluLanes
from rtl.prefetch.net.scores.score import ScoreStage
from rtl.prefetch.net.scores.scores import SUM_BITS, ScoresUnit
from rtl.prefetch.net.scores.values import ValueRow
from rtl.prefetch.net.sums.fetcher import Fetcher
from rtl.prefetch.net.sums.issuer import Issuer
from rtl.prefetch.net.sums.lanes import SumLane
from rtl.prefetch.net.sums.sums import Sums
from rtl.prefetch.notices import Notices
from rtl.prefetch.payloads import stager_shape
from rtl.prefetch.register_file import RegisterFile as PrefetchRegisters
from rtl.prefetch.stager.directory import DirectoryMemory
from rtl.prefetch.stager.places import FreePlaces
from rtl.prefetch.stager.queue import TransferQueue
from rtl.prefetch.stager.scan import DirectoryScan
from rtl.prefetch.stager.stager import Stager
from rtl.prefetch.table_port import TablePort
from rtl.prefetch.tables.engine import TableEngine
from rtl.prefetch.tables.history import History
from rtl.prefetch.tables.issuer import RequestIssuer
from rtl.prefetch.tables.memory import TableMemory
from rtl.prefetch.tables.predictor import TablePredictor
from rtl.prefetch.tables.register_file import RegisterFile as EngineRegisters
from rtl.prefetch.tables.scorer import Scorer
from rtl.prefetch.tables.updater import Updater
from rtl.prefetch.tallies import StagerTallies, increment_bits
from rtl.prefetch.text.loader import ImageLoader
from rtl.prefetch.text.text_memory import TextMemory
from rtl.prefetch.text.unit import TextUnit
from rtl.synthesis.net_configurations import CONFIGURATIONS, NetConfiguration


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A component to synthesise.

    Attributes:
        what: What it is, in words.
        make: Makes it, with the limits of ST-MoE's tables where it is theirs.
        limited: Whether ``make`` minds these limits.
    """

    what: str
    make: Callable[[EngineLimits], wiring.Component]
    limited: bool = False


@dataclass(frozen=True, kw_only=True)
class Sum:
    """A unit too large to be synthesised at once: so many of other units, with nothing between them.

    Attributes:
        what: What it is, in words.
        parts: Name of a unit → how many of it.
    """

    what: str
    parts: dict[str, int]


def _tables(what: str, make: Callable[[EngineLimits], wiring.Component]) -> Unit:
    return Unit(what=what, make=make, limited=True)


def _engine(what: str, make: Callable[[PrefetchEngineLimits], wiring.Component]) -> Unit:
    return Unit(what=f"of the prefetch engine, {what}", make=lambda _: make(PrefetchEngineLimits()))


def _net(limits: PrefetchEngineLimits) -> Net:
    return Net(
        limits.network,
        prefetched=limits.net.prefetched_max,
        value_lanes=limits.stager_lanes,
        deadline_bits=limits.deadline_bits,
    )


def _with_lanes(limits: PrefetchEngineLimits, lanes: int) -> PrefetchEngineLimits:
    return limits.model_copy(update={"net": limits.net.model_copy(update={"lanes": lanes})})


def _text_memory(limits: PrefetchEngineLimits) -> TextMemory:
    return TextMemory(text_limits(limits), limits.network)


def _configured(configuration: NetConfiguration) -> Unit:
    return Unit(what=f"the net {configuration.what}", make=lambda _: Net(configuration.limits))


def _part(what: str, make: Callable[[], wiring.Component]) -> Unit:
    return Unit(what=f"of the net, {what}", make=lambda _: make())


def _base_die(what: str, make: Callable[[UnitParameters], wiring.Component]) -> Unit:
    return Unit(what=f"of its base die, {what}", make=lambda _: make(hbm2_pim_unit()))


@cache
def hbm2_pim_unit() -> UnitParameters:
    """The unit of one pseudo-channel of HBM2-PIM."""
    return UnitParameters(device=load_catalog().dram.find("HBM2-PIM"))


UNITS: dict[str, Unit | Sum] = {
    "pim-unit": Sum(
        what="the PIM expert unit of one pseudo-channel of HBM2-PIM",
        parts={
            "pim-block": 8,
            "pim-bus": 1,
            "pim-registers": 1,
            "pim-control": 1,
            "pim-planner": 1,
            "pim-sequencer": 1,
            "pim-receiver": 1,
            "pim-buffer": 1,
            "pim-epilogue": 1,
            "pim-queue": 1,
            "pim-counters": 1,
        },
    ),
    "pim-block": Unit(what="its compute at one pair of banks", make=lambda _: BankBlock()),
    "pim-bus": Unit(what="of its base die, the bus slave", make=lambda _: AxiLiteSlave(ADDRESS_BITS)),
    "pim-registers": _base_die("the registers", RegisterFile),
    "pim-control": _base_die("the control of programs", lambda _: ProgramControl(READBACK_LATENCY_CK)),
    "pim-planner": _base_die("the planner", Planner),
    "pim-sequencer": _base_die("the sequencer of commands", Sequencer),
    "pim-receiver": _base_die("the receiver of inputs", InputReceiver),
    "pim-buffer": _base_die("the input buffer and the quantiser", InputBuffer),
    "pim-epilogue": _base_die("scales, bias and activation", lambda _: Epilogue(tag_layout().size)),
    "pim-queue": _base_die("the output queue", OutputQueue),
    "pim-counters": _base_die("the counters", lambda _: Counters(UnitCounter)),
    "table-engine": _tables("the prefetch engine of ST-MoE's tables, by itself", TableEngine),
    "table-predictor": _tables("the tables, as the prefetch engine has them", TablePredictor),
    "table-history": _tables("its history", History),
    "table-issuer": _tables("its request issuer", RequestIssuer),
    "table-registers": _tables("its registers", EngineRegisters),
    "table-scorer": _tables("its scorer", Scorer),
    "table-memory": _tables("its table memory", TableMemory),
    "table-updater": _tables("its updater", Updater),
    "prefetch-engine": Sum(
        what="the prefetch engine: tables, net, text, stager, DMA, registers",
        parts=dict.fromkeys(
            (
                "engine-net",
                "engine-text",
                "engine-stager",
                "engine-link",
                "engine-tables",
                "engine-table-port",
                "engine-front-end",
                "engine-arbiter",
                "engine-notices",
                "engine-tallies",
                "engine-registers",
                "engine-bus",
                "engine-counters",
            ),
            1,
        ),
    ),
    "engine-net": _engine("the net, of both heads", _net),
    "engine-net-64": _engine("the net on 64 lanes", lambda limits: _net(_with_lanes(limits, 64))),
    "engine-text": _engine("the memory of the text and the loader", _text_memory),
    "engine-text-unit": _engine("the memory of the text", lambda limits: TextUnit(text_limits(limits))),
    "engine-loader": _engine("the loader", lambda limits: ImageLoader(text_limits(limits), limits.network)),
    "engine-stager": _engine("the stager", lambda limits: Stager(stager_shape(limits))),
    "engine-queue": _engine("its queue", lambda limits: TransferQueue(stager_shape(limits))),
    "engine-directory": _engine("its directory", lambda limits: DirectoryMemory(stager_shape(limits))),
    "engine-places": _engine("its free places", lambda limits: FreePlaces(stager_shape(limits))),
    "engine-scan": _engine("its scan of the directory", lambda limits: DirectoryScan(stager_shape(limits))),
    "engine-link": _engine("the link, and the DMA in it", lambda limits: Link(limits.link, stager_shape(limits))),
    "engine-dma": _engine("the DMA", lambda limits: Dma(limits.link)),
    "engine-legaliser": _engine("its legaliser", lambda limits: Legaliser(limits.link)),
    "engine-reader": _engine("its read manager", lambda limits: ReadManager(limits.link)),
    "engine-landing": _engine("its landing buffer", lambda limits: Landing(limits.link)),
    "engine-realigner": _engine("its realigner", lambda limits: Realigner(limits.link)),
    "engine-writer": _engine("its write manager", lambda limits: WriteManager(limits.link)),
    "engine-tables": _engine("the tables", lambda limits: TablePredictor(table_limits(limits))),
    "engine-table-port": _engine("the tables' port", TablePort),
    "engine-front-end": _engine("the front end", FrontEnd),
    "engine-arbiter": _engine("the arbiter", Arbiter),
    "engine-notices": _engine("the notices", Notices),
    "engine-tallies": _engine("what it counts of the stager", StagerTallies),
    "engine-registers": _engine("its registers", PrefetchRegisters),
    "engine-bus": _engine("its bus slave", lambda limits: AxiLiteSlave(address_bits(limits))),
    "engine-counters": _engine("its counters", lambda limits: Counters(EngineCounter, increment_bits(limits))),
    **{name: _configured(configuration) for name, configuration in CONFIGURATIONS.items()},
    "net-sum-lane": _part("a lane of the sums", SumLane),
    "net-fetcher": _part("what fetches the operations of the sums", lambda: Fetcher(NetLimits())),
    "net-issuer": _part("what issues them", lambda: Issuer(NetLimits())),
    "net-sums": _part("the sums, 128 lanes, both heads", lambda: Sums(NetLimits())),
    "net-scores": _part("the scores, 128 lanes, both heads", lambda: ScoresUnit(NetLimits())),
    "net-relu": _part("8 lanes of the ReLU", lambda: ReluLanes(GROUP, SUM_BITS)),
    "net-dot-product": _part("the matrix, 128 lanes", lambda: DotProduct(128)),
    "net-score": _part("from a sum to a score", lambda: ScoreStage(sum_bits(128))),
    "net-merger": _part("chances of several slots, merged", ChanceMerger),
    "net-best": _part("the best 8 of 32 experts", lambda: BestExperts(5, 8)),
    "net-adaptation": _part(
        "the biases that are learned in a sequence", lambda: Adaptation(rows=8 * 24, rows_of_slot=24, experts=32)
    ),
    "net-values": _part("the values of next use", lambda: ValueRow(experts=32, questions=4, lanes=16)),
}
"""Every unit; a new one is a line here."""


def unit_of(name: str) -> Unit | Sum:
    """The unit ``name``.

    Raises:
        SettingError: there is none of that name; the nearest is named.
    """
    if name not in UNITS:
        raise unknown_name("unit", name, UNITS)
    return UNITS[name]


def is_limited(name: str) -> bool:
    """Whether the unit ``name`` is generated with the prefetch engine's limits.

    Raises:
        SettingError: there is no such unit.
    """
    unit = unit_of(name)
    if isinstance(unit, Sum):
        return any(is_limited(part) for part in unit.parts)
    return unit.limited
