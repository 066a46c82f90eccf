"""Messages between the parties of vertical and transfer federations: signed, held against the rules, logged; what is wrong is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cellwright.errors import FederationError, Refused
from cellwright.federation.alignment.audit_summary import summary
from cellwright.federation.alignment.audited import Audit, AuditedChannel, Kits
from cellwright.federation.alignment.parting import part
from cellwright.federation.alignment.party import VerticalParty
from cellwright.federation.alignment.vertical import Vertical, vertical_train
from cellwright.federation.audit.chain import records, verify_log
from cellwright.federation.audit.rules import Rules
from cellwright.federation.audit.signing import Signer
from cellwright.federation.contract import NodeState, Parcel
from cellwright.federation.runtimes.local import open_channel
from cellwright.panel import Panel
from cellwright.params import Params
from cellwright.steps.federate_kinds import transfer, vertical
from cellwright.workspace import Workspace
from flows.cli import app

SMALL: dict[str, Any] = {
    "active": "gnb",
    "parties": {"gnb": {}, "ue": {"features": ["users"]}},
    "model": "mlp",
    "embedding": 8,
    "epochs": 2,
    "steps": 2,
    "batch": 32,
}
BODY = {"source": "other", "source_rounds": 1, "rounds": 2, "frozen_rounds": 1, "rule": "fedavg", "model": "gru"}
SETTINGS = Vertical(
    model="mlp", options={"hidden": 8, "dropout": 0.0}, epochs=2, steps=2, batch=32, history=4, horizon=2, calendar=False
)
KINDS = {"psi_offer", "psi_blind", "psi_learn"} | {
    f"vertical_{name}" for name in ("deploy", "begin", "step", "learn", "embed", "score", "keep", "back")
}

Change = Callable[[Parcel], Parcel]


@pytest.fixture
def ws(tmp_path, panel, make_panel) -> Workspace:
    (tmp_path / "params.yaml").write_text("dataset: tiny\n")
    ws = Workspace(tmp_path, "run")
    panel.save(ws.panel("tiny"))
    other = make_panel(1, sites=("a", "b"))
    columns = {f.name: other.values(f.name) for f in other.schema.features}
    Panel.from_arrays(other.schema.model_copy(update={"dataset": "other"}), columns).save(ws.panel("other"))
    return ws


@pytest.fixture
def asks(make_params) -> Callable[..., Params]:
    return lambda **more: make_params(
        federation={"vertical": SMALL, "transfer": BODY, **more}, split={"until": 96}, energy={"cpu_w_per_core": 10, "idle_s": 0}
    )


def said(log: Path) -> list[dict[str, Any]]:
    return list(records(log))


class Hostile(VerticalParty):
    """A party whose answers to one kind are changed on their way; `change` sees them signed."""

    kind, change = "", staticmethod(lambda reply: reply)

    def answer(self, kind: str, parcel: Parcel, state: NodeState) -> Parcel:
        reply = super().answer(kind, parcel, state)
        return self.change(reply) if kind == self.kind else reply


class Talk:
    """Two parties over an audited channel; the log is closed when the talk is over."""

    def __init__(self, panel: Panel, folder: Path, kind: str = "", change: Change | None = None, **rules: Any) -> None:
        self.panel, self.folder, self.log = panel, folder, folder / "audit.jsonl"
        self.kind, self.change, self.rules = kind, change or (lambda reply: reply), Rules(**rules)
        self.coordinator = Signer.generate()
        self.kits: Kits | None = None

    def run(self, settings: Vertical = SETTINGS, **named: Any) -> Any:
        with Audit.opened(self.log, self.coordinator) as audit:
            self.kits = self.kits or Kits.made(("gnb", "ue"), audit, None)
            gnb, ue = part(self.panel, ["traffic"]), part(self.panel, ["users"])
            nodes = {
                "gnb": VerticalParty("gnb", gnb, targets=["traffic"], kit=self.kits.by_name["gnb"], folder=self.folder / "gnb"),
                "ue": Hostile("ue", ue, kit=self.kits.by_name["ue"], folder=self.folder / "ue"),
            }
            nodes["ue"].kind, nodes["ue"].change = self.kind, self.change
            auditor = audit.auditor(self.rules, self.kits.keys, "r")
            channel = AuditedChannel(open_channel(nodes), auditor, audit.signer, state=self.folder / "auditor.json")
            return vertical_train(channel, settings, active="gnb", passives=["ue"], alone=False, **named)

    def refusals(self) -> list[tuple[str, str, str]]:
        return [(row["node"], row["kind"], row["rule"]) for row in said(self.log) if row["verdict"] == "refused"]


class TestVertical:
    def test_every_message_is_in_the_log_and_the_run_verifies(self, ws, asks, monkeypatch):
        result = vertical(asks(), ws)
        log = ws.run_folder / "vertical" / "audit.jsonl"
        told = Counter((row["node"], row["kind"], row["verdict"]) for row in said(log) if row["verdict"] != "note")
        assert {kind for _, kind, _ in told} == KINDS
        assert {verdict for *_, verdict in told} == {"sent", "accepted"}
        for (node, kind, verdict), count in told.items():
            assert told[node, kind, "accepted" if verdict == "sent" else "sent"] == count
        trial, alone = result.vertical, result.alone
        aligned = told.total() // 2 - trial.messages - alone.messages  # deployment, offer, blind and learn, to each of two
        assert (result.audit.accepted, result.audit.refused, result.audit.missed, aligned) == (told.total() // 2, 0, 0, 8)
        monkeypatch.setenv("CELLWRIGHT_ROOT", str(ws.root))
        for words in (["run"], ["run", "--head", result.audit.head], ["run", "--key", result.audit.key]):
            done = CliRunner().invoke(app, ["audit", "verify", *words])
            assert (done.exit_code, done.output.partition(":")[0]) == (0, "intact"), done.output
        assert '"kind": "vertical_learn"' in CliRunner().invoke(app, ["audit", "show", "run", "--json"]).output

    def test_a_record_that_was_altered_is_found(self, ws, asks, monkeypatch):
        vertical(asks(), ws)
        log = ws.run_folder / "vertical" / "audit.jsonl"
        log.write_text(log.read_text().replace('"kind":"vertical_step"', '"kind":"vertical_stop"', 1))
        monkeypatch.setenv("CELLWRIGHT_ROOT", str(ws.root))
        done = CliRunner().invoke(app, ["audit", "verify", "run"])
        assert done.exit_code == 1
        assert "it was altered" in done.output

    def test_each_round_of_the_log_is_an_epoch(self, ws, asks):
        vertical(asks(), ws)
        rounds = {row["kind"]: set() for row in said(ws.run_folder / "vertical" / "audit.jsonl")}
        for row in said(ws.run_folder / "vertical" / "audit.jsonl"):
            rounds[row["kind"]].add(row["round"])
        assert (rounds["psi_offer"], rounds["vertical_step"], rounds["vertical_learn"]) == ({0}, {1, 2}, {1, 2})

    def test_without_audit_nothing_is_signed_and_the_model_is_the_same(self, ws, asks):
        audited, bare = vertical(asks(), ws), vertical(asks(audit=False), Workspace(ws.root, "bare"))
        assert bare.audit is None
        assert not list((ws.artifacts / "bare").rglob("audit.jsonl"))
        assert (bare.vertical.mae, bare.vertical.epochs) == (audited.vertical.mae, audited.vertical.epochs)
        assert bare.vertical.up_bytes["ue"] < audited.vertical.up_bytes["ue"]

    def test_what_each_party_spent_is_told_with_its_source(self, ws, asks):
        trial = vertical(asks(), ws).vertical
        assert trial.energy_source == "modelled"
        assert trial.energy_j.keys() == trial.cpu_s.keys() == {"gnb", "ue"}
        for party, cpu_s in trial.cpu_s.items():
            assert trial.energy_j[party] == pytest.approx(10 * cpu_s)  # W of a core

    def test_a_run_that_was_cut_off_goes_on_in_the_same_log(self, ws, asks):
        class Cut(Exception):
            pass

        def say(line: str) -> None:
            if line.startswith("vertical epoch 1"):
                raise Cut

        whole = vertical(asks(), Workspace(ws.root, "whole"))
        with pytest.raises(Cut):
            vertical(asks(), ws, on_progress=say)
        resumed = vertical(asks(), ws)
        log = ws.run_folder / "vertical" / "audit.jsonl"
        begun = [row["index"] for row in said(log) if row["verdict"] == "note" and "begins, or goes on" in row["reason"]]
        assert len(begun) == 2
        assert resumed.vertical.mae == whole.vertical.mae
        assert resumed.audit == summary(ws.run_folder, log, resumed.audit.key)
        assert resumed.audit.records > whole.audit.records


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("kind", "change", "rule", "words"),
        [
            ("vertical_step", lambda r: replace(r, blobs={}), "signature", "not signed"),
            (
                "vertical_step",
                lambda r: replace(r, arrays={"h": r.arrays["h"] + 1}) if r.arrays else r,
                "signature",
                "forged, or altered",
            ),
            (
                "psi_blind",
                lambda r: Signer.generate().sign(r, sender="ue", sequence=2**60, request="r", kind="psi_blind"),
                "signature",
                "not that of the expected key",
            ),
            (
                "vertical_embed",
                lambda r: replace(r, values={**r.values, "sender": "gnb"}),
                "signature",
                "says its sender is 'gnb'",
            ),
        ],
    )
    def test_a_forged_answer_is_named_and_logged(self, panel, tmp_path, kind, change, rule, words):
        talk = Talk(panel, tmp_path, kind, change)
        with pytest.raises(FederationError, match=rf"party 'ue' gave no answer to '{kind}' \(its message was refused: .*{words}"):
            talk.run()
        assert talk.refusals() == [("ue", kind, rule)]
        assert verify_log(talk.log, talk.coordinator.public).ok

    def test_an_older_answer_is_a_replay(self, panel, tmp_path):
        seen: list[Parcel] = []

        def change(reply: Parcel) -> Parcel:
            seen.append(reply)
            return seen[0]

        talk = Talk(panel, tmp_path, "vertical_step", change)
        with pytest.raises(
            FederationError, match=r"'ue' gave no answer to 'vertical_step' \(its message was refused: .* a replay"
        ):
            talk.run()
        assert talk.refusals() == [("ue", "vertical_step", "replay")]

    def test_an_answer_of_another_epoch(self, panel, tmp_path):
        talk = Talk(panel, tmp_path, "vertical_step")
        talk.change = lambda reply: talk.signed(replace(reply, values={**reply.values, "round": 7}))
        talk.signed = resigning(talk)
        with pytest.raises(FederationError, match="it is of round 7, expected 1"):
            talk.run()
        assert talk.refusals() == [("ue", "vertical_step", "freshness")]

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_an_embedding_that_is_no_number(self, panel, tmp_path, bad):
        talk = Talk(panel, tmp_path, "vertical_step")
        talk.signed = resigning(talk)
        talk.change = lambda reply: talk.signed(replace(reply, arrays={"h": np.full_like(reply.arrays["h"], bad)}))
        with pytest.raises(
            FederationError, match=r"'ue' gave no answer to 'vertical_step' .*array 'h' holds values that are not finite"
        ):
            talk.run()
        assert talk.refusals() == [("ue", "vertical_step", "finite")]

    def test_a_message_that_is_too_large(self, panel, tmp_path):
        talk = Talk(panel, tmp_path, "vertical_step", max_bytes=100_000)
        talk.signed = resigning(talk)
        talk.change = lambda reply: talk.signed(replace(reply, arrays={"h": np.zeros((32, 1000), np.float32)}))
        with pytest.raises(FederationError, match=r"'ue' gave no answer .*128\d\d\d bytes, at most 100000 allowed"):
            talk.run()
        assert talk.refusals() == [("ue", "vertical_step", "size")]

    def test_energy_below_nothing(self, panel, tmp_path):
        talk = Talk(panel, tmp_path, "vertical_step")
        talk.signed = resigning(talk)
        talk.change = lambda reply: talk.signed(replace(reply, values={**reply.values, "usage/cpu_s": -1.0}))
        with pytest.raises(Refused, match="party 'ue' says that 'vertical_step' took less than nothing"):
            talk.run()

    def test_an_answer_to_the_process_before_is_a_replay_to_the_next(self, panel, tmp_path):
        """The parties keep their keys, so that only what the auditor remembers can tell."""
        told: list[Parcel] = []
        first = Talk(panel, tmp_path, "psi_offer", lambda reply: told.append(reply) or reply)
        first.run()
        second = Talk(panel, tmp_path, "psi_offer", lambda reply: told[0])
        second.coordinator, second.kits = first.coordinator, first.kits
        with pytest.raises(FederationError, match=r"'ue' gave no answer to 'psi_offer' .*replay"):
            second.run()
        assert second.refusals() == [("ue", "psi_offer", "replay")]
        assert verify_log(second.log, second.coordinator.public).ok


def resigning(talk: Talk) -> Change:
    """A party that lies under its own signature, with a sequence that is new."""

    def signed(reply: Parcel) -> Parcel:
        v = reply.values
        plain = replace(reply, blobs={n: b for n, b in reply.blobs.items() if n != "signature"})
        signer = talk.kits.by_name["ue"].signer
        return signer.sign(plain, sender="ue", sequence=int(v["sequence"]), request=str(v["request"]), kind=str(v["kind"]))

    return signed


class TestWhatAPartyRefuses:
    @pytest.fixture
    def node(self, panel) -> tuple[VerticalParty, NodeState, Signer]:
        coordinator, own = Signer.generate(), Signer.generate()
        with_keys = replace(Kits.made(["ue"], None, None).by_name["ue"], coordinator_key=coordinator.public, signer=own)
        node, state = VerticalParty("ue", part(panel, ["users"]), kit=with_keys), NodeState()
        told = Parcel(values={"settings": SETTINGS.model_dump_json()})
        reply = node.answer(
            "vertical_deploy", coordinator.sign(told, sender="c", sequence=5, request="r", kind="vertical_deploy"), state
        )
        assert reply.values["sender"] == "ue"
        return node, state, coordinator

    @pytest.mark.parametrize(
        ("about", "words"),
        [
            ({"sequence": 5}, "replay of an older one"),
            ({"request": "another"}, "is of request 'another'"),
            ({"kind": "vertical_step"}, "signed as 'vertical_step' and came as 'psi_offer'"),
        ],
    )
    def test_what_is_not_new_or_not_meant_for_it(self, node, about, words):
        party, state, coordinator = node
        offer = Parcel(values={"session": "ab" * 16, "parties": 2, "first": 0, "count": 8})
        signed = coordinator.sign(offer, **({"sender": "c", "sequence": 6, "request": "r", "kind": "psi_offer"} | about))
        with pytest.raises(Refused, match=words):
            party.answer("psi_offer", signed, state)
        assert "psi/points" not in state.blobs

    def test_what_the_coordinator_did_not_sign(self, node):
        party, state, _ = node
        offer = Parcel(values={"session": "ab" * 16, "parties": 2, "first": 0, "count": 8})
        with pytest.raises(Refused, match="not signed"):
            party.answer("psi_offer", offer, state)
        with pytest.raises(Refused, match="not that of the expected key"):
            party.answer("psi_offer", Signer.generate().sign(offer, sender="c", sequence=9, request="r", kind="psi_offer"), state)


class TestTransfer:
    def test_all_trainings_are_in_one_log_that_verifies(self, ws, asks, monkeypatch):
        result = transfer(asks(), ws)
        rows = said(ws.run_folder / "transfer" / "audit.jsonl")
        begun = [row["reason"].split("'")[1] for row in rows if row["verdict"] == "note" and "begins" in row["reason"]]
        assert begun == ["source", "alone", "transfer"]
        trained = Counter(row["node"] for row in rows if (row["kind"], row["verdict"]) == ("train", "accepted"))
        assert trained == {**dict.fromkeys("ab", 1), **dict.fromkeys(("north", "east", "south", "west"), 2 * 2)}
        assert (result.audit.refused, result.audit.accepted) == (0, result.audit.sent)
        monkeypatch.setenv("CELLWRIGHT_ROOT", str(ws.root))
        assert CliRunner().invoke(app, ["audit", "verify", "run", "--head", result.audit.head]).exit_code == 0

    def test_an_update_that_is_no_number_is_refused_and_the_others_go_on(self, ws, asks, monkeypatch):
        from cellwright.federation.owner import DataOwner

        answer = DataOwner.answer

        def poisoned(self: DataOwner, kind: str, parcel: Parcel, state: NodeState) -> Parcel:
            reply = answer(self, kind, parcel, state)
            if kind != "train" or self.name != "east":
                return reply
            name = next(iter(reply.arrays))
            bad = replace(reply, arrays={**reply.arrays, name: np.full_like(reply.arrays[name], np.nan)})
            v = reply.values
            plain = replace(bad, blobs={})
            return self.kit.signer.sign(plain, sender=self.name, sequence=v["sequence"], request=v["request"], kind=kind)

        monkeypatch.setattr(DataOwner, "answer", poisoned)
        result = transfer(asks(), ws)
        refused = [row for row in said(ws.run_folder / "transfer" / "audit.jsonl") if row["verdict"] == "refused"]
        assert {(row["node"], row["kind"], row["rule"]) for row in refused} == {("east", "train", "finite")}
        assert result.audit.refused == len(refused) == 2 * 2
        assert result.transfer.mae is not None

    def test_each_training_is_a_request_of_its_own(self, ws, asks, monkeypatch):
        """So a message of one is refused in another, however new its sequence is."""
        from cellwright.federation.owner import DataOwner

        answer, heard = DataOwner.answer, Counter()

        def listening(self: DataOwner, kind: str, parcel: Parcel, state: NodeState) -> Parcel:
            heard[parcel.values["request"]] += kind == "train"
            return answer(self, kind, parcel, state)

        monkeypatch.setattr(DataOwner, "answer", listening)
        transfer(asks(), ws)
        assert heard == {"transfer-other": 2, "transfer-tiny-fresh": 8, "transfer-tiny-transfer": 8}
