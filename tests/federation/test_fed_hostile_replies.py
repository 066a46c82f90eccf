"""One node says what no program can compute with: it is refused, and the others go on."""

from dataclasses import replace

import numpy as np
import pytest

from cellwright.errors import FederationError
from cellwright.federation import privacy
from cellwright.federation.aggregation import rule
from cellwright.federation.audit.chain import verify_log
from cellwright.federation.audit.log import AuditLog, Record
from cellwright.federation.audit.signing import Signer
from cellwright.federation.compression import codec
from cellwright.federation.contract import Parcel, Task
from cellwright.federation.coordinator import Coordinator
from cellwright.federation.data.metadata import Disclosure, describe, parcel_of
from cellwright.federation.runtimes import jobs
from cellwright.federation.runtimes.local import open_channel

HOSTILE = {
    "infinite counts": ("evaluate", {"positive": "[1e999]"}),
    "counts without end": ("evaluate", {"positive": "[" * 200_000}),
    "counts of other bins": ("evaluate", {"positive": "[1, 2]"}),
    "counts beyond int64": ("evaluate", {"negative": f"[{', '.join(['9' * 40] * 256)}]"}),
    "negative counts": ("evaluate", {"positive": f"[{', '.join(['-1'] * 256)}]"}),
    "an infinite count": ("evaluate", {"count": float("inf")}),
    "sums that overflow": ("evaluate", {"absolute": 1.7e308}),
    "a judgement of another round": ("evaluate", {"round": 0}),
    "infinite windows": ("train", {"examples": float("inf")}),
    "more steps than it was told": ("train", {"steps": 10**15}),
}


@pytest.mark.parametrize("what", sorted(HOSTILE))
def test_one_node_cannot_end_the_training(toy, what):
    kind, values = HOSTILE[what]

    class Hostile(toy.Puller):
        def answer(self, asked, parcel, state):
            reply = super().answer(asked, parcel, state)
            return replace(reply, values={**reply.values, **values}) if asked == kind else reply

    nodes = {"a": toy.Puller("a", 1.0), "b": toy.Puller("b", 2.0), "c": Hostile("c", 3.0), "d": Hostile("d", 3.0)}
    made = Coordinator(
        open_channel(nodes), toy.TASK, rule("fedavg"), toy.settings(rounds=2), codec=codec("none"), topology=toy.star("abcd")
    )
    outcome = made.run(toy.initial())
    assert len(outcome.rounds) == 2
    said = {entry.owner: entry for entry in outcome.rounds[-1].owners}
    assert said["a"].outcome == "counted"
    if kind == "train":
        assert said["c"].outcome == "refused"
    else:
        assert set(outcome.evaluations) == {"a", "b"}


def test_metadata_that_cannot_be_read_leave_out_their_owner_alone(make_panel, tmp_path):
    panel = make_panel()
    told = {owner: parcel_of(describe(panel, owner, Disclosure())) for owner in ("a", "b")}
    problem = {"targets": ["traffic"], "cadence_s": 3600.0}
    job = jobs.Job.model_construct(task=Task.model_construct(request="r", dataset="tiny", problem=problem), storage=None)
    found = jobs._aligned(tmp_path, job, {**told, "c": Parcel(values={"metadata": "{}"}), "d": told["a"]})
    assert set(found) == {"c", "d"}
    assert "cannot be read" in found["c"]
    assert "describes only its own" in found["d"]
    assert set(jobs._aligned(tmp_path, job, {"c": Parcel()})) == {"c"}


@pytest.mark.parametrize("body", [b"not json", b"[1", b'{"index":1', b'{"a":' * 3000])
def test_a_line_with_a_right_hash_that_is_no_record_is_a_fault_not_a_crash(tmp_path, body):
    import hashlib

    path = tmp_path / "audit.jsonl"
    with AuditLog.open(path, signer := Signer.generate()) as log:
        log.append(Record("train", "a", 1, verdict="accepted"))
    path.write_bytes(path.read_bytes() + body + f',"hash":"{hashlib.sha256(body).hexdigest()}"}}\n'.encode())
    found = verify_log(path, signer.public)
    assert (found.ok, found.line) == (False, 2)
    assert "holds no record" in found.reason
    with pytest.raises(FederationError, match="cannot be continued"):
        AuditLog.open(path, signer)


@pytest.mark.parametrize("name", ["secure_aggregation", "ckks"])
def test_a_sealed_vector_that_is_none_leaves_out_its_owner_and_not_the_round(toy, name):
    seal = (privacy.mechanism(name),)

    class Hostile(toy.Puller):
        def answer(self, asked, parcel, state):
            reply = super().answer(asked, parcel, state)
            return replace(reply, blobs={k: b"x" + blob for k, blob in reply.blobs.items()}) if asked == "train" else reply

    def run(last):
        nodes = {n: toy.Puller(n, float(i), mechanisms=seal) for i, n in enumerate("abc")} | last
        topology = toy.star(sorted(nodes))
        made = Coordinator(
            open_channel(nodes), toy.TASK, rule("fedavg"), toy.settings(rounds=1), mechanisms=seal, codec=codec("none"), topology=topology
        )  # fmt: skip
        return made.run(toy.initial())

    found = run({"d": Hostile("d", 9.0, mechanisms=seal)})
    said = {entry.owner: entry for entry in found.rounds[0].owners}
    assert [said[n].outcome for n in "abcd"] == ["counted"] * 3 + ["refused"]
    assert said["d"].reason
    for array_name, array in run({}).arrays.items():
        np.testing.assert_allclose(found.arrays[array_name], array, atol=1e-5)
