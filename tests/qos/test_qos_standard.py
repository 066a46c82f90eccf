"""schemathesis against the standards' own OpenAPI files: every operation of the simulator, every check, no finding.

One thing is set: data that the schema allows may be refused with 400 or 422. The standards' prose asks for that where their schemas
cannot say it (a device must be named, sinks' tokens must be bearer tokens, a profile must exist, …).
"""

import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from cellwright.qos.profile import QosProfile
from cellwright.qos.simulator.network import Network, in_thread
from cellwright.qos.simulator.options import Behaviour, Cell, NetworkOptions, Zone, default_profiles

APIS = {
    "camara-quality-on-demand-1.1.0.yaml": "quality-on-demand/v1",
    "camara-qos-profiles.yaml": "qos-profiles/v1",
    "camara-simple-edge-discovery-2.0.1.yaml": "simple-edge-discovery/v2",
}
# What must have succeeded at least once, or nothing was examined; the first already in a short run.
SUCCESSES = {
    "camara-quality-on-demand-1.1.0.yaml": [
        ("createSession", 201),
        ("getSession", 200),
        ("deleteSession", 204),
        ("createSession", 409),
    ],
    "camara-qos-profiles.yaml": [("retrieveQoSProfiles", 200), ("getQosProfile", 200)],
    "camara-simple-edge-discovery-2.0.1.yaml": [("readClosestEdgeCloudZone", 200)],
}
CONFIG = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "422"]
"""
# The standard's own example, with a value of every kind.
VOICE = {
    "name": "voice",
    "status": "ACTIVE",
    "description": "Speech",
    "countryAvailability": [{"countryName": "GB", "networks": ["23591"]}],
    "targetMinDownstreamRate": {"value": 100, "unit": "kbps"},
    "maxDuration": {"value": 10, "unit": "Days"},
    "priority": 10,
    "packetDelayBudget": {"value": 50, "unit": "Milliseconds"},
    "packetErrorLossRate": 3,
}


@pytest.fixture(scope="module")
def standards(mirror) -> Path:
    folder = Path(os.environ.get("CELLWRIGHT_STANDARDS") or mirror.parent / "standards")
    if not folder.is_dir():
        pytest.skip(f"no OpenAPI files of CAMARA: {folder} is missing; set CELLWRIGHT_STANDARDS to a folder that holds them")
    return folder


def examine(standards, tmp_path, name, *arguments):
    """Run schemathesis on one API of a network that knows every device; its report, if it found anything; what the network answered."""
    behaviour = Behaviour(strangers="admit", linger_s=5, decision_s=0)
    options = NetworkOptions(
        profiles=(QosProfile.model_validate(VOICE), *default_profiles()),
        cells=(Cell(name="cell", capacity_bit_s=1e13),),
        zones=(Zone(id=UUID("f81d4fae-7dec-11d0-a765-00a0c91e6bf6"), name="west"),),
        behaviour=behaviour,
    )
    (tmp_path / "st.toml").write_text(CONFIG)
    with in_thread(Network(options)) as network:
        command = [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "--config-file",
            str(tmp_path / "st.toml"),
            "run",
            str(standards / name),
        ]
        command += [
            "--url",
            f"{network.url}/{APIS[name]}",
            "-H",
            f"Authorization: Bearer {network.token()}",
            "--no-color",
            *arguments,
        ]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    return network.counts


@pytest.mark.shared
@pytest.mark.parametrize("name", APIS)
def test_schemathesis_finds_nothing(standards, tmp_path, name):
    phases = "examples,coverage,fuzzing"
    answered = examine(standards, tmp_path, name, "--phases", phases, "--max-examples", "2", "--seed", "1")
    assert SUCCESSES[name][0] in answered


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", APIS)
def test_schemathesis_finds_nothing_however_long_it_looks(standards, tmp_path, name, seed):
    answered = examine(standards, tmp_path, name, "--max-examples", "150", "--seed", str(seed))
    assert [success for success in SUCCESSES[name] if success not in answered] == []
