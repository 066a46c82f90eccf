"""Required rates, edges, caches and levers, against figures worked out by hand."""

import math

import numpy as np
import pytest

from cellwright.capacity import cache
from cellwright.capacity.cases import DENSITIES, DOWNLOADS
from cellwright.capacity.config import LEVERS, read
from cellwright.capacity.demand import demand, fewest
from cellwright.capacity.plan import plan
from cellwright.capacity.population import population
from cellwright.capacity.timing import timing

FULL = 536_870_912 * 8 * 10_000  # bits of the use case in 1 s on a km²


def size(size_bytes):
    return {"catalogue.size": {"kind": "fixed", "size_bytes": size_bytes}}


def test_the_use_case_asks_for_42_9_terabits_a_second_on_a_square_kilometre():
    worked = plan(read(None))
    assert worked.plain.peak_bit_s_km2 == worked.plain.mean_bit_s_km2 == FULL == 42_949_672_960_000
    assert worked.need == worked.plain
    # 23 devices fit into 100 Gbit/s at 4.295 Gbit/s each; 10,000 / 23 = 434.8
    assert (worked.need.edges_by_rate, worked.need.binds) == (435, "rate")
    assert worked.outcome.in_time == 1.0


def test_one_edge_less_leaves_the_devices_of_the_fuller_edges_late():
    worked = plan(read(None, {"network.edges": 434}))
    # 434 × 23 = 9,982: the other 18 make 18 edges hold 24, which take 1.03 s
    assert worked.outcome.in_time == pytest.approx(1 - 18 * 24 / 10_000)


def test_cases_of_3gpp():
    assert [(d.devices_per_km2, d.size_bytes, d.bit_s_km2 / 1e12) for d in DENSITIES] == [
        (5_000, 3.2e6, 0.128),
        (10_000, 3.2e6, 0.256),
        (5_000, 536e6, 21.44),
        (10_000, 536e6, 42.88),
    ]
    assert [(d.bit_s, d.stated_bit_s) for d in DOWNLOADS] == [
        (1.104e9, 1.1e9),
        (640e6, 640e6),
        (512e6, 512e6),
        (19.2e6, 22e6),
    ]


def test_levers_alone_and_together():
    worked = plan(read(None))
    found = {need.levers: need for need in worked.levers}
    assert found["quantisation",].peak_bit_s == FULL / 4
    assert found["device_cache",].mean_bit_s == FULL / 2
    assert found["delta",].mean_bit_s == pytest.approx(FULL * (0.5 + 0.5 * 0.3))
    assert found["staggering",].mean_bit_s == pytest.approx(FULL / 61)  # 60 s of arrivals and the last one's second
    # 80 % join; 20 cells of 0.05 km² each send both models in the second
    assert found["multicast",].broadcast_bit_s == pytest.approx(20 * 2 * 536_870_912 * 8)
    assert found["multicast",].mean_bit_s == pytest.approx(FULL * 0.2 + 20 * 2 * 536_870_912 * 8)
    together = FULL * 0.5 * 0.2 * 0.65 / 4 / 61 + 20 * 2 * 536_870_912 * 8 / 4
    assert found[LEVERS].mean_bit_s == pytest.approx(together)
    assert all(need.reduction == pytest.approx(FULL / need.peak_bit_s) for need in worked.levers)


def test_levers_that_are_used_make_the_plan():
    worked = plan(read(None, {"levers.use": ["quantisation", "device_cache"]}))
    assert worked.need.mean_bit_s == FULL / 8
    assert worked.plain.mean_bit_s == FULL


def test_peak_of_poisson_requests_is_mean_and_normal_quantile():
    over = {"arrivals": {"kind": "poisson", "duration_s": 99}, "confidence": 0.999, **size(1e6)}
    asked = demand(read(None, over), ())
    # 10,000 / 99 a second, Poisson (skew 1 / sqrt(mean)). 100 windows must hold with 0.999 ** 0.01, z = 4.265; sliding, they are
    # 1 + 99 × 4.265 sqrt(101) = 4,245, z = 5.03
    mean = 10_000 / 99
    assert asked.peak_bit_s(0.999) == pytest.approx(8e6 * (mean + 5.03 * math.sqrt(mean) + (5.03**2 - 1) / 6), rel=1e-3)


def test_a_rate_of_requests_may_be_given_instead_of_one_each():
    over = {"arrivals": {"kind": "poisson", "duration_s": 10, "rate_per_km2_s": 50}, "area_km2": 2}
    assert demand(read(None, over), ()).requests == 1000


def test_a_device_that_asks_for_more_than_an_edge_sends_is_said_so():
    worked = plan(read(None, {"network.edge_bit_s": 1e9}))
    assert (worked.need.edges_by_rate, worked.need.edges, worked.need.binds, worked.outcome) == (None, None, "one device", None)


def test_disk_binds_where_the_catalogue_is_large():
    over = {"catalogue.models": 100, "network.edge_disk_bytes": 10 * 536_870_912, "network.hit_rate": 1.0, "devices_per_km2": 20}
    worked = plan(read(None, over))
    assert (worked.need.edges_by_rate, worked.need.edges_by_disk, worked.need.binds) == (1, 10, "disk")
    assert worked.cache_bytes == worked.catalogue_bytes == 100 * 536_870_912


def test_slow_links_of_devices_cap_what_any_number_of_edges_reaches():
    listed = {"kind": "listed", "sizes": [{"size_bytes": 1e6, "share": 0.75}, {"size_bytes": 1e9, "share": 0.25}]}
    worked = plan(read(None, {"catalogue.size": listed, "catalogue.models": 4, "network.device_bit_s": 1e9}))
    assert worked.outcome.reachable == pytest.approx(0.75)


def test_cells_bind_where_they_carry_less_than_the_edges():
    over = {**size(3.2e6), "network.cell_bit_s": 10e9, "network.edges": 3, "network.cell_km2": 0.05}
    worked = plan(read(None, over))
    # 500 devices of a cell ask for 12.8 Gbit/s of its 10; 390 would fit
    assert (worked.outcome.shared, worked.outcome.in_time, worked.need.cells_by_rate) == ("cell", 0.0, 26)
    assert plan(read(None, over | {"network.cell_km2": 0.03})).outcome.in_time == 1.0


def test_a_broadcast_that_ends_is_missed_by_who_comes_later():
    over = {
        "arrivals": {"kind": "poisson", "duration_s": 10},
        "levers.multicast_models": 1,
        "catalogue.models": 1,
        **size(1e6),
    }
    once = demand(read(None, over | {"levers.multicast_repeats": 6}), ("multicast",))
    # passes of 1 s; who comes up to the start of the sixth, in 5 of the 10 s, gets a whole one
    assert once.joined == pytest.approx(0.8 * 0.5)
    assert demand(read(None, over), ("multicast",)).joined == pytest.approx(0.8)


def test_popularity_follows_zipf_and_sizes_their_distribution():
    found = population(read(None, {"catalogue.models": 3, "catalogue.zipf": 1}).catalogue)
    assert found.popularity == pytest.approx([6 / 11, 3 / 11, 2 / 11])
    spread = {"catalogue.models": 1000, "catalogue.size": {"kind": "log_uniform", "low_bytes": 3.2e6, "high_bytes": 536e6}}
    sizes = population(read(None, spread).catalogue).size_bytes
    assert np.median(sizes) == pytest.approx(math.sqrt(3.2e6 * 536e6), rel=0.01)
    assert sizes.mean() == pytest.approx((536e6 - 3.2e6) / math.log(536 / 3.2), rel=0.01)


def test_che_with_equal_popularity_is_the_share_of_the_catalogue_that_fits():
    hit = cache.hit_rates(np.full(1000, 1e-3), np.full(1000, 5.0), 2000.0)
    assert hit == pytest.approx(np.full(1000, 0.4))
    assert cache.disk_for(np.full(1000, 1e-3), np.full(1000, 5.0), 0.4) == pytest.approx(2000.0)


def test_che_for_two_models_solves_the_equation_by_hand():
    # one of two models of size 1 fits; popularity 2/3 and 1/3: x = exp(-T/3) solves (1 - x²) + (1 - x) = 1, x = 0.618
    x = (math.sqrt(5) - 1) / 2
    assert cache.hit_rates(np.array([2 / 3, 1 / 3]), np.ones(2), 1.0) == pytest.approx([1 - x**2, 1 - x])


def test_a_model_larger_than_the_disk_is_never_held():
    assert cache.hit_rates(np.array([0.5, 0.5]), np.array([10.0, 1.0]), 5.0).tolist() == [0.0, 1.0]


def test_arrivals_add_up_and_peak_where_they_should():
    day = timing(read(None, {"arrivals": {"kind": "diurnal", "peak_h": 18, "amplitude": 1.0}}).arrivals)
    assert day.span_s == 86_400
    # rate (1 + cos) / day; the busiest 2 h hold 2/24 + 24/pi * sin(pi/12) / 12 … = (1 + sin(x)/x) of the mean, x = pi/12
    x = math.pi / 12
    assert day.busiest_share(7200) == pytest.approx(2 / 24 * (1 + math.sin(x) / x), rel=1e-3)
    crowd = timing(read(None, {"arrivals": {"kind": "burst", "share": 1.0, "at_s": 30, "width_s": 1}}).arrivals)
    assert crowd.busiest_share(2.0) == pytest.approx(math.erf(1 / math.sqrt(2)), rel=1e-3)
    late = timing(read(None).arrivals, stagger_s=20)
    assert late.busiest_share(5.0) == pytest.approx(0.25)
    both = timing(read(None, {"arrivals": {"kind": "poisson", "duration_s": 10}}).arrivals, stagger_s=10)
    assert (both.span_s, both.busiest_share(2.0)) == (20, pytest.approx(0.19, rel=1e-3))  # a triangle's tip


@pytest.mark.parametrize("wanted", [1, 2, 3, 17, 1000, 123_456])
def test_fewest_finds_the_smallest(wanted):
    assert fewest(lambda n: n >= wanted) == wanted


def test_fewest_gives_up_where_none_is_enough():
    assert fewest(lambda n: False) is None
