"""Reports are kept for a while, by when they came; they go in small steps, are counted, and it is in the audit log."""

import threading
import time

import pytest
import sqlalchemy as sa

from cellwright.hub import contract as c
from cellwright.hub import retention, tables
from cellwright.hub.core import LOCAL, Settings
from cellwright.hub.refusals import TooMany
from cellwright.hub.retention import housekeeping
from cellwright.hub.service import open_hub

DAY = 86_400.0
NOW = 1_000 * DAY


def fetch(number, time_s=NOW):
    return c.FetchReport(
        id=f"report-{number:04}",
        tenant="company-a",
        model="m",
        version="1.0.0",
        device="ue",
        time_s=time_s,
        outcome="activated",
        seconds=1,
        bytes=1,
        rate_bit_s=8,
    )


def session(number, status="AVAILABLE"):
    return c.QosRecord(
        session=f"s-{number}", tenant="company-a", device="ue", profile="q", asked_by="edge", status=status, started_s=1
    )


@pytest.fixture
def dated(hub, company):
    """dated(now_s): the hub's clock."""

    def at(now_s):
        hub.clock = lambda: now_s

    at(NOW)
    return at


def total(operator):
    text = operator.http.get("/metrics").text
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("cellwright_hub_fetches_total "))


def test_reports_go_when_they_have_been_here_for_long_whatever_time_they_tell(hub, company, operator, dated):
    company.report([fetch(1, time_s=9e10), fetch(2, time_s=1)])
    dated(NOW + 60 * DAY)
    company.report([fetch(3, time_s=1)])
    assert hub.prune() == {"fetches": 0, "qos": 0}
    rows = len(hub.audit(LOCAL, limit=1000))
    dated(NOW + 90 * DAY + 1)
    assert hub.prune() == {"fetches": 2, "qos": 0}
    assert [r.id for r in company.fetches()] == ["report-0003"]
    assert total(operator) == 3  # what was counted stays counted
    (row,) = hub.audit(LOCAL, after=rows - 1)
    assert (row.tenant, row.action, row.subject, row.detail) == ("operator", "prune", "reports", "fetches: 2; older than 90 days")
    assert hub.prune() == {"fetches": 0, "qos": 0}
    assert len(hub.audit(LOCAL, limit=1000)) == rows + 1  # nothing went: nothing is said


def test_a_session_that_is_still_told_of_stays(hub, company, dated):
    company.record_qos(session(1))
    company.record_qos(session(2))
    dated(NOW + 80 * DAY)
    company.record_qos(session(2, "DELETED"))
    dated(NOW + 91 * DAY)
    assert hub.prune()["qos"] == 1
    assert [(r.session, r.status) for r in company.qos()] == [("s-2", "DELETED")]


def test_no_more_goes_at_once_than_a_bound(hub, company, dated, monkeypatch):
    monkeypatch.setattr(retention, "_BATCH", 2)
    monkeypatch.setattr(retention, "_MOST_BATCHES", 2)
    for number in range(7):
        dated(NOW + number)
        company.report([fetch(number)])
    dated(NOW + 200 * DAY)
    assert [hub.prune()["fetches"] for _ in range(3)] == [4, 3, 0]


def test_reports_of_a_deleted_tenant_stay_counted(company, operator, dated):
    company.report([fetch(1), fetch(2)])
    operator.delete_tenant("company-a")
    assert total(operator) == 2


def test_the_service_prunes_by_itself(tmp_path):
    with open_hub(tmp_path / "hub", settings=Settings(retention_s=DAY)) as hub:
        hub.put_tenant(LOCAL, "company-a", c.TenantForm())
        hub.report(LOCAL, (fetch(1),))
        now = time.time()
        hub.clock = lambda: now + 2 * DAY
        with housekeeping(hub, every_s=0.01):
            waited_for(lambda: not rows(hub))
    assert not [thread for thread in threading.enumerate() if thread.name == "housekeeping"]


def test_a_fault_of_the_database_does_not_end_it(hub, company, dated, caplog):
    company.report([fetch(1)])
    dated(NOW + 200 * DAY)
    with hub.store.write() as connection:
        connection.exec_driver_sql("CREATE TRIGGER keep BEFORE DELETE ON fetches BEGIN SELECT RAISE(ABORT, 'kept'); END")
    with housekeeping(hub, every_s=0.01):
        waited_for(lambda: caplog.text.count("IntegrityError") > 1)
        with hub.store.write() as connection:
            connection.exec_driver_sql("DROP TRIGGER keep")
        waited_for(lambda: not rows(hub))
    assert "tried again in 0.01 s" in caplog.text


def waited_for(true, most_s=20):
    deadline = time.monotonic() + most_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def rows(hub):
    with hub.store.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(tables.fetches)).scalar_one()


def test_a_device_fills_the_database_no_faster_than_its_tenant_may_ask_and_an_edge_passes_on(hub, clients):
    device = clients("company-a", "device")
    hub.put_tenant(LOCAL, "company-a", c.TenantForm(quota=c.Quota(requests_per_minute=50)))
    assert device.report([fetch(number) for number in range(40)]) == 40
    with pytest.raises(TooMany, match="50 times a minute"):
        device.report([fetch(number) for number in range(40, 60)])
    edge = clients("operator", "edge", name="east")
    assert edge.report([fetch(number) for number in range(40, 600)]) == 560
