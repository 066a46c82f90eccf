"""The agent against a real hub: what is published arrives, what is taken back goes, and neither side's absence loses anything."""

import shutil

from edge_cloud import edge_of, new_edge, publish, served, until

from cellwright.bundle import store
from cellwright.hub import contract as c
from cellwright.hub.core import LOCAL
from cellwright.hub.serve import in_thread as hub_in_thread
from cellwright.hub.service import open_hub
from cellwright.web.running import Listening


def test_what_is_published_arrives_and_its_successor_replaces_it(operator_cloud):
    first = publish(operator_cloud, "guide")
    with edge_of(operator_cloud) as edge:
        assert until(lambda: served(edge, "guide")) == ("1.0.0", first)
        second = publish(operator_cloud, "guide", "2.0.0")
        until(lambda: served(edge, "guide") == ("2.0.0", second))
        folder = operator_cloud.tmp / "store/tenants/acme"
        until(lambda: store.versions(folder, "guide") == ["2.0.0"])
        ready = until(lambda: (r := edge.http.get("/readyz").json())["versions_held"] == 1 and r)
        assert (ready["status"], ready["problems"]) == ("ready", [])
        assert "acme" not in str(ready)

        def told():
            [seen] = [e for e in operator_cloud.hub.edges(LOCAL) if e.name == "east"]
            beat = seen.heartbeat
            effective = beat is not None and beat.revision == edge.agent.library.desired.revision
            return beat if effective and [(h.model, h.version) for h in beat.held] == [("guide", "2.0.0")] else None

        beat = until(told)
        assert beat.energy_j is None
        assert beat.disk_free_bytes <= 10**9


def test_a_version_on_trial_comes_and_is_promoted_or_taken_back(operator_cloud):
    publish(operator_cloud, "guide")
    with edge_of(operator_cloud) as edge:
        until(lambda: served(edge, "guide"))
        folder = operator_cloud.tmp / "store/tenants/acme"
        path = operator_cloud.tmp / "upload.bin"
        path.write_bytes(b"better")
        operator_cloud.acme.upload(path, c.UploadForm(model="guide", version="2.0.0", format="opaque", bytes=6))
        operator_cloud.acme.publish("guide", c.Publication(version="1.0.0", weights={"2.0.0": 0.25}, canary="2.0.0"))
        trial = until(lambda: store.trial(folder, "guide"))
        assert (trial.version, trial.weight) == ("2.0.0", 0.25)
        operator_cloud.acme.publish("guide", c.Publication(version="1.0.0", weights={"2.0.0": 0.5}, canary="2.0.0"))
        later = until(lambda: (t := store.trial(folder, "guide")) and t.weight == 0.5 and t)
        assert later.since_s == trial.since_s
        operator_cloud.acme.publish("guide", c.Publication(version="1.0.0"))
        until(lambda: store.versions(folder, "guide") == ["1.0.0"])
        assert store.trial(folder, "guide") is None
        assert served(edge, "guide")[0] == "1.0.0"
        operator_cloud.acme.publish("guide", c.Publication(version="1.0.0", weights={"2.0.0": 0.25}, canary="2.0.0"))
        until(lambda: store.trial(folder, "guide"))
        operator_cloud.acme.publish("guide", c.Publication(version="2.0.0"))
        until(lambda: store.versions(folder, "guide") == ["2.0.0"])
        assert served(edge, "guide") == ("2.0.0", b"better")


def test_without_a_hub_an_edge_goes_on_and_catches_up_after(operator_cloud, tmp_path):
    first = publish(operator_cloud, "guide")
    with edge_of(operator_cloud) as edge:
        until(lambda: served(edge, "guide"))
    with open_hub(tmp_path / "hub2") as other, hub_in_thread(other) as elsewhere:
        gone = elsewhere  # an address where nobody answers, once its server has ended
    with edge_of(operator_cloud, url=gone) as edge:  # it starts without its hub
        assert until(lambda: served(edge, "guide")) == ("1.0.0", first)
        until(lambda: any("away" in p for p in edge.http.get("/readyz").json()["problems"]))
        second = publish(operator_cloud, "guide", "2.0.0")
        assert served(edge, "guide") == ("1.0.0", first)
        with hub_in_thread(operator_cloud.hub, Listening(port=int(gone.rpartition(":")[2]))):
            until(lambda: served(edge, "guide") == ("2.0.0", second))
            until(lambda: edge.http.get("/readyz").json()["problems"] == [])


def test_what_was_damaged_on_disk_is_fetched_again(operator_cloud):
    content = publish(operator_cloud, "guide")
    with edge_of(operator_cloud) as edge:
        until(lambda: served(edge, "guide"))
    folder = operator_cloud.tmp / "store/tenants/acme/guide/1.0.0/blobs/sha256"
    largest = max(folder.iterdir(), key=lambda p: p.stat().st_size)
    largest.write_bytes(b"x" * largest.stat().st_size)
    with edge_of(operator_cloud) as edge:
        assert until(lambda: served(edge, "guide")) == ("1.0.0", content)


def test_a_model_that_is_no_longer_placed_goes(operator_cloud):
    publish(operator_cloud, "guide")
    publish(operator_cloud, "other")
    with edge_of(operator_cloud) as edge:
        until(lambda: served(edge, "guide") and served(edge, "other"))
        operator_cloud.acme.delete_rule("guide")
        until(lambda: edge.http.get("/v1/tenants/acme/bundles/guide/latest").status_code == 404)
        assert served(edge, "other")
        operator_cloud.acme.delete_rule("other")
        until(lambda: not (operator_cloud.tmp / "store/tenants/acme").exists())


def test_a_small_disk_holds_what_is_asked_for_and_says_what_it_lacks(operator_cloud):
    size = 200_000
    for model in ("a", "b", "c"):
        publish(operator_cloud, model, content=model.encode() * size, pinned=model == "c")
    with edge_of(operator_cloud, disk_bytes=2 * size + 50_000) as edge:
        until(lambda: edge.http.get("/readyz").json().get("problems") == ["disk full: 1 versions are not held"])
        assert until(lambda: served(edge, "c"))
        lacks = "a" if served(edge, "a") is None else "b"
        asked = edge.http.get(f"/v1/tenants/acme/bundles/{lacks}/latest")
        if asked.status_code == 503:
            assert asked.headers["retry-after"] == "1"
            assert "being fetched" in asked.json()["detail"]
        assert until(lambda: served(edge, lacks)) == ("1.0.0", lacks.encode() * size)
        assert served(edge, "c"), "a pinned version is never evicted"
        other = {"a": "b", "b": "a"}[lacks]
        assert not (operator_cloud.tmp / f"store/tenants/acme/{other}/1.0.0").exists()
        beat = until(lambda: (e := operator_cloud.hub.edges(LOCAL)[0].heartbeat) and e.problems and e)
        assert "disk full: 1 versions are not held" in beat.problems[0]
        assert beat.disk_free_bytes < size


def test_a_download_that_runs_is_not_cut_off_by_its_successor(operator_cloud):
    content = publish(operator_cloud, "guide", content=b"0123456789" * 800_000)
    with edge_of(operator_cloud) as edge:
        until(lambda: served(edge, "guide"))
        digest = edge.http.get("/v1/tenants/acme/bundles/guide/latest").json()["layers"]["model.bin"]["digest"][7:]
        path = f"/v1/tenants/acme/bundles/guide/1.0.0/blobs/sha256/{digest}"
        with edge.http.stream("GET", path) as running:
            pieces = running.iter_raw(65536)
            had = [next(pieces)]
            publish(operator_cloud, "guide", "2.0.0")
            until(lambda: served(edge, "guide") and served(edge, "guide")[0] == "2.0.0")
            assert edge.http.get(path, headers={"Range": "bytes=0-9"}).content == b"0123456789"
            had += pieces
        assert b"".join(had) == content
        until(lambda: edge.http.get(path).status_code == 404)


def test_the_hub_hears_nothing_of_an_edge_with_another_name(operator_cloud):
    operator_cloud.edge_token = new_edge(operator_cloud, "west")
    with edge_of(operator_cloud) as edge:
        until(lambda: edge.http.get("/readyz").status_code == 503)
        until(lambda: any("cannot speak for" in problem for problem in edge.agent.problems()))
    shutil.rmtree(operator_cloud.tmp / "store")
