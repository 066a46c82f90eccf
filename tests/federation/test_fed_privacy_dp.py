"""Differential privacy: what is clipped and how much noise there is, what it costs by the accountant, and where it stops."""

import json
import math

import numpy as np
import pytest

from cellwright.errors import FederationError, ParamsError, UnknownName
from cellwright.federation.contract import DpSgd, Local
from cellwright.federation.privacy import mechanism
from cellwright.federation.privacy._contract import Participation

RNG = np.random.default_rng(0)
DELTA = 1e-5


def done(round_: int = 1, *, steps: int = 20, batch: int = 50, examples: int = 5000) -> Participation:
    return Participation(round=round_, owners=10, of=10, steps=steps, batch=batch, examples=examples)


def update(*values: float) -> dict[str, np.ndarray]:
    """Two arrays, so that the norm must be taken over both."""
    return {"a": np.array(values[:1], np.float32), "b": np.array(values[1:], np.float32)}


def by_hand(noise_multiplier: float, rounds: int) -> float:
    """ε of a Gaussian mechanism: Rényi divergence α/(2σ²) a round; converted by Canonne, Kamath and Steinke 2020, Proposition 12."""
    orders = (2 + i / 10 for i in range(620))
    each = (rounds * a / (2 * noise_multiplier**2) + math.log1p(-1 / a) - math.log(DELTA * a) / (a - 1) for a in orders)
    return min(each)


def test_an_update_is_clipped_as_a_whole_and_left_alone_below_the_norm():
    clip = mechanism("central_dp", {"clip_norm": 1.0})
    bounded = clip.bounded(update(3.0, 0.0, 4.0))
    np.testing.assert_allclose(np.concatenate(list(bounded.values())), [0.6, 0.0, 0.8], rtol=1e-5)
    assert sum(float(np.square(a, dtype=np.float64).sum()) for a in bounded.values()) <= 1.0
    assert clip.bounded(update(0.3, 0.4))["b"][0] == np.float32(0.4)
    np.testing.assert_array_equal(clip.protect(update(3.0, 4.0), RNG)["a"], clip.bounded(update(3.0, 4.0))["a"])


@pytest.mark.parametrize("name", ["local_dp", "central_dp"])
def test_an_update_without_a_norm_is_refused(name):
    with pytest.raises(FederationError, match="not finite"):
        mechanism(name).protect(update(1.0, math.nan), RNG)


def test_local_noise_has_the_standard_deviation_that_is_asked_for():
    sent = mechanism("local_dp", {"noise_multiplier": 2.0, "clip_norm": 0.5}).protect(
        {"w": np.zeros((300, 400), np.float32)}, RNG
    )["w"]
    assert sent.dtype == np.float32
    assert sent.std() == pytest.approx(2.0 * 0.5, rel=0.01)
    assert abs(sent.mean()) < 0.02
    assert np.mean(np.abs(sent) < 1.0) == pytest.approx(0.6827, abs=0.01)  # within one standard deviation


def test_central_noise_is_that_on_the_sum_shared_among_the_owners():
    dp = mechanism("central_dp", {"noise_multiplier": 4.0, "clip_norm": 0.5})
    published = dp.finish({"w": np.ones(100_000, np.float32)}, 20, RNG)["w"]
    assert published.std() == pytest.approx(4.0 * 0.5 / 20, rel=0.02)
    assert published.mean() == pytest.approx(1.0, abs=0.002)
    with pytest.raises(FederationError, match="no owners"):
        dp.finish({}, 0, RNG)


@pytest.mark.parametrize("name", ["local_dp", "central_dp"])
def test_nobody_who_knows_the_seed_can_draw_the_noise_again_unless_it_is_asked_for(name):
    def sent(**options: object) -> np.ndarray:
        dp, zeros, rng = mechanism(name, options), {"w": np.zeros(50, np.float32)}, np.random.default_rng(7)
        return dp.finish(dp.protect(zeros, rng), 3, rng)["w"]

    assert not np.array_equal(sent(), sent())
    np.testing.assert_array_equal(sent(seeded_noise=True), sent(seeded_noise=True))
    assert "holds only against those who do not know it" in mechanism(name, {"seeded_noise": True}).spent.unit


@pytest.mark.parametrize("rounds", [1, 10, 40])
def test_epsilon_of_the_gaussian_mechanism_is_that_worked_out_by_hand(rounds):
    dp = mechanism("central_dp", {"noise_multiplier": 4.0})
    for i in range(rounds):
        dp.account(done(i + 1))
    assert dp.spent.epsilon == pytest.approx(by_hand(4.0, rounds), rel=1e-3)
    assert (dp.spent.delta, dp.spent.unit) == (DELTA, "an owner, all its data (its update taken as zero)")


def test_epsilon_is_an_upper_bound_close_to_the_exact_one():
    from dp_accounting import get_epsilon_gaussian

    dp = mechanism("central_dp", {"noise_multiplier": 4.0})
    for i in range(40):
        dp.account(done(i + 1))
    exact = get_epsilon_gaussian(4.0 / math.sqrt(40), DELTA)
    assert exact <= dp.spent.epsilon <= 1.1 * exact


def test_local_privacy_counts_that_two_clipped_updates_lie_twice_the_norm_apart():
    local, central = mechanism("local_dp", {"noise_multiplier": 8.0}), mechanism("central_dp", {"noise_multiplier": 4.0})
    local.account(done())
    central.account(done())
    assert local.spent.epsilon == central.spent.epsilon
    assert local.spent.unit == "an owner, all its data"


def test_epsilon_of_dp_sgd_is_that_of_dp_accounting_and_of_opacus():
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant
    from opacus.accountants import RDPAccountant

    dp, theirs = mechanism("dp_sgd", {"noise_multiplier": 1.1}), RDPAccountant()
    for i in range(5):
        dp.account(done(i + 1, steps=20, batch=50, examples=5000))
    for _ in range(100):
        theirs.step(noise_multiplier=1.1, sample_rate=0.01)
    google = RdpAccountant().compose(PoissonSampledDpEvent(0.01, GaussianDpEvent(1.1)), 100)
    assert dp.spent.epsilon == pytest.approx(google.get_epsilon(DELTA), rel=1e-6)
    assert dp.spent.epsilon == pytest.approx(theirs.get_epsilon(DELTA), rel=0.01)
    assert dp.spent.unit == "a window"


def test_dp_sgd_claims_amplification_only_for_the_share_of_windows_drawn():
    def epsilon(**round_: int) -> float:
        dp = mechanism("dp_sgd")
        dp.account(done(**round_))
        return dp.spent.epsilon

    assert epsilon(batch=50, examples=5000) < epsilon(batch=50, examples=500) < epsilon(batch=50, examples=50)
    assert epsilon(batch=50, examples=20) == epsilon(batch=50, examples=50)  # every window in every step: no amplification left


def test_dp_sgd_tells_owners_how_to_train():
    asked = mechanism("dp_sgd", {"noise_multiplier": 0.7, "clip_norm": 0.3}).local(Local(steps=5, batch=8, learning_rate=0.1))
    assert asked.dp_sgd == DpSgd(noise_multiplier=0.7, max_grad_norm=0.3)
    assert (asked.gradient_clip, asked.steps) == (None, 5)


def test_dp_sgd_states_nothing_of_owners_without_windows():
    with pytest.raises(FederationError, match="no ε can be stated"):
        mechanism("dp_sgd").account(done(examples=0))


@pytest.mark.parametrize("name", ["local_dp", "central_dp", "dp_sgd"])
def test_the_budget_is_never_gone_over(name):
    dp = mechanism(name, {"epsilon": 5.0})
    rounds = 0
    while dp.fits(done()) and not dp.exhausted:
        rounds += 1
        dp.account(done(rounds))
        assert dp.spent.epsilon <= 5.0
    assert rounds > 1
    assert dp.exhausted
    assert not dp.fits(done())
    dp.account(done(rounds + 1))
    assert dp.spent.epsilon > 5.0  # one round more would have


@pytest.mark.parametrize("name", ["local_dp", "central_dp"])
def test_a_budget_below_one_round_is_exhausted_before_the_first(name):
    dp = mechanism(name, {"epsilon": 0.1})
    assert dp.exhausted
    assert dp.spent.epsilon == 0.0


def test_dp_sgd_tells_before_the_first_round_whether_it_fits():
    dp = mechanism("dp_sgd", {"epsilon": 3.0})
    assert not dp.exhausted
    assert dp.fits(done(examples=5000))
    assert not dp.fits(done(examples=60))


@pytest.mark.parametrize("name", ["local_dp", "central_dp", "dp_sgd"])
def test_what_was_spent_survives_a_restart(name):
    before, after = mechanism(name), mechanism(name)
    before.account(done(1))
    before.account(done(2, examples=4000))
    after.restore(before.state())
    assert after.spent == before.spent
    assert after.state() == before.state()
    after.account(done(3))
    before.account(done(3))
    assert after.spent == before.spent


@pytest.mark.parametrize(
    "state", [b"", b"{}", b"[]", b'{"events": [[1, 2]], "last": null}', b'{"events": [[-1, 1, 1]], "last": null}']
)
def test_a_damaged_ledger_is_not_counted_anew(state):
    with pytest.raises(FederationError, match="privacy ledger"):
        mechanism("central_dp").restore(state)


def test_the_ledger_is_plain_json():
    dp = mechanism("dp_sgd", {"noise_multiplier": 1.5})
    dp.account(done(1, steps=3, batch=10, examples=40))
    dp.account(done(2, steps=3, batch=10, examples=40))
    assert json.loads(dp.state()) == {"events": [[1.5, 0.25, 6]], "last": [1.5, 0.25, 3]}


def test_options_that_cannot_be_meant_say_where_they_stand():
    with pytest.raises(
        ParamsError,
        match=r"federation.privacy_options.local_dp: unknown option 'noise_multipler'; did you mean 'noise_multiplier'",
    ):
        mechanism("local_dp", {"noise_multipler": 1.0})
    with pytest.raises(ParamsError, match=r"central_dp: noise_multiplier must be at least"):
        mechanism("central_dp", {"noise_multiplier": 0.0})
    with pytest.raises(UnknownName, match="secure_aggregation"):
        mechanism("secure_agregation")
