"""Energy of a stream: the cost of its row activations, its bits and its refreshes."""

from dataclasses import dataclass

from catalog import DramRecord, EnergyRecord, ForestageError, load_catalog
from pim_model.dram.devices import Access
from pim_model.dram.expert_stream import StreamResult

DEFAULT_ENERGY = "oconnor-2017"


@dataclass(frozen=True, kw_only=True)
class StreamEnergy:
    """Energy by part.

    Attributes:
        source: Name of the catalogue's energy set.
        parts_pj: Cost of each part: the set's terms, and ``activate_precharge`` and ``refresh`` if the set has them.
        moved_bytes: Bytes moved for that energy.
    """

    source: str
    parts_pj: dict[str, float]
    moved_bytes: int

    @property
    def total_pj(self) -> float:
        """Sum of the parts."""
        return sum(self.parts_pj.values())

    @property
    def pj_per_bit(self) -> float:
        """Total per bit moved."""
        return self.total_pj / (8 * self.moved_bytes)


def find_energy(name: str = DEFAULT_ENERGY) -> EnergyRecord:
    """The catalogue's energy set ``name``.

    Raises:
        ForestageError: naming the nearest known one.
    """
    return load_catalog().energy.find(name)


def stream_energy(stream: StreamResult, device: DramRecord, energy: EnergyRecord) -> StreamEnergy:
    """Energy of ``stream`` through ``device``.

    Each bit of a host read costs all terms, of a host write the set's write figure (if it has none, all terms), of an
    in-bank read the terms in ``energy.in_bank_terms``. Each opened row costs ACT+PRE; a per-bank refresh costs its
    bank's share of an all-bank one. Background power is not counted: it depends on the whole system's time.

    Raises:
        ForestageError: in-bank access with an energy set that has no in-bank figure.
    """
    bits = 8 * stream.moved_bytes
    parts = {term: bits * pj for term, pj in _terms(stream.access, energy).items()}
    if energy.activate_precharge_pj is not None:
        parts["activate_precharge"] = stream.activations * energy.activate_precharge_pj
    if energy.refresh_all_bank_pj is not None:
        refreshes = stream.all_bank_refreshes + stream.per_bank_refreshes / device.banks
        parts["refresh"] = refreshes * energy.refresh_all_bank_pj
    return StreamEnergy(source=energy.name, parts_pj=parts, moved_bytes=stream.moved_bytes)


def _terms(access: Access, energy: EnergyRecord) -> dict[str, float]:
    """The parts that ``access`` pays, in pJ per bit."""
    if access is Access.IN_BANK:
        if not energy.in_bank_terms:
            raise ForestageError(
                f"energy '{energy.name}': in_bank_terms: it does not tell an in-bank read's; choose another"
            )
        return {term: energy.terms_pj_per_bit[term] for term in energy.in_bank_terms}
    if access is Access.HOST_WRITE and energy.write_pj_per_bit is not None:
        return {"write": energy.write_pj_per_bit}
    return dict(energy.terms_pj_per_bit)
