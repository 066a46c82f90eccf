"""The commands of an edge with a hub: what is wrong with them is said before anything starts."""

import pytest
from typer.testing import CliRunner

from cellwright.errors import UnknownName, WrongUse
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


def test_the_configuration_of_nginx_names_the_store(run, tmp_path):
    said = run("nginx-config", "--listen", "127.0.0.1:8443").stdout
    assert f"alias {tmp_path}/.cellwright/published/;" in said
    assert "listen 127.0.0.1:8443;" in said
    assert (tmp_path / ".cellwright/nginx").is_dir()
