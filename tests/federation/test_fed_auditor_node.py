"""The auditor as a node of its own (M.3387 8.3.1): its key, its log, its verdicts; a coordinator that alters its own is caught."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from cellwright.errors import FederationError, Refused
from cellwright.federation.aggregation import rule
from cellwright.federation.audit.auditor import Auditor
from cellwright.federation.audit.chain import Head, head_path, line_of
from cellwright.federation.audit.comparing import difference
from cellwright.federation.audit.distant import DistantAuditor
from cellwright.federation.audit.log import AuditLog, records, verify_log
from cellwright.federation.audit.node import AuditorNode
from cellwright.federation.audit.rules import Form, Rules
from cellwright.federation.audit.shown import KIND, Shown, closed_up, packed, row_of, unpacked
from cellwright.federation.audit.signing import Signer
from cellwright.federation.compression import codec
from cellwright.federation.contract import NodeState, Parcel
from cellwright.federation.coordinator import Coordinator
from cellwright.federation.results import Federated
from cellwright.federation.runtimes.auditing import Seat, auditor_of
from cellwright.federation.runtimes.local import open_channel
from cellwright.steps.train import train
from cellwright.workspace import Workspace
from flows._cli import audit

CLOUD, WATCH = Signer.generate(), Signer.generate()
RULES = Rules(norm_ratio=None)


class Liar:
    """An auditor's node whose answers are changed on their way."""

    def __init__(self, node: AuditorNode, change: Callable[[Parcel], Parcel]) -> None:
        self.name, self.node, self.change = node.name, node, change

    def answer(self, kind: str, parcel: Parcel, state: NodeState) -> Parcel:
        return self.change(self.node.answer(kind, parcel, state))


def node_in(folder: Path, request: str, **more: Any) -> AuditorNode:
    return AuditorNode("watch", folder, WATCH, CLOUD.public, RULES, None, Form(None), request=request, **more)


def distant(node: Any, path: Path, request: str, key: str = WATCH.public) -> DistantAuditor:
    log = AuditLog.open(path, CLOUD)
    return DistantAuditor(
        open_channel({"watch": node}, clock="wall"), "watch", key, CLOUD, RULES, log, sender="cloud", request=request
    )


def trained(toy, auditor: Auditor, *, rounds: int = 3, checkpoint: Path | None = None, poison: str = "") -> Any:
    """Rounds of three nodes under an auditor, of which one may send what it must not."""
    nodes = {n: toy.Puller(n, float(i)) for i, n in enumerate("abc")}
    nodes["c"].poison = poison
    made = Coordinator(
        open_channel(nodes), toy.TASK, rule("fedavg"), toy.settings(rounds=rounds, least_owners=2), codec=codec("none"),
        topology=toy.star(sorted(nodes)), auditor=auditor, signer=CLOUD, checkpoint=checkpoint,
    )  # fmt: skip
    return made.run(toy.initial())


@pytest.mark.parametrize("poison", ["", "nan", "round"])
def test_a_node_says_what_an_auditor_of_the_process_would_say(toy, tmp_path, poison):
    near = Auditor(RULES, None, AuditLog.open(tmp_path / "near.jsonl", CLOUD), request=toy.TASK.request)
    far = distant(node_in(tmp_path / "watch", toy.TASK.request), tmp_path / "far.jsonl", toy.TASK.request)
    outcomes = [trained(toy, auditor, poison=poison) for auditor in (near, far)]
    near.close()
    far.close()
    for name, array in outcomes[0].arrays.items():
        assert array.tobytes() == outcomes[1].arrays[name].tobytes()
    assert [r.owners for r in outcomes[0].rounds] == [r.owners for r in outcomes[1].rounds]
    said = [[{**row_of(row), "digest": ""} for row in records(tmp_path / f"{name}.jsonl")] for name in ("near", "far")]
    assert said[0] == said[1]
    assert near.reliability("c") == pytest.approx(far.reliability("c"), abs=0.2)  # the test at the end is judged, not asked again


def test_both_keep_a_log_each_under_its_own_key_and_they_agree(toy, tmp_path):
    auditor = distant(node_in(tmp_path / "watch", toy.TASK.request), tmp_path / "audit.jsonl", toy.TASK.request)
    trained(toy, auditor)
    auditor.close()
    mine, theirs = tmp_path / "audit.jsonl", tmp_path / "watch" / "audit.jsonl"
    assert verify_log(mine, CLOUD.public, closed=True).ok
    assert verify_log(theirs, WATCH.public, closed=True).ok
    assert difference(mine, theirs) == ""
    assert {row["verdict"] for row in records(theirs)} == {"sent", "accepted"}
    assert (tmp_path / "watch" / "auditor.json").stat().st_mode & 0o077 == 0


def forged(log: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """The coordinator writes its own log anew: every hash fits, and its signature is good."""
    rows = list(records(log))
    change(rows)
    lines, previous = [], "0" * 64
    for index, row in enumerate(rows):
        line, previous = line_of({k: v for k, v in row.items() if k not in ("index", "previous", "hash")}, index, previous)
        lines.append(line)
    log.write_bytes(b"".join(lines))
    head_path(log).write_text(Head(len(rows), previous, closed=True).signed(CLOUD).text())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[-1].update(verdict="refused", rule="norm", reason="no"), "is refused (norm: no)"),
        (lambda rows: rows[2].update(digest="00" * 32), "digest 0000000000000000"),
        (lambda rows: rows.pop(), "audit.jsonl ends before line"),
        (lambda rows: rows.append(dict(rows[-1])), "ends before line"),
        (lambda rows: rows.insert(0, rows.pop(3)), "line 1:"),
    ],
)
def test_a_coordinator_that_alters_its_log_is_caught_by_the_auditors(toy, tmp_path, change, words):
    auditor = distant(node_in(tmp_path / "watch", toy.TASK.request), tmp_path / "audit.jsonl", toy.TASK.request)
    trained(toy, auditor, rounds=1)
    auditor.close()
    mine, theirs = tmp_path / "audit.jsonl", tmp_path / "watch" / "audit.jsonl"
    app = typer.Typer()
    audit.add_to(app)
    ask = ["audit", "verify", str(mine), "--key", CLOUD.public, "--closed"]
    assert CliRunner().invoke(app, [*ask, "--against", str(theirs)]).exit_code == 0
    forged(mine, change)
    assert CliRunner().invoke(app, ask).exit_code == 0  # alone it cannot be told
    caught = CliRunner().invoke(app, [*ask, "--against", str(theirs)])
    assert caught.exit_code == 1
    assert words in caught.output.replace("\n", "")


def test_only_the_coordinators_new_questions_are_answered(toy, tmp_path):
    node, state = node_in(tmp_path / "watch", "r"), NodeState()
    told = {"sender": "cloud", "request": "r", "kind": KIND}
    asked = CLOUD.sign(closed_up(Shown(0, [["late", "train", "a", "slow"]])), sequence=5, **told)
    node.answer(KIND, asked, state)
    for wrong, why in (
        (asked, "replay"),
        (closed_up(Shown(0)), "not signed"),
        (WATCH.sign(closed_up(Shown(0)), sequence=9, **told), "forged"),
        (CLOUD.sign(closed_up(Shown(0)), sequence=9, **{**told, "request": "other"}), "of request 'other'"),
        (CLOUD.sign(Parcel(), sequence=9, **told), "of another form"),
        (CLOUD.sign(closed_up(Shown(7)), sequence=10, **told), "holds 7 messages, that of watch 1"),
        (CLOUD.sign(closed_up(Shown(1, [["rob", "a"]])), sequence=11, **told), "knows no event 'rob'"),
    ):
        with pytest.raises(Refused, match=why):
            node.answer(KIND, wrong, state)
    with pytest.raises(Refused, match="does not answer 'train'"):
        node.answer("train", asked, state)
    again = node_in(tmp_path / "watch", "r")  # another process of the same node
    with pytest.raises(Refused, match="replay"):
        again.answer(KIND, asked, state)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: replace(p, blobs={**p.blobs, "rows": b"[]"}), "is not its own"),
        (lambda p: replace(p, blobs={k: v for k, v in p.blobs.items() if k != "signature"}), "is not its own"),
        (
            lambda p: CLOUD.sign(replace(p, blobs={"rows": b"[]"}), sender="watch", sequence=9**18, request="req-1"),
            "is not its own",
        ),
    ],
)
def test_a_verdict_that_is_not_the_auditors_ends_the_training(toy, tmp_path, change, words):
    node = Liar(node_in(tmp_path / "watch", toy.TASK.request), change)
    with pytest.raises(FederationError, match=words):
        trained(toy, distant(node, tmp_path / "audit.jsonl", toy.TASK.request))


def test_an_auditor_that_does_not_answer_ends_the_training(toy, tmp_path):
    auditor = distant(node_in(tmp_path / "watch", "another"), tmp_path / "audit.jsonl", toy.TASK.request)
    with pytest.raises(FederationError, match=r"the auditor 'watch' gives no verdict .*of request 'req-1'"):
        trained(toy, auditor)


def test_a_coordinator_that_was_killed_is_told_what_it_missed(toy, tmp_path):
    """It dies between the auditor's answer and its own log's lines; a new process of both goes on from the checkpoint."""
    request, mine, theirs = toy.TASK.request, tmp_path / "audit.jsonl", tmp_path / "watch" / "audit.jsonl"
    first = distant(node_in(tmp_path / "watch", request), mine, request)

    class Killed(BaseException):
        pass

    def dies(record: Any) -> str:
        raise Killed

    shown, calls = first._copy.append, [0]

    def counted(record: Any) -> str:
        calls[0] += 1
        return dies(record) if calls[0] == 20 else shown(record)

    first._copy.append = counted  # type: ignore[method-assign]
    with pytest.raises(Killed):
        trained(toy, first, checkpoint=tmp_path / "checkpoint")
    assert difference(mine, theirs) != ""
    second = distant(node_in(tmp_path / "watch", request), mine, request)
    outcome = trained(toy, second, checkpoint=tmp_path / "checkpoint")
    second.close()
    assert len(outcome.rounds) == 3
    assert difference(mine, theirs) == ""
    assert any("resumed" in row["reason"] for row in records(theirs))


def test_a_message_reaches_the_auditor_byte_for_byte():
    arrays = {"z": np.arange(6, dtype=np.float16).reshape(2, 3), "a": np.array(7, np.int64), "none": np.zeros((0, 2), np.float32)}
    parcel = Parcel(arrays, {"s": b"\0\1", "empty": b""}, {"x": 0.1, "n": 1 << 62, "t": "ü", "yes": True, "nan": float("nan")})
    again = unpacked(packed(parcel))
    assert again.digest() == parcel.digest()
    assert list(again.arrays) == ["z", "a", "none"]
    assert json.dumps(dict(again.values)) == json.dumps(dict(parcel.values))
    for wrong in (b"", b"x" * 40, packed(parcel)[:-3]):
        with pytest.raises(ValueError):
            unpacked(wrong)


def test_the_nodes_key_must_be_the_one_that_is_registered(tmp_path):
    WATCH.save(tmp_path / "key")
    seat = Seat(name="watch", folder=str(tmp_path / "w"), signing=str(tmp_path / "key"), public_key=CLOUD.public)
    log = AuditLog.open(tmp_path / "audit.jsonl", CLOUD)
    given: dict[str, Any] = {"request": "r", "coordinator": "cloud"}
    with pytest.raises(FederationError, match="registered is"):
        auditor_of(seat, RULES, None, log, Form(None), signer=CLOUD, **given)
    with pytest.raises(FederationError, match="answers only a coordinator that signs"):
        auditor_of(seat, RULES, None, log, Form(None), signer=None, **given)
    assert type(auditor_of(None, RULES, None, log, Form(None), signer=CLOUD, **given)) is Auditor
    log.close()


def test_a_file_of_nodes_that_names_an_auditor_makes_it_a_node(panel, make_params, tmp_path):
    """From the request to the report: registered with its role and key, in the topology, and with its log beside the coordinator's."""
    ws = Workspace(tmp_path, "run")
    panel.save(ws.panel("tiny"))
    home = ws.federation / "auditors" / "watch"
    WATCH.save(home / "signing.pem")
    nodes = [
        {"name": "cloud", "roles": ["coordinator"], "layer": "cloud", "security": 5},
        {"name": "watch", "roles": ["auditor"], "layer": "cloud", "security": 5, "public_key": WATCH.public},
        *({"name": site, "roles": ["data_owner"]} for site in panel.schema.sites),
    ]
    (tmp_path / "nodes.json").write_text(json.dumps({"nodes": nodes}))  # JSON is YAML too
    params = make_params(federation={"nodes": "nodes.json", "contribution": False, "rounds": 2})
    train(params, ws, "fedavg:gru")
    found = Federated.read(ws.candidate("fedavg:gru") / "federation.json")
    assert found.topology["auditor"] == "watch"
    (theirs,) = home.glob("*/audit.jsonl")
    mine = ws.candidate("fedavg:gru") / found.audit_log
    assert verify_log(theirs, WATCH.public, closed=True).ok
    assert verify_log(mine, closed=True).ok
    assert difference(mine, theirs) == ""
    assert sum(row["verdict"] == "accepted" and row["kind"] == "train" for row in records(theirs)) == 8
