"""A run's own files and nodes' states lie sealed where a key is configured, and open as before where none is (M.3387 10.2)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cellwright.errors import FederationError
from cellwright.federation import federate
from cellwright.federation.contract import NodeState
from cellwright.federation.data.at_rest import AtRest, Storage, storage_of, tensors
from cellwright.federation.data.keyring import FileKey
from cellwright.federation.management.opening import open_fmlms
from cellwright.federation.management.records import NodeProperties
from cellwright.federation.runtimes.jobs import outcome_bytes, read_outcome
from cellwright.federation.runtimes.memory import FolderMemory
from cellwright.steps.train import train
from cellwright.workspace import Workspace

KEY = "fedavg:gru"


def test_what_is_written_comes_back_and_only_at_its_place(tmp_path):
    storage = Storage(file=str(tmp_path / "key"))
    sealed = AtRest(storage, "r1")
    sealed.write(tmp_path / "a", b"model", mode=0o600)
    assert b"model" not in (tmp_path / "a").read_bytes()
    assert AtRest(storage, "r1").read(tmp_path / "a") == b"model"
    (tmp_path / "b").write_bytes((tmp_path / "a").read_bytes())
    with pytest.raises(FederationError, match="belongs to another place"):
        sealed.read(tmp_path / "b")
    with pytest.raises(FederationError, match="belongs to another place"):
        AtRest(storage, "r2").read(tmp_path / "a")
    with pytest.raises(FederationError, match="no key is configured"):
        AtRest().read(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"model")
    with pytest.raises(FederationError, match="never sealed"):  # anyone could have put it there
        sealed.read(tmp_path / "a")
    assert AtRest().read(tmp_path / "a") == b"model"


def test_the_key_comes_from_a_file_or_a_program_and_from_one_of_them(tmp_path):
    assert storage_of(None, (), tmp_path) is None
    made = storage_of("keys/own", (), tmp_path)
    assert made == Storage(file=str(tmp_path / "keys" / "own"))
    AtRest(made, "r").write(tmp_path / "a", b"x")
    told = (sys.executable, "-c", f"print(open({str(tmp_path / 'keys' / 'own')!r}).read())")
    assert AtRest(storage_of(None, told, tmp_path), "r").read(tmp_path / "a") == b"x"
    with pytest.raises(FederationError, match="name one of them"):
        storage_of("key", told, tmp_path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same federation with a key and without."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("fed_conftest_at_rest", Path(__file__).with_name("conftest.py"))
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    found = {}
    for name, given in {"sealed": {"storage_key": "storage/key"}, "open": {}}.items():
        ws = Workspace(tmp_path_factory.mktemp(name), "run")
        tiny.tiny_panel().save(ws.panel("tiny"))
        train(tiny.tiny_params(federation={"rounds": 2, **given}), ws, KEY)
        found[name] = ws.candidate(KEY) / federate.JOB
    return found


def test_with_a_key_nothing_of_the_model_lies_open_in_the_jobs_folder(runs):
    names = {path.relative_to(runs["open"]) for path in runs["open"].rglob("*.safetensors")}
    assert {str(name) for name in names} >= {"start.safetensors", "outcome.safetensors", "checkpoint.safetensors"}
    assert any(name.parent.name == "observed" for name in names)
    for name in [*names, Path("alignment.json")]:
        assert (runs["sealed"] / name).read_bytes().startswith(b"CWS1"), name
        assert not (runs["open"] / name).read_bytes().startswith(b"CWS1"), name
    weights = next(iter(read_outcome(runs["open"]).arrays.values())).tobytes()
    kept = [path.read_bytes() for path in runs["sealed"].rglob("*") if path.is_file()]
    assert not any(weights in content for content in kept)
    (key,) = (path for parent in runs["sealed"].parents[:6] for path in parent.glob("storage/key"))
    assert key.read_bytes().strip() not in b"".join(kept)


def test_sealed_or_not_the_model_is_the_same_and_the_forecaster_lies_open(runs):
    sealed, open_ = (read_outcome(runs[name]) for name in ("sealed", "open"))
    for name, array in open_.arrays.items():
        assert array.tobytes() == sealed.arrays[name].tobytes()
    assert tensors(outcome_bytes(runs["sealed"]))[1].keys() == tensors(outcome_bytes(runs["open"]))[1].keys()
    forecaster = (runs["sealed"].parent / "forecaster.safetensors").read_bytes()
    assert tensors(forecaster)  # as any other candidate's: it is for the leaderboard and the bundle


def test_a_run_without_its_key_says_so(runs, tmp_path):
    for path in runs["sealed"].iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    job = json.loads((tmp_path / "job.json").read_text())
    assert "storage" in job
    (tmp_path / "job.json").write_text(json.dumps({**job, "storage": {"file": str(tmp_path / "another"), "command": []}}))
    with pytest.raises(FederationError, match="Give that key"):
        read_outcome(tmp_path)


def context(folder: Path) -> SimpleNamespace:
    return SimpleNamespace(run_config={"request": "r"}, node_config={"node": str(folder)})


def test_what_a_supernode_remembers_lies_sealed_under_a_key_of_its_own(tmp_path):
    memory, state = FolderMemory(), NodeState({"head": np.arange(5, dtype=np.float32)}, {"task": b"a task in words"})
    memory.save(context(tmp_path), state)
    again = memory.load(context(tmp_path))
    assert again.blobs == state.blobs
    np.testing.assert_array_equal(again.arrays["head"], state.arrays["head"])
    (kept,) = (tmp_path / "memory").glob("*.state")
    assert kept.read_bytes().startswith(b"CWS1")
    assert b"a task in words" not in kept.read_bytes()
    assert (tmp_path / "storage.key").stat().st_mode & 0o077 == 0
    (tmp_path / "storage.key").unlink()
    FileKey(tmp_path / "storage.key").key()
    with pytest.raises(FederationError, match=r"what this node remembered is damaged .*Give that key"):
        memory.load(context(tmp_path))


def test_the_fmlms_is_sealed_with_the_key_that_is_configured_and_opens_what_the_former_sealed(tmp_path, make_params):
    ws = Workspace(tmp_path, "run")
    node = NodeProperties(name="a", roles=("data_owner",))
    with open_fmlms(ws, make_params()) as before:
        before.register(node)
        before.store_metadata("a", "tiny", b"old")
    params = make_params(federation={"storage_key": "own.key"})
    with open_fmlms(ws, params) as service:
        assert service.metadata("a", "tiny", 1) == (1, b"old")
        assert service.store_metadata("a", "tiny", b"new") == 2
    with open_fmlms(ws, make_params()) as without, pytest.raises(FederationError, match="Give that key"):
        without.metadata("a", "tiny", 2)
