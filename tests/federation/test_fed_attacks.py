"""What leaks without a mechanism, measured by attacks, and what is left of it with one."""

import numpy as np
import pytest
import torch

from cellwright.families import member
from cellwright.federation.attacks.gradient_inversion import gradient_inversion, gradient_of
from cellwright.federation.attacks.membership_inference import membership_inference, window_losses
from cellwright.federation.contract import Arrays, DpSgd, Local
from cellwright.federation.dp_training import PrivateSteps
from cellwright.federation.privacy import mechanism
from cellwright.federation.privacy._contract import Participation
from cellwright.training.losses import forecast_loss
from models._contract import Batch, Network, Problem

RATE, DAY = 0.1, 24
PROBLEM = Problem(
    history=DAY,
    horizon=4,
    cadence_s=3600,
    inputs="site",
    nodes=1,
    outputs=1,
    features=("traffic",),
    targets=("traffic",),
    season=DAY,
)


def network(name: str, **options: object) -> Network:
    module = member("models", name, what="model")
    torch.manual_seed(0)
    return module.Network(PROBLEM, module.Options(**options))


def windows(seed: int, count: int) -> Batch:
    """Days of traffic at any hour, with as much noise as signal."""
    rng = np.random.default_rng(seed)
    wave = np.sin(2 * np.pi * (np.arange(DAY + 4) + rng.integers(DAY, size=(count, 1))) / DAY)
    series = torch.tensor(wave + rng.normal(0, 0.7, wave.shape), dtype=torch.float32)
    y = series[:, DAY:].reshape(count, 4, 1, 1)
    return Batch(series[:, :DAY].reshape(count, DAY, 1, 1), torch.zeros(count, DAY + 4, 0), y, torch.ones_like(y))


def one_step(net: Network, batch: Batch) -> Arrays:
    """An owner's update: one step of gradient descent."""
    total, count = forecast_loss("mse", PROBLEM, net(batch.x, batch.known), batch)
    gradients = torch.autograd.grad(total / count, list(net.parameters()), allow_unused=True, materialize_grads=True)
    return {name: (-RATE * g).numpy() for (name, _), g in zip(net.named_parameters(), gradients, strict=True)}


def length(delta: Arrays) -> float:
    return float(np.sqrt(sum(np.square(a).sum() for a in delta.values())))


def leaked(net: Network, delta: Arrays, batch: Batch) -> float:
    """Correlation of the history found with the true one."""
    return gradient_inversion(net, gradient_of(delta, RATE), batch.known, starts=2).correlation(batch.x.numpy()[0])


@pytest.mark.parametrize("name", ["dlinear", "patchtst"])
def test_an_update_in_the_clear_gives_the_window_away(name):
    net, batch = network(name).eval(), windows(1, 1)
    found = gradient_inversion(net, gradient_of(one_step(net, batch), RATE), batch.known, starts=2)
    assert found.correlation(batch.x.numpy()[0]) > 0.99
    assert found.error(batch.x.numpy()[0]) < 0.05
    np.testing.assert_allclose(found.target, batch.y.numpy()[0], atol=0.05)


@pytest.mark.parametrize("name", ["dlinear", "patchtst"])
def test_local_privacy_hides_the_window(name):
    net, batch = network(name).eval(), windows(1, 1)
    delta = one_step(net, batch)
    dp = mechanism("local_dp", {"clip_norm": length(delta), "noise_multiplier": 8.0, "seeded_noise": True})
    assert abs(leaked(net, dp.protect(delta, np.random.default_rng(0)), batch)) < 0.6


def test_dp_sgd_hides_the_window():
    net, batch = network("dlinear"), windows(1, 1)
    before = {name: p.detach().numpy().copy() for name, p in net.named_parameters()}
    asked = mechanism("dp_sgd", {"noise_multiplier": 1.0, "clip_norm": 1.0}).local(Local(steps=1, batch=1, learning_rate=RATE))
    steps = PrivateSteps(
        net, dict(net.named_parameters()), torch.optim.SGD(net.parameters(), lr=RATE), "mse", asked, windows=1, noise_seed=0
    )
    steps.step(batch)
    delta = {name: p.detach().numpy() - before[name] for name, p in net.named_parameters()}
    net = network("dlinear").eval()
    assert abs(leaked(net, delta, batch)) < 0.6
    assert leaked(net, one_step(net, batch), batch) > 0.99


def test_the_coordinator_sees_noise_of_one_owner_under_secure_aggregation(sealed_sum):
    session = sealed_sum("secure_aggregation", 3, 20_000)
    session.run()
    seen = np.frombuffer(session.sealed["o00"]["masked"], np.uint8)
    counts = np.bincount(seen, minlength=256)
    chi_square = float(((counts - len(seen) / 256) ** 2 / (len(seen) / 256)).sum())
    assert 150 < chi_square < 375  # 255 degrees of freedom: outside once in a million
    unmasked = np.frombuffer(session.sealed["o00"]["masked"], "<i8").astype(np.float64)
    assert abs(np.corrcoef(unmasked, session.vectors["o00"])[0, 1]) < 0.04
    np.testing.assert_array_equal(session.side.integers(), session.expected())


def test_gradient_inversion_finds_nothing_in_a_sealed_update(sealed_sum):
    net, batch = network("dlinear").eval(), windows(1, 1)
    delta = one_step(net, batch)
    found = []
    for _ in range(3):  # masks are new every time
        session = sealed_sum("secure_aggregation", 3, sum(a.size for a in delta.values()))
        session.vectors["o00"] = np.concatenate([a.ravel() for a in delta.values()])
        session.run()
        seen = np.frombuffer(session.sealed["o00"]["masked"], "<i8") * 2.0**-63 * length(delta)
        parts = np.split(seen.astype(np.float32), np.cumsum([a.size for a in delta.values()])[:-1])
        view = {name: part.reshape(a.shape) for (name, a), part in zip(delta.items(), parts, strict=True)}
        found.append(abs(leaked(net, view, batch)))
    assert np.mean(found) < 0.6
    assert leaked(net, delta, batch) > 0.99


def learnt(net: Network, members: Batch, dp: DpSgd | None) -> Network:
    """Trained on the members long enough to know them by heart, unless it is kept from it."""
    local = Local(steps=250, batch=16, learning_rate=3e-3, dp_sgd=dp)
    optimizer, rng = torch.optim.AdamW(net.parameters(), lr=local.learning_rate), np.random.default_rng(0)
    private = PrivateSteps(net, dict(net.named_parameters()), optimizer, "mse", local, 64, noise_seed=1) if dp else None
    for drawn in private.sampled() if private else (rng.choice(64, 16, replace=False) for _ in range(local.steps)):
        batch = Batch(*(part[drawn] for part in members))
        if private:
            private.step(batch)
            continue
        total, count = forecast_loss("mse", PROBLEM, net(batch.x, batch.known), batch)
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    return net


def test_a_model_that_learnt_by_heart_tells_its_windows_and_dp_sgd_takes_that_away():
    members, others = windows(0, 64), windows(1, 256)
    dp = mechanism("dp_sgd", {"noise_multiplier": 4.0})
    dp.account(Participation(round=1, owners=1, of=1, steps=250, batch=16, examples=64))
    assert dp.spent.epsilon < 6

    def attack(noise: DpSgd | None) -> float:
        net = learnt(network("mlp", hidden=64, depth=1, dropout=0.0), members, noise)
        return membership_inference(window_losses(net, members), window_losses(net, others)).auc

    assert attack(None) > 0.95
    assert attack(DpSgd(noise_multiplier=4.0, max_grad_norm=1.0)) < 0.65


def test_membership_is_worked_out_from_losses():
    found = membership_inference(np.array([1.0, 2.0]), np.array([2.0, 3.0]))
    assert found.auc == (1 + 1 + 0.5 + 1) / 4
    assert found.advantage == 0.5
    assert membership_inference(np.array([3.0]), np.array([1.0])).advantage == 0
    with pytest.raises(ValueError, match="at least one of each"):
        membership_inference(np.array([]), np.array([1.0]))
