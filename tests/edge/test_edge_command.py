"""The commands of an edge with a hub: what is wrong with them is said before anything starts."""

import os
import socket
import subprocess
import sys

import httpx
import pytest
from typer.testing import CliRunner

from cellwright.edge.configured import serve_as
from cellwright.edge.params import EdgeParams
from cellwright.errors import ParamsError, UnknownName, WrongUse
from cellwright.workspace import Workspace
from flows.cli import app


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("CELLWRIGHT_ROOT", str(tmp_path))

    def made(*arguments):
        result = CliRunner().invoke(app, ["edge", *arguments])
        if isinstance(result.exception, Exception) and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return made


def test_what_is_missing_beside_a_hub_is_said(run, tmp_path):
    token = tmp_path / "token"
    token.write_text("cwh_1_2\n")
    whole = ("--hub", "http://127.0.0.1:9", "--token-file", str(token), "--name", "east")
    with pytest.raises(WrongUse, match="needs --name, --location"):
        run("serve", *whole)
    with pytest.raises(WrongUse, match="longitude,latitude"):
        run("serve", *whole, "--location", "here")
    with pytest.raises(WrongUse, match="longitude,latitude"):
        run("serve", *whole, "--location", "2.05,948")
    with pytest.raises(WrongUse, match="cannot read the token"):
        run("serve", *whole[:2], "--token-file", str(tmp_path / "none"), *whole[4:], "--location", "2,48")
    with pytest.raises(UnknownName, match="density, popularity, size"):
        run("serve", *whole, "--location", "2,48", "--eviction", "popular")
    with pytest.raises(WrongUse, match="--network-token-file"):
        run("serve", "--network", "http://127.0.0.1:9")
    token.write_bytes(bytes(range(256)))
    with pytest.raises(WrongUse, match="holds no text; expected a token"):
        run("serve", *whole, "--location", "2,48")


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_edge_on_all_addresses_says_which_one_the_network_sees(tmp_path, host):
    (tmp_path / "token").write_text("t")
    given = {"host": host, "network": "http://127.0.0.1:9", "network_token_file": "token"}
    with pytest.raises(WrongUse, match=r"edge\.network_address"):
        serve_as(EdgeParams(**given, insecure=True), Workspace(tmp_path))


def test_the_configuration_of_nginx_names_the_store(run, tmp_path):
    said = run("nginx-config", "--listen", "127.0.0.1:8443").stdout
    assert f"alias {tmp_path}/.cellwright/published/;" in said
    assert "listen 127.0.0.1:8443;" in said
    assert (tmp_path / ".cellwright/nginx").is_dir()


EDGE = """
edge:
  port: 1
  body_bytes: 100
  connections_per_client: 3
  eviction: {eviction}
"""


def test_what_params_yaml_says_of_the_edge_is_what_it_does_and_options_override_it(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "params.yaml").write_text(EDGE.format(eviction="size"))
    command = [sys.executable, "-m", "flows.cli", "edge", "serve", "--port", str(port), "--set", "edge.connections_per_client=4"]
    environment = os.environ | {"CELLWRIGHT_ROOT": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as edge:
        try:
            assert edge.stdout.readline().startswith(f"edge on http://127.0.0.1:{port}: ")
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
                told = http.post("/v1/forecast", content=b"[" + b" " * 100 + b"]")
                assert told.status_code == 413
                assert "larger than 100 bytes" in told.json()["detail"]
        finally:
            edge.terminate()
    assert edge.returncode == 0


def test_what_is_wrong_in_the_section_is_said_before_anything_starts(run, tmp_path):
    params = tmp_path / "params.yaml"
    params.write_text(EDGE.format(eviction="popular"))
    with pytest.raises(UnknownName, match="density, popularity, size"):
        run("serve")
    params.write_text("edge: {quueue: 3}\n")
    with pytest.raises(ParamsError, match="did you mean 'queue'"):
        run("serve")
    params.write_text("edge: {hub: https://hub.example, name: east, location: [2.05, 98]}\n")
    with pytest.raises(ParamsError, match=r"edge\.location"):
        run("serve")
    params.write_text("edge: {hub: https://hub.example, name: east, location: [2.05, 48], hub_token_file: edge.token}\n")
    with pytest.raises(WrongUse, match=f"cannot read the token in {tmp_path}/edge.token"):
        run("serve")
