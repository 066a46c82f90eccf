"""Grants that a tenant took back by name, from the hub to the edge that refuses them."""

import httpx
from edge_cloud import edge_of, leave, publish, served, until

from cellwright.edge.serve import in_thread
from cellwright.edge.server import Edge
from cellwright.hub import contract as c
from cellwright.hub.grant import read


def test_a_grant_and_a_devices_grants_are_refused_while_others_are_believed(operator_cloud):
    publish(operator_cloud, "guide")
    with edge_of(operator_cloud) as edge:
        until(lambda: served(edge, "guide"))

        def status(headers):
            return edge.http.get("/v1/tenants/acme/bundles", headers=headers).status_code

        leaked, same_device, other = leave(operator_cloud), leave(operator_cloud), leave(operator_cloud, "ue-2")
        id_ = read(leaked["Authorization"].removeprefix("Bearer ")).id
        operator_cloud.acme.revoke_grant(id_)
        until(lambda: status(leaked) == 401)
        answer = edge.http.get("/v1/tenants/acme/bundles", headers=leaked)
        assert "taken back" in answer.json()["detail"]
        assert (status(same_device), status(other)) == (200, 200)
        operator_cloud.acme.revoke_device("ue-1")
        until(lambda: status(same_device) == 401)
        assert (status(other), status(leave(operator_cloud))) == (200, 200)  # a device whose token is valid asks for another


def test_what_was_taken_back_is_known_after_a_restart_without_the_hub(operator_cloud):
    publish(operator_cloud, "guide")
    leaked = leave(operator_cloud)
    with edge_of(operator_cloud) as edge:
        until(lambda: served(edge, "guide"))
        operator_cloud.acme.revoke_device("ue-1")
        until(lambda: edge.http.get("/v1/tenants/acme/bundles", headers=leaked).status_code == 401)
    with edge_of(operator_cloud, "http://127.0.0.1:1") as edge:
        assert edge.http.get("/v1/tenants/acme/bundles", headers=leaked).status_code == 401
        assert edge.http.post("/v1/arrivals", headers=leaked, json=c.GrantAsk(device="ue-1").model_dump()).status_code == 401


def test_what_was_taken_back_is_known_to_an_edge_that_is_started_without_its_hub(operator_cloud):
    publish(operator_cloud, "guide")
    with edge_of(operator_cloud) as edge:
        until(lambda: served(edge, "guide"))
        leaked, other = edge.http.headers, leave(operator_cloud, "ue-2")
        operator_cloud.acme.revoke_device("ue-1")
        until(lambda: edge.http.get("/v1/tenants/acme/bundles", headers=leaked).status_code == 401)
    with in_thread(Edge(operator_cloud.tmp / "store", {}, port=0)) as edge:
        address = f"{edge.url}/v1/tenants/acme/bundles"
        assert httpx.get(address, headers={"Authorization": leaked["Authorization"]}).status_code == 401
        assert httpx.get(address, headers=other).status_code == 200


def test_a_revocation_that_is_lost_with_a_damaged_file_lets_nobody_in(operator_cloud):
    publish(operator_cloud, "guide")
    with edge_of(operator_cloud) as edge:
        until(lambda: served(edge, "guide"))
        operator_cloud.acme.revoke_device("ue-1")
        until(lambda: served(edge, "guide") is None)
    word = operator_cloud.tmp / "store/tenants/desired.json"
    word.write_bytes(word.read_bytes()[:-20])
    with edge_of(operator_cloud, "http://127.0.0.1:1") as edge:
        assert edge.http.get("/v1/tenants/acme/bundles").status_code == 503
    with edge_of(operator_cloud) as edge:
        until(lambda: served(edge, "guide"))


def test_who_is_not_placed_any_more_is_not_given_what_lingers(operator_cloud):
    publish(operator_cloud, "guide")
    with edge_of(operator_cloud, linger_s=60.0) as edge:
        until(lambda: served(edge, "guide"))
        operator_cloud.acme.delete_rule("guide")
        operator_cloud.acme.revoke_grants()  # of which the edge does not hear: the hub tells it no more of acme
        until(lambda: served(edge, "guide") is None)
        assert (operator_cloud.tmp / "store/tenants/acme/guide/1.0.0").is_dir()
        assert edge.http.get("/v1/tenants/acme/bundles/guide/latest").status_code == 404
