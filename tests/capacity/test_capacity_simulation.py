"""The shared link against hand-made schedules, and the formulas against the simulation."""

import math

import numpy as np
import pytest
import simpy

from cellwright.capacity import sharing
from cellwright.capacity.config import read
from cellwright.capacity.demand import demand
from cellwright.capacity.link import SharedLink
from cellwright.capacity.plan import compare, plan
from cellwright.capacity.servers import servers
from cellwright.capacity.simulate import simulate
from cellwright.capacity.timing import timing
from cellwright.errors import WrongUse

MARGIN, CRITICAL_MARGIN, PEAK_MARGIN = (
    0.03,
    0.06,
    0.1,
)  # of the share in time: docs/capacity.md; critical: within 10 % of saturation
SPREAD = {
    "catalogue.models": 200,
    "catalogue.zipf": 0.8,
    "catalogue.size": {"kind": "log_uniform", "low_bytes": 3.2e6, "high_bytes": 536e6},
}


def fixed(size_bytes):
    return {"catalogue.size": {"kind": "fixed", "size_bytes": size_bytes}}


def ends(jobs, capacity, cap=float("inf")):
    """`jobs`: (arrival, bits). Ends by arrival."""
    env = simpy.Environment()
    link, found = SharedLink(env, capacity, cap), {}

    def one(k, at, bits):
        yield env.timeout(at)
        yield link.transfer(bits)
        found[k] = env.now

    for k, (at, bits) in enumerate(jobs):
        env.process(one(k, at, bits))
    env.run()
    return [found[k] for k in range(len(jobs))], link


def test_two_share_a_link_and_the_first_speeds_up_when_alone():
    # 10 bit/s: the first has 20 bits when the second comes with 30; both get 5 bit/s until the first ends at 6
    found, link = ends([(0, 40), (2, 30)], 10)
    assert found == pytest.approx([6.0, 7.0])
    assert (link.moved_bits, link.busiest_bit_s) == (pytest.approx(70), 10)


def test_a_cap_leaves_a_link_idle_until_enough_share_it():
    # cap 4 of 10 bit/s: two get 4 each, three 10/3 each
    assert ends([(0, 8), (0, 8)], 10, 4)[0] == pytest.approx([2.0, 2.0])
    assert ends([(0, 10), (0, 10), (0, 10)], 10, 4)[0] == pytest.approx([3.0] * 3)


def test_a_link_agrees_with_a_step_by_step_schedule():
    rng = np.random.default_rng(3)
    jobs = list(zip(np.sort(rng.random(60) * 10), rng.exponential(5, 60), strict=True))
    assert ends(jobs, 30, 9)[0] == pytest.approx(naive(jobs, 30, 9))


def naive(jobs, capacity, cap):
    left, done, now, waiting = {}, {}, 0.0, list(enumerate(jobs))
    while left or waiting:
        rate = min(cap, capacity / len(left)) if left else 0.0
        first = min(left.values()) / rate if left else np.inf
        until = waiting[0][1][0] - now if waiting else np.inf
        step = min(first, until)
        left = {k: bits - rate * step for k, bits in left.items()}
        now += step
        for k in [k for k, bits in left.items() if bits <= 1e-9]:
            done[k] = now
            del left[k]
        while waiting and waiting[0][1][0] <= now + 1e-12:
            k, (_, bits) = waiting.pop(0)
            left[k] = bits
    return [done[k] for k in range(len(jobs))]


def md1_ps(load, deadline):
    """P(V <= deadline) in the M/D/1 queue with processor sharing, service 1: Ott's transform (in Egorova, Zwart and Boxma, 2006),
    inverted by a Fourier series whose partial sums are averaged (Abate and Whitt's Euler algorithm)."""
    accuracy, terms, averaged = 18.4, 400, 12
    s = (accuracy + 2j * np.pi * np.arange(terms + averaged + 1)) / (2 * deadline)
    tail = np.exp(-(load + s))
    transform = (1 - load) * (load + s) ** 2 * tail / (s * s + load * (s + (load + s) * (1 - load)) * tail)
    series = np.real(transform / s) * (-1.0) ** np.arange(len(s)) * np.exp(accuracy / 2) / deadline
    series[0] /= 2
    partial = np.cumsum(series)[terms:]
    return float(partial @ [math.comb(averaged, k) / 2**averaged for k in range(averaged + 1)])


def test_the_transform_itself_gives_what_is_known():
    # nobody is done below the service; at once are (1 - load) exp(-load): alone, and nobody comes meanwhile
    assert md1_ps(0.5, 0.9) == pytest.approx(0.0, abs=1e-3)
    assert md1_ps(0.5, 1.05) == pytest.approx(0.5 * np.exp(-0.5), abs=0.02)
    # the mean is 1 / (1 - load) whatever the sizes (insensitivity): the area above the distribution function
    times = np.arange(1.0005, 30, 0.01)
    assert 1 + np.trapezoid([1 - md1_ps(0.5, t) for t in times], times) == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize("load", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("deadline_s", [0.5, 1.0, 2.0])
def test_the_long_run_agrees_with_the_exact_distribution(load, deadline_s):
    # 12.5 MB on 1 Gbit/s: 0.1 s alone. The plan's distribution of the number on the link is exact, the time that follows is not
    over = {
        **fixed(1.25e7),
        "deadline_s": deadline_s,
        "network.edges": 1,
        "network.edge_bit_s": 1e9,
        "network.device_bit_s": 1e12,
        "arrivals": {"kind": "poisson", "duration_s": 86_400.0, "rate_per_km2_s": 10 * load},
    }
    assert plan(read(None, over)).outcome.in_time == pytest.approx(md1_ps(load, 10 * deadline_s), abs=0.012)


def test_many_requests_over_a_long_time_fluctuate_as_few_do():
    # once followed for so long, the number was taken for constant and everybody for served (1.0 instead of 0.1)
    over = {
        **fixed(536e6),
        "deadline_s": 2.0,
        "network.edges": 1,
        "network.edge_bit_s": 5.36e9,
        "network.device_bit_s": 1e12,
        "arrivals": {"kind": "poisson", "duration_s": 86_400.0, "rate_per_km2_s": 0.95 / 0.8},
    }
    assert plan(read(None, over)).outcome.in_time == pytest.approx(md1_ps(0.95, 2.5), abs=0.012)


@pytest.mark.parametrize("duration_s", [600.0, 36_000.0])
def test_a_crowd_is_seen_however_long_the_time_around_it(duration_s):
    over = {
        **fixed(64e6),
        "network.edges": 1,
        "devices_per_km2": 2000,
        "network.edge_bit_s": 50e9,
        "arrivals": {"kind": "burst", "at_s": duration_s / 2, "width_s": 5.0, "share": 0.8, "duration_s": duration_s},
    }
    found = compare(read(None, over), seed=4, max_requests=4_000)
    assert found.simulated.in_time == pytest.approx(found.in_time, abs=CRITICAL_MARGIN)
    assert 0.5 < found.simulated.in_time < 0.7


def test_the_simulated_link_has_the_exact_mean_of_processor_sharing():
    # 20,000 services of 1 s at load 0.5 take 2 s on average; the standard error, with their correlation, is below 0.03
    rng = np.random.default_rng(11)
    arrivals = np.cumsum(rng.exponential(2.0, 20_000))
    found, _ = ends([(at, 1.0) for at in arrivals], 1.0)
    assert np.mean(np.array(found) - arrivals) == pytest.approx(2.0, abs=0.08)


def test_all_at_once_ends_in_order_of_size():
    # 100 requests, half of 1 bit and half of 3, share 100 bit/s: the small end at 1 s, the large at 1 + 100/100 = 2 s
    pool = sharing.Pool(100, timing(read(None).arrivals), np.array([1.0, 3.0]), np.array([0.5, 0.5]), np.zeros(2), 100.0, 1e9)
    assert [sharing.share_in_time(pool, deadline) for deadline in (0.99, 1.0, 1.99, 2.0)] == [0.0, 0.5, 0.5, 1.0]


@pytest.mark.parametrize(
    ("over", "margin"),
    [
        ({**SPREAD, "network.edges": 50}, MARGIN),
        ({**SPREAD, "network.edges": 60, "levers.use": ["delta", "device_cache"]}, MARGIN),
        ({**SPREAD, "network.edges": 60, "levers.use": ["multicast"], "levers.multicast_models": 5}, MARGIN),
        ({**SPREAD, "network.edges": 100, "network.edge_disk_bytes": 5e9, "network.origin_bit_s": 100e9}, MARGIN),
        ({**fixed(64e6), "network.edges": 3, "network.edge_bit_s": 20e9, "levers.use": ["staggering"]}, MARGIN),
        ({**fixed(64e6), "network.edges": 5, "network.edge_bit_s": 50e9, "arrivals": {"kind": "burst"}}, MARGIN),
        (
            {
                **fixed(64e6),
                "devices_per_km2": 2000,
                "network.edges": 1,
                "network.edge_bit_s": 14e9,
                "arrivals": {"kind": "poisson"},
            },
            MARGIN,
        ),
        ({**fixed(3.2e6), "network.edges": 3, "network.cell_bit_s": 10e9, "network.cell_km2": 0.03}, MARGIN),
        (
            {
                **fixed(536e6),
                "devices_per_km2": 4000,
                "network.edges": 1,
                "network.edge_bit_s": 18e9,
                "deadline_s": 2,
                "arrivals": {"kind": "poisson", "duration_s": 1200},
            },
            CRITICAL_MARGIN,
        ),
    ],
)
def test_formulas_agree_with_the_simulation(over, margin):
    found = compare(read(None, over), seed=12, max_requests=4_000)
    assert found.simulated.in_time == pytest.approx(found.in_time, abs=margin)
    assert found.simulated.peak_bit_s == pytest.approx(found.peak_bit_s, rel=PEAK_MARGIN)
    assert found.simulated.peak_bit_s <= found.bound_bit_s
    assert found.simulated.hit_rate == pytest.approx(found.hit_rate, abs=0.03)


def test_same_seed_same_result_and_no_request_is_lost():
    config = read(None, {**SPREAD, "network.edges": 20, "devices_per_km2": 2000, "network.edge_disk_bytes": 4e9})
    asked = demand(config, ("delta", "staggering"))
    given = servers(config, asked, 20)
    one, two, other = (simulate(asked, given, seed=seed) for seed in (5, 5, 6))
    assert one.duration_s.tolist() == two.duration_s.tolist() != other.duration_s.tolist()
    assert one.requests == 2000
    assert np.isfinite(one.duration_s).all()


def test_a_part_of_the_edges_is_simulated_with_its_part_of_the_requests():
    config = read(None, {"network.edges": 500})
    found = compare(config, seed=1, max_requests=400)
    assert (found.simulated.edges, found.simulated.requests, found.simulated.in_time) == (20, 400, 1.0)
    assert found.simulated.peak_bit_s == found.peak_bit_s == 400 * 536_870_912 * 8


def test_a_broadcast_that_takes_the_whole_link_leaves_the_others_unserved():
    over = {
        **fixed(1e6),
        "levers.use": ["multicast"],
        "levers.multicast_bit_s": 1e9,
        "network.edge_bit_s": 1e9,
        "network.edges": 1,
    }
    found = compare(read(None, over | {"devices_per_km2": 100}), seed=1, max_requests=1000)
    assert found.simulated.in_time == pytest.approx(found.in_time, abs=0.1) == pytest.approx(0.8, abs=0.1)


def test_nothing_to_simulate_where_no_number_of_edges_is_enough():
    with pytest.raises(WrongUse, match="--edges"):
        compare(read(None, {"network.edge_bit_s": 1e9}), seed=1, max_requests=100)


def test_more_requests_than_a_simulation_holds_are_refused():
    config = read(None, {"area_km2": 1000.0, "network.edges": 1})
    with pytest.raises(WrongUse, match=r"10,000,000 requests .* smaller area"):
        compare(config, seed=1, max_requests=10)
