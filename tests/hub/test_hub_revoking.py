"""Grants are taken back one by one, by device or all; edges are told for as long as any could still be valid."""

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from cellwright.hub import contract as c
from cellwright.hub import revoking, tables
from cellwright.hub.core import LOCAL
from cellwright.hub.grant import LEEWAY_S, LONGEST_LIFE_S, Grant, TakenBack, read
from cellwright.hub.refusals import HubRefused, NotAllowed, TooLarge

NOW = 1_000_000.0


def placed(company, store, edge):
    """An edge that holds a model of company-a."""
    east = edge("east")
    store(company, "m")
    company.place("r", c.PlacementForm(model="m"))
    company.publish("m", c.Publication(version="1.0.0"))
    return east


def test_edges_are_told_of_grants_and_devices_that_were_taken_back(company, clients, store, edge):
    east, leaked = placed(company, store, edge), read(company.grant(c.GrantAsk(device="ue")).grant).id
    before = east.desired("east")
    one, device = company.revoke_grant(leaked), company.revoke_device("ue-7")
    assert (one.kind, one.name, device.kind, device.name) == ("grant", leaked, "device", "ue-7")
    state = east.desired("east", revision=before.revision)
    (told,) = state.tenants
    assert (told.revoked_grants, told.revoked_devices) == ((leaked,), {"ue-7": device.from_s})
    assert told.grants_from_s == before.tenants[0].grants_from_s
    assert company.revocations() == (one, device)
    assert clients("company-b").revocations() == ()
    actions = [(row.action, row.subject) for row in company.audit() if row.action == "grants revoke"]
    assert actions == [("grants revoke", f"grant {leaked}"), ("grants revoke", "device ue-7")]


def test_what_was_taken_back_by_name_is_among_all_and_then_forgotten(company, store, edge):
    east = placed(company, store, edge)
    company.revoke_device("ue-7")
    company.revoke_grants()
    (told,) = east.desired("east").tenants
    assert (told.revoked_grants, told.revoked_devices, company.revocations()) == ((), {}, ())


def test_names_beyond_the_bound_are_refused_and_one_that_is_there_can_be_said_again(company, clients, monkeypatch):
    monkeypatch.setattr(revoking, "MOST", 2)
    first = company.revoke_device("ue-1")
    company.revoke_grant("0123456789abcdef")
    with pytest.raises(TooLarge, match="take back all grants"):
        company.revoke_device("ue-2")
    assert company.revoke_device("ue-1").from_s >= first.from_s
    clients("company-b").revoke_device("ue-2")  # another's names take no room here
    company.revoke_grants()
    company.revoke_device("ue-2")


def test_names_drop_out_when_every_grant_of_theirs_has_expired(hub, company, store, edge):
    east = placed(company, store, edge)
    hub.clock = lambda: NOW
    gone = company.revoke_device("ue-7")
    assert gone.until_s == NOW + LONGEST_LIFE_S + LEEWAY_S
    hub.clock = lambda: gone.until_s - 1
    hub.prune()
    assert east.desired("east").tenants[0].revoked_devices == {"ue-7": NOW}
    hub.clock = lambda: gone.until_s
    assert company.revocations() == ()
    hub.prune()
    assert east.desired("east").tenants[0].revoked_devices == {}


def test_a_clock_that_steps_back_gives_nothing_back(hub, company, store, edge):
    east = placed(company, store, edge)
    since = company.revoke_grants()
    hub.clock = lambda: since + 1000
    assert company.revoke_grants() == since + 1000
    hub.clock = lambda: since + 2000
    device = company.revoke_device("ue-7")
    hub.clock = lambda: since + 500
    assert (company.revoke_grants(), company.revoke_device("ue-7")) == (since + 1000, device)
    (told,) = east.desired("east").tenants
    assert (told.grants_from_s, told.revoked_devices) == (since + 1000, {"ue-7": since + 2000})


def test_all_that_is_taken_back_by_a_clock_that_stepped_back_leaves_later_names(hub, company, store, edge):
    east = placed(company, store, edge)
    since = company.revoke_grants()
    hub.clock = lambda: since + 1000
    later = company.revoke_device("ue-7")
    hub.clock = lambda: since + 500
    assert company.revoke_grants() == since + 500
    assert company.revocations() == (later,)  # the device's grants of the time between are not among all
    assert east.desired("east").tenants[0].revoked_devices == {"ue-7": since + 1000}


def test_a_deleted_tenants_names_go_with_it(hub, clients, operator):
    clients("company-x").revoke_device("ue")
    operator.delete_tenant("company-x")
    with hub.store.read() as connection:
        assert connection.execute(sa.select(tables.revocations)).all() == []


@pytest.mark.parametrize("id_", ["nothing", "0123456789ABCDEF", "0123456789abcdef0"])
def test_an_id_that_no_grant_can_have_is_refused(company, id_):
    with pytest.raises(HubRefused, match="grant"):
        company.revoke_grant(id_)


def test_only_writers_take_back(clients):
    reader = clients("company-a", "models:read", "device", name="reader")
    for asked in (lambda: reader.revoke_grant("0" * 16), lambda: reader.revoke_device("ue"), reader.revocations):
        with pytest.raises(NotAllowed):
            asked()


def test_which_grants_are_among_those_taken_back():
    def grant(subject, not_before_s, id_="0" * 16):
        return Grant(id=id_, tenant="a", subject=subject, models=("*",), not_before_s=not_before_s, expires_s=not_before_s + 60)

    back = TakenBack(100.0, {"ue-1": 200.0}, frozenset({"f" * 16}))
    assert [back.includes(grant("ue-1", at)) for at in (99.0, 150.0, 200.0)] == [True, True, False]
    assert [back.includes(grant("ue-2", at)) for at in (99.0, 100.0)] == [True, False]
    assert back.includes(grant("ue-2", 500.0, "f" * 16))
    assert not TakenBack().includes(grant("ue-1", 0.0))


def test_a_revocation_names_an_id_or_a_device():
    with pytest.raises(ValidationError):
        c.Revocation(kind="grant", name="../x", from_s=0, until_s=1)


def test_whoever_runs_the_hub_takes_back_its_own(hub):
    assert hub.revoke_device(LOCAL, "ue").name == "ue"
    assert [r.name for r in hub.revocations(LOCAL)] == ["ue"]
