"""Meters: what is measured, what is modelled, what is apportioned, and what is absent."""

import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwright.energy.counters import Rapl
from cellwright.energy.meter import Counters, Idle, Meter, _counted, _measure_idle
from cellwright.energy.profile import _cpu_w_per_core, co2_g_per_kwh, profile
from cellwright.energy.sources import _rapl, sources
from cellwright.energy.usage import usage
from cellwright.errors import ParamsError
from cellwright.params import Energy
from cellwright.results import Reading

NO_COUNTERS = Counters(None, None)


def work(cpu_s: float) -> None:
    end = time.thread_time() + cpu_s
    while time.thread_time() < end:
        pass


def test_without_counters_the_cpu_is_modelled_from_cpu_seconds_and_the_gpu_is_absent():
    with Meter(Energy(cpu_w_per_core=10), counters=NO_COUNTERS) as meter:
        work(0.05)
    reading = meter.reading
    assert reading.cpu_s >= 0.05
    assert reading.cpu.energy_j == pytest.approx(10 * reading.cpu_s)
    assert (reading.cpu.source, reading.ram.source) == ("modelled", "modelled")
    assert (reading.gpu.energy_j, reading.gpu.source) == (None, None)
    assert reading.idle_w is None
    assert "10 W a busy core (energy.cpu_w_per_core)" in reading.meter
    assert "no GPU meter" in reading.meter


def test_carbon_is_the_energy_times_the_countrys_intensity():
    with Meter(Energy(country="FRA"), counters=NO_COUNTERS) as meter:
        work(0.02)
    assert meter.reading.co2_g == pytest.approx(meter.reading.energy_j / 3.6e6 * co2_g_per_kwh("FRA"))
    assert co2_g_per_kwh("FRA") < co2_g_per_kwh("DEU") < co2_g_per_kwh("POL")


def test_an_unknown_country_is_refused_instead_of_taken_for_the_world():
    with pytest.raises(ParamsError, match="no country 'XYZ'"):
        co2_g_per_kwh("XYZ")


def test_idling_costs_no_cpu_energy():
    with Meter(Energy(cpu_w_per_core=10), counters=NO_COUNTERS) as meter:
        time.sleep(0.1)
    assert meter.reading.duration_s >= 0.1
    assert meter.reading.cpu.energy_j < 0.5  # a tenth of a second of work would be 1 J


def test_the_work_of_children_counts_while_they_run_and_after_they_end():
    busy = "import time\nend = time.process_time() + 0.15\nwhile time.process_time() < end: pass\nprint('done', flush=True)\n"
    before = usage()
    child = subprocess.Popen([sys.executable, "-c", busy + "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    assert usage().cpu_s - before.cpu_s > 0.1
    child.communicate(b"\n")
    assert usage().cpu_s - before.cpu_s > 0.14


def test_meters_that_overlap_in_threads_count_their_own_thread_and_are_marked_shared():
    readings, both = {}, threading.Barrier(2)

    def candidate(name: str, cpu_s: float) -> None:
        with Meter(Energy(cpu_w_per_core=10), threads=1, counters=NO_COUNTERS) as meter:
            both.wait()
            work(cpu_s)
            both.wait()
        readings[name] = meter.reading

    threads = [threading.Thread(target=candidate, args=a) for a in (("short", 0.05), ("long", 0.2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(r.shared for r in readings.values())
    assert 0.05 <= readings["short"].cpu_s < 0.15 < 0.2 <= readings["long"].cpu_s


def test_nested_meters_of_one_thread_are_not_taken_for_rivals():
    with Meter(Energy(), counters=NO_COUNTERS) as outer, Meter(Energy(), counters=NO_COUNTERS) as inner:
        work(0.01)
    assert not outer.reading.shared
    assert not inner.reading.shared


def test_a_reading_before_the_block_ends_is_refused():
    with Meter(Energy(), counters=NO_COUNTERS) as meter, pytest.raises(RuntimeError, match="leave its `with` block"):
        _ = meter.reading


def test_the_idle_baseline_is_subtracted_from_what_a_counter_counted():
    assert _counted(100, 5, 10, 1.0, shared=False) == Reading(energy_j=50, source="measured")
    assert _counted(100, 5, 10, 0.5, shared=True) == Reading(energy_j=25, source="modelled")
    assert _counted(None, 5, 10, 1.0, shared=False) == Reading(energy_j=None, source=None)


def test_rapl_is_measured_and_says_when_no_baseline_was_subtracted(powercap):
    counters = Counters(Rapl.open(powercap.folder), None)
    meter = Meter(Energy(idle_s=0), counters=counters)
    with meter:
        powercap.set_j(20.5)
    assert meter.reading.cpu.source == "measured"
    assert meter.reading.cpu.energy_j == pytest.approx(20, rel=1e-6)
    assert "idle power not subtracted" in meter.reading.meter
    counters.close()


def test_rapl_of_a_shared_machine_is_apportioned_by_cpu_seconds_and_marked_modelled(powercap):
    counters = Counters(Rapl.open(powercap.folder), None)
    with Meter(Energy(idle_s=0), shared=True, counters=counters) as meter:
        work(0.1)
        powercap.set_j(20.5)
    assert meter.reading.cpu.source == "modelled"
    assert 0 < meter.reading.cpu.energy_j <= 20
    counters.close()


def test_rapl_counts_on_when_its_counter_wraps(powercap):
    powercap.set_j(999)
    counter = Rapl.open(powercap.folder)
    powercap.set_j(1)
    assert counter.joules() == pytest.approx(2, rel=1e-6)  # 999 -> 1000, its range, -> 1
    powercap.set_j(4)
    assert counter.joules() == pytest.approx(5, rel=1e-6)
    counter.close()


def test_without_counters_no_time_is_spent_on_an_idle_baseline():
    assert _measure_idle(NO_COUNTERS, seconds=3600) == Idle(None, None)


@given(counted=st.floats(0, 1e6), idle=st.floats(0, 500), duration=st.floats(0, 1e4), share=st.floats(0, 1))
def test_what_is_apportioned_is_never_negative_nor_more_than_was_counted(counted, idle, duration, share):
    reading = _counted(counted, idle, duration, share, shared=True)
    assert 0 <= reading.energy_j <= counted


def test_the_power_of_a_listed_chip_is_shared_out_over_the_cores_and_a_virtual_machine_is_not_charged_for_a_whole_chip():
    listed, words = _cpu_w_per_core("Intel(R) Xeon(R) Platinum 8280 CPU @ 2.70GHz", virtual=False)
    assert "TDP 205 W" in words
    assert listed > 0
    assert _cpu_w_per_core("Intel(R) Xeon(R) Platinum 8280 CPU @ 2.70GHz", virtual=True)[0] == 4
    assert _cpu_w_per_core("no such chip", virtual=False)[0] == 4


def test_children_inherit_the_profile_instead_of_finding_it_again():
    profile()
    code = "import sys; from cellwright.energy.profile import profile; profile(); print('codecarbon' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_sources_tell_every_part_and_why_a_meter_is_missing(tmp_path, powercap):
    found = sources(Energy())
    assert {s.part for s in found} == {"CPU", "RAM", "GPU"}
    assert all(s.words for s in found)
    assert _rapl(powercap.folder).available
    missing = _rapl(tmp_path / "elsewhere" / "powercap")
    assert not missing.available
    assert "no " in missing.words
