"""The least profile that carries so many bytes by a deadline: rates worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwright.errors import QosError, WrongUse
from cellwright.qos.choice import Reliability, choose, spoken
from cellwright.qos.profile import QosProfile, Rate
from cellwright.qos.profiles import ProfilesClient
from cellwright.qos.simulator.options import default_profiles


def offered(name, value, unit, **more):
    rate = {"targetMinDownstreamRate": {"value": value, "unit": unit}}
    return QosProfile.model_validate({"name": name, "status": "ACTIVE", **rate, **more})


SMALL, LARGE = offered("small", 30, "Mbps"), offered("large", 5, "Gbps")


def test_every_unit_means_what_it_says():
    units = {"bps": 7, "kbps": 7e3, "Mbps": 7e6, "Gbps": 7e9, "Tbps": 7e12}
    assert {unit: Rate(value=7, unit=unit).bit_s for unit in units} == units
    assert Rate(value=7).bit_s is None


def test_vgg_in_a_second_takes_five_gigabit_and_says_why():
    found = choose([SMALL, LARGE], 536_870_912, 1.0)
    assert found.required_bit_s == 536_870_912 * 8
    assert (found.name, found.guaranteed_bit_s, found.duration_s) == ("large", 5e9, 2)
    assert found.expected_s == pytest.approx(4.294967296 / 5)
    assert found.why == (
        "536,870,912 bytes in 1 s need 4.29 Gbit/s: large guarantees 5 Gbit/s, the least of 1 profiles that suffice out of 2; "
        "small guarantees 30 Mbit/s only"
    )


def test_a_rate_that_is_met_exactly_suffices_and_one_bit_more_does_not():
    assert choose([SMALL, LARGE], 3_750_000, 1.0).name == "small"
    assert choose([SMALL, LARGE], 3_750_001, 1.0).name == "large"
    assert choose([SMALL, LARGE], 3_750_000, 1.0, overhead=0.01).name == "large"


def test_what_set_up_takes_of_the_deadline_is_no_time_for_the_transfer():
    assert choose([SMALL, LARGE], 3_000_000, 1.0, setup_s=0.2).required_bit_s == 30e6  # 24 Mbit in the 0.8 s that are left
    assert choose([SMALL, LARGE], 3_000_000, 1.0, setup_s=0.2).name == "small"
    found = choose([SMALL, LARGE], 3_000_001, 1.0, setup_s=0.2)
    assert (found.name, found.tight) == ("large", False)
    assert found.why.startswith("3,000,001 bytes in 1 s, 0.2 s of it for set-up, need 30 Mbit/s: large guarantees 5 Gbit/s")
    assert found.expected_s == pytest.approx(24_000_008 / 5e9)


@pytest.mark.parametrize("setup_s", [0.3, 1.0, 7.0])
def test_where_nothing_leaves_time_for_the_set_up_the_fastest_that_carries_the_bytes_is_taken_and_said(setup_s):
    medium = offered("medium", 4, "Gbps")
    found = choose([SMALL, medium, LARGE], 475_000_000, 1.0, setup_s=setup_s)  # 3.8 Gbit
    assert (found.name, found.tight, found.required_bit_s) == ("large", True, 3.8e9)
    assert f"no profile leaves {setup_s:.2g} s for the set-up, so the deadline may be missed by as much" in found.why
    with pytest.raises(QosError, match=r"need 5\.6 Gbit/s .* no profile suffices; the best is large"):
        choose([SMALL, medium, LARGE], 700_000_000, 1.0, setup_s=setup_s)
    with pytest.raises(WrongUse, match="set-up not negative"):
        choose([LARGE], 1, 1.0, setup_s=-0.1)


@pytest.mark.parametrize(
    ("more", "lack"),
    [
        ({"status": "INACTIVE"}, "is INACTIVE"),
        ({"status": "DEPRECATED"}, "is DEPRECATED"),
        ({"maxDuration": {"value": 5, "unit": "Seconds"}}, "lasts 5 s at most"),
        ({"maxDownstreamRate": {"value": 500, "unit": "kbps"}}, "guarantees 500 kbit/s only"),
        ({"targetMinDownstreamRate": {"value": 4}}, "guarantees no rate"),
    ],
)
def test_what_does_not_suffice_is_passed_over(more, lack):
    lacking = offered("lacking", 40, "Mbps").model_dump(by_alias=True, exclude_none=True, mode="json") | more
    lacking = QosProfile.model_validate(lacking)
    assert choose([lacking, LARGE], 1_000_000, 10.0).name == "large"
    with pytest.raises(QosError, match=lack):
        choose([lacking], 1_000_000, 10.0)


def test_only_a_guaranteed_rate_counts_never_a_maximum():
    best_effort = QosProfile.model_validate(
        {"name": "fast", "status": "ACTIVE", "maxDownstreamRate": {"value": 10, "unit": "Gbps"}}
    )
    with pytest.raises(QosError, match="no active profile guarantees any rate"):
        choose([best_effort], 1000, 1.0)


def test_reliability_asks_for_an_exponent():
    plain, reliable = offered("plain", 30, "Mbps", packetErrorLossRate=3), offered("reliable", 30, "Mbps", packetErrorLossRate=5)
    assert choose([reliable, plain], 1000, 1.0).name == "plain"
    assert choose([reliable, plain], 1000, 1.0, reliability_class=Reliability.THREE_NINES).name == "plain"
    assert choose([reliable, plain], 1000, 1.0, reliability_class=Reliability.FIVE_NINES).name == "reliable"
    with pytest.raises(QosError, match="reliable allows packet loss of 1e-5"):
        choose([reliable, plain], 1000, 1.0, reliability_class=Reliability.SIX_NINES)
    assert [str(r) for r in Reliability] == ["any", "99.9 %", "99.999 %", "99.9999 %"]


def test_among_equals_the_one_that_takes_least_from_others():
    first, last = offered("urgent", 30, "Mbps", priority=10), offered("patient", 30, "Mbps", priority=90)
    assert choose([first, last], 1000, 1.0).name == "patient"


def test_upstream_and_country():
    up = offered(
        "uplink", 1, "Mbps", targetMinUpstreamRate={"value": 50, "unit": "Mbps"}, countryAvailability=[{"countryName": "DE"}]
    )
    assert choose([SMALL, up], 1_000_000, 1.0, upstream=True, country="DE").name == "uplink"
    with pytest.raises(QosError, match="is not offered in FR"):
        choose([up], 1_000_000, 1.0, upstream=True, country="FR")


def test_the_error_names_the_best_there_is():
    with pytest.raises(
        QosError, match=r"need 80 Gbit/s .* the best is large \(5 Gbit/s\), which takes 16 s.*small guarantees 30 Mbit/s only"
    ):
        choose([SMALL, LARGE], 10_000_000_000, 1.0)
    with pytest.raises(QosError, match="no QoS profile at all"):
        choose([], 1, 1.0)


@pytest.mark.parametrize(("size", "deadline_s"), [(0, 1.0), (-1, 1.0), (1, 0.0), (1, float("nan"))])
def test_a_need_that_is_none_is_wrong_use(size, deadline_s):
    with pytest.raises(WrongUse, match="must be positive"):
        choose([LARGE], size, deadline_s)


def test_the_first_grant_stays_within_what_the_profile_allows():
    day = offered("day", 30, "Mbps", minDuration={"value": 1, "unit": "Days"})
    brief = offered("brief", 30, "Mbps", maxDuration={"value": 11, "unit": "Seconds"})
    assert choose([day], 1000, 10.0).duration_s == 86400
    assert choose([brief], 1000, 10.0).duration_s == 11


@given(size=st.integers(1, 10**10), deadline_s=st.floats(0.01, 3600))
def test_what_is_chosen_suffices_and_nothing_less_does(size, deadline_s):
    profiles = default_profiles()
    rates = sorted({p.guaranteed_bit_s() for p in profiles if p.guaranteed_bit_s() >= size * 8 / deadline_s})
    if rates:
        assert choose(profiles, size, deadline_s).guaranteed_bit_s == rates[0]
    else:
        with pytest.raises(QosError):
            choose(profiles, size, deadline_s)


def test_profiles_of_a_network(network):
    client = ProfilesClient(network.url, network.token())
    assert [p.name for p in client.retrieve()] == ["gold", "silver", "gone", "short"]
    assert [p.name for p in client.retrieve(status="DEPRECATED")] == ["gone"]
    assert client.get("gold").guaranteed_bit_s() == 100e6
    with pytest.raises(QosError, match="NOT_FOUND"):
        client.get("none")
    assert choose(client.retrieve(), 6_250_000, 1.0).name == "silver"
    client.close()


def test_rates_for_people():
    assert [spoken(rate) for rate in (4.294967296e9, 999.9e6, 22e6, 5e3, 7)] == [
        "4.29 Gbit/s",
        "1 Gbit/s",
        "22 Mbit/s",
        "5 kbit/s",
        "7 bit/s",
    ]
