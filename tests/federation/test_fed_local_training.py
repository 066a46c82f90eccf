"""Local training, held against gradients worked out by torch alone on the windows that were drawn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from cellwright.errors import FederationError, Refused
from cellwright.families import members
from cellwright.federation.contract import DpSgd, Instruction, Local
from cellwright.federation.dp_training import ExampleGradients, check_layers
from cellwright.federation.initial import initial, load, network_of, task_for
from cellwright.federation.local_training import train
from cellwright.federation.owner_data import owner_data
from cellwright.federation.shared_network import SharedNetwork
from cellwright.training.losses import forecast_loss
from models._contract import Batch

PLAIN = Local(steps=1, batch=10_000, learning_rate=0.1, optimizer="sgd", gradient_clip=None)  # all windows at once: no draw


class Bench:
    """One owner, one network."""

    def __init__(self, folders, task, owner="north"):
        self.task, self.owner, self.folder = task, owner, folders[owner]
        self.shared, self.start = SharedNetwork(task), initial(task)
        self.data = owner_data(owner, self.folder, task)
        self.other = network_of(task)  # not the one that trains
        self.batch = self.data.batch(self.shared.network, self.data.training, np.arange(len(self.data.training)))

    def train(self, local, *, round_=1, extra=None, start=None, **more):
        start = start or self.start
        return train(self.shared, self.data, Instruction(round_, start, local, extra or {}), start, **more)

    def gradient(self, at, windows=slice(None)):
        """Of the mean loss over windows."""
        load(self.other, at)
        self.other.zero_grad()
        some = Batch(*(part[windows] for part in self.batch))
        total, count = forecast_loss(self.task.loss, self.other.problem, self.other(some.x, some.known), some)
        (total / count).backward()
        return {
            name: torch.zeros_like(p).numpy() if p.grad is None else p.grad.numpy().copy()
            for name, p in self.other.named_parameters()
        }


@pytest.fixture
def bench(owner_folders, params, panel):
    return Bench(owner_folders, task_for(params, panel.schema, "fedavg:gru", "r"))


@pytest.fixture
def linear(owner_folders, params, panel):
    return Bench(owner_folders, task_for(params, panel.schema, "fedavg:dlinear", "r"))


def close(found, wanted, rtol=1e-4, atol=1e-6):
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=rtol, atol=atol, err_msg=name)


def differ(a, b):
    return any(not np.array_equal(a[name], b[name]) for name in a)


def test_equal_arguments_give_equal_weights_to_the_last_bit(owner_folders, params, panel, make_params):
    dropping = {"settings": {"gru": {"options": {"hidden": 8, "dropout": 0.5}}}, "models": ["gru"], "device": "cpu"}
    task = task_for(make_params(train=dropping), panel.schema, "fedavg:gru", "r")
    local, one, other = Local(steps=3, batch=16, learning_rate=1e-2), Bench(owner_folders, task), Bench(owner_folders, task)
    torch.manual_seed(1)
    first = one.train(local)
    torch.manual_seed(2)
    expected = torch.rand(1)
    torch.manual_seed(2)
    again = other.train(local)
    assert not differ(first.arrays, again.arrays)
    assert torch.equal(torch.rand(1), expected)  # nobody else's draws are disturbed
    assert differ(first.arrays, one.train(local, round_=2).arrays)


def test_owners_and_rounds_draw_other_windows(owner_folders, bench):
    twin = Bench({"twin": owner_folders["north"]}, bench.task, "twin")  # the same data, another name
    local = Local(steps=1, batch=4, learning_rate=1e-2)
    assert differ(bench.train(local).arrays, twin.train(local).arrays)
    assert differ(bench.train(local).arrays, bench.train(local, round_=2).arrays)


def test_one_step_is_that_of_the_gradient(bench):
    g = bench.gradient(bench.start)
    close(bench.train(PLAIN).arrays, {name: w - 0.1 * g[name] for name, w in bench.start.items()})


def test_gradients_are_clipped_by_their_norm(bench):
    g = bench.gradient(bench.start)
    norm = np.sqrt(sum(float((a**2).sum()) for a in g.values()))
    found = bench.train(replace(PLAIN, gradient_clip=norm / 4)).arrays
    close(found, {name: w - 0.1 * g[name] / 4 for name, w in bench.start.items()})


def test_every_window_comes_before_one_comes_twice(linear):
    """At rate ~0 each step's gradient is that at the start: an epoch of batches sums to the mean over all windows."""
    n, rate = len(linear.data.training), 1e-6
    assert n % 193 == 0
    found = linear.train(replace(PLAIN, steps=193, batch=1, learning_rate=rate))
    g = linear.gradient(linear.start)
    moved = {name: (w - found.arrays[name]).astype(np.float64) / (193 * rate) for name, w in linear.start.items()}
    for name in g:
        np.testing.assert_allclose(moved[name], g[name], atol=0.05)
    assert found.steps == 193


def test_adamw_goes_on_with_its_moments_where_it_is_asked_to(bench):
    """Two rounds of three steps on all windows are then one of six; without moments they are not."""
    local = Local(steps=3, batch=10_000, learning_rate=0.01, moments=True)
    whole = bench.train(replace(local, steps=6)).arrays
    first = bench.train(local)
    close(bench.train(local, start=first.arrays, moments=first.moments).arrays, whole, atol=1e-5)
    anew = bench.train(local, start=first.arrays).arrays
    assert max(np.abs(anew[name] - whole[name]).max() for name in whole) > 1e-3
    assert bench.train(replace(local, moments=False)).moments == {}
    assert bench.train(replace(local, optimizer="sgd")).moments == {}


def test_fedprox_stays_at_the_start_for_a_huge_mu_and_goes_part_of_the_way_for_a_small_one(bench):
    for optimizer in ("sgd", "adamw"):
        held = bench.train(Local(steps=5, batch=32, learning_rate=0.05, optimizer=optimizer, proximal=1e9)).arrays
        close(held, bench.start, atol=1e-6)
        assert differ(bench.train(Local(steps=5, batch=32, learning_rate=0.05, optimizer=optimizer)).arrays, bench.start)
    g = bench.gradient(bench.start)
    half = bench.train(replace(PLAIN, proximal=10.0)).arrays  # pull = rate · mu = 1: half of the way is left
    close(half, {name: w - 0.1 * g[name] / 2 for name, w in bench.start.items()})


def test_scaffold_corrects_each_step_and_updates_its_variate_by_option_two(linear):
    rng = np.random.default_rng(0)
    x = linear.start
    c, own = ({name: rng.normal(0, 0.1, a.shape).astype(np.float32) for name, a in x.items()} for _ in range(2))
    sent = {f"c/{name}": a for name, a in c.items()}
    local = replace(PLAIN, steps=2)
    found = linear.train(local, extra=sent, variate=own)
    first = linear.gradient(x)
    y1 = {n: a - np.float32(0.1) * (first[n] - own[n] + c[n]) for n, a in x.items()}
    second = linear.gradient(y1)
    y2 = {n: a - np.float32(0.1) * (second[n] - own[n] + c[n]) for n, a in y1.items()}
    close(found.arrays, y2)
    mean = {n: (first[n] + second[n]) / 2 for n in x}  # what option II comes to for plain gradient descent
    close(found.variate, mean, rtol=1e-3, atol=1e-4)
    close(found.correction, {n: mean[n] - own[n] for n in x}, rtol=1e-3, atol=1e-4)


def test_frozen_parameters_stay_as_they_were_sent_and_train_again_afterwards(bench):
    found = bench.train(replace(PLAIN, frozen=("blocks.core",))).arrays
    core = [name for name in bench.start if name.startswith("blocks.core")]
    assert core
    assert all(np.array_equal(found[name], bench.start[name]) for name in core)
    assert differ({n: a for n, a in found.items() if n not in core}, bench.start)
    after = bench.train(PLAIN).arrays
    assert all(not np.array_equal(after[name], bench.start[name]) for name in core)
    with pytest.raises(Refused, match="no parameter to train"):
        bench.train(replace(PLAIN, frozen=("blocks",)))


def test_a_loss_that_is_no_number_ends_training_with_a_refusal(linear):
    with pytest.raises(Refused, match=r"north: the loss of step \d+ in round 4 is (inf|nan).*lower federation.learning_rate"):
        linear.train(replace(PLAIN, steps=3, learning_rate=1e38), round_=4)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"steps": 0}, "0 steps"),
        ({"batch": 10**9}, "1000000000 batch"),
        ({"learning_rate": float("nan")}, "learning rate"),
        ({"learning_rate": -1.0}, "learning rate"),
        ({"proximal": -1.0}, "proximal weight"),
        ({"gradient_clip": 0.0}, "gradient clip"),
        ({"optimizer": "lbfgs"}, "train by 'lbfgs'; there are sgd and adamw"),
        ({"private": ("",)}, "no prefix"),
    ],
)
def test_instructions_that_cannot_be_meant_are_refused(bench, changes, why):
    with pytest.raises(Refused, match=why):
        bench.train(replace(PLAIN, **changes))


def test_weights_of_another_form_or_not_finite_are_refused(bench):
    name = next(iter(bench.start))
    for wrong, why in (
        ({n: a for n, a in bench.start.items() if n != name}, "differ in"),
        ({**bench.start, name: bench.start[name][:1]}, "float32"),
        ({**bench.start, name: bench.start[name].astype(np.float64)}, "float64"),
        ({**bench.start, name: np.full_like(bench.start[name], np.nan)}, "not finite"),
    ):
        with pytest.raises(Refused, match=why):
            bench.train(PLAIN, start=wrong)
    assert differ(bench.train(PLAIN).arrays, bench.start)  # and nothing of them stays behind


def test_dp_sgd_clips_each_windows_gradient(bench):
    """With every window in every batch and hardly any noise, a step is minus the rate times the mean of the clipped gradients."""
    clip, n = 0.05, len(bench.data.training)
    found = bench.train(replace(PLAIN, dp_sgd=DpSgd(1e-7, clip)), noise_seed=3).arrays
    total = {name: np.zeros(w.shape) for name, w in bench.start.items()}
    clipped = 0
    for i in range(n):
        g = bench.gradient(bench.start, slice(i, i + 1))
        factor = min(1.0, clip / np.sqrt(sum(float((a.astype(np.float64) ** 2).sum()) for a in g.values())))
        clipped += factor < 1
        for name, a in g.items():
            total[name] += factor * a
    assert clipped > n / 2
    close(found, {name: w - 0.1 * total[name] / n for name, w in bench.start.items()}, rtol=1e-3, atol=1e-5)


def test_dp_sgd_adds_noise_of_its_multiplier_that_nobody_can_draw_again(bench):
    local = replace(PLAIN, batch=10, learning_rate=1.0, dp_sgd=DpSgd(50.0, 1.0))
    moved = [np.concatenate([(a - bench.start[n]).ravel() for n, a in bench.train(local).arrays.items()]) for _ in range(2)]
    assert not np.array_equal(*moved)
    assert np.std(moved[0]) == pytest.approx(50 / 10, rel=0.15)  # multiplier · norm / expected batch
    seeded = [bench.train(local, noise_seed=1).arrays for _ in range(2)]
    assert not differ(*seeded)


def test_dp_sgd_draws_windows_by_chance_and_survives_a_step_without_any(bench):
    local = replace(PLAIN, batch=1, steps=12, dp_sgd=DpSgd(1.0, 1.0))
    found = bench.train(local, noise_seed=5)  # of 12 draws of one window in 193, about a third are empty
    assert all(np.isfinite(a).all() for a in found.arrays.values())


@pytest.mark.parametrize("model", ["mamba", "patchtst", "lstm"])
def test_gradients_by_window_are_those_of_the_window_alone(owner_folders, params, panel, model):
    bench = Bench(owner_folders, task_for(params, panel.schema, f"fedavg:{model}", "r"))
    gradients, sums = ExampleGradients(bench.other.eval(), dict(bench.other.named_parameters()), "mae")(
        Batch(*(part[:4] for part in bench.batch))
    )
    for i in range(4):
        for name, g in bench.gradient(bench.start, slice(i, i + 1)).items():
            np.testing.assert_allclose(gradients[name][i].detach().numpy(), g, rtol=1e-3, atol=1e-5, err_msg=name)
    assert sums[1] == float(bench.batch.mask[:4].sum())


def test_a_layer_that_mixes_windows_is_refused_by_name():
    with pytest.raises(FederationError, match=r"'1' \(BatchNorm1d\).*mixes the windows"):
        check_layers(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))


@pytest.mark.parametrize("model", [m for m in members("models") if m not in ("persistence", "seasonal_naive", "ridge", "trees")])
def test_every_network_of_the_zoo_trains_at_an_owner(owner_folders, params, panel, model):
    bench = Bench(owner_folders, task_for(params, panel.schema, f"fedavg:{model}", "r"))
    found = bench.train(Local(steps=1, batch=8, learning_rate=1e-3))
    assert set(found.arrays) == set(bench.start)
    assert differ(found.arrays, bench.start)
    assert all(a.dtype == np.float32 for a in found.arrays.values())
