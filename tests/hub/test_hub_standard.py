"""schemathesis against the hub's own OpenAPI, with an operator's and with a tenant's token: no answer that it does not announce."""

import subprocess
import sys

import pytest

from cellwright.hub import contract as c
from cellwright.hub.core import LOCAL

# What OpenAPI cannot say: tus' own headers, names that lead to nothing, rules between fields; a token in a header is always read.
CONFIG = """
[checks]
positive_data_acceptance.enabled = false
negative_data_rejection.enabled = false
missing_required_header.enabled = false
use_after_free.enabled = false
ensure_resource_availability.enabled = false
"""


@pytest.fixture(params=["operator", "company-a"])
def token(request, hub, served):
    scopes = (
        ("operator",) if request.param == "operator" else ("models:read", "models:write", "placement:write", "publish", "device")
    )
    quota = c.Quota(requests_per_minute=10_000_000)
    hub.put_tenant(LOCAL, request.param, c.TenantForm(quota=quota))
    return hub.new_token(LOCAL, request.param, c.TokenForm(name="fuzz", scopes=scopes)).token


@pytest.mark.slow
def test_schemathesis_finds_nothing(served, token, tmp_path):
    (tmp_path / "st.toml").write_text(CONFIG)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(tmp_path / "st.toml"), "run"]
    command += [f"{served}/openapi.json", "-H", f"Authorization: Bearer {token}", "--no-color", "--seed", "1"]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", "10"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
