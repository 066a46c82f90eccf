"""Successive halving: a pause changes nothing, the weakest are dropped with their reason, and a killed run decides the same again."""

import json
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from cellwright.data.windows import Windows
from cellwright.energy.stretches import added, grown
from cellwright.forecaster import Forecaster, forecast_panel
from cellwright.panel import Panel
from cellwright.params import check
from cellwright.results import EnergyReading, Reading, Trained
from cellwright.steps.train import note_failure, train
from cellwright.training import halving
from cellwright.training.checkpoint import Checkpoint
from cellwright.training.fit import CHECKPOINT, fit
from cellwright.training.halving import PAUSED, Rung
from cellwright.training.runner import train_all
from cellwright.workspace import Workspace

NETWORKS = ("mlp", "dlinear", "lstm", "gru", "tcn")


def pause(number=0, after_s=1e-6, budget_s=60.0):
    return Rung(number, after_s / budget_s, 400)


def record_of(ws, key, name="candidate.json"):
    return Trained.read(ws.candidate(key) / name)


def stored(ws, key):
    return (ws.candidate(key) / "forecaster.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("section", "budget_s", "shares"),
    [
        ({}, 60, []),
        ({"rungs": 2}, 60, [1 / 9, 1 / 3]),
        ({"rungs": 2, "eta": 2, "min_budget_s": 1}, 10, [1 / 4, 1 / 2]),
        ({"rungs": 3}, 60, [1 / 9, 1 / 3]),  # 60 s / 27 is less than min_budget_s
        ({"rungs": 2, "min_budget_s": 100}, 60, []),
    ],
)
def test_the_budgets_of_rungs_grow_by_eta(section, budget_s, shares):
    params = check({"train": {"budget_s": budget_s}, "halving": section}, "test")
    found = halving.rungs(params)
    assert [r.share for r in found] == pytest.approx(shares)
    assert [r.number for r in found] == list(range(len(shares)))


# A network with dropout, whose random state must survive a pause as well as its weights, optimiser and sums.
RESTLESS = {
    "models": ["mlp"],
    "max_epochs": 3,
    "batch": 32,
    "learning_rate": 0.02,
    "lr_patience": 1,
    "settings": {"mlp": {"options": {"dropout": 0.3}}},
}


def test_a_training_that_paused_within_epochs_equals_an_uninterrupted_one(workspace, make_params):
    params, other = make_params(train=RESTLESS), Workspace(workspace.root, "paused")
    whole = train(params, workspace, "mlp")
    batches = []
    for number in range(9):  # each after one batch more; the first epochs' ends are not among them
        paused = train(params, other, "mlp", rung=pause(number))
        assert (paused.status, len(paused.rungs)) == ("halved", number + 1)
        batches.append(Checkpoint.load(other.candidate("mlp") / CHECKPOINT).progress.batch)
    assert batches == list(range(1, 10))
    trained = train(params, other, "mlp")
    assert (trained.status, trained.resumed) == ("max_epochs", 9)
    assert trained.validation_loss == whole.validation_loss
    assert stored(other, "mlp") == stored(workspace, "mlp")
    losses = [
        [(line["epoch"], line["step"], line["train_loss"], line["validation_loss"]) for line in map(json.loads, lines)]
        for lines in ((ws.candidate("mlp") / "history.jsonl").read_text().splitlines() for ws in (workspace, other))
    ]
    assert losses[0] == losses[1]
    assert {p.name for p in other.candidate("mlp").iterdir()} == {
        "candidate.json",
        "forecaster.safetensors",
        "history.jsonl",
        "inputs.json",
    }


def test_a_pause_in_the_last_batch_of_an_epoch_waits_for_its_end(workspace, make_params, panel):
    params = make_params(train={**RESTLESS, "windows_per_epoch": 32})  # one batch an epoch
    paused = train(params, workspace, "mlp", rung=pause())
    progress = Checkpoint.load(workspace.candidate("mlp") / CHECKPOINT).progress
    assert (progress.epoch, progress.batch, paused.epochs) == (1, 0, 1)
    assert paused.validation_loss is not None
    other = Workspace(workspace.root, "whole")
    train(params, workspace, "mlp")
    train(params, other, "mlp")
    assert stored(workspace, "mlp") == stored(other, "mlp")


def test_a_pause_keeps_a_record_and_the_weights_that_its_error_is_of(workspace, make_params, panel):
    params = make_params(train={"max_epochs": 50})
    paused = train(params, workspace, "mlp", rung=Rung(0, 1e-9, 10_000))
    assert paused == record_of(workspace, "mlp", PAUSED)
    assert not (workspace.candidate("mlp") / "candidate.json").exists()
    assert paused.reason == f"paused after {paused.train_s:.1f} s, in epoch 1"
    assert (paused.epochs, paused.validation_loss) == (0, None)
    last = json.loads((workspace.candidate("mlp") / "history.jsonl").read_text().splitlines()[-1])
    assert (last["step"], last["validation_mae"]) == (1, paused.rungs[0].validation_mae)
    forecaster = Forecaster.load(workspace.candidate("mlp"))
    windows = Windows(panel, forecaster.problem)
    origins = windows.origins(384, 432)  # the validation span
    truth = np.stack([panel.values("traffic")[t : t + 3] for t in origins])
    measured = np.stack([panel.good("traffic")[t : t + 3] for t in origins])
    error = np.abs(forecast_panel(forecaster, windows, origins)[..., 0] - truth)[measured].mean()
    assert paused.rungs[0].validation_mae == pytest.approx(error, rel=1e-5)


def test_networks_of_one_site_of_patches_and_of_all_sites_are_compared_on_the_same_windows(panel, make_params):
    from cellwright.training.batches import Pool
    from cellwright.training.candidates import resolve
    from cellwright.training.rung import Compared

    asked = []
    for inputs in ("site", "patch", "all"):
        candidate = resolve(make_params(problem={"inputs": inputs}), panel.schema, "mlp")
        windows = Windows(panel, candidate.problem)
        compared = Compared(Pool(windows, windows.origins(384, 432)), windows=48, batch=7)
        batches = list(compared._batches("cpu"))
        asked.append(np.sort(np.concatenate([b.target.numpy().ravel() for b in batches])))
    assert len(asked[0]) == 12 * 4 * 3  # 48 windows: 12 origins of 4 sites
    assert all(np.array_equal(some, asked[0]) for some in asked)


def halved_params(make_params, **train):
    settings = {"models": ["persistence", "ridge", *NETWORKS], "budget_s": 0.9, "max_epochs": 10_000, "patience": 10_000, **train}
    section = {"rungs": 2, "min_budget_s": 0.01, "keep": 1, "windows": 400, "eta": 2}
    return make_params(train=settings, halving=section)


@pytest.mark.parametrize("kind", ["serial", "threads"])
def test_the_weakest_are_dropped_and_the_rest_trains_on(workspace, make_params, kind):
    params = halved_params(make_params)
    params = params.model_copy(update={"runner": params.runner.model_copy(update={"kind": kind})})
    outcome = train_all(params, workspace)
    assert outcome.failures == []
    trained = {t.key: t for t in outcome.trained}
    assert trained == {key: record_of(workspace, key) for key in params.train.models}
    assert (trained["persistence"].status, trained["ridge"].status) == ("closed form", "closed form")
    networks = [trained[key] for key in NETWORKS]
    by_rungs = {n: [t for t in networks if len(t.rungs) == n] for n in (1, 2)}
    assert (len(by_rungs[1]), len(by_rungs[2])) == (2, 3)  # of 5 go on 3, of 3 go on 2
    assert sorted(t.status for t in by_rungs[2]) == ["budget", "budget", "halved"]
    first = {t.key: t.rungs[0].validation_mae for t in networks}
    assert max(first[t.key] for t in by_rungs[2]) < min(first[t.key] for t in by_rungs[1])
    worst = max(networks, key=lambda t: first[t.key])
    assert worst.reason == f"dropped after {worst.rungs[0].after_s:.1f} s: rank 5 of 5 on validation"
    assert worst.train_s < 0.5 < max(t.train_s for t in networks)
    Forecaster.load(workspace.candidate(worst.key))
    assert not list(workspace.run_folder.rglob(CHECKPOINT))  # nobody goes on from one any more
    assert (workspace.candidate(worst.key) / PAUSED).is_file()  # by which the next call decides the same


def test_a_run_that_is_run_again_decides_the_same_and_trains_nothing(workspace, make_params):
    params = halved_params(make_params)
    first = train_all(params, workspace)
    written = {p: p.stat().st_mtime_ns for p in workspace.run_folder.rglob("forecaster.safetensors")}
    assert train_all(params, workspace) == first
    assert {p: p.stat().st_mtime_ns for p in workspace.run_folder.rglob("forecaster.safetensors")} == written


def test_few_candidates_are_not_halved(workspace, make_params):
    params = make_params(train={"models": ["ridge", "mlp"]}, halving={"rungs": 2, "min_budget_s": 0.01, "keep": 2})
    assert [stage.rung for stage in halving.stages(params, workspace)] == [None]


def test_one_that_converged_before_a_rung_keeps_its_place_or_its_end(workspace, make_params):
    """An mlp that is through after one epoch is compared with what it has become, and is no dropped one where it is behind."""
    settings = {"mlp": {"max_epochs": 1}}
    params = halved_params(make_params, models=["mlp", "lstm", "gru"], settings=settings)
    outcome = {t.key: t for t in train_all(params, workspace).trained}
    assert outcome["mlp"].status == "max_epochs"
    assert outcome["mlp"].rungs[0].rung == 0
    assert sorted(t.status for t in outcome.values() if t.key != "mlp") in (["budget", "halved"], ["halved", "halved"])


def test_one_that_fails_makes_room_for_one_that_was_dropped(workspace, make_params):
    params = halved_params(make_params, models=list(NETWORKS))
    stages = halving.stages(params, workspace)
    first = next(stages)
    for key in first.keys:
        train(params, workspace, key, rung=first.rung)
    second = next(stages)
    assert len(second.keys) == 3
    assert {t.key for t in second.dropped} == set(NETWORKS) - set(second.keys)
    dropped = min(second.dropped, key=lambda t: t.rungs[0].validation_mae).key
    lost = second.keys[0]
    note_failure(params, workspace, lost, "its process was killed")
    again = halving.stages(params, workspace)
    next(again)
    kept = next(again)  # of four that are left go on two
    assert lost not in kept.keys
    assert record_of(workspace, dropped).status == "halved"
    train(params, workspace, dropped, rung=kept.rung)  # and who asks for more of a dropped one gets it
    assert not (workspace.candidate(dropped) / "candidate.json").exists()
    assert len(record_of(workspace, dropped, PAUSED).rungs) == 2
    assert train(params, workspace, lost, rung=first.rung).status == "halved"  # a failure is tried again


def in_a_process(function, *arguments):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cellwright.training.fit", "models.mlp"])
    process = context.Process(target=function, args=arguments, daemon=True)
    process.start()
    return process


def test_a_process_killed_between_and_within_rungs_comes_to_the_same_forecasters(workspace, make_params):
    """With epochs, not seconds, as the end, the survivors' weights are those of training in full."""
    train_section = {"models": ["mlp", "lstm"], "budget_s": 600, "max_epochs": 12, "patience": 12, "batch": 32}
    section = {"rungs": 1, "eta": 10_000, "min_budget_s": 0.01, "keep": 1, "windows": 400}  # after 0.06 s
    params, cut = make_params(train=train_section, halving=section), Workspace(workspace.root, "cut")
    process = in_a_process(train_all, params, cut)
    deadline = time.monotonic() + 120
    while not any((cut.candidate(key) / PAUSED).is_file() for key in ("mlp", "lstm")):
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)  # one is at its rung, the other one on its way
    process.join()
    survivor = next(t for t in train_all(params, cut).trained if t.status != "halved")
    assert survivor.status == "max_epochs"
    whole = train(make_params(train={**train_section, "models": [survivor.key]}), workspace, survivor.key)
    assert whole.epochs == survivor.epochs
    assert stored(workspace, survivor.key) == stored(cut, survivor.key)


def test_a_pause_needs_a_folder(panel, make_params):
    from cellwright.data.split import split
    from cellwright.params import Split
    from cellwright.training.candidates import resolve

    candidate = resolve(make_params(), panel.schema, "mlp")
    with pytest.raises(ValueError, match="folder"):
        fit(candidate, panel, split(Split(), 0, panel.schema.rows), rung=pause())


def reading(joules, source="measured", cpu_s=2.0):
    part = Reading(energy_j=joules, source=source)
    none = Reading(energy_j=None, source=None)
    return EnergyReading(
        cpu=part, ram=part, gpu=none, duration_s=3.0, cpu_s=cpu_s, idle_w=None, co2_g=1.0, shared=False, meter="a meter"
    )


def test_the_energy_of_stretches_adds_up_and_what_was_not_metered_is_modelled():
    both = added(reading(10.0), reading(5.0, "modelled"))
    assert (both.cpu, both.gpu.energy_j) == (Reading(energy_j=15.0, source="modelled"), None)
    assert (both.energy_j, both.duration_s, both.cpu_s, both.co2_g) == (30.0, 6.0, 4.0, 2.0)
    assert added(None, reading(5.0)) == reading(5.0)
    estimate = grown(reading(10.0), 1.5, "resumed once")
    assert estimate.cpu == Reading(energy_j=15.0, source="modelled")
    assert (estimate.cpu_s, estimate.meter) == (3.0, "a meter; resumed once")


def test_the_energy_of_a_paused_training_is_of_all_its_stretches(workspace, make_params):
    params = make_params(train={"max_epochs": 3})
    paused = train(params, workspace, "mlp", rung=pause())
    trained = train(params, workspace, "mlp")
    assert trained.energy.energy_j > paused.energy.energy_j
    assert trained.energy.cpu_s >= trained.cpu_s * 0.9
    assert "resumed" not in trained.energy.meter  # nothing was lost, hence nothing estimated
    assert Panel.open(workspace.panel("toy")).schema.rows == 480


def test_a_step_by_itself_trains_in_full_and_says_so(workspace, make_params, capsys):
    from flows._cli.steps import perform

    perform("train", make_params(train={"models": ["mlp"]}, halving={"rungs": 2}), workspace, "mlp")
    assert "halving.rungs is 2: a step by itself compares nobody, so all train in full" in capsys.readouterr().out
    assert record_of(workspace, "mlp").status == "max_epochs"
