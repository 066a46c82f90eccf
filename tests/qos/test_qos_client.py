"""The client against the simulated network: exactly one session, kept while a block runs, always released."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from uuid import uuid4

import pytest
from qos_parts import EDGE, UE, body, client_of, patient, remote_of

from cellwright.errors import QosError, WorkspaceError, WrongUse
from cellwright.qos.client import QodClient
from cellwright.qos.forms import CreateSession, QosStatus
from cellwright.qos.journal import Entry, Journal
from cellwright.qos.session import State
from cellwright.qos.transport import Denied, Unreachable


def asked(**more):
    return CreateSession.model_validate(body(**more))


def until(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def states(held):
    return [change.state for change in held.history]


def test_the_operations_of_the_standard(network):
    with client_of(network) as client:
        made = client.create(asked())
        assert made.qos_status is QosStatus.AVAILABLE
        assert client.get(made.session_id) == made
        assert client.retrieve(UE) == (made,)
        assert client.extend(made.session_id, 10).duration == 70
        assert client.delete(made.session_id) is True
        assert client.delete(made.session_id) is False
        with pytest.raises(Denied, match="NOT_FOUND") as refused:
            client.get(made.session_id)
        assert (refused.value.status, refused.value.code) == (404, "NOT_FOUND")
        with pytest.raises(Denied, match="DURATION_OUT_OF_RANGE"):
            client.create(asked(duration=101))


@pytest.mark.parametrize("fault", [{"status": 429, "retry_after_s": 0}, {"status": 503}, {"status": 500}, {"lose_answer": True}])
@pytest.mark.parametrize("times", [1, 3])
def test_a_fault_while_creating_leaves_one_session(network, fault, times):
    with client_of(network) as client, remote_of(network) as remote:
        remote.fail("createSession", **fault, times=times)
        made = client.create(asked())
        assert [held.id for held in network.sessions.held.values()] == [made.session_id]


@pytest.mark.parametrize("operation", ["getSession", "deleteSession", "retrieveSessionsByDevice", "extendQosSessionDuration"])
def test_a_lost_answer_of_the_other_operations(network, operation):
    with client_of(network) as client, remote_of(network) as remote:
        made = client.create(asked())
        remote.fail(operation, lose_answer=True)
        if operation == "getSession":
            assert client.get(made.session_id) == made
        elif operation == "retrieveSessionsByDevice":
            assert client.retrieve(UE) == (made,)
        elif operation == "extendQosSessionDuration":
            assert client.extend(made.session_id, 10).duration == 70  # not 80
        else:
            client.delete(made.session_id)
            assert network.sessions.held == {}


def test_faults_without_end_end_in_a_clear_error(network):
    with client_of(network) as client, remote_of(network) as remote:
        remote.fail("getSession", status=429, times=10)
        with pytest.raises(Denied, match="TOO_MANY_REQUESTS"):
            client.get(uuid4())
        assert len(network.faults.waiting["getSession"]) == 6  # 4 attempts
        network.faults.waiting.clear()
        remote.fail("getSession", status=503, times=10)
        with pytest.raises(Unreachable, match="503"):
            client.get(uuid4())


def test_pauses_grow_are_random_and_follow_retry_after(network):
    pauses = []
    retries = patient(6)
    retries = type(retries)(attempts=6, first_s=1.0, longest_s=4.0, rng=retries.rng, sleep=pauses.append)
    with QodClient(network.url, network.token("tester"), retries=retries) as client, remote_of(network) as remote:
        remote.fail("getSession", status=503, times=4)
        remote.fail("getSession", status=429, retry_after_s=7)
        with pytest.raises(Denied, match="NOT_FOUND"):
            client.get(uuid4())
    assert len(pauses) == 5
    assert all(0 <= pause <= most for pause, most in zip(pauses, (1, 2, 4, 4), strict=False))
    assert pauses[4] == 7
    assert len(set(pauses)) == 5


def test_one_correlator_for_all_attempts_of_a_request(network):
    seen = []
    take = network.faults.take
    network.faults.take = lambda operation: seen.append(operation) or take(operation)
    with client_of(network) as client, remote_of(network) as remote:
        remote.fail("getSession", status=503, times=2)
        with pytest.raises(Denied):
            client.get(uuid4())
    assert seen.count("getSession") == 3


def test_a_token_that_expired_is_fetched_anew(network):
    tokens = iter(["expired", network.token("tester")])
    client = QodClient(network.url, lambda: next(tokens), retries=patient())
    assert client.retrieve(UE) == ()
    client.close()
    with pytest.raises(Denied, match="UNAUTHENTICATED"):
        QodClient(network.url, "wrong", retries=patient()).retrieve(UE)


def test_addresses_that_are_none():
    with pytest.raises(WrongUse, match="must start with https"):
        QodClient("network.example", "token")
    with pytest.raises(Unreachable, match="cannot be reached"):
        QodClient("http://127.0.0.1:9", "token", retries=patient()).get(uuid4())


# a session as long as a block


def test_a_session_lasts_as_long_as_its_block(network, journal):
    with client_of(network, journal) as client:
        with client.session(UE, EDGE, "gold", 60) as held:
            assert held.active
            held.demand()
            [kept] = network.sessions.held.values()
            assert kept.id == held.id
            assert [entry.session_id for entry in journal.entries()] == [held.id]
        assert states(held) == [State.REQUESTED, State.AVAILABLE, State.RELEASED]
        assert network.sessions.held == {}
        assert journal.entries() == ()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_block_that_fails_releases_too(network, journal, error):
    with client_of(network, journal) as client, pytest.raises(error), client.session(UE, EDGE, "gold", 60):
        raise error
    assert network.sessions.held == {}
    assert journal.entries() == ()


def test_it_waits_for_the_decision_by_polling(network):
    with client_of(network) as client, remote_of(network) as remote:
        remote.behave(decision_s=5)

        def decide():
            while not remote.all()["sessions"]:
                time.sleep(0.02)
            remote.advance(5.0)

        later = threading.Thread(target=decide)
        later.start()
        with client.session(UE, EDGE, "gold", 60, wait_s=10) as held:
            assert states(held) == [State.REQUESTED, State.AVAILABLE]
        later.join()


def test_a_decision_that_does_not_come_in_time_can_come_later(network):
    seen = []
    with client_of(network) as client, remote_of(network) as remote:
        remote.behave(decision_s=5)
        with client.session(UE, EDGE, "gold", 60, wait_s=0, on_change=lambda _s, change: seen.append(change.state)) as held:
            assert held.state is State.REQUESTED
            remote.advance(6)
            until(lambda: held.active)
    assert seen == [State.AVAILABLE, State.RELEASED]


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (lambda remote: remote.behave(deny=True), "cannot give it now"),
        (lambda remote: remote.fail("createSession", status=429, retry_after_s=0, times=99), "TOO_MANY_REQUESTS"),
        (lambda remote: remote.fail("createSession", status=503, times=99), "503|does not answer"),
    ],
)
def test_a_refusal_is_a_state_and_the_block_runs(network, journal, prepare, why):
    with client_of(network, journal) as client, remote_of(network) as remote:
        prepare(remote)
        with client.session(UE, EDGE, "gold", 60) as held:
            assert (held.state, held.active) == (State.DENIED, False)
        assert re.search(why, held.why)
        with pytest.raises(QosError, match="go on without it"):
            held.demand()
        with pytest.raises(QosError), client.session(UE, EDGE, "gold", 60, strict=True):
            raise AssertionError("the block must not run")
    assert network.sessions.held == {}
    assert journal.entries() == ()


def test_a_network_that_is_away_is_a_state_too(journal):
    client = QodClient("http://127.0.0.1:9", "token", journal=journal, retries=patient())
    with client, client.session(UE, EDGE, "gold", 60) as held:
        assert held.state is State.DENIED
        assert "cannot be reached" in held.why


def test_what_ends_mid_transfer_is_seen(network):
    changes = []
    with client_of(network) as client, remote_of(network) as remote:
        with client.session(UE, EDGE, "gold", 60, on_change=lambda _s, change: changes.append(change.state)) as held:
            remote.revoke(held.id)
            until(lambda: not held.active)
            assert (held.state, held.why) == (State.REVOKED, "the network took it back")
        with client.session(UE, EDGE, "gold", 60) as held:  # the revoked one was deleted: nothing is in the way
            assert held.active
            remote.advance(100)
            until(lambda: held.over)
            assert held.state is State.EXPIRED
        with client.session(UE, EDGE, "gold", 60) as held:
            with client_of(network) as twin:
                twin.delete(held.id)
            until(lambda: held.over)
            assert held.state is State.LOST
    assert changes == [State.AVAILABLE, State.REVOKED, State.RELEASED]


def test_a_callback_that_fails_harms_nobody(network):
    def fail(_session, _change):
        raise RuntimeError("of the caller")

    with client_of(network) as client, client.session(UE, EDGE, "gold", 60, on_change=fail) as held:
        assert held.active
    assert network.sessions.held == {}


def test_it_is_extended_while_the_block_runs_and_up_to_the_cap(live):
    with client_of(live) as client:
        with client.session(UE, EDGE, "short", 1) as held:  # lasts 2 s at most
            until(lambda: held.info.duration == 2)
            assert held.active
            until(lambda: held.over)
        assert states(held) == [State.REQUESTED, State.AVAILABLE, State.EXPIRED, State.RELEASED]
        assert held.capped


def test_two_devices_and_two_flows_at_once(network):
    with client_of(network) as client:
        with client.session(UE, EDGE, "silver", 60) as one, client.session(UE, "127.0.0.2", "gold", 60) as two:
            assert one.active
            assert two.active
            with client.session(UE, EDGE, "silver", 60) as three:
                assert three.state is State.DENIED
                assert "CONFLICT" in three.why
            assert one.active  # another's session is not deleted to make room
        assert network.sessions.held == {}


def test_in_an_event_loop(network):
    async def story():
        with client_of(network) as client:
            async with client.session_async(UE, EDGE, "gold", 60) as held:
                assert held.active
            task = asyncio.create_task(hold(client))
            while not network.sessions.held:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    async def hold(client):
        async with client.session_async(UE, EDGE, "gold", 60):
            await asyncio.sleep(60)

    asyncio.run(story())
    assert network.sessions.held == {}


# after a crash

CRASH = """
import os, sys, time
from cellwright.qos.client import QodClient
from cellwright.qos.forms import Device
from cellwright.qos.journal import Journal
url, token, path, how = sys.argv[1:]
client = QodClient(url, token, journal=Journal(__import__("pathlib").Path(path)))
with client.session(Device(phone_number="+4915112345678"), "127.0.0.1", "gold", 60):
    print("in", flush=True)
    if how == "kill":
        os._exit(9)
    time.sleep(60)
"""


def crash(network, journal, how):
    command = [sys.executable, "-c", textwrap.dedent(CRASH), network.url, network.token("tester"), str(journal.path), how]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in\n"
    return process


def test_a_crash_leaves_nothing_once_the_next_client_starts(network, journal):
    crash(network, journal, "kill").wait()
    [entry] = journal.entries()
    assert entry.orphaned
    assert len(network.sessions.held) == 1
    with client_of(network, journal):
        assert network.sessions.held == {}
        assert journal.entries() == ()


def test_sigterm_releases_before_the_end(network, journal):
    process = crash(network, journal, "wait")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert network.sessions.held == {}
    assert journal.entries() == ()


def orphan(network, **more):
    return Entry(network.url, asked(**more), owner=2**22 + 1, born_s=0.0)


def test_what_was_asked_for_but_never_named_is_found_by_its_flow(network, journal):
    with client_of(network, journal) as client:
        mine = client.create(asked(qosProfile="silver"))
        other = client.create(asked(qosProfile="silver", applicationServer={"ipv4Address": "127.0.0.2"}))
        journal.write(orphan(network, qosProfile="silver"))
        [released] = client.release()
        assert released.error is None
        assert [held.id for held in network.sessions.held.values()] == [other.session_id]
        assert mine.session_id not in network.sessions.held


def test_sessions_in_use_are_released_only_if_asked_for(network, journal):
    with client_of(network, journal) as client, client.session(UE, EDGE, "gold", 60):
        assert client.release() == ()
        assert len(client.release(everything=True)) == 1
        assert network.sessions.held == {}


def test_another_networks_entries_are_left_alone(network, journal):
    journal.write(Entry("http://127.0.0.1:9", asked(), owner=2**22 + 1, born_s=0.0))
    with client_of(network, journal) as client:
        assert client.release() == ()
    assert len(journal.entries()) == 1


def test_a_release_that_fails_is_tried_again(network, journal):
    with client_of(network, journal) as client, remote_of(network) as remote:
        with client.session(UE, EDGE, "gold", 60):
            remote.fail("deleteSession", status=503, times=4)
        assert len(journal.entries()) == 1
        until(lambda: not journal.entries())
        assert network.sessions.held == {}


def test_what_is_never_released_stays_in_the_journal(network, journal):
    with client_of(network, journal) as client, remote_of(network) as remote, client.session(UE, EDGE, "gold", 60):
        remote.fail("deleteSession", status=503, times=99)
    assert len(journal.entries()) == 1
    assert len(network.sessions.held) == 1


def test_a_new_session_takes_the_place_of_a_crashed_ones(network, journal):
    with client_of(network, journal) as client:
        left = client.create(asked())
        journal.write(Entry(network.url, asked(), left.session_id, owner=2**22 + 1, born_s=0.0))
        with client.session(UE, EDGE, "gold", 60) as held:
            assert held.active
            assert held.id != left.session_id


def test_the_journal_is_private_and_keeps_no_token(network, journal):
    credential = {"credentialType": "ACCESSTOKEN", "accessToken": "s3cret", "accessTokenType": "bearer"}
    entry = journal.write(
        Entry(network.url, asked(sinkCredential=credential | {"accessTokenExpiresUtc": "2026-01-02T00:00:00Z"}))
    )
    assert journal.path.stat().st_mode & 0o077 == 0
    assert b"s3cret" not in b"".join(path.read_bytes() for path in journal.path.parent.iterdir())
    assert Journal(journal.path).entries()[0].id == entry.id
    assert not entry.orphaned
    assert entry.owner == os.getpid()


def test_a_file_that_is_no_journal(tmp_path):
    (tmp_path / "qos.db").write_text("something else " * 1000)
    with pytest.raises(WorkspaceError, match="cannot be used"):
        Journal(tmp_path / "qos.db")


def test_a_lost_answer_is_never_taken_for_a_session_that_is_in_use(network):
    """Without a journal: the first holds the flow, the second's refusal gets lost, and what is found then is the first's."""
    with client_of(network) as client, remote_of(network) as remote, client.session(UE, EDGE, "gold", 60) as first:
        remote.fail("createSession", lose_answer=True)
        with client.session(UE, EDGE, "gold", 60) as second:
            assert (second.state, second.id) == (State.DENIED, None)
        assert first.id in network.sessions.held


def test_a_session_whose_network_goes_away_is_lost_once_its_time_is_over(live):
    with client_of(live) as client, remote_of(live) as remote, client.session(UE, EDGE, "gold", 1) as held:
        remote.fail("extendQosSessionDuration", status=503, times=500)
        remote.fail("getSession", status=503, times=500)
        until(lambda: held.over)
        assert held.state is State.LOST
    assert not live.sessions.held
