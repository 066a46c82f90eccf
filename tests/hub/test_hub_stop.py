"""A hub that stops lets go of the edges that wait for its word."""

import threading
import time

from cellwright.hub import contract as c
from cellwright.hub.client import HubClient
from cellwright.hub.core import LOCAL
from cellwright.hub.serve import in_thread


def test_an_edge_that_waits_is_answered_when_the_hub_stops(hub, kit, caplog):
    token = hub.new_token(LOCAL, c.OPERATOR, c.TokenForm(name="east", scopes=("edge",))).token
    found = []
    with in_thread(hub) as url:
        client = HubClient(url, token)
        client.register_edge("east", c.EdgeForm(url="https://edge.example", location=kit.in_commercial, disk_bytes=10**9))
        now = client.desired("east").revision
        waiting = threading.Thread(target=lambda: found.append(client.desired("east", revision=now, wait_s=60)))
        waiting.start()
        while not hub.bell._waiting:
            time.sleep(0.01)
    waiting.join()
    client.close()
    assert found == [None]  # nothing has changed: not an error, and not after a minute
    assert "Exception in ASGI" not in caplog.text
