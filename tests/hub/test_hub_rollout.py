"""A rollout through a hub: weights in its publication, evidence from the edges that hold the model, and the way back."""

import time
from http.server import BaseHTTPRequestHandler

import pytest

from cellwright.edge.evidence import Counts, Evidence, Pair
from cellwright.errors import WrongUse
from cellwright.hub import contract as c
from cellwright.hub.grant import check
from cellwright.hub.refusals import HubRefused
from cellwright.hub.tenants import public_key
from cellwright.lifecycle.rollout.controller import Controller, Hands, begin, decide, drive
from cellwright.lifecycle.rollout.record import Files
from cellwright.lifecycle.rollout.targets import HubTarget
from cellwright.params import Rollout

GUARDS = {"error": {}, "failures": {"margin": 0.2}}


@pytest.fixture
def telling(answering_by):
    def made(ratio: float, asked: list, company):
        """An edge that tells of a challenger whose errors are `ratio` times the champion's; what it is asked for is kept.

        It counts from where `company`'s publication says."""
        pairs = tuple(Pair(at_ms=i, champion=1.0 + i % 3, challenger=ratio * (1.0 + i % 3)) for i in range(200))
        versions = {"champion": "1.0.0", "challenger": "2.0.0"}

        def told() -> str:
            counts = dict.fromkeys(versions.values(), Counts(requests=500 + len(asked)))
            since_s = company.publication("model-a").terms.since_s
            return Evidence(edge="e", model="model-a", since_s=since_s, counts=counts, errors=pairs, **versions).model_dump_json()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append((self.path, self.headers["Authorization"]))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(told().encode())

            def log_message(self, *_):
                pass

        return answering_by(Handler)

    return made


@pytest.fixture
def replacing(company, operator, store, edge, kit, tmp_path):
    """replacing(edge's address, **parameters): 1.0.0 is in use on one edge and 2.0.0 is there; (files, hands, parameters)."""

    def made(url: str, **more):
        edge("east", kit.in_commercial, url=url)
        operator.put_area("commercial", c.AreaForm(geometry=kit.commercial))
        for version in ("1.0.0", "2.0.0"):
            store(company, "model-a", version, version.encode())
        company.place("model-a", c.PlacementForm(model="model-a", areas=("commercial",)))
        company.publish("model-a", c.Publication(version="1.0.0"))
        given = {"mode": "canary", "stages": (0.1, 0.5), "min_requests": 1, "min_stage_s": 0, "poll_s": 0.01, "guards": GUARDS}
        return Files(tmp_path / "rollouts", "model-a"), Hands(HubTarget(company)), Rollout(**given | {"max_s": 60} | more)

    return made


def test_an_equal_version_is_published_by_and_by_and_the_edges_are_asked_with_a_grant(replacing, company, hub, telling):
    asked = []
    with telling(1.0, asked, company) as url:
        files, hands, params = replacing(url)
        begin(files, "2.0.0", params, hands)
        with files.held():
            controller = Controller(files, hands)
            controller.step()
            assert company.publication("model-a").shares == {"2.0.0": 0.5, "1.0.0": 0.5}
            controller.close()
        done = drive(files, hands)
    assert done.state.outcome == "promoted"
    assert company.publication("model-a").shares == {"2.0.0": 1.0}
    path, authorization = asked[0]
    assert path == "/v1/tenants/company-a/evidence?bundle=model-a"
    grant = check(authorization.removeprefix("Bearer "), public_key(hub.key_pem), time.time())
    assert grant.allows("company-a", "model-a")


def test_a_worse_version_is_taken_back(replacing, company, telling):
    with telling(1.5, [], company) as url:
        files, hands, params = replacing(url)
        begin(files, "2.0.0", params, hands)
        assert drive(files, hands).state.outcome == "rolled_back"
    assert company.publication("model-a").shares == {"1.0.0": 1.0}


def test_blue_green_keeps_the_old_version_at_the_edges_until_its_time_is_over(replacing, company, telling):
    with telling(1.0, [], company) as url:
        files, hands, params = replacing(url, mode="blue_green", keep_warm_s=600)
        begin(files, "2.0.0", params, hands)
        with files.held():
            controller = Controller(files, hands)
            while controller.step().state.outcome == "running":
                assert company.publication("model-a").canary == "2.0.0"
            controller.close()
    warm = company.publication("model-a")
    assert (warm.version, warm.shares, warm.canary) == ("2.0.0", {"2.0.0": 1.0, "1.0.0": 0.0}, "1.0.0")
    assert warm.terms.shadow == 0.0  # it stays warm and computes nothing
    assert decide(files, hands, promoted=False).over
    assert company.publication("model-a").shares == {"1.0.0": 1.0}


def test_another_publisher_is_not_overruled(replacing, company, store, telling):
    with telling(1.0, [], company) as url:
        files, hands, params = replacing(url)
        begin(files, "2.0.0", params, hands)
        store(company, "model-a", "3.0.0", b"third")
        company.publish("model-a", c.Publication(version="3.0.0"))
        with pytest.raises(HubRefused, match=r"another has published model-a 3\.0\.0"):
            drive(files, hands)
    assert company.publication("model-a").version == "3.0.0"


def test_what_is_left_of_an_earlier_rollout_of_the_same_versions_is_not_believed(replacing, company, telling):
    asked = []
    with telling(1.0, asked, company) as url:
        files, hands, params = replacing(url, sites=("c1",), shadow=0.5, latency_ms=25)
        rolling = begin(files, "2.0.0", params, hands)
        hands.target.apply(rolling)
        terms = company.publication("model-a").terms
        assert terms == c.Terms(sites=("c1",), shadow=0.5, latency_ms=25, since_s=rolling.state.started_s)
        found = Evidence(
            edge="e", model="model-a", champion="1.0.0", challenger="2.0.0", since_s=rolling.state.started_s - 60, counts={}
        )
        assert not hands.target.believes(found, rolling.state)
        assert hands.target.believes(found.model_copy(update={"since_s": rolling.state.started_s}), rolling.state)


def test_parameters_that_no_hub_takes_are_named(replacing):
    files, hands, params = replacing("http://127.0.0.1:9", sites=tuple(f"c{i}" for i in range(1001)))
    with pytest.raises(WrongUse, match=r"rollout\.sites"):
        hands.target.apply(begin(files, "2.0.0", params, hands))
