"""Taking grants back from the command line."""

import pytest
from typer.testing import CliRunner

from cellwright.errors import GrantRefused, WrongUse
from cellwright.hub import contract as c
from cellwright.hub.grant import read
from flows.cli import app


@pytest.fixture
def revoke(company, tmp_path):
    """revoke(*options): what `hub revoke-grants` says; its error is raised."""
    token = tmp_path / "token"
    token.write_text(company.http.headers["Authorization"].removeprefix("Bearer "))

    def run(*options):
        command = ["hub", "revoke-grants", "--hub", company.url, "--token-file", str(token), *options]
        return CliRunner().invoke(app, command, catch_exceptions=False).output

    return run


def test_one_grant_a_devices_and_all(revoke, company, tmp_path):
    leaked = company.grant(c.GrantAsk(device="ue-1")).grant
    (tmp_path / "leaked.txt").write_text(f"{leaked}\n")
    assert "grant " + read(leaked).id in revoke("--grant-file", str(tmp_path / "leaked.txt"))
    assert "0123456789abcdef is believed no more" in revoke("--grant", "0123456789abcdef")
    assert "grants of ue-7 from before now are" in revoke("--device", "ue-7")
    assert {r.name for r in company.revocations()} == {read(leaked).id, "0123456789abcdef", "ue-7"}
    assert revoke().startswith("grants from before now are believed no more")
    assert company.revocations() == ()


def test_what_names_no_grant_or_several_things_takes_nothing_back(revoke, company, tmp_path):
    (tmp_path / "other.txt").write_text("no grant")
    for options, error in (
        (("--grant", "x"), WrongUse),
        (("--device", "../x"), WrongUse),
        (("--grant", "0123456789abcdef", "--device", "ue"), WrongUse),
        (("--grant-file", str(tmp_path / "none")), WrongUse),
        (("--grant-file", str(tmp_path / "other.txt")), GrantRefused),
    ):
        with pytest.raises(error):
            revoke(*options)
    assert company.revocations() == ()
    assert not [row for row in company.audit() if row.action == "grants revoke"]
