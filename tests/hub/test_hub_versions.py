"""Hubs, edges and devices of several versions: what is answered may have more keys, what is asked may not."""

import json

import httpx
import pytest
from pydantic import ValidationError

from cellwright.edge.hearing import desired_of
from cellwright.errors import HubError
from cellwright.hub import contract as c
from cellwright.hub.client import HubClient
from cellwright.hub.refusals import HubRefused

MAPS = ("revoked_devices", "weights")  # whose keys are names of things


def newer(found):
    """A document as a newer hub may write it: each object in it has one key more."""
    if isinstance(found, dict):
        said = {key: value if key in MAPS else newer(value) for key, value in found.items()}
        return {**said, "added_later": {"x": 1}}
    return [newer(value) for value in found] if isinstance(found, list) else found


@pytest.fixture
def newer_hub(hub, company, store, edge):
    """newer_hub(client, **more): the client, before whom a newer hub answers in the place of the real one."""
    east = edge("east")
    store(company, "m")
    company.place("r", c.PlacementForm(model="m"))
    company.publish("m", c.Publication(version="1.0.0"))

    def asked(client, **more):
        def answer(request):
            form = None if not request.content else json.loads(request.content)
            found = client.http.request(request.method, request.url.path, json=form, params=request.url.params)
            content = json.loads(found.content)
            return httpx.Response(
                found.status_code, json={**newer(content), **more} if isinstance(content, dict) else newer(content)
            )

        before = HubClient(client.url, None)
        before.http = httpx.Client(base_url=client.url, transport=httpx.MockTransport(answer))
        return before

    return asked, east


def test_edges_and_devices_read_what_a_newer_hub_says_more(newer_hub, company):
    asked, east = newer_hub
    assert asked(east).desired("east") == east.desired("east")
    assert desired_of(asked(east).http.get("/v1/edges/east/desired").content) == east.desired("east")
    assert asked(east).edges() == east.edges()
    beat = c.Heartbeat(revision=1, time_s=1, disk_free_bytes=1)
    assert asked(east).heartbeat("east", beat).revision == east.desired("east").revision
    match, ask = asked(company).match(c.MatchAsk(device="ue")), c.MatchAsk(device="ue")
    assert match.model_copy(update={"grant": "", "grant_expires_s": 0}) == company.match(ask).model_copy(
        update={"grant": "", "grant_expires_s": 0}
    )
    assert asked(company).grant(c.GrantAsk(device="ue")).keys == match.keys
    assert asked(company).models() == company.models()
    assert asked(company).report(()) == 0


def test_what_must_not_be_ignored_is_refused_by_its_number(newer_hub, company):
    asked, east = newer_hub
    with pytest.raises(HubError, match="protocol 2, known here is 1; the hub is newer: update"):
        asked(east, protocol=2).desired("east")
    with pytest.raises(HubError, match="protocol 2, known here is 1; the hub is newer: update"):
        desired_of(json.dumps({"protocol": 2, "of": "another form"}).encode())
    with pytest.raises(HubError, match="protocol 2"):
        asked(company, protocol=2).match(c.MatchAsk(device="ue"))
    assert east.desired("east").protocol == 1


def test_what_is_asked_has_no_key_that_is_not_known(company, operator, edge):
    east = edge("east")
    asked = {
        (company, "PUT", "/v1/placement/r"): {"model": "m", "prioritty": 1},
        (company, "PUT", "/v1/models/m"): {"titel": "x"},
        (company, "POST", "/v1/match"): {"device": "ue", "servise": "guide"},
        (company, "POST", "/v1/grants"): {"device": "ue", "lifetime": 10},
        (operator, "PUT", "/v1/tenants/x"): {"quota": {"byte": 1}},
        (east, "PUT", "/v1/edges/east/heartbeat"): {"revision": 1, "time_s": 1, "disk_free_bytes": 1, "disk_bytes": 1},
    }
    for (client, method, path), body in asked.items():
        answer = client.http.request(method, path, json=body)
        assert (path, answer.status_code) == (path, 422)
        assert "Extra inputs are not permitted" in answer.json()["detail"]
    with pytest.raises(ValidationError):
        c.GrantAsk(device="ue", lifetime=10)


def test_an_answer_that_lacks_what_is_needed_is_still_refused(newer_hub):
    asked, east = newer_hub
    with pytest.raises(HubError, match="is it a hub"):
        asked(east, revision=None).desired("east")
    assert not isinstance(HubError("x"), HubRefused)
