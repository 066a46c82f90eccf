"""Grants that a tenant took back by name, from the hub to the edge that refuses them."""

from edge_cloud import edge_of, leave, publish, served, until

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
