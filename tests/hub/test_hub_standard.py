"""schemathesis against the hub's own OpenAPI, with an operator's and with a tenant's token: no answer that it does not announce."""

import subprocess
import sys

import pytest

from cellwright.hub import contract as c
from cellwright.hub.core import LOCAL

# All checks are on. Of these doors alone OpenAPI cannot say everything that they refuse: fields that depend on each other (a canary
# is one of the weights; the session of the address is that of the record; a chunk begins where the last one ended; an upload's form is
# in the body or in headers; some scopes are the operator's), and texts with an inside (a PEM key, GeoJSON that closes its rings, a name
# of a time zone).
RULES_OF_THEIR_OWN = (
    "POST /v1/models/{model}/publication",
    "PUT /v1/qos/{session}",
    "PATCH /v1/uploads/{upload}",
    "POST /v1/uploads",
    "POST /v1/keys",
    "PUT /v1/areas/{name}",
    "PUT /v1/placement/{name}",
    "POST /v1/tenants/{tenant}/tokens",
)
CONFIG = 'hooks = "hub_hooks"\n' + "".join(
    f'[[operations]]\ninclude-name = "{name}"\nchecks.positive_data_acceptance.enabled = false\n' for name in RULES_OF_THEIR_OWN
)
HOOKS = """import schemathesis
schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")  # tus' chunks
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
    (tmp_path / "hub_hooks.py").write_text(HOOKS)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(tmp_path / "st.toml"), "run"]
    command += [f"{served}/openapi.json", "-H", f"Authorization: Bearer {token}", "--no-color", "--seed", "1"]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", "10"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
