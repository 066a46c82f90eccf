"""Vertical and transfer federations as users ask for them: params.yaml in, a result and the owners' own panels out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cellwright import runs
from cellwright.catalogue import load_catalogue
from cellwright.errors import FederationError, ParamsError, UnknownName
from cellwright.federation.alignment.asked import check_asked, datasets
from cellwright.federation.alignment.parting import stretch
from cellwright.federation.alignment.told import rows, sentence
from cellwright.federation.alignment.vertical import DELTA, epsilon_embedding
from cellwright.panel import Panel, Segment
from cellwright.params import Params, check, load
from cellwright.results import DataVersion
from cellwright.steps.federate_kinds import TRANSFER, VERTICAL, source_params, transfer, vertical
from cellwright.versioning import data_version
from cellwright.workspace import Workspace
from flows.cli import app

REPOSITORY = Path(__file__).parents[2]
PARTIES = {"gnb": {}, "ue": {"features": ["users"]}}
SMALL: dict[str, Any] = {
    "active": "gnb",
    "parties": PARTIES,
    "model": "mlp",
    "embedding": 8,
    "epochs": 3,
    "steps": 2,
    "batch": 32,
}
BODY = {"source": "other", "source_rounds": 2, "rounds": 2, "frozen_rounds": 1, "rule": "fedavg", "model": "gru"}


class Cut(Exception):
    """The process is killed here."""


@pytest.fixture
def ws(tmp_path, panel, make_panel) -> Workspace:
    ws = Workspace(tmp_path, "run")
    panel.save(ws.panel("tiny"))
    other = make_panel(1, sites=("a", "b"))
    Panel.from_arrays(other.schema.model_copy(update={"dataset": "other"}), columns(other)).save(ws.panel("other"))
    return ws


def columns(panel: Panel) -> dict[str, Any]:
    return {f.name: panel.values(f.name) for f in panel.schema.features}


@pytest.fixture
def asks(make_params) -> Callable[..., Params]:
    """Parameters of a vertical federation; keywords replace what it asks."""
    return lambda **more: make_params(federation={"vertical": SMALL | more}, split={"until": 96})


@pytest.fixture
def asks_transfer(make_params) -> Callable[..., Params]:
    return lambda **more: make_params(federation={"transfer": BODY | more})


def killed_after(lines: int) -> Callable[[str], None]:
    """Progress that ends the process after so many lines."""
    seen: list[str] = []

    def say(line: str) -> None:
        seen.append(line)
        if len(seen) == lines:
            raise Cut

    return say


class TestVertical:
    def test_each_party_works_on_a_panel_of_its_own_features(self, ws, asks):
        result = vertical(asks(), ws)
        folders = {path.name: path for path in ws.owners("tiny", "x").parent.glob("vertical-*/*")}
        held = {name: [f.name for f in Panel.open(path).schema.features] for name, path in folders.items()}
        assert held == {"gnb": ["traffic"], "ue": ["users"]}
        assert (result.active, result.passives, result.widths) == ("gnb", ["ue"], {"gnb": 8, "ue": 8})
        assert result.alone is not None
        assert result.alone.up_bytes.keys() == {"gnb"}
        assert result.pooled is None

    def test_what_is_finished_is_found_again(self, ws, asks):
        done, told = vertical(asks(), ws), []
        assert vertical(asks(), ws, on_progress=told.append) == done
        assert told == []
        assert (ws.run_folder / VERTICAL).is_file()

    def test_a_process_that_was_killed_goes_on_to_the_same_model(self, ws, asks, tmp_path):
        whole = vertical(asks(), Workspace(ws.root, "whole"))
        with pytest.raises(Cut):
            vertical(asks(), ws, on_progress=killed_after(6))  # who holds what, three epochs alone, two together
        told: list[str] = []
        resumed = vertical(asks(), ws, on_progress=told.append)
        assert [line.partition(":")[0] for line in told[1:]] == ["vertical epoch 3"]
        assert (resumed.vertical.mae, resumed.vertical.epochs) == (whole.vertical.mae, whole.vertical.epochs)
        assert resumed.vertical.up_bytes["ue"] > 0.9 * whole.vertical.up_bytes["ue"]  # those of both processes
        assert resumed.alone is not None
        assert len(resumed.alone.epochs) == 3

    def test_embeddings_that_were_sent_in_vain_count(self, ws, asks):
        noisy = asks(embedding_clip=1.0, embedding_noise=4.0, compare=False)
        with pytest.raises(Cut):
            vertical(noisy, ws, on_progress=killed_after(3))  # after the second epoch
        assert vertical(noisy, ws).epsilon_embedding == epsilon_embedding(4.0, 3 + 2, DELTA)

    def test_pooled_data_are_a_yardstick_where_asked(self, ws, asks):
        result = vertical(asks(pooled=True, compare=False), ws)
        assert result.alone is None
        assert result.pooled is not None
        assert result.pooled.up_bytes.keys() == {"gnb"}
        assert [row["training"] for row in rows(ws, "vertical")] == ["vertical", "pooled"]
        assert "against pooled data" in sentence(ws, "vertical")

    def test_the_privacy_budget_bounds_the_epochs(self, ws, asks):
        noisy = {"embedding_clip": 1.0, "embedding_noise": 4.0, "compare": False}
        allowed = epsilon_embedding(4.0, 3, DELTA)  # two epochs, and validation at the end
        result = vertical(asks(**noisy, epsilon=allowed), ws)
        assert len(result.vertical.epochs) == 2
        assert result.epsilon_embedding == allowed
        with pytest.raises(FederationError, match=r"one epoch with embedding_noise 4 spends"):
            vertical(asks(**noisy, epsilon=0.1), Workspace(ws.root, "less"))

    def test_a_budget_of_time_ends_after_the_epoch_that_spends_it(self, ws, asks):
        result = vertical(asks(budget_s=1e-6, compare=False), ws)
        assert (result.vertical.status, len(result.vertical.epochs)) == ("budget", 1)

    def test_sites_of_others_can_be_aligned_by_time(self, ws, asks):
        parties = {"gnb": {"sites": ["north"]}, "ue": {"features": ["users"], "sites": ["south"]}}
        result = vertical(asks(parties=parties, align="time", compare=False), ws)
        assert result.common == 96 - 6 - 3 + 1  # the windows of one site

    @pytest.mark.parametrize(
        ("more", "error", "said"),
        [
            ({"active": "nobody"}, UnknownName, "no party 'nobody'"),
            ({"parties": {**PARTIES, "ue": {"features": ["user"]}}}, UnknownName, "Did you mean 'users'"),
            ({"parties": {**PARTIES, "ue": {"features": ["users"], "sites": ["nort"]}}}, UnknownName, "Did you mean 'north'"),
            ({"segments": ["second"]}, UnknownName, "no segment of 'tiny' 'second'"),
            ({"embedding_noise": 1.0}, ParamsError, "set embedding_clip too"),
            ({"epsilon": 1.0}, ParamsError, "set embedding_noise"),
            ({"pooled": True, "align": "time"}, ParamsError, "pooled wants parties of the same data set and sites"),
            (
                {"parties": {"gnb": {"sites": ["north"]}, "ue": {"features": ["users"], "sites": ["south"]}}},
                FederationError,
                "no id in common.*check that their clocks",
            ),
            ({"parties": {**PARTIES, "ue": {"features": ["users"], "dataset": "nowhere"}}}, Exception, "no panel in"),
        ],
    )
    def test_what_cannot_be_meant_is_said(self, ws, asks, more, error, said):
        with pytest.raises(error, match=said):
            vertical(asks(**more), ws)

    def test_other_times_and_other_cadences_are_told(self, ws, asks, make_panel):
        late = make_panel()
        held = {"gnb": {}, "ue": {"features": ["users"], "dataset": "late"}}
        schema = late.schema.model_copy(update={"dataset": "late", "start_ms": late.schema.start_ms + 10**11})
        Panel.from_arrays(schema, columns(late)).save(ws.panel("late"))
        with pytest.raises(FederationError, match="no id in common"):
            vertical(asks(parties=held), ws)
        Panel.from_arrays(schema.model_copy(update={"cadence_s": 1800}), columns(late)).save(ws.panel("late"))
        with pytest.raises(FederationError, match="cadence_s differs"):
            vertical(asks(parties=held), Workspace(ws.root, "again"))


def test_a_stretch_keeps_its_times_and_blanks_what_lies_between(panel):
    segments = (Segment(name="a", start=0, stop=48), Segment(name="b", start=48, stop=96), Segment(name="c", start=96, stop=288))
    whole = Panel.from_arrays(panel.schema.model_copy(update={"segments": segments}), columns(panel))
    some = stretch(whole, (24, 240), ["a", "c"])
    assert [(s.name, s.start, s.stop) for s in some.schema.segments] == [("a", 0, 24), ("c", 72, 216)]
    assert some.times_ms().tolist() == whole.times_ms()[24:240].tolist()
    assert not some.good("users")[24:72].any()
    assert some.values("users")[72:].tolist() == whole.values("users")[96:240].tolist()


def unmetered(course: Any) -> Any:
    """All but what was spent, which no two processes share."""
    assert course.energy_j > 0
    return course.model_copy(update={"energy_j": None})


class TestTransfer:
    def test_the_targets_owners_get_the_sources_body(self, ws, asks_transfer):
        told: list[str] = []
        result = transfer(asks_transfer(), ws, on_progress=told.append)
        assert (result.source, result.dataset, result.before.rounds, result.transfer.rounds) == ("other", "tiny", 2, 2)
        assert result.taken_share > 0.5
        assert set(result.transfer.mae_by_owner) == {"north", "east", "south", "west"} == set(result.alone.mae_by_owner)
        assert set(result.before.mae_by_owner) == {"a", "b"}
        began = [line.partition(":")[0] for line in told]
        assert began == [f"{which} round {n}" for which in ("source", "alone", "transfer") for n in (1, 2)]
        assert [row["owner"] for row in rows(ws, "transfer")] == ["east", "north", "south", "west", "all"]
        assert transfer(asks_transfer(), ws, on_progress=told.append) == result
        assert len(told) == 6
        assert (ws.run_folder / TRANSFER).is_file()

    def test_a_process_that_was_killed_goes_on_to_the_same_model(self, ws, asks_transfer):
        whole = transfer(asks_transfer(), Workspace(ws.root, "whole"))
        with pytest.raises(Cut):
            transfer(asks_transfer(), ws, on_progress=killed_after(5))
        resumed = transfer(asks_transfer(), ws)
        assert resumed.transfer.mae_by_owner == whole.transfer.mae_by_owner
        assert unmetered(resumed.alone) == unmetered(whole.alone)

    def test_owners_with_privacy_train_once(self, ws, make_params):
        private = {"privacy": ["local_dp"], "privacy_options": {"local_dp": {"epsilon": 1000.0}}}
        with pytest.raises(ParamsError, match="spends their privacy budget twice"):
            transfer(make_params(federation={"transfer": BODY, **private}), ws)
        plain = transfer(make_params(federation={"transfer": BODY | {"compare": False}}), Workspace(ws.root, "plain"))
        noisy = transfer(make_params(federation={"transfer": BODY | {"compare": False}, **private}), ws)
        assert noisy.alone is None
        assert noisy.transfer.mae != plain.transfer.mae

    def test_rows_are_the_newest_of_the_training_span(self, ws, asks_transfer):
        with pytest.raises(FederationError, match="window"):
            transfer(asks_transfer(rows=2), ws)  # three steps are forecast

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            ({"source": "tiny"}, "which is the data set to train on"),
            ({"rule": "fedgram"}, "does not end with one network"),
            ({"rule": "personalised"}, "does not end with one network"),
            ({"model": "auto"}, "name both, 'auto'"),
            ({"rule": "fedagv"}, "Did you mean 'fedavg'"),
        ],
    )
    def test_what_cannot_be_meant_is_said(self, ws, asks_transfer, more, said):
        with pytest.raises((ParamsError, UnknownName), match=said):
            transfer(asks_transfer(**more), ws)

    def test_a_source_of_another_cadence_is_refused(self, ws, asks_transfer, make_panel):
        other = make_panel(1, cadence_s=1800)
        Panel.from_arrays(other.schema.model_copy(update={"dataset": "other"}), columns(other)).save(ws.panel("other"))
        with pytest.raises(FederationError, match="a row every 1800 s, 'tiny' one every 3600 s"):
            transfer(asks_transfer(), ws)

    def test_the_source_is_seen_with_its_own_span_and_owners(self, make_params):
        params = make_params(federation={"transfer": BODY, "owners": 3}, problem={"targets": ["traffic"]}, split={"since": 24})
        own = {"split": {"until": 100}, "federation": {"owners": 2}}
        seen = source_params(params.model_copy(update={"for_dataset": {"other": own}}), "other")
        assert (seen.dataset, seen.federation.owners, seen.problem.targets) == ("other", 2, ())
        assert (seen.split.since, seen.split.until, seen.split.train) == (None, 100, 0.7)


def test_the_configuration_of_gnb_prb_is_one():
    params = load(REPOSITORY / "params.yaml", ["dataset=gnb-prb"])
    check_asked(params, "vertical", load_catalogue(REPOSITORY / "data" / "catalogue.yaml"))
    assert datasets(params, "vertical") == ("gnb-prb",)


def test_a_run_keeps_the_panels_of_all_its_data_sets_and_another_source_is_another_run(ws, asks_transfer):
    versions = {name: data_version(ws, name) for name in ("tiny", "other")}
    open_ = lambda params: runs.open_run(  # noqa: E731
        params, ws.root, versions["tiny"], again="transfer", beside=[(source_params(params, "other"), versions["other"])]
    )
    held = open_(asks_transfer())
    assert data_version(held, "other") == versions["other"]
    assert data_version(held, "tiny") == versions["tiny"]
    changed = versions["other"].model_copy(update={"hash": "0" * 32})
    assert isinstance(changed, DataVersion)
    params = asks_transfer()
    other = runs.open_run(params, ws.root, versions["tiny"], again="transfer", beside=[(source_params(params, "other"), changed)])
    assert other.run != held.run


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (["vertical", "--dataset", "milan-5x5"], ParamsError, "federation.vertical is not set for data set 'milan-5x5'"),
        (["vertical", "-d", "gnb-prb", "--set", "federation.vertical.activ=ue"], ParamsError, "did you mean 'active'"),
        (
            ["vertical", "-d", "gnb-prb", "--set", "federation.vertical.parties.ue.features=[dl_cqq]"],
            UnknownName,
            "mean 'dl_cqi'",
        ),
        (["vertical", "-d", "gnb-prb", "--set", "federation.runtime=deployed"], ParamsError, "run in one process"),
        (
            ["transfer", "-d", "gnb-prb", "--source", "milan-5x5"],
            FederationError,
            "a row every 600 s, 'gnb-prb' one every 0.25 s",
        ),
        (["transfer", "-d", "city", "--source", "city"], ParamsError, "which is the data set to train on"),
        (["transfer", "-d", "city", "--source", "milan-5x6"], UnknownName, "Did you mean 'milan-5x5'"),
    ],
)
def test_the_commands_say_what_is_wrong_before_anything_starts(words, error, said, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    for name in ("params.yaml", "data/catalogue.yaml"):
        (tmp_path / name).write_text((REPOSITORY / name).read_text())
    monkeypatch.setenv("CELLWRIGHT_ROOT", str(tmp_path))
    done = CliRunner().invoke(app, ["federate", *words])
    assert isinstance(done.exception, error)
    assert said in str(done.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "params.yaml"]


def test_the_guides_examples_are_accepted():
    text = (REPOSITORY / "docs" / "federation.md").read_text()
    blocks = [yaml.safe_load(block.partition("```")[0]) for block in text.split("```yaml federation\n")[1:]]
    catalogue, asked = load_catalogue(REPOSITORY / "data" / "catalogue.yaml"), []
    for raw in blocks:
        check(raw, "docs/federation.md")
        for name, block in raw.get("for_dataset", {}).items():
            for kind in block["federation"]:
                check_asked(check({"dataset": name, **block}, "docs/federation.md"), kind, catalogue)
                asked.append(kind)
    assert sorted(asked) == ["transfer", "vertical"]
    assert len(blocks) == 4
