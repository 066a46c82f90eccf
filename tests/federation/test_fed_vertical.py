"""Vertical federated learning: features at one owner, the target at another; only embeddings and gradients cross."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from cellwright.errors import FederationError, Refused, UnknownName
from cellwright.federation.alignment import rows
from cellwright.federation.alignment.parting import part
from cellwright.federation.alignment.party import VerticalParty
from cellwright.federation.alignment.vertical import Vertical, VerticalResult, epsilon_embedding, vertical_train
from cellwright.federation.contract import NodeState, Parcel
from cellwright.federation.runtimes.local import open_channel
from cellwright.panel import Feature, Panel, PanelSchema, Segment

ROWS, CADENCE_S = 160, 600.0
SETTINGS = Vertical(
    model="mlp",
    options={"hidden": 12, "depth": 1, "dropout": 0.1},
    history=4,
    horizon=2,
    calendar=False,
    epochs=10,
    batch=64,
    learning_rate=1e-2,
)
SHORT = SETTINGS.model_copy(update={"epochs": 3, "steps": 2})


def panel(sites: tuple[str, ...] = ("s0", "s1"), start: int = 0, cadence_s: float = CADENCE_S, **columns: np.ndarray) -> Panel:
    count = len(next(iter(columns.values())))
    schema = PanelSchema(
        dataset="generated",
        sites=sites,
        features=tuple(Feature(name=name, unit="1") for name in columns),
        targets=(next(iter(columns)),),
        cadence_s=cadence_s,
        clock="utc",
        start_ms=round(start * cadence_s * 1000),
        rows=count,
        segments=(Segment(name="all", start=0, stop=count),),
        licence="generated",
        attribution="",
    )
    return Panel.from_arrays(schema, columns)


def generated(count: int) -> dict[str, np.ndarray]:
    """The load of a cell follows the buffer two steps later; a party that sees the load alone can hardly know."""
    rng = np.random.default_rng(0)
    drive = np.zeros((count, 2))
    for t in range(1, count):
        drive[t] = 0.9 * drive[t - 1] + rng.normal(0, 0.4, 2)
    load = 10 + 3 * np.vstack([np.zeros((2, 2)), drive[:-2]]) + rng.normal(0, 0.3, (count, 2))
    return {"load": load, "buffer": 100 * drive, "noise": rng.normal(0, 1, (count, 2))}


@pytest.fixture(scope="module")
def telemetry() -> dict[str, np.ndarray]:
    return generated(ROWS)


class Recorder(VerticalParty):
    """A party that remembers its messages."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.log: list[tuple[str, Parcel, Parcel]] = []

    def answer(self, kind: str, parcel: Parcel, state: NodeState) -> Parcel:
        reply = super().answer(kind, parcel, state)
        self.log.append((kind, parcel, reply))
        return reply


def parties(
    telemetry: dict[str, np.ndarray], kind: type[VerticalParty] = VerticalParty, **named: Any
) -> dict[str, VerticalParty]:
    return {
        "gnb": kind("gnb", panel(load=telemetry["load"]), targets=["load"], **named),
        "ue": kind("ue", panel(buffer=telemetry["buffer"], noise=telemetry["noise"]), **named),
    }


def together(nodes: dict[str, Any], settings: Vertical = SHORT, **named: Any) -> VerticalResult:
    return vertical_train(open_channel(nodes), settings, active="gnb", passives=["ue"], **({"alone": False} | named))


def figures(result: VerticalResult) -> tuple[Any, ...]:
    trial = result.vertical
    return [e.model_dump() for e in trial.epochs], trial.mae, trial.mse, trial.best_epoch


def test_it_beats_the_active_party_alone_by_half_and_comes_within_a_quarter_of_pooled_data():
    telemetry = generated(400)
    vertical = together(parties(telemetry), SETTINGS, alone=True)
    whole = VerticalParty("gnb", panel(**telemetry), targets=["load"])
    pooled = vertical_train(open_channel({"gnb": whole}), SETTINGS, active="gnb")
    assert vertical.alone is not None
    assert vertical.windows == pooled.windows
    assert vertical.vertical.mae < 0.5 * vertical.alone.mae
    assert vertical.vertical.mae < 1.25 * pooled.vertical.mae


class TestWhatCrosses:
    @pytest.fixture(scope="class")
    @classmethod
    def talk(cls, telemetry) -> tuple[dict[str, Recorder], VerticalResult]:
        nodes = parties(telemetry, Recorder)
        return nodes, together(nodes)

    def test_embeddings_and_gradients_alone(self, talk):
        nodes, result = talk
        crossing = [p for node in nodes.values() for _, *both in node.log for p in both if p.arrays]
        assert {name for p in crossing for name in p.arrays} == {"h", "h/ue", "gradient", "gradient/ue"}
        assert {a.shape[1] for p in crossing for a in p.arrays.values()} == {result.widths["ue"]} == {12}
        assert all(set(p.blobs) <= {"points", "common"} for n in nodes.values() for _, *both in n.log for p in both)

    def test_no_value_of_the_telemetry(self, talk, telemetry):
        nodes, _ = talk
        raw = {np.float32(v) for column in telemetry.values() for v in column.ravel()}
        for node in nodes.values():
            for _, *both in node.log:
                for array in (a for p in both for a in p.arrays.values()):
                    assert not raw & set(array.ravel()[array.ravel() != 0])

    def test_the_bytes_of_each_party_are_those_of_its_messages(self, talk, telemetry):
        """256 numbers of 4 bytes at least cross for each batch of 64 windows and 12 numbers a window."""
        _, result = talk
        again = Counting(open_channel(parties(telemetry)))
        same = vertical_train(again, SHORT, active="gnb", passives=["ue"], alone=False)
        counted = sum(same.vertical.up_bytes.values()) + sum(same.vertical.down_bytes.values()) + same.align_bytes
        assert counted == again.bytes
        assert same.vertical.up_bytes == result.vertical.up_bytes
        assert result.vertical.up_bytes["ue"] > 3 * 2 * 64 * 12 * 4

    def test_the_same_seed_gives_the_same_model_and_another_seed_another(self, talk, telemetry):
        assert figures(together(parties(telemetry))) == figures(talk[1])
        assert figures(together(parties(telemetry), SHORT.model_copy(update={"seed": 8}))) != figures(talk[1])


class Counting:
    """A channel that adds up the bytes of all replies."""

    def __init__(self, channel: Any) -> None:
        self.channel, self.bytes = channel, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.channel, name)

    def receive(self, *given: Any, **named: Any) -> Any:
        replies = self.channel.receive(*given, **named)
        self.bytes += sum(r.sent_bytes + r.received_bytes for r in replies.values())
        return replies


class Leaving(VerticalParty):
    """A party that is cut off at its n-th message of a kind."""

    at: tuple[str, int] = ("", 0)

    def answer(self, kind: str, parcel: Parcel, state: NodeState) -> Parcel:
        if kind == self.at[0]:
            self.at = (kind, self.at[1] - 1)
            if self.at[1] == 0:
                raise FederationError("power cut")
        return super().answer(kind, parcel, state)


class TestAPartyLeaves:
    @pytest.mark.parametrize("at", [("vertical_step", 6), ("vertical_keep", 2), ("vertical_embed", 1), ("vertical_begin", 1)])
    def test_the_next_call_goes_on_to_the_same_model(self, telemetry, tmp_path: Path, at: tuple[str, int]):
        """`vertical_step` 6 is within the second epoch; `vertical_keep` 2: one party has kept an epoch, the other has not."""
        nodes = parties(telemetry, Leaving)
        nodes["ue"].at = at
        channel = open_channel(nodes)
        call: Callable[[], VerticalResult] = lambda: vertical_train(  # noqa: E731
            channel, SHORT, active="gnb", passives=["ue"], alone=False, checkpoint=tmp_path / "vertical.json"
        )
        with pytest.raises(FederationError, match=rf"'ue' gave no answer to '{at[0]}' \(power cut\).*epoch"):
            call()
        assert figures(call()) == figures(together(parties(telemetry)))

    def test_parties_and_coordinator_that_were_killed_go_on_from_their_folders(self, telemetry, tmp_path: Path):
        def nodes(kind: type[VerticalParty]) -> dict[str, VerticalParty]:
            made = parties(telemetry, kind)
            for name, node in made.items():
                node.folder = tmp_path / name
            return made

        first, told = nodes(Leaving), []
        first["gnb"].at = ("vertical_learn", 5)
        with pytest.raises(FederationError, match="epoch 2 was finished before, and is kept by the parties and"):
            together(first, checkpoint=tmp_path / "vertical.json")
        result = together(
            nodes(VerticalParty), checkpoint=tmp_path / "vertical.json", on_epoch=lambda run, e: told.append((run, e.epoch))
        )
        assert told == [("vertical", 3)]
        assert figures(result) == figures(together(parties(telemetry)))

    def test_a_party_that_lost_what_it_kept_says_so(self, telemetry, tmp_path: Path):
        together(parties(telemetry), checkpoint=tmp_path / "vertical.json")
        with pytest.raises(
            FederationError, match=r"has nothing where the weights of epoch 3 .* remove the coordinator's checkpoint"
        ):
            together(parties(telemetry), checkpoint=tmp_path / "vertical.json")

    def test_a_checkpoint_of_another_training_is_not_taken(self, telemetry, tmp_path: Path):
        together(parties(telemetry), checkpoint=tmp_path / "vertical.json")
        with pytest.raises(FederationError, match="belongs to another training"):
            together(parties(telemetry), SHORT.model_copy(update={"batch": 32}), checkpoint=tmp_path / "vertical.json")


class TestNoise:
    NOISY = SHORT.model_copy(update={"embedding_clip": 1.0, "embedding_noise": 2.0})

    def test_embeddings_are_no_longer_than_the_clip(self, telemetry):
        nodes = parties(telemetry, Recorder)
        together(nodes, SHORT.model_copy(update={"embedding_clip": 0.5}))
        sent = [reply.arrays["h"] for kind, _, reply in nodes["ue"].log if "h" in reply.arrays]
        assert max(np.linalg.norm(h, axis=1).max() for h in sent) <= 0.5 + 1e-6

    def test_noise_hides_the_telemetry_from_a_linear_inversion(self):
        """Who knows some embeddings with their telemetry learns to read the others: R² of the newest buffer value."""
        telemetry = generated(400)
        assert readable(telemetry, SHORT.model_copy(update={"embedding_clip": 1.0})) > 0.6
        assert readable(telemetry, self.NOISY) < 0.1

    def test_noise_differs_each_time_unless_its_seed_is_given(self, telemetry):
        drawn = [figures(together(parties(telemetry), self.NOISY)) for _ in range(2)]
        given = [figures(together(parties(telemetry, noise_seed=1), self.NOISY)) for _ in range(2)]
        assert drawn[0] != drawn[1]
        assert given[0] == given[1]

    def test_epsilon_worked_out(self):
        """noise 2: ρ = 2/4 = 0.5; ε = 0.5 + 2 √(0.5 · ln 10⁵) = 0.5 + 2 · 2.39926 = 5.29852."""
        assert epsilon_embedding(2.0, 1, 1e-5) == pytest.approx(5.29852, abs=1e-5)
        assert epsilon_embedding(2.0, 4, 1e-5) == pytest.approx(2 + 2 * math.sqrt(2 * math.log(1e5)))
        assert epsilon_embedding(0.0, 1, 1e-5) is None

    def test_the_result_states_it(self, telemetry):
        """Three epochs, and the best weights' validation at the end."""
        assert together(parties(telemetry), self.NOISY).epsilon_embedding == epsilon_embedding(2.0, 4, 1e-5)
        assert together(parties(telemetry)).epsilon_embedding is None

    def test_noise_without_a_clip_means_nothing(self):
        with pytest.raises(ValidationError, match="set embedding_clip"):
            Vertical(embedding_noise=1.0)


def readable(telemetry: dict[str, np.ndarray], settings: Vertical) -> float:
    """R² on every other training window of what a linear map of the rest's embeddings says of the newest buffer value."""
    nodes = parties(telemetry)
    channel = open_channel(nodes)
    result = vertical_train(channel, settings, active="gnb", passives=["ue"], alone=False)
    ask = Parcel(values={"run": "vertical", "span": "train", "first": 0, "stop": result.windows["train"]})
    h = nodes["ue"].answer("vertical_embed", ask, channel.grid.states()["ue"]).arrays["h"]
    times = np.arange(4, 4 + result.windows["train"] // 2)  # two sites take turns, from the fifth row on
    newest = telemetry["buffer"][times - 1].ravel()
    known, unknown = (np.hstack([h, np.ones((len(h), 1))])[i::2] for i in (0, 1))
    said = unknown @ np.linalg.lstsq(known, newest[::2], rcond=None)[0]
    return 1 - (newest[1::2] - said).var() / newest[1::2].var()


class TestAlignment:
    def test_spans_by_hand(self):
        """Times 0 … 9, targets reach 2 steps: 0.5 and 0.3 cut at 5 and 8, and no target of a span reaches over its end."""
        times = np.arange(10)
        found = rows.cut(rows.Rows(times, times, times * 0), train=0.5, validation=0.3, reach_ms=2)
        assert [s.tolist() for s in (found.train, found.validation, found.test)] == [[0, 1, 2, 3], [5, 6], [8, 9]]
        assert found.train_until_ms == 5

    def test_only_common_times_are_trained_on(self, telemetry):
        """The UE's telemetry begins 50 rows later: of 155 windows a site, 105 are common, at two sites."""
        late = {name: telemetry[name][50:] for name in ("buffer", "noise")}
        nodes = parties(telemetry) | {"ue": VerticalParty("ue", panel(start=50, **late))}
        result = together(nodes)
        assert result.offered == {"gnb": 310, "ue": 210}
        assert result.common == 210

    def test_a_site_that_one_party_lacks_is_left_out(self, telemetry):
        one = {name: telemetry[name][:, 1:] for name in ("buffer", "noise")}
        nodes = parties(telemetry) | {"ue": VerticalParty("ue", panel(("s1",), **one))}
        assert together(nodes).common == 155

    def test_other_ues_at_the_same_times(self):
        """One slice's load, the buffers of two other UEs: `time` aligns what has no site in common."""
        telemetry = generated(400)
        nodes = {
            "gnb": VerticalParty("gnb", panel(("slice",), load=telemetry["load"][:, :1]), targets=["load"]),
            "ue": VerticalParty("ue", panel(("x", "y"), buffer=telemetry["buffer"])),
        }
        settings = SETTINGS.model_copy(update={"align": "time", "epochs": 6})
        result = together(nodes, settings, alone=True)
        assert result.common == 395
        assert result.alone is not None
        assert result.vertical.mae < 0.75 * result.alone.mae

    def test_two_passive_parties(self, telemetry):
        nodes = parties(telemetry) | {
            "ue": VerticalParty("ue", panel(buffer=telemetry["buffer"])),
            "core": VerticalParty("core", panel(noise=telemetry["noise"][20:], start=20)),
        }
        channel = open_channel(nodes)
        result = vertical_train(channel, SHORT, active="gnb", passives=["ue", "core"], alone=False)
        assert result.common == 270
        assert set(result.widths) == {"gnb", "ue", "core"}

    def test_no_common_time_stamp(self, telemetry):
        nodes = parties(telemetry) | {"ue": VerticalParty("ue", panel(start=10_000, buffer=telemetry["buffer"]))}
        with pytest.raises(FederationError, match=r"no id in common \(gnb: 310, ue: 310\); check that their clocks"):
            together(nodes)

    def test_too_few_common_times(self, telemetry):
        nodes = parties(telemetry) | {"ue": VerticalParty("ue", panel(start=150, buffer=telemetry["buffer"]))}
        with pytest.raises(FederationError, match="leave the validation span empty"):
            together(nodes)

    def test_another_cadence(self, telemetry):
        nodes = parties(telemetry) | {"ue": VerticalParty("ue", panel(cadence_s=300.0, buffer=telemetry["buffer"]))}
        with pytest.raises(FederationError, match=r"cadence_s differs \(gnb: 600.0, ue: 300.0\)"):
            together(nodes)


class TestRefusals:
    @pytest.mark.parametrize(
        ("h", "message"),
        [
            (np.zeros((64, 7), np.float32), r"must be float32 \(64, 12\), found float32 \(64, 7\)"),
            (np.full((64, 12), np.nan, np.float32), "not finite"),
        ],
    )
    def test_embeddings_of_another_size_or_without_value(self, telemetry, h: np.ndarray, message: str):
        class Wrong(VerticalParty):
            def answer(self, kind: str, parcel: Parcel, state: NodeState) -> Parcel:
                reply = super().answer(kind, parcel, state)
                return Parcel(arrays={"h": h}) if kind == "vertical_step" else reply

        nodes = parties(telemetry) | {"ue": Wrong("ue", panel(buffer=telemetry["buffer"]))}
        with pytest.raises(FederationError, match=message):
            together(nodes)

    def test_an_answer_without_its_embedding(self, telemetry):
        class Silent(VerticalParty):
            def answer(self, kind: str, parcel: Parcel, state: NodeState) -> Parcel:
                reply = super().answer(kind, parcel, state)
                return Parcel() if kind == "vertical_step" else reply

        nodes = parties(telemetry) | {"ue": Silent("ue", panel(buffer=telemetry["buffer"]))}
        with pytest.raises(Refused, match="party 'ue' answered 'vertical_step' without h"):
            together(nodes)

    def test_a_gradient_that_nothing_awaits(self, telemetry):
        node, state = parties(telemetry)["ue"], NodeState()
        node.answer("vertical_deploy", Parcel(values={"settings": SHORT.model_dump_json()}), state)
        node.answer("vertical_begin", Parcel(values={"run": "vertical", "aligned": False}), state)
        gradient = Parcel(arrays={"gradient": np.zeros((64, 12), np.float32)}, values={"run": "vertical", "learning_rate": 0.1})
        with pytest.raises(Refused, match="no embedding of its awaits one"):
            node.answer("vertical_step", gradient, state)

    def test_the_roles_must_be_those_that_were_meant(self, telemetry):
        with pytest.raises(Refused, match="exactly one party is active, and that was to be 'ue'"):
            vertical_train(open_channel(parties(telemetry)), SHORT, active="ue", passives=["gnb"])

    def test_messages_before_the_settings_and_unknown_ones(self, telemetry):
        node, state = parties(telemetry)["ue"], NodeState()
        with pytest.raises(Refused, match="not told the settings"):
            node.answer("vertical_step", Parcel(), state)
        node.answer("vertical_deploy", Parcel(values={"settings": SHORT.model_dump_json()}), state)
        with pytest.raises(Refused, match="answers vertical_begin"):
            node.answer("train", Parcel(), state)
        with pytest.raises(Refused, match="holds no targets"):
            node.answer("vertical_learn", Parcel(), state)

    def test_a_network_that_leaves_no_flat_embedding(self, telemetry):
        with pytest.raises(FederationError, match=r"'dlinear' cannot be split vertically.*use gru"):
            together(parties(telemetry), SHORT.model_copy(update={"model": "dlinear", "options": {}}))

    def test_a_feature_that_is_not_there(self, telemetry):
        with pytest.raises(UnknownName, match=r"no feature of party 'ue' 'bufer'.*Did you mean 'buffer'"):
            VerticalParty("ue", panel(buffer=telemetry["buffer"]), features=["bufer"])

    def test_spans_must_leave_a_test(self):
        with pytest.raises(ValidationError, match="must leave a test span"):
            Vertical(train=0.9, validation=0.2)


@pytest.mark.parametrize("model", ["gru", "lstm", "tcn"])
def test_other_networks_of_the_zoo(telemetry, model: str):
    size = "channels" if model == "tcn" else "hidden"
    settings = SHORT.model_copy(update={"model": model, "options": {size: 8}, "epochs": 1, "calendar": True})
    assert together(parties(telemetry), settings).widths == {"gnb": 8, "ue": 8}


class TestParts:
    def test_a_part_holds_its_features_and_sites_alone(self, telemetry):
        whole = panel(**telemetry)
        made = part(whole, ["buffer"], ["s1"])
        assert [f.name for f in made.schema.features] == ["buffer"]
        assert made.schema.targets == ("buffer",)
        assert np.array_equal(made.values("buffer")[:, 0], whole.values("buffer")[:, 1])

    def test_names_that_are_not_there(self, telemetry):
        with pytest.raises(UnknownName, match="no site of 'generated' 's9'"):
            part(panel(**telemetry), ["buffer"], ["s9"])
        with pytest.raises(FederationError, match="at least one feature"):
            part(panel(**telemetry), [])
