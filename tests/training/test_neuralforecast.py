"""Networks of neuralforecast as candidates; what needs the library is skipped where the extra is not installed."""

from __future__ import annotations

import importlib.util
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from cellwright.bundle.export import export_onnx
from cellwright.errors import ParamsError, UnknownName
from cellwright.forecaster import Forecaster
from cellwright.steps.train import train
from cellwright.training.candidates import resolve
from cellwright.training.checks import check_models
from cellwright.training.neuralforecast import Embed
from models._contract import Problem

INSTALLED = importlib.util.find_spec("neuralforecast") is not None
with_library = pytest.mark.skipif(not INSTALLED, reason="the extra is not installed: pip install 'cellwright[neuralforecast]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # the library's own


class Both:
    """What a class of the library says of itself."""

    MULTIVARIATE = False
    EXOGENOUS_FUTR = True
    EXOGENOUS_HIST = True


class Joint(Both):
    MULTIVARIATE = True


class PastOnly(Both):
    EXOGENOUS_FUTR = False


class Bare(PastOnly):
    EXOGENOUS_HIST = False


def two_targets(inputs="site", nodes=1) -> Problem:
    """History 2, horizon 1, targets a and b, feature c, lag 3, a calendar of one channel."""
    return Problem(
        history=2, horizon=1, cadence_s=600, inputs=inputs, nodes=nodes, outputs=nodes, features=("a", "b", "c", "a@3", "b@3"),
        targets=("a", "b"), known=("hour",), lags=(3,),
    )  # fmt: skip


X = torch.tensor([[[[1.0, 10.0, 5.0, 0.1, 0.3]], [[2.0, 20.0, 6.0, 0.2, 0.4]]]])  # (1, 2, 1, 5)
HOUR = torch.tensor([[[0.7], [0.8], [0.9]]])


@pytest.mark.skipif(INSTALLED, reason="the extra is installed")
def test_without_the_extra_it_is_told_how_to_install_it(make_params, panel):
    for check in (check_models, lambda params: resolve(params, panel.schema, "neuralforecast:NHITS")):
        with pytest.raises(ParamsError, match=r"needs the library neuralforecast.*cellwright\[neuralforecast\]"):
            check(make_params(train={"models": ["neuralforecast:NHITS"]}))


def test_each_target_is_a_series_with_its_lags_and_the_calendar_known_ahead():
    out = Embed(two_targets(), Both)({"x": X, "known": HOUR})
    assert out["insample_y"].squeeze(-1).tolist() == [[1, 2], [10, 20]]
    assert out["hist_exog"].squeeze(-1).tolist() == [[5, 6], [5, 6]]
    torch.testing.assert_close(out["futr_exog"][..., 0], HOUR[0, :, 0].expand(2, 3))
    # position i of x's lag channel is the value of step i + horizon; the first step's is not in x and takes the next one
    torch.testing.assert_close(out["futr_exog"][..., 1], torch.tensor([[0.1, 0.1, 0.2], [0.3, 0.3, 0.4]]))
    assert out["insample_mask"].tolist() == torch.ones(2, 2, 1).tolist()


def test_a_class_that_knows_the_past_alone_gets_lags_as_past_and_one_that_knows_nothing_gets_nothing():
    out = Embed(two_targets(), PastOnly)({"x": X, "known": HOUR})
    assert "futr_exog" not in out
    torch.testing.assert_close(out["hist_exog"], torch.tensor([[[5, 0.1], [6, 0.2]], [[5, 0.3], [6, 0.4]]]))
    assert set(Embed(two_targets(), Bare)({"x": X, "known": HOUR})) == {"insample_y", "insample_mask"}


def test_a_joint_class_reads_all_series_side_by_side():
    x = torch.cat((X, X + 100), 2)  # two sites
    out = Embed(two_targets("all", 2), Joint)({"x": x, "known": HOUR})
    assert out["insample_y"].tolist() == [[[1, 10, 101, 110], [2, 20, 102, 120]]]
    assert out["hist_exog"].tolist() == [[[[5, 5, 105, 105], [6, 6, 106, 106]]]]
    assert out["futr_exog"].shape == (1, 2, 3, 4)  # windows, channels, steps, series
    torch.testing.assert_close(out["futr_exog"][0, 1, :, 0], torch.tensor([0.1, 0.1, 0.2]))


@with_library
@pytest.mark.parametrize(("name", "inputs"), [("NHITS", "site"), ("LSTM", "site"), ("PatchTST", "site"), ("TSMixerx", "all")])
@pytest.mark.parametrize("quantiles", [(), (0.1, 0.5, 0.9)], ids=["point", "quantiles"])
def test_a_class_becomes_a_candidate(name, inputs, quantiles, make_params, panel):
    params = make_params(train={"models": [f"neuralforecast:{name}"]}, problem={"quantiles": quantiles, "lags": (48,)})
    candidate = resolve(params, panel.schema, f"neuralforecast:{name}")
    assert (candidate.title, candidate.problem.inputs) == (f"{name} (neuralforecast)", inputs)
    network = candidate.network(candidate.problem, candidate.options)
    assert [n for n, _ in network.blocks.named_children()] == ["embed", "core", "head"]
    p = candidate.problem
    y = network(torch.randn(5, p.history, p.nodes, len(p.features)), torch.rand(5, p.history + p.horizon, len(p.known)))
    assert y.shape == (5, p.horizon, p.outputs, 1, max(1, len(quantiles)))


@with_library
def test_its_forecast_is_the_librarys_own(make_params, panel):
    """The same weights in the library's class, fed by hand."""
    from neuralforecast.losses.pytorch import MAE
    from neuralforecast.models import TiDE

    params = make_params(train={"models": ["neuralforecast:TiDE"]})
    candidate = resolve(params, panel.schema, "neuralforecast:TiDE")
    network = candidate.network(candidate.problem, candidate.options).eval()
    own = TiDE(h=3, input_size=6, loss=MAE(), futr_exog_list=list(candidate.problem.known)).eval()
    own.load_state_dict(network.blocks.core.network.state_dict())
    x, known = torch.randn(4, 6, 1, 1), torch.rand(4, 9, len(candidate.problem.known))
    windows = {
        "insample_y": x[:, :, 0],
        "insample_mask": torch.ones(4, 6, 1),
        "futr_exog": known,
        "hist_exog": None,
        "stat_exog": None,
    }
    torch.testing.assert_close(network(x, known)[:, :, 0, 0], own(windows))


@with_library
def test_it_trains_in_our_loop_is_stored_and_exported(make_params, workspace, tmp_path):
    key = "neuralforecast:NHITS"
    small = {"options": {"settings": {"mlp_units": [[16, 16]] * 3, "n_freq_downsample": [2, 1, 1]}}}
    params = make_params(train={"models": [key], "settings": {key: small}, "max_epochs": 2})
    trained = train(params, workspace, key)
    assert (trained.model, trained.preset, trained.epochs) == (key, None, 2)
    assert trained.options == small["options"]
    forecaster = Forecaster.load(workspace.candidate(key))
    assert forecaster.network.options.settings["mlp_units"] == [[16, 16]] * 3
    export_onnx(forecaster, tmp_path / "nhits.onnx")


@with_library
def test_threads_do_not_mix_up_their_windows(make_params, panel):
    """TSMixer keeps the mean of the windows it is at in itself."""
    candidate = resolve(make_params(train={"models": ["neuralforecast:TSMixer"]}), panel.schema, "neuralforecast:TSMixer")
    network, p = candidate.network(candidate.problem, candidate.options).eval(), candidate.problem
    batches = [(torch.randn(n, p.history, p.nodes, 1), torch.zeros(n, p.history + p.horizon, len(p.known))) for n in range(1, 60)]
    expected = [network(*batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda batch: network(*batch), batches))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@with_library
def test_its_weights_are_drawn_from_our_seed_and_nothing_else_is_seeded(make_params, panel):
    candidate = resolve(make_params(train={"models": ["neuralforecast:MLP"]}), panel.schema, "neuralforecast:MLP")

    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in candidate.network(candidate.problem, candidate.options).parameters()])

    random.seed(3), np.random.seed(3)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first, again, other = weights(0), weights(0), weights(1)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002


@with_library
@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("NHITS", {"mlp_unit": 3}, "no hyper-parameter 'mlp_unit'; did you mean 'mlp_units'"),
        ("NHITS", {"max_steps": 3}, "no hyper-parameter 'max_steps'; it has: "),
        ("PatchTST", {"patch_len": 3, "n_heads": 7}, r"fails on a batch of random windows"),
        ("TimeXer", {}, "fails on a batch of random windows"),
        ("DeepAR", {}, "forecasts one step after the other"),
    ],
)
def test_wrong_settings_are_told(name, settings, said, make_params, panel):
    key = f"neuralforecast:{name}"
    params = make_params(train={"models": [key], "settings": {key: {"options": {"settings": settings}}}})
    with pytest.raises(ParamsError, match=said):
        resolve(params, panel.schema, key)


@with_library
def test_an_unknown_class_says_which_there_are(make_params, panel):
    with pytest.raises(UnknownName, match=r"no model of neuralforecast 'NHiTS'.*Did you mean 'NHITS'"):
        resolve(make_params(), panel.schema, "neuralforecast:NHiTS")
