"""The transformers' and TimesNet's own mechanisms, on small inputs whose answer is known."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from models import autoformer, informer, itransformer, patchtst, timesnet
from models._contract import Batch
from models._layers.attention import Full
from models._layers.seq2seq import Tokens, start_steps

HOURLY = ("hour", "hour_sin", "hour_cos", "week_sin", "week_cos", "weekend")


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def exported(network: torch.nn.Module, x: Tensor, known: Tensor) -> np.ndarray:
    """What ONNX Runtime answers."""
    import onnxruntime

    shapes = {"x": {0: "batch"}, "known": {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own deprecations
        program = torch.onnx.export(network, (x, known), dynamo=True, dynamic_shapes=shapes, verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, dict(zip([i.name for i in session.get_inputs()], (x.numpy(), known.numpy()), strict=True)))
    return y


# Autoformer


def test_correlation_is_that_of_every_circular_shift():
    q, k = draws(2, 5, 3), draws(2, 5, 3, seed=1)
    expected = [(q * k.roll(-shift, 1)).sum((1, 2)) for shift in range(5)]
    torch.testing.assert_close(autoformer.correlation(q, k), torch.stack(expected, 1))


def test_correlation_is_that_by_fourier_transform_with_delays_of_the_other_sign():
    """The paper's R(delay) is q · conj(k), ours k · conj(q): keys are shifted as the values are."""
    q, k = draws(1, 12, 4), draws(1, 12, 4, seed=1)
    spectra = torch.fft.rfft(k, dim=1) * torch.fft.rfft(q, dim=1).conj()
    torch.testing.assert_close(autoformer.correlation(q, k), torch.fft.irfft(spectra, n=12, dim=1).sum(2), rtol=1e-4, atol=1e-4)


def test_circulant_shifts_its_row():
    expected = [[1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [2.0, 3.0, 1.0]]
    assert autoformer.circulant(torch.tensor([1.0, 2.0, 3.0])).tolist() == expected


def test_auto_correlation_finds_a_known_lag():
    """Keys are the queries three steps later: values come back from three steps ahead, all else is cut or negligible."""
    q, v = draws(1, 1, 16, 8) * 4, draws(1, 1, 16, 2, seed=1)
    seen = autoformer.AutoCorrelation(factor=1.0)(q, q.roll(3, 2), v)
    torch.testing.assert_close(seen, v.roll(-3, 2), rtol=0, atol=1e-4)


def test_auto_correlation_keeps_the_strongest_delays_alone():
    mechanism = autoformer.AutoCorrelation(factor=1.0)
    assert [mechanism.kept(steps) for steps in (1, 2, 6, 12, 144)] == [1, 2, 2, 2, 4]
    q, k = draws(1, 1, 12, 4), draws(1, 1, 12, 4, seed=1)
    weights = mechanism(q, k, torch.eye(12)[None, None])[0, 0]  # row i: what step i sees of each step
    assert (weights > 0).sum(1).tolist() == [2] * 12
    torch.testing.assert_close(weights.sum(1), torch.ones(12))
    torch.testing.assert_close(weights[5], weights[0].roll(5))


def test_shorter_keys_are_padded_after_the_newest_and_longer_ones_cut_before():
    part = torch.arange(4.0).reshape(1, 1, 4, 1)
    assert autoformer.AutoCorrelation._resized(part, 6).flatten().tolist() == [0, 1, 2, 3, 0, 0]
    assert autoformer.AutoCorrelation._resized(part, 3).flatten().tolist() == [1, 2, 3]


def test_a_line_has_no_seasonal_part_away_from_its_ends():
    h = torch.arange(8.0).reshape(1, 8, 1)
    assert autoformer.Seasonal(8, 3)(h)[0, 1:-1].abs().max() < 1e-6


def test_trend_starts_from_the_mean_of_the_history(problem):
    network = autoformer.Network(problem(), autoformer.Options(residual="mean"))
    base = network.blocks.embed({"x": torch.arange(6.0).reshape(1, 6, 1, 1), "known": torch.zeros(1, 9, 0)})["base"]
    assert base.flatten().tolist() == [2.5]


# Informer


@pytest.mark.parametrize(("steps", "factor", "count"), [(1, 5, 1), (6, 5, 6), (6, 1, 2), (144, 5, 25), (96, 5, 25)])
def test_informer_samples_the_papers_number(steps, factor, count):
    assert informer.chosen(steps, factor) == count


@pytest.mark.parametrize("causal", [False, True])
def test_prob_sparse_of_all_queries_is_full_attention(causal):
    torch.manual_seed(0)
    q, k, v = (draws(2, 3, 8, 4, seed=s) for s in range(3))
    everyone = informer.ProbSparse(8, 100, causal=causal)
    torch.testing.assert_close(everyone(q, k, v), Full(causal=causal)(q, k, v))


def test_the_queries_that_stand_out_attend_and_the_others_see_the_mean():
    """Two of eight queries are long, hence peaked; they answer as in full attention."""
    torch.manual_seed(0)
    mechanism = informer.ProbSparse(8, 1)  # ⌈ln 8⌉ = 3 sampled keys, 3 attending queries
    q, k, v = (draws(1, 1, 8, 4, seed=s) for s in range(3))
    q = q * 0.01
    q[..., [1, 4, 6], :] *= 1000
    seen, full = mechanism(q, k, v)[0, 0], Full()(q, k, v)[0, 0]
    torch.testing.assert_close(seen[[1, 4, 6]], full[[1, 4, 6]])
    torch.testing.assert_close(seen[[0, 2, 3, 5, 7]], v[0, 0].mean(0).expand(5, 4))


def test_sums_and_products_may_be_of_unlike_precision(monkeypatch):
    """As CUDA's autocast leaves them: a running sum in float32, a product in bfloat16."""
    mechanism = informer.ProbSparse(8, 1, causal=True)
    monkeypatch.setattr(mechanism, "_unattended", lambda v: v.float().cumsum(2))
    seen = mechanism(*(draws(1, 1, 8, 4, seed=s).bfloat16() for s in range(3)))
    assert (seen.shape, seen.dtype) == ((1, 1, 8, 4), torch.float32)


def test_causal_prob_sparse_sees_no_later_step():
    """Given the same attending queries: the measure itself looks at keys anywhere, as in the paper."""
    torch.manual_seed(0)
    mechanism = informer.ProbSparse(8, 1, causal=True)
    q, k, v = (draws(1, 1, 8, 4, seed=s) for s in range(3))
    later = v.clone()
    later[:, :, 5:] += 1.0
    torch.testing.assert_close(mechanism(q, k, later)[:, :, :5], mechanism(q, k, v)[:, :, :5], rtol=0, atol=0)
    ones = torch.ones_like(v)
    torch.testing.assert_close(mechanism(q, k, ones), ones)  # every row is a mean of what it may see


@pytest.mark.parametrize(("steps", "width"), [(8, 16), (64, 2)])
def test_both_ways_to_judge_a_query_agree(steps, width):
    """The keys are gathered where that moves fewer numbers (64 steps, 5 sampled keys 2 wide), else picked from all scores."""
    torch.manual_seed(0)
    mechanism = informer.ProbSparse(steps, 1)
    assert (mechanism.attending * width < steps) == (steps == 64)
    q, k = draws(1, 1, steps, width), draws(1, 1, steps, width, seed=1)
    sampled = (q[0, 0] @ k[0, 0].T).gather(1, mechanism.sample)
    torch.testing.assert_close(mechanism.prominence(q, k)[0, 0], sampled.amax(1) - sampled.mean(1))


def test_distilling_halves_the_steps():
    assert informer.Distil(4)(torch.randn(2, 7, 4)).shape == (2, 4, 4)


def test_sampled_keys_are_saved_and_follow_the_seed(problem):
    def sample(seed: int) -> Tensor:
        torch.manual_seed(seed)
        network = informer.Network(problem(history=24), informer.Options(factor=1))
        return network.state_dict()["blocks.core.encoder.0.attention.mechanism.sample"]

    assert torch.equal(sample(1), sample(1))
    assert not torch.equal(sample(1), sample(2))
    assert sample(1).shape == (24, math.ceil(math.log(24)))


def test_a_sparse_informer_exports(problem):
    p = problem(history=24, known=HOURLY)
    torch.manual_seed(0)
    network = informer.Network(p, informer.Options(factor=1, width=8, feedforward=8)).eval()
    x, known = draws(5, 24, 1, 1), torch.rand(5, 27, 6)
    np.testing.assert_allclose(exported(network, x, known), network(x, known).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_the_decoder_starts_from_the_newest_half():
    assert [start_steps(history, 0) for history in (1, 6, 7)] == [1, 3, 3]
    assert start_steps(6, 6) == 6
    with pytest.raises(ValueError, match="cannot start from 7 steps of a history of 6"):
        start_steps(6, 7)


def test_target_tokens_hold_nothing_of_the_window_but_what_is_known(problem):
    p = problem(known=("hour",))
    tokens = Tokens(p, 4, 3)
    known = torch.rand(1, 9, 1)
    first, second = tokens(draws(1, 6, 1, 1), known), tokens(draws(1, 6, 1, 1, seed=1), known)
    assert torch.equal(first[:, -3:], second[:, -3:])
    assert not torch.equal(first[:, :-3], second[:, :-3])


# TimesNet


def waves(period: float, rows: int = 16) -> Batch:
    """Sines of 20 steps history and 4 steps horizon, of one period, any phase and level."""
    phase, steps = torch.rand(rows, 1, generator=torch.Generator().manual_seed(0)) * 7, torch.arange(24)
    wave = (torch.sin(phase + 2 * torch.pi * steps / period) + phase)[..., None, None]
    return Batch(wave[:, :20], torch.zeros(rows, 24, 0), wave[:, 20:], torch.ones(rows, 4, 1, 1))


@pytest.mark.parametrize(("period", "frequency"), [(24, 1), (8, 3), (4, 6), (2.4, 10)])
def test_timesnet_finds_the_period_of_the_training_rows(problem, period, frequency):
    network = timesnet.Network(problem(history=20, horizon=4), timesnet.Options(periods=1))
    network.prepare([waves(period)])
    assert network.blocks.core.frequencies.tolist() == [frequency]
    assert network.blocks.core.periods == [24 // frequency]


def test_masked_windows_say_nothing_of_the_periods(problem):
    good, bad = waves(8), waves(4)
    masked = bad._replace(x=bad.x * 100, mask=bad.mask.index_fill(1, torch.tensor([2]), 0.0))
    network = timesnet.Network(problem(history=20, horizon=4), timesnet.Options(periods=1))
    network.prepare([masked, good])
    assert network.blocks.core.periods == [8]


def test_periods_differ_and_are_as_many_as_there_are():
    amplitudes = [9.0, 1.0, 2.0, 3.0, 5.0, 4.0, 0.5]  # of 0 … 6 cycles in 12 steps: periods -, 12, 6, 4, 3, 2, 2
    assert timesnet.strongest(amplitudes, 12, 3) == [4, 5, 3]
    assert timesnet.strongest(amplitudes, 12, 9) == [4, 5, 3, 2, 1]


def test_loading_weights_brings_their_periods(problem):
    p = problem(history=20, horizon=4)
    trained, fresh = (timesnet.Network(p, timesnet.Options()).eval() for _ in range(2))
    trained.prepare([waves(4)])
    assert trained.blocks.core.periods != fresh.blocks.core.periods
    fresh.load_state_dict(trained.state_dict())
    assert fresh.blocks.core.periods == trained.blocks.core.periods
    x, known = draws(2, 20, 1, 1), torch.zeros(2, 24, 0)
    torch.testing.assert_close(fresh(x, known), trained(x, known), rtol=0, atol=0)


@pytest.mark.parametrize("size", [(3, 4), (1, 9), (9, 1)])
def test_an_inception_is_the_mean_of_its_convolutions(size):
    inception = timesnet.Inception(2, 3, 3)
    image = draws(2, 2, *size)
    each = [torch.nn.functional.conv2d(image, c.weight, c.bias, padding=i) for i, c in enumerate(inception.convolutions)]
    torch.testing.assert_close(inception(image), torch.stack(each).mean(0), rtol=1e-4, atol=1e-5)


def test_folding_lays_a_period_in_a_row():
    """With convolutions that pass on the element a row below, each step sees the one a period later."""
    block = timesnet.Block(timesnet.Options(width=1, feedforward=1, kernels=2))
    block.convolve = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False)
    with torch.no_grad():
        block.convolve.weight.zero_()[0, 0, 2, 1] = 1.0
    h = torch.arange(1.0, 8.0).reshape(1, 7, 1)
    assert block._folded(h, 3).flatten().tolist() == [4, 5, 6, 7, 0, 0, 0]


def test_amplitudes_are_those_of_the_fourier_transform():
    core_of = torch.arange(12)[:, None] * torch.tensor([1, 3]) * (2 * torch.pi / 12)
    basis = torch.stack((core_of.cos(), core_of.sin())) * (2 / 12)
    h = draws(2, 12, 5)
    expected = torch.fft.rfft(h, dim=1).abs()[:, [1, 3]].mean(2) * 2 / 12
    torch.testing.assert_close(timesnet.amplitudes(h, basis), expected, rtol=1e-4, atol=1e-4)


# iTransformer


def test_variates_are_tokens_node_by_node_and_valid_lies_beside(problem):
    p = problem(inputs="patch", nodes=9, features=("traffic", "users", "valid"), targets=("traffic", "users"), known=("hour",))
    tokens = itransformer.Variates(p, 4)
    x, known = draws(1, 6, 9, 3), torch.rand(1, 9, 1)
    h = tokens(x, known)
    assert h.shape == (1, 9 * 2 + 1, 4)
    changed = x.clone()
    changed[:, :, 4, 1] += 1.0
    assert (tokens(changed, known) != h).any(2).flatten().nonzero().flatten().tolist() == [9]  # node 4, feature 1
    changed = x.clone()
    changed[:, :, 4, 2] += 1.0
    assert (tokens(changed, known) != h).any(2).flatten().nonzero().flatten().tolist() == [8, 9]
    assert itransformer.forecast_tokens(p, tokens.variates).tolist() == [8, 9]


def test_every_site_answers_for_itself(problem):
    p = problem(inputs="all", nodes=3, outputs=3, features=("traffic", "users"))
    assert itransformer.forecast_tokens(p, 2).tolist() == [0, 2, 4]


def test_sites_without_vectors_of_their_own_are_exchangeable(problem):
    """Attention has no order: swapping two sites swaps their forecasts, once what is learnt of each is the same."""
    torch.manual_seed(0)
    p = problem(inputs="all", nodes=4, outputs=4)
    network = itransformer.Network(p, itransformer.Options(residual="none")).eval()
    torch.nn.init.zeros_(network.blocks.embed.encoder.identity)
    x, known, order = draws(2, 6, 4, 1), torch.zeros(2, 9, 0), torch.tensor([2, 1, 0, 3])
    torch.testing.assert_close(network(x[:, :, order], known), network(x, known)[:, :, order], rtol=1e-4, atol=1e-5)


def test_only_the_forecast_tokens_leave_the_last_layer(problem):
    """The short cut of the last layer changes nothing."""
    torch.manual_seed(0)
    p = problem(inputs="patch", nodes=9, features=("traffic", "valid"))
    network = itransformer.Network(p, itransformer.Options()).eval()
    x, known = draws(2, 6, 9, 2), torch.zeros(2, 9, 0)
    short = network.blocks.core(network.blocks.embed({"x": x, "known": known}))["h"]
    network.blocks.core.layers[1].only = None
    whole = network.blocks.core(network.blocks.embed({"x": x, "known": known}))["h"]
    assert short.shape == (2, 1, 32)
    torch.testing.assert_close(short, whole[:, 4:5])


# PatchTST


def test_independent_channels_do_not_meet_before_the_head(problem):
    p = problem(inputs="patch", nodes=9, features=("traffic", "valid"))
    x, known = draws(1, 6, 9, 2), torch.zeros(1, 9, 0)
    changed = x.clone()
    changed[:, :, 3] += 1.0
    for channels, rows in (("independent", [3]), ("mixed", [0])):
        network = patchtst.Network(p, patchtst.Options(channels=channels)).eval()
        h, other = (network.blocks.core(network.blocks.embed({"x": each, "known": known}))["h"] for each in (x, changed))
        moved = (h != other).reshape(-1, 3 * 32).any(1)
        assert moved.nonzero().flatten().tolist() == rows


@pytest.mark.parametrize("module", [autoformer, informer, itransformer, patchtst])
def test_heads_must_divide_the_width(module):
    with pytest.raises(ValueError, match="multiple of heads"):
        module.Options(width=30, heads=4)


@pytest.mark.parametrize("module", [autoformer, informer, itransformer, patchtst, timesnet])
@pytest.mark.parametrize(("history", "horizon"), [(1, 1), (2, 5), (144, 12)])
def test_any_history_and_horizon(problem, module, history, horizon):
    kind = "patch" if "patch" in module.Network.inputs[:1] else "site"
    p = problem(history=history, horizon=horizon, known=HOURLY)
    p = replace(p, inputs=kind, nodes=9, features=("traffic", "valid")) if kind == "patch" else p
    y = module.Network(p, module.Options()).eval()(
        draws(2, history, p.nodes, len(p.features)), torch.rand(2, history + horizon, 6)
    )
    assert y.shape == (2, horizon, 1, 1, 1)
    assert y.isfinite().all()
