"""Energy of a stream: what its rows, its bits and its refreshes cost."""

from dataclasses import dataclass

from catalog import DramRecord, EnergyRecord, ForestageError, load_catalog
from pim_model.streaming import StreamResult
from pim_model.timing import Access

DEFAULT_ENERGY = "oconnor-2017"


@dataclass(frozen=True, kw_only=True)
class StreamEnergy:
    """Energy by part.

    Attributes:
        source: Name of the catalogue's energy set.
        parts_pj: What each part costs: the set's terms, and ``activate_precharge`` and ``refresh`` where it gives them.
        moved_bytes: Bytes that it paid for.
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
        """Total a bit moved."""
        return self.total_pj / (8 * self.moved_bytes)


def find_energy(name: str = DEFAULT_ENERGY) -> EnergyRecord:
    """The catalogue's energy set ``name``.

    Raises:
        ForestageError: naming the nearest known one.
    """
    return load_catalog().energy.find(name)


def stream_energy(stream: StreamResult, device: DramRecord, energy: EnergyRecord) -> StreamEnergy:
    """Energy of ``stream``, which went through ``device``.

    A host read pays all terms for each bit; a host write the set's own figure, if it has one, in their place; an
    in-bank read those of ``energy.in_bank_terms``. Each row opened pays ACT+PRE; a per-bank refresh pays its bank's
    share of an all-bank one. No background power: that belongs to a duration of the whole system.

    Raises:
        ForestageError: in-bank access with a set that does not tell what it costs.
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
    """pJ a bit of the parts that ``access`` pays."""
    if access is Access.IN_BANK:
        if not energy.in_bank_terms:
            raise ForestageError(
                f"energy '{energy.name}': in_bank_terms: it does not tell an in-bank read's; choose another"
            )
        return {term: energy.terms_pj_per_bit[term] for term in energy.in_bank_terms}
    if access is Access.HOST_WRITE and energy.write_pj_per_bit is not None:
        return {"write": energy.write_pj_per_bit}
    return dict(energy.terms_pj_per_bit)
