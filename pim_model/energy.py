"""Energy by event: rows opened, bits moved over which part of the way, refreshes, standby time, multiply-adds.

The figures are those of one of the catalogue's energy sets. Sets differ in what they have: what a set lacks is named in
the result (``not_counted``), and what stands in for something else is said there (``assumptions``).
"""

from dataclasses import dataclass, field

from catalog import DramRecord, EnergyRecord, ForestageError, load_catalog
from pim_model.dram.devices import Access, pim_blocks
from pim_model.dram.expert_stream import StreamResult

DEFAULT_ENERGY = "oconnor-2017"

MULTIPLY_ADD_ENERGY = "attacc"
"""The set whose multiply-add is taken where the chosen one has none: no other in the catalogue has it."""


@dataclass(frozen=True, kw_only=True)
class EnergyEvents:
    """What happened in one pseudo-channel, as far as it costs energy.

    Attributes:
        activations: Rows opened (and closed), counted in every bank.
        host_read_bytes: Bytes from the cells over the pins to the host.
        host_write_bytes: Bytes from the host to the cells.
        in_bank_bytes: Bytes from the cells to the compute at their bank.
        base_die_bytes: Bytes between the base die and the compute at the banks, neither to the pins nor to the cells.
            A broadcast to all banks counts once.
        all_bank_refreshes: REFab commands; a per-bank refresh is its bank's share of one.
        multiply_adds: Multiply-adds at the banks.
        active_ns: Time with a row open.
        precharged_ns: Time without.
    """

    activations: int = 0
    host_read_bytes: int = 0
    host_write_bytes: int = 0
    in_bank_bytes: int = 0
    base_die_bytes: int = 0
    all_bank_refreshes: float = 0
    multiply_adds: int = 0
    active_ns: float = 0
    precharged_ns: float = 0


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Energy by part.

    Attributes:
        source: Name of the catalogue's energy set.
        parts_pj: Cost of each part: the set's terms a bit, ``write``, ``activate_precharge``, ``refresh``,
            ``active_standby``, ``precharge_standby``, ``multiply_add``; only those that occur.
        not_counted: Parts that occur, for which the set has no figure.
        assumptions: What figures stand in for others.
    """

    source: str
    parts_pj: dict[str, float]
    not_counted: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = field(default=())

    @property
    def total_pj(self) -> float:
        """Sum of the parts that were counted."""
        return sum(self.parts_pj.values())

    def pj_per_bit(self, moved_bytes: int) -> float:
        """Total per bit of ``moved_bytes``."""
        return self.total_pj / (8 * moved_bytes)


def find_energy(name: str = DEFAULT_ENERGY) -> EnergyRecord:
    """The catalogue's energy set ``name``.

    Raises:
        ForestageError: naming the nearest known one.
    """
    return load_catalog().energy.find(name)


def energy_of(events: EnergyEvents, energy: EnergyRecord) -> Energy:
    """The energy of ``events`` by the figures of ``energy``.

    Each bit of a host read costs all terms; of a host write the set's write figure (if it has none, as a read); of an
    in-bank read the terms in ``in_bank_terms``; between base die and banks those in ``base_die_terms``. Each opened row
    costs ACT+PRE, unless the terms a bit include it. 1 mW · 1 ns is 1 pJ.

    Raises:
        ForestageError: in-bank reads with an energy set that has no in-bank figure.
    """
    count = _Count()
    _count_bits(events, energy, count)
    if energy.activate_precharge_pj is not None:
        count.add("activate_precharge", events.activations, energy.activate_precharge_pj)
    elif events.activations:
        count.assumptions.append("activate_precharge: in the terms a bit, whatever the bytes a row")
    count.add("refresh", events.all_bank_refreshes, energy.refresh_all_bank_pj)
    share = 1 / energy.standby_pseudo_channels
    count.add("active_standby", events.active_ns * share, energy.active_standby_mw)
    count.add("precharge_standby", events.precharged_ns * share, energy.precharge_standby_mw)
    each = energy.multiply_add_pj
    if each is None and events.multiply_adds:
        each = find_energy(MULTIPLY_ADD_ENERGY).multiply_add_pj
        count.assumptions.append(f"multiply_add: that of {MULTIPLY_ADD_ENERGY}")
    count.add("multiply_add", events.multiply_adds, each)
    return Energy(
        source=energy.name,
        parts_pj=count.parts_pj,
        not_counted=tuple(count.not_counted),
        assumptions=tuple(count.assumptions),
    )


class _Count:
    """Parts, and what could not be counted."""

    def __init__(self) -> None:
        self.parts_pj: dict[str, float] = {}
        self.not_counted: list[str] = []
        self.assumptions: list[str] = []

    def add(self, part: str, amount: float, pj_each: float | None) -> None:
        """``amount`` events of ``pj_each``."""
        if not amount:
            return
        if pj_each is None:
            self.not_counted.append(part)
        else:
            self.parts_pj[part] = self.parts_pj.get(part, 0.0) + amount * pj_each


def _count_bits(events: EnergyEvents, energy: EnergyRecord, count: _Count) -> None:
    terms = energy.terms_pj_per_bit
    for term, pj in terms.items():
        count.add(term, 8 * events.host_read_bytes, pj)
    if energy.write_pj_per_bit is not None:
        count.add("write", 8 * events.host_write_bytes, energy.write_pj_per_bit)
    elif events.host_write_bytes:
        count.assumptions.append("host write: as a read")
        for term, pj in terms.items():
            count.add(term, 8 * events.host_write_bytes, pj)
    if events.in_bank_bytes and not energy.in_bank_terms:
        raise ForestageError(
            f"energy '{energy.name}': in_bank_terms: it does not tell an in-bank read's; choose another"
        )
    for term in energy.in_bank_terms:
        count.add(term, 8 * events.in_bank_bytes, terms[term])
    if events.base_die_bytes and not energy.base_die_terms:
        count.not_counted.append("base_die_bits")
    for term in energy.base_die_terms:
        count.add(term, 8 * events.base_die_bytes, terms[term])


def stream_events(stream: StreamResult, device: DramRecord) -> EnergyEvents:
    """What ``stream`` through ``device`` did; a row is open throughout."""
    return EnergyEvents(
        activations=stream.activations,
        host_read_bytes=stream.moved_bytes if stream.access is Access.HOST_READ else 0,
        host_write_bytes=stream.moved_bytes if stream.access is Access.HOST_WRITE else 0,
        in_bank_bytes=stream.moved_bytes if stream.access is Access.IN_BANK else 0,
        all_bank_refreshes=stream.all_bank_refreshes + stream.per_bank_refreshes / device.banks,
        active_ns=stream.time_ns,
    )


def stream_energy(stream: StreamResult, device: DramRecord, energy: EnergyRecord) -> Energy:
    """Energy of ``stream`` through ``device``.

    Raises:
        ForestageError: as ``energy_of``.
    """
    return energy_of(stream_events(stream, device), energy)


def unit_events(
    device: DramRecord,
    *,
    activations: int,
    columns: int,
    transfers: int,
    refreshes: int,
    multiply_adds: int,
    active_ns: float,
    precharged_ns: float,
) -> EnergyEvents:
    """What a PIM expert unit did.

    Args:
        device: The DRAM.
        activations: ACT commands, of one bank each.
        columns: PIM commands: each reads a column in every block.
        transfers: LDI and RDA commands, each one burst between base die and blocks.
        refreshes: REFab commands.
        multiply_adds: Multiply-adds, those with padding included.
        active_ns: Time with a row open.
        precharged_ns: Time without.

    Raises:
        ForestageError: a device without blocks.
    """
    blocks = pim_blocks(device)
    return EnergyEvents(
        activations=activations,
        in_bank_bytes=columns * blocks.blocks * blocks.datapath_bits // 8,
        base_die_bytes=transfers * device.burst_bytes,
        all_bank_refreshes=refreshes,
        multiply_adds=multiply_adds,
        active_ns=active_ns,
        precharged_ns=precharged_ns,
    )
