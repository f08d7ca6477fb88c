"""Energy of DRAM accesses, as published; the sources differ about threefold for in-bank access."""

from typing import Annotated

from pydantic import Field, model_validator

from catalog.records import PositiveFloat, PositiveInt, Record

PicojoulePerBit = Annotated[float, Field(gt=0, le=1000)]


class EnergyRecord(Record):
    """One set of DRAM energies.

    Attributes:
        terms_pj_per_bit: part of the way from the cell to the host → its energy per bit.
        in_bank_terms: the parts that an in-bank (PIM) read pays; empty if the source has no such figure.
        base_die_terms: the parts that a transfer between the base die and the compute at a bank pays (inputs and
            results of PIM); empty if the source has no such figure.
        activate_precharge_pj: opening and closing one row; ``None`` if ``terms_pj_per_bit`` includes it.
        write_pj_per_bit: a host write, if it differs from a read.
        refresh_all_bank_pj: one all-bank refresh.
        active_standby_mw: background power of ``standby_pseudo_channels`` with an open row.
        precharge_standby_mw: background power of as many without one.
        standby_pseudo_channels: pseudo-channels that share the background power.
        multiply_add_pj: one multiply-add at the banks.
        device_link_pj_per_bit: a transfer between devices.
    """

    terms_pj_per_bit: dict[str, PicojoulePerBit] = Field(min_length=1)
    in_bank_terms: tuple[str, ...] = ()
    base_die_terms: tuple[str, ...] = ()
    activate_precharge_pj: PositiveFloat | None = None
    write_pj_per_bit: PicojoulePerBit | None = None
    refresh_all_bank_pj: PositiveFloat | None = None
    active_standby_mw: PositiveFloat | None = None
    precharge_standby_mw: PositiveFloat | None = None
    standby_pseudo_channels: PositiveInt = 1
    multiply_add_pj: PositiveFloat | None = None
    device_link_pj_per_bit: PositiveFloat | None = None

    @model_validator(mode="after")
    def _terms_exist(self) -> "EnergyRecord":
        for field in ("in_bank_terms", "base_die_terms"):
            for term in getattr(self, field):
                if term not in self.terms_pj_per_bit:
                    raise ValueError(f"{field} names '{term}', which is not in terms_pj_per_bit")
        return self

    @property
    def host_read_pj_per_bit(self) -> float:
        """Sum of all parts; row activations come on top if ``activate_precharge_pj`` is given."""
        return sum(self.terms_pj_per_bit.values())

    @property
    def in_bank_read_pj_per_bit(self) -> float | None:
        """Sum of the parts that an in-bank read pays, or ``None`` if the source does not tell."""
        return sum(self.terms_pj_per_bit[term] for term in self.in_bank_terms) if self.in_bank_terms else None
