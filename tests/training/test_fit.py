"""The one training loop: it learns, ends for a reason, goes on from a checkpoint bit for bit, and starts warm."""

import json
import logging
import math
import signal
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from cellwright.data.split import split
from cellwright.data.windows import Windows
from cellwright.errors import DataError, TrainingError
from cellwright.forecaster import forecast_panel
from cellwright.params import Split
from cellwright.training.batches import Drawn, Fixed, Pool
from cellwright.training.candidates import resolve
from cellwright.training.checkpoint import Checkpoint
from cellwright.training.fit import CHECKPOINT, fit, mean_loss
from cellwright.training.losses import loss_sum


@pytest.fixture
def make(make_params, panel):
    def made(key="mlp", problem=None, **train):
        return resolve(make_params(problem=problem or {}, train=train), panel.schema, key)

    return made


@pytest.fixture
def spans(panel):
    return split(Split(), 0, panel.schema.rows)


def mae(fitted, candidate, panel, span):
    windows = Windows(panel, candidate.problem)
    origins = windows.origins(*span)
    truth = np.stack([panel.values("traffic")[t : t + 3] for t in origins])
    return np.abs(forecast_panel(fitted.forecaster, windows, origins)[..., 0] - truth).mean()


def weights(fitted):
    return {k: v.clone() for k, v in fitted.forecaster.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_losses_count_measured_targets_alone():
    forecast, target = torch.tensor([1.0, 2.0, 9.0]), torch.tensor([0.0, 4.0, 0.0])
    mask = torch.tensor([True, True, False])
    for kind, expected in (("mae", 3.0), ("mse", 5.0), ("huber", 0.5 + 1.5)):
        total, count = loss_sum(kind, forecast, target, mask)
        assert (total.item(), count.item()) == (expected, 2)


@pytest.mark.parametrize("key", ["mlp", "lstm"])
def test_a_trained_network_beats_persistence(make, panel, spans, key):
    naive = make("persistence")
    candidate = make(key, max_epochs=8, learning_rate=5e-3)
    before, after = (mae(fit(c, panel, spans), c, panel, spans.test) for c in (naive, candidate))
    assert after < 0.8 * before


def test_the_best_weights_are_kept(make, panel, spans):
    """With a learning rate that wrecks the network the best epoch is an early one, and it is its weights that come back."""
    candidate = make(max_epochs=6, learning_rate=0.05, patience=6, lr_patience=None)
    records = []
    fitted = fit(candidate, panel, spans, on_epoch=records.append)
    losses = [r["validation_loss"] for r in records]
    assert fitted.validation_loss == min(losses)
    windows = Windows(panel, candidate.problem)
    held = Fixed(Pool(windows, windows.origins(*spans.validation)), batch=1000)
    with torch.no_grad():
        assert mean_loss(fitted.forecaster, held, "mae") == pytest.approx(min(losses), rel=1e-5)


def test_status_and_reason_say_what_ended_it(make, panel, spans):
    converged = fit(make(max_epochs=200, patience=2, learning_rate=0.05), panel, spans)
    assert converged.status == "converged"
    assert converged.reason == f"no better validation loss for 2 epochs, after {converged.epochs}"
    assert fit(make(max_epochs=1), panel, spans).status == "max_epochs"
    cut = fit(make(budget_s=1e-6), panel, spans)
    assert (cut.status, cut.epochs) == ("budget", 1)  # it ends after the first step, with a validated result
    assert math.isfinite(cut.validation_loss)
    assert fit(make("ridge"), panel, spans).status == "closed form"


def test_the_learning_rate_is_halved_when_the_loss_stalls(make, panel, spans):
    records = []
    fit(make(max_epochs=12, patience=12, lr_patience=1, learning_rate=0.05), panel, spans, on_epoch=records.append)
    rates = [r["learning_rate"] for r in records]
    assert rates[0] == 0.05
    assert all(b in (a, a / 2) for a, b in pairwise(rates))
    assert rates[-1] < 0.05


def test_history_has_a_line_an_epoch(make, panel, spans, tmp_path):
    fit(make(max_epochs=3), panel, spans, folder=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in lines] == [1, 2, 3]
    keys = {"epoch", "step", "train_loss", "validation_loss", "learning_rate", "elapsed_s", "cpu_s", "rss_bytes"}
    assert set(lines[0]) == keys
    assert lines[0]["step"] == lines[2]["step"] / 3
    assert lines[0]["elapsed_s"] < lines[1]["elapsed_s"]
    assert lines[0]["rss_bytes"] > 1e7


def test_equal_seeds_give_equal_weights_and_others_do_not(make, panel, spans):
    first, again, other = (fit(make(max_epochs=2, seed=s), panel, spans) for s in (7, 7, 8))
    assert same(weights(first), weights(again))
    assert not same(weights(first), weights(other))


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("windows_per_epoch", [None, 300])
def test_going_on_from_a_checkpoint_equals_never_having_stopped(make, panel, spans, tmp_path, windows_per_epoch):
    """Dropout, shuffling, the optimiser, the learning rate's cuts and the best weights all go on."""
    candidate = make(max_epochs=7, lr_patience=1, learning_rate=0.02, windows_per_epoch=windows_per_epoch)
    assert candidate.options.dropout > 0
    whole = fit(candidate, panel, spans, folder=tmp_path / "whole")

    def stop(record):
        if record["epoch"] in (2, 5):
            raise Killed

    for _ in range(2):
        with pytest.raises(Killed):
            fit(candidate, panel, spans, folder=tmp_path / "cut", on_epoch=stop)
    resumed = fit(candidate, panel, spans, folder=tmp_path / "cut")
    assert (resumed.resumed, resumed.epochs) == (2, 7)
    assert same(weights(whole), weights(resumed))
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")


def test_ctrl_c_stays_a_keyboard_interrupt_and_the_checkpoint_stays(make, panel, spans, tmp_path):
    def stop(record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(make(), panel, spans, folder=tmp_path, on_epoch=stop)
    assert signal.getsignal(signal.SIGINT) is before
    assert Checkpoint.load(tmp_path / CHECKPOINT).progress.epoch == 2


def losses(folder):
    """Lines of history.jsonl up to the first time in them."""
    return [line.split('"elapsed_s"')[0] for line in (folder / "history.jsonl").read_text().splitlines()]


def test_the_budget_is_not_renewed_by_a_restart(make, panel, spans, tmp_path):
    candidate = make(max_epochs=3)
    fit(candidate, panel, spans, folder=tmp_path)
    state = Checkpoint.load(tmp_path / CHECKPOINT)
    state.progress.ended, state.progress.elapsed_s = "", 59.99
    state.save(tmp_path / CHECKPOINT)
    longer = replace(candidate, settings=replace(candidate.settings, max_epochs=10_000))
    fitted = fit(longer, panel, spans, folder=tmp_path)
    assert fitted.status == "budget"
    assert fitted.epochs < 20
    assert 59.99 < fitted.train_s < 65


def test_a_damaged_checkpoint_is_a_clear_error(make, panel, spans, tmp_path):
    (tmp_path / CHECKPOINT).write_bytes(b"not a checkpoint")
    with pytest.raises(TrainingError, match=r"training\.ckpt is damaged.*delete it"):
        fit(make(), panel, spans, folder=tmp_path)


@pytest.fixture
def pool(make, panel, spans):
    windows = Windows(panel, make().problem)
    return Pool(windows, windows.origins(*spans.train))


def drawn(pool, epoch, windows_per_epoch):
    """(site, history) of every window of an epoch, in order."""
    batches = Drawn(pool, batch=64, windows_per_epoch=windows_per_epoch, seed=1, epoch=lambda: epoch)
    return [(int(s), *h.flatten().nan_to_num(-1).tolist()) for b in batches for s, h in zip(b.site, b.history, strict=True)]


def test_windows_per_epoch_draws_that_many_anew_each_epoch_without_repeating(pool):
    first = drawn(pool, 0, 150)
    assert len(first) == len(set(first)) == 150
    assert first == drawn(pool, 0, 150)
    assert set(first) != set(drawn(pool, 1, 150))


def test_a_whole_epoch_sees_every_window_of_every_site_once(pool):
    whole = drawn(pool, 5, None)
    assert len(whole) == len(set(whole)) == 4 * (384 - 6 - 3 + 1)
    assert [sum(w[0] == site for w in whole) for site in range(4)] == [376] * 4


def test_a_warm_start_keeps_the_weights_and_the_scale_they_mean(make, panel, spans):
    candidate = make(max_epochs=3)
    champion = fit(candidate, panel, spans).forecaster
    later = split(Split(), 100, panel.schema.rows)
    untouched = replace(candidate, settings=replace(candidate.settings, learning_rate=1e-12, max_epochs=1))
    warm = fit(untouched, panel, later, warm=champion).forecaster
    assert torch.equal(warm.center, champion.center)
    for mine, its in zip(warm.network.parameters(), champion.network.parameters(), strict=True):
        assert torch.allclose(mine, its, atol=1e-9)
    with pytest.raises(TrainingError, match=r"cannot start from the given forecaster: its options is .*128"):
        fit(resolve_with_hidden(make, 64), panel, later, warm=champion)


def test_one_candidate_may_train_in_bf16_and_learns_as_well(make, panel, spans):
    full, half = make(max_epochs=6), make(max_epochs=6, settings={"mlp": {"precision": "bf16"}})
    assert (full.settings.precision, half.settings.precision) == ("auto", "bf16")
    plain, mixed = fit(full, panel, spans), fit(half, panel, spans)
    assert not same(weights(plain), weights(mixed))
    assert mixed.validation_loss == pytest.approx(plain.validation_loss, rel=0.05)


def resolve_with_hidden(make, hidden):
    return make(settings={"mlp": {"options": {"hidden": hidden}}})


def test_a_loss_that_is_no_number_fails_with_what_to_do(make, panel, spans):
    with pytest.raises(TrainingError, match=r"train loss of epoch 1 is (nan|inf).*lower learning_rate"):
        fit(make(learning_rate=1e30, gradient_clip=None, loss="mse", batch=8), panel, spans)


def test_a_history_longer_than_the_data_is_a_data_error(make, panel, spans):
    with pytest.raises(DataError, match="history 500"):
        fit(make(problem={"history": 500}), panel, spans)


def test_bf16_where_it_is_asked_for(make, panel, spans):
    fitted = fit(make(precision="bf16", max_epochs=2), panel, spans)
    assert math.isfinite(fitted.validation_loss)
    assert all(p.dtype == torch.float32 for p in fitted.forecaster.network.parameters())


def test_cuda_where_there_is_none_says_so(make, panel, spans):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(TrainingError, match=r"train\.device is 'cuda', but torch finds no GPU"):
        fit(make(device="cuda"), panel, spans)


def test_training_says_nothing_and_leaves_nothing_behind(make, panel, spans, capfd, recwarn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO)
    state = torch.get_rng_state()
    fit(make(max_epochs=2), panel, spans)
    out = capfd.readouterr()
    assert (out.out, out.err) == ("", "")
    assert [str(w.message) for w in recwarn] == []
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(torch.get_rng_state(), state)
