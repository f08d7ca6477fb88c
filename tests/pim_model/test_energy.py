"""Energy per event, with numbers computed by hand: picojoules, bits and bytes, milliwatts and nanoseconds."""

import pytest

from catalog import ForestageError, load_catalog
from pim_model.dram.devices import Access, find_device
from pim_model.dram.expert_stream import stream
from pim_model.energy import Energy, EnergyEvents, energy_of, find_energy, stream_energy, unit_events


def test_each_event_of_the_default_set_by_hand() -> None:
    """O'Connor 2017: ACT+PRE 909 pJ; 1.51 + 1.17 + 0.80 pJ a bit; REFab 58,176 pJ. A byte is 8 bits."""
    default = find_energy()
    assert energy_of(EnergyEvents(activations=3), default).parts_pj == {"activate_precharge": 2727}
    read = energy_of(EnergyEvents(host_read_bytes=32), default)  # a burst: 256 bits
    assert read.parts_pj == pytest.approx({"array": 386.56, "io": 299.52, "phy": 204.8})
    assert read.total_pj == pytest.approx(256 * 3.48)
    # In the bank neither I/O nor PHY; between base die and bank no cells and no PHY.
    assert energy_of(EnergyEvents(in_bank_bytes=32), default).parts_pj == pytest.approx({"array": 386.56})
    assert energy_of(EnergyEvents(base_die_bytes=32), default).parts_pj == pytest.approx({"io": 299.52})
    assert energy_of(EnergyEvents(all_bank_refreshes=2), default).parts_pj == {"refresh": 116_352}
    assert energy_of(EnergyEvents(all_bank_refreshes=1 / 16), default).total_pj == 3636


def test_standby_is_milliwatts_times_nanoseconds() -> None:
    """1 mW for 1 ns is 1 pJ. DRAMsim3: 66 and 48 mW a channel, of which a pseudo-channel is half."""
    result = energy_of(EnergyEvents(active_ns=1000, precharged_ns=500), find_energy("dramsim3-hbm2"))
    assert result.parts_pj == {"active_standby": 33_000, "precharge_standby": 12_000}
    assert result.total_pj == 45_000  # 45 nJ: 33 mW · 1 µs + 24 mW · 0.5 µs


def test_dramsim3s_reads_and_writes() -> None:
    # 804 pJ a read of 64 bytes is 1.57 pJ a bit.
    read = energy_of(EnergyEvents(host_read_bytes=64), find_energy("dramsim3-hbm2"))
    assert read.total_pj == pytest.approx(804, rel=0.001)
    write = energy_of(EnergyEvents(host_write_bytes=64), find_energy("dramsim3-hbm2"))
    assert write.parts_pj == pytest.approx({"write": 1070.08})
    assert write.assumptions == ()


def test_attaccs_parts_and_its_multiply_add() -> None:
    attacc = find_energy("attacc")
    events = EnergyEvents(in_bank_bytes=1, base_die_bytes=1, multiply_adds=100, activations=1)
    result = energy_of(events, attacc)
    assert result.parts_pj == pytest.approx(
        {
            "cell_activate_precharge": 0.88,
            "cell_access": 3.52,
            "column_to_bank_group": 8.08,
            "bank_group_to_global_io": 9.84,
            "tsv": 4.0,
            "multiply_add": 32.0,
        }
    )
    assert result.assumptions == ("activate_precharge: in the terms a bit, whatever the bytes a row",)


def test_what_a_set_lacks_is_named_and_not_counted_as_nothing() -> None:
    everything = EnergyEvents(
        activations=1,
        host_read_bytes=1,
        host_write_bytes=1,
        base_die_bytes=1,
        all_bank_refreshes=1,
        multiply_adds=1,
        active_ns=1,
        precharged_ns=1,
    )
    default = energy_of(everything, find_energy())
    assert default.not_counted == ("active_standby", "precharge_standby")
    assert default.assumptions == ("host write: as a read", "multiply_add: that of attacc")
    assert default.parts_pj["multiply_add"] == 0.32
    assert energy_of(everything, find_energy("dramsim3-hbm2")).not_counted == ("base_die_bits",)
    plain = energy_of(everything, find_energy("accelergy-hbm2"))
    assert plain.not_counted == ("base_die_bits", "refresh", "active_standby", "precharge_standby")
    # What does not happen is missing from no set.
    assert energy_of(EnergyEvents(), find_energy("accelergy-hbm2")) == Energy(source="accelergy-hbm2", parts_pj={})


def test_in_bank_reads_need_a_set_that_tells_them() -> None:
    for name in ("dramsim3-hbm2", "accelergy-hbm2"):
        with pytest.raises(ForestageError, match=f"energy '{name}': in_bank_terms"):
            energy_of(EnergyEvents(in_bank_bytes=1), find_energy(name))


def test_an_in_bank_read_costs_less_than_a_host_read_in_every_set_that_has_both() -> None:
    for energy in load_catalog().energy:
        if energy.in_bank_terms:
            inside = energy_of(EnergyEvents(in_bank_bytes=64), energy).total_pj
            assert 0 < inside < energy_of(EnergyEvents(host_read_bytes=64), energy).total_pj


def test_a_pim_units_commands_as_events() -> None:
    # HBM2-PIM: 8 blocks of 32 bytes a column; a burst is 32 bytes.
    events = unit_events(
        find_device("HBM2-PIM"),
        activations=16,
        columns=10,
        transfers=3,
        refreshes=1,
        multiply_adds=5120,
        active_ns=40,
        precharged_ns=14,
    )
    assert (events.in_bank_bytes, events.base_die_bytes, events.activations) == (2560, 96, 16)
    result = energy_of(events, find_energy())
    assert result.parts_pj == pytest.approx(
        {
            "array": 2560 * 8 * 1.51,
            "io": 96 * 8 * 1.17,
            "activate_precharge": 16 * 909,
            "refresh": 58_176,
            "multiply_add": 5120 * 0.32,
        }
    )
    with pytest.raises(ForestageError, match="no compute at its banks"):
        unit_events(
            find_device("HBM2"),
            activations=0,
            columns=0,
            transfers=0,
            refreshes=0,
            multiply_adds=0,
            active_ns=0,
            precharged_ns=0,
        )


def test_a_stream_is_active_while_it_lasts() -> None:
    device = find_device("HBM2")
    run = stream(device, 1024, Access.HOST_READ)
    result = stream_energy(run, device, find_energy("dramsim3-hbm2"))
    assert result.parts_pj["active_standby"] == pytest.approx(33 * run.time_ns)
    assert stream_energy(run, device, find_energy()).not_counted == ("active_standby",)
