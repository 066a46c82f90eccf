"""Every network of the zoo against the contract in models/_contract.py. A new file in models/ is picked up by itself."""

from __future__ import annotations

import warnings
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import numpy as np
import optuna
import pytest
import safetensors.torch
import torch
from torch import Tensor

from cellwright import families
from cellwright.training.fit import fit_closed_form
from models import _contract
from models._contract import Batch, Inputs, Problem

NAMES = families.members("models")
KNOWN = ("hour", "hour_sin", "hour_cos", "week_sin", "week_cos", "weekend")
NODES = {"site": 1, "patch": 9, "all": 4}
SEASON = 24
A_DAY = {"sttre": {"max_tokens": 144 * 27}}  # what a day of history wants of nine sites × three channels, on a few windows


def network_class(name: str) -> type[_contract.Network]:
    return families.member("models", name, what="model").Network


def options_class(name: str) -> type[_contract.Options]:
    return families.member("models", name, what="model").Options


CASES = [pytest.param(name, kind, id=f"{name}-{kind}") for name in NAMES for kind in network_class(name).inputs]
PREFERRED = [pytest.param(name, network_class(name).inputs[0], id=name) for name in NAMES]
TRAINABLE = [case for case in PREFERRED if not network_class(case.values[0]).closed_form]


def problem_for(
    name: str,
    kind: Inputs,
    *,
    history: int = 6,
    lags: tuple[int, ...] = (),
    quantiles: tuple[float, ...] = (),
    known: tuple[str, ...] = KNOWN,
    nodes: int | None = None,
) -> Problem:
    """Two targets and one further feature, horizon 3, with the lags that the network asks for."""
    nodes = nodes or NODES[kind]
    targets = ("traffic", "users")
    problem = Problem(
        history=history,
        horizon=3,
        cadence_s=3600.0,
        inputs=kind,
        nodes=nodes,
        outputs=nodes if kind == "all" else 1,
        features=(),
        targets=targets,
        known=known,
        lags=lags,
        season=SEASON,
        grid=(3, 3) if kind == "patch" else None,
        quantiles=quantiles,
    )
    lags = network_class(name).lags(problem)
    lagged = tuple(f"{target}@{lag}" for target in targets for lag in lags)
    valid = ("valid",) if kind == "patch" else ()
    return replace(problem, lags=lags, features=(*targets, "prb", *lagged, *valid))


def draw(problem: Problem, rows: int, seed: int = 0) -> Batch:
    """Random windows; `valid` is 0 or 1, the known features lie in 0…1."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, problem.history, problem.nodes, len(problem.features), generator=rng)
    if "valid" in problem.features:
        x[..., -1] = (x[..., -1] > -1).float()
    known = torch.rand(rows, problem.history + problem.horizon, len(problem.known), generator=rng)
    y = torch.randn(rows, problem.horizon, problem.outputs, len(problem.targets), generator=rng)
    return Batch(x, known, y, torch.ones_like(y))


def build(name: str, problem: Problem, *, seed: int = 0, options: dict[str, Any] | None = None) -> _contract.Network:
    """A network in evaluation mode; one with a closed form is fitted to random windows, so that it says something."""
    torch.manual_seed(seed)
    network = network_class(name)(problem, options_class(name)(**(options or {}))).eval()
    if network.closed_form:
        fit_closed_form(network, [draw(problem, 64, seed=seed + 1)], seed=seed)
    else:
        network.prepare([draw(problem, 64, seed=seed + 1)])
    return network


def loss_of(network: _contract.Network, batch: Batch) -> Tensor:
    return (network(batch.x, batch.known)[..., 0] - batch.y).square().mean()


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize("history", [6, 12])
@pytest.mark.parametrize("lags", [(), (SEASON,)], ids=["plain", "lags"])
@pytest.mark.parametrize("quantiles", [(), (0.1, 0.5, 0.9)], ids=["point", "quantiles"])
def test_forecast_has_the_shape_of_the_contract(name, kind, history, lags, quantiles):
    problem = problem_for(name, kind, history=history, lags=lags, quantiles=quantiles)
    batch = draw(problem, 5)
    y = build(name, problem)(batch.x, batch.known)
    assert y.shape == (5, 3, problem.outputs, 2, max(1, len(quantiles)))
    assert y.dtype == torch.float32
    assert y.isfinite().all()


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_works_without_a_calendar_and_on_zeros(name, kind):
    problem = problem_for(name, kind, known=())
    network = build(name, problem).train()
    batch = Batch(*(torch.zeros_like(t) for t in draw(problem, 4)))
    loss = loss_of(network, batch)
    assert loss.isfinite()
    if loss.requires_grad:
        loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("name", [n for n in NAMES if "all" in network_class(n).inputs])
def test_all_sites_may_be_one(name):
    problem = problem_for(name, "all", nodes=1)
    batch = draw(problem, 3)
    assert build(name, problem)(batch.x, batch.known).shape == (3, 3, 1, 2, 1)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_same_seed_same_network(name, kind):
    problem = problem_for(name, kind)
    batch = draw(problem, 4)
    first, second = (_after_one_step(build(name, problem, seed=3), batch) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def _after_one_step(network: _contract.Network, batch: Batch) -> Tensor:
    """The forecast after one seeded training step with dropout on, where the network trains by gradients."""
    if not network.closed_form:
        torch.manual_seed(11)
        optimiser = torch.optim.SGD(network.parameters(), 0.1)
        loss_of(network.train(), batch).backward()
        optimiser.step()
    return network.eval()(batch.x, batch.known).detach()


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_gradient_reaches_every_trainable_parameter(name, kind):
    problem = problem_for(name, kind, lags=(SEASON,))
    network, batch = build(name, problem), draw(problem, 8)
    if network.closed_form:
        assert not any(p.requires_grad for p in network.parameters()), "what is fitted in closed form must not ask for gradients"
        return
    loss_of(network, batch).backward()
    unreached = [n for n, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert unreached == []


@pytest.mark.parametrize(("name", "kind"), TRAINABLE)
def test_trains_in_mixed_precision(name, kind):
    """As Lightning does it: autocast around the forward pass alone, in bfloat16."""
    problem = problem_for(name, kind, history=12, lags=(SEASON,))
    network, batch = build(name, problem).train(), draw(problem, 8)
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(network, batch)
    if not list(network.parameters()):
        pytest.skip("it has nothing to learn with")
    loss.backward()
    wrong = [n for n, p in network.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
    assert wrong == []


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_blocks_are_named_and_compose_to_forward(name, kind):
    problem = problem_for(name, kind, lags=(SEASON,))
    network, batch = build(name, problem), draw(problem, 3)
    names = [n for n, _ in network.blocks.named_children()]
    assert names[0] == "embed"
    assert names[-1] == "head"
    assert "core" in names
    state = {"x": batch.x, "known": batch.known}
    for block in network.blocks:
        state = block(state)
        assert all(isinstance(value, Tensor) for value in state.values())
        assert "x" not in state, "the raw window must not travel past the first block"
        wire = safetensors.torch.save({key: value.contiguous() for key, value in state.items()})
        state = safetensors.torch.load(wire)
    torch.testing.assert_close(state["y"], network(batch.x, batch.known), rtol=0, atol=0)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_forecast_does_not_depend_on_other_windows(name, kind):
    problem = problem_for(name, kind, lags=(SEASON,))
    network, batch, other = build(name, problem), draw(problem, 4), draw(problem, 4, seed=9)
    mixed = Batch(*(torch.cat((a[:1], b[1:])) for a, b in zip(batch, other, strict=True)))
    expected = network(batch.x, batch.known)[:1]
    torch.testing.assert_close(network(mixed.x, mixed.known)[:1], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(network(batch.x[:1], batch.known[:1]), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_uses_known_is_true(name, kind):
    problem = problem_for(name, kind)
    network, batch = build(name, problem), draw(problem, 6)
    changed = network(batch.x, (batch.known + 0.37) % 1.0) - network(batch.x, batch.known)
    assert bool(changed.any()) == network.uses_known


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_says_truly_which_channels_it_uses(name, kind):
    problem = problem_for(name, kind, lags=(SEASON,))
    network, batch = build(name, problem), draw(problem, 6)

    def answers(channels: list[int]) -> bool:
        x = batch.x.clone()
        x[..., channels] += torch.randn(x[..., channels].shape, generator=torch.Generator().manual_seed(8))
        return bool((network(x, batch.known) - network(batch.x, batch.known)).any())

    assert answers([problem.features.index("prb")]) == network.uses_features
    assert answers([i for i, f in enumerate(problem.features) if "@" in f]) == network.uses_lags
    assert answers([i for i, f in enumerate(problem.features) if f.partition("@")[0] in problem.targets])


@pytest.mark.parametrize(("name", "kind"), [c for c in CASES if network_class(c.values[0]).causal])
def test_a_causal_network_sees_no_later_step(name, kind):
    problem = problem_for(name, kind)
    network, batch = build(name, problem), draw(problem, 4)
    later = batch.x.clone()
    later[:, -1] += 1.0

    def sequence(x: Tensor) -> Tensor:
        return network.blocks.core.sequence(network.blocks.embed({"x": x, "known": batch.known}))

    before, after = sequence(batch.x), sequence(later)
    assert before.shape[1] == problem.history
    torch.testing.assert_close(after[:, :-1], before[:, :-1], rtol=0, atol=0)
    assert bool((after[:, -1] - before[:, -1]).any())


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_what_was_prepared_is_saved_and_does_not_depend_on_the_order(name, kind):
    problem = problem_for(name, kind, history=12)
    parts = [draw(problem, 40, seed=1), draw(problem, 40, seed=2)]
    torch.manual_seed(0)
    network = network_class(name)(problem, options_class(name)())
    if network.closed_form:
        pytest.skip("it is fitted, not prepared")
    forms = []
    for batches in (parts, parts[::-1]):
        network.prepare(batches)
        forms.append({k: v.clone() for k, v in network.state_dict().items()})
    for key, value in forms[0].items():
        torch.testing.assert_close(forms[1][key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in NAMES if network_class(n).maps])
def test_a_whole_map_is_forecast_as_its_patches(name):
    """`forward_map` on an 7 × 6 grid against `forward` on the patch around each site, edges included."""
    problem = replace(problem_for(name, "patch", nodes=121, lags=(SEASON,)), grid=(11, 11))
    network = build(name, problem)
    rows, columns = 7, 6
    x = draw(replace(problem, nodes=rows * columns), 2).x.unflatten(2, (rows, columns))
    x[..., -1] = 1.0
    known = draw(problem, 2).known
    around = torch.nn.functional.pad(x.permute(0, 1, 4, 2, 3).flatten(0, 1), (5, 5, 5, 5))
    patches = around.unfold(2, 11, 1).unfold(3, 11, 1).flatten(4).permute(0, 2, 3, 4, 1).unflatten(0, x.shape[:2])
    each = [network(patches[:, :, r, c], known) for r in range(rows) for c in range(columns)]
    torch.testing.assert_close(network.forward_map(x, known), torch.cat(each, 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_state_dict_carries_the_whole_network(name, kind):
    problem = problem_for(name, kind, quantiles=(0.1, 0.5, 0.9))
    batch = draw(problem, 3)
    trained, fresh = build(name, problem, seed=1), build(name, problem, seed=2)
    fresh.load_state_dict(safetensors.torch.load(safetensors.torch.save(trained.state_dict())))
    torch.testing.assert_close(fresh(batch.x, batch.known), trained(batch.x, batch.known), rtol=0, atol=0)


@pytest.mark.parametrize(("name", "kind"), [c for c in CASES if "mix" in {f.name for f in fields(options_class(c.values[0]))}])
def test_shared_sites_forecast_as_each_site_alone(name, kind):
    if kind != "all":
        pytest.skip("mix concerns inputs 'all'")
    everyone = problem_for(name, "all", lags=(SEASON,))
    together = build(name, everyone, options={"mix": "shared"})
    alone = build(name, problem_for(name, "site", lags=(SEASON,)))
    alone.load_state_dict(together.state_dict())
    batch = draw(everyone, 3)
    each = [alone(batch.x[:, :, [site]], batch.known) for site in range(everyone.nodes)]
    torch.testing.assert_close(together(batch.x, batch.known), torch.cat(each, 2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_declares_what_people_and_tools_read(name):
    network, options = network_class(name), options_class(name)
    assert network.title
    assert isinstance(network.paper, str)
    assert set(network.inputs) <= {"site", "patch", "all"}
    assert len(network.inputs) >= 1
    assert families.member("models", name, what="model").__doc__
    assert all(f.metadata.get("doc") for f in fields(options))


@pytest.mark.parametrize("name", NAMES)
def test_options_are_frozen_and_refuse_bad_values(name):
    options = options_class(name)
    for f in fields(options):
        for bad in _bad_values(f.metadata):
            with pytest.raises(ValueError, match=f.name):
                options(**{f.name: bad})
        with pytest.raises(FrozenInstanceError):
            setattr(options(), f.name, f.default)
    with pytest.raises(TypeError):
        options(no_such_option=1)


def _bad_values(meta: Any) -> list[Any]:
    bad = [meta["low"] - 1] if meta["low"] is not None else []
    bad += [meta["high"] + 1] if meta["high"] is not None else []
    return bad + (["no such choice"] if meta["choices"] else [])


@pytest.mark.parametrize("name", NAMES)
def test_search_space_and_presets_give_networks(name):
    problem = problem_for(name, network_class(name).inputs[0])
    batch = draw(problem, 2)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [network_class(name).space(study.ask()) for _ in range(4)]
    for chosen in [*drawn, *network_class(name).presets.values()]:
        y = build(name, problem, options=dict(chosen))(batch.x, batch.known)
        assert y.shape == (2, 3, problem.outputs, 2, 1)


@pytest.mark.parametrize("name", NAMES)
def test_refuses_inputs_it_cannot_take(name):
    class Narrow(network_class(name)):
        inputs = ("site",)

    with pytest.raises(ValueError, match="takes inputs site, not 'all'"):
        Narrow(problem_for(name, "all"), options_class(name)())


@pytest.mark.parametrize("name", NAMES)
def test_only_a_closed_form_has_one(name):
    if network_class(name).closed_form:
        return
    with pytest.raises(TypeError, match="gradient descent"):
        build(name, problem_for(name, network_class(name).inputs[0])).fit_closed_form([])


@pytest.mark.parametrize("name", [n for n in NAMES if network_class(n).closed_form])
def test_masked_targets_do_not_count_in_a_closed_form(name):
    problem = problem_for(name, network_class(name).inputs[0])
    batch = draw(problem, 60)
    mask = (torch.rand(batch.y.shape, generator=torch.Generator().manual_seed(5)) > 0.3).float()
    forecasts = []
    for garbage in (0.0, 1e4):
        network = build(name, problem)
        fit_closed_form(network, [Batch(batch.x, batch.known, torch.where(mask > 0, batch.y, garbage), mask)], seed=0)
        forecasts.append(network(batch.x, batch.known))
    torch.testing.assert_close(*forecasts, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_learns_a_sine(name):
    """Sines of any phase and period 24, one step in 24: two steps of history tell all that follows. Error below 0.05."""
    problem = replace(problem_for(name, "site", history=12, known=()), targets=("traffic",))
    lagged = tuple(f"traffic@{lag}" for lag in problem.lags)
    problem = replace(problem, features=("traffic", *lagged))
    network = build_untrained(name, problem)
    if not list(network.parameters()):
        pytest.skip("it has nothing to learn with")
    train, test = sines(problem, 1024, seed=0), sines(problem, 256, seed=1)
    if network.closed_form:
        fit_closed_form(network, [train], seed=0)
    else:
        network.prepare([train])
        descend(network, train, steps=150)
    error = (network.eval()(test.x, test.known)[..., 0] - test.y).abs().mean()
    assert error < 0.05


def build_untrained(name: str, problem: Problem) -> _contract.Network:
    torch.manual_seed(0)
    return network_class(name)(problem, options_class(name)())


def sines(problem: Problem, rows: int, seed: int) -> Batch:
    phase = torch.rand(rows, 1, generator=torch.Generator().manual_seed(seed)) * 2 * torch.pi
    steps = torch.arange(-problem.history, problem.horizon)
    wave = torch.sin(phase + steps * 2 * torch.pi / 24)[..., None, None]
    lagged = [torch.sin(phase + (steps[: problem.history] + problem.horizon) * 2 * torch.pi / 24)[..., None, None]]
    x = torch.cat((wave[:, : problem.history], *(lagged * len(problem.lags))), -1)
    y = wave[:, problem.history :]
    return Batch(x, torch.zeros(rows, problem.history + problem.horizon, 0), y, torch.ones_like(y))


def descend(network: _contract.Network, data: Batch, steps: int, rows: int = 128) -> None:
    """Adam over batches of `rows` windows, in order and over again."""
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    batches = [Batch(*parts) for parts in zip(*(t.split(rows) for t in data), strict=True)]
    for step in range(steps):
        optimiser.zero_grad()
        loss_of(network, batches[step % len(batches)]).backward()
        optimiser.step()


def assert_onnx_equals_torch(network: _contract.Network, problem: Problem) -> None:
    """Export at one batch size, run at another, and compare at 1e-4 of the largest forecast."""
    import onnxruntime

    sample, batch = draw(problem, 3), draw(problem, 7, seed=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own deprecations
        program = torch.onnx.export(
            network,
            (sample.x, sample.known),
            dynamo=True,
            dynamic_shapes={"x": {0: "batch"}, "known": {0: "batch"}},
            input_names=["x", "known"],
            output_names=["y"],
            verbose=False,
        )
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": batch.x.numpy(), "known": batch.known.numpy()})
    expected = network(batch.x, batch.known).detach().numpy()
    assert y.shape == expected.shape
    assert np.abs(y - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_onnx_equals_torch(name, kind):
    problem = problem_for(name, kind, lags=(SEASON,))
    assert_onnx_equals_torch(build(name, problem), problem)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), PREFERRED)
def test_onnx_equals_torch_over_a_day_of_history(name, kind):
    problem = problem_for(name, kind, history=144)
    assert_onnx_equals_torch(build(name, problem, options=A_DAY.get(name)), problem)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize("lags", [(), (SEASON,)], ids=["plain", "lags"])
@pytest.mark.parametrize("known", [(), KNOWN], ids=["no-calendar", "calendar"])
@pytest.mark.parametrize("quantiles", [(), (0.1, 0.5, 0.9)], ids=["point", "quantiles"])
def test_onnx_equals_torch_everywhere(name, kind, lags, known, quantiles):
    problem = problem_for(name, kind, lags=lags, known=known, quantiles=quantiles)
    assert_onnx_equals_torch(build(name, problem), problem)
