"""A model of one's own: a file with `Network` and `Options` goes through training like any of the zoo; a wrong one is told why."""

from __future__ import annotations

import shutil
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from cellwright.bundle.export import export_onnx
from cellwright.data.scaler import fit_scaler
from cellwright.data.split import split
from cellwright.errors import BundleError, ParamsError, TrainingError, UnknownName
from cellwright.forecaster import Forecaster, build, network_of
from cellwright.params import load
from cellwright.results import Trained
from cellwright.runs import run_name
from cellwright.steps.train import train
from cellwright.training import own_model
from cellwright.training.candidates import resolve
from cellwright.training.checks import check_models
from cellwright.training.search import search
from cellwright.training.workers import Workers
from cellwright.workspace import Workspace

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_model.py"
MODEL = EXAMPLE.read_text()


@pytest.fixture
def mine(tmp_path):
    """Write a model's file, a copy of the example with parts of its text replaced; returns its path."""

    def write(*replaced: tuple[str, str], name: str = "mine.py", text: str = MODEL) -> str:
        for old, new in replaced:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


@pytest.fixture
def resolved(make_params, panel):
    """The candidate of a key on the small panel, with `train.settings` of it."""

    def resolve_it(key: str, **problem):
        return resolve(make_params(train={"models": [key]}, problem=problem), panel.schema, key)

    return resolve_it


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("lstm", ("lstm", "")),
        ("vmrnn:b", ("vmrnn", "b")),
        ("path/to/mine.py", ("path/to/mine.py", "")),
        ("path/to/mine.py:small", ("path/to/mine.py", "small")),
        ("/a:b/mine.py:small", ("/a:b/mine.py", "small")),
        ("neuralforecast:NHITS", ("neuralforecast:NHITS", "")),
    ],
)
def test_a_key_is_a_model_and_a_preset(key, parts):
    assert own_model.split(key) == parts


def test_folders_of_candidates_are_safe_names_and_stay_apart(tmp_path):
    ws = Workspace(tmp_path)
    keys = [
        "gru",
        "vmrnn:b",
        "neuralforecast:NHITS",
        "a/my model.py",
        "b/my model.py",
        "../../mine.py:b",
        "/etc/mine.py",
        "mine.py",
    ]
    names = [ws.candidate(key).name for key in keys]
    assert names[:3] == ["gru", "vmrnn-b", "neuralforecast-NHITS"]
    assert len(set(names)) == len(keys)
    assert all(ws.candidate(key).parent == ws.candidate("gru").parent for key in keys)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") for name in names)
    assert names[3].startswith("my_model-")
    assert names[5].startswith("mine-b-")


def test_the_example_is_a_model(resolved, mine):
    candidate = resolved(mine())
    assert (candidate.title, candidate.preset, candidate.problem.inputs) == ("Smoothing", None, "site")
    assert candidate.options.smoothing == 3
    small = resolved(f"{mine()}:slow")
    assert (small.title, small.options.smoothing) == ("Smoothing (slow)", 12)
    with pytest.raises(UnknownName, match="There are: slow"):
        resolved(f"{mine()}:fast")


def test_it_trains_is_stored_and_exported_like_any_other(mine, make_params, workspace, panel, tmp_path):
    key = f"{mine()}:slow"
    trained = train(make_params(train={"models": [key]}), workspace, key)
    folder = workspace.candidate(key)
    assert (trained.title, trained.key, trained.model, trained.preset) == ("Smoothing (slow)", key, mine(), "slow")
    assert trained.parameters > 0
    assert Trained.read(folder / "candidate.json") == trained
    forecaster = Forecaster.load(folder)
    assert forecaster.network.options.smoothing == 12
    assert forecaster.about["sha256"] == own_model.sha256(mine())
    export_onnx(forecaster, tmp_path / "mine.onnx")
    unmarked = {name: value for name, value in forecaster.about.items() if name != "sha256"}
    with pytest.raises(TrainingError, match="without its SHA-256"):
        network_of(unmarked)
    again = train(make_params(train={"models": [key]}), workspace, key)
    assert again == trained  # found, not trained once more


def test_one_that_takes_the_batch_for_a_constant_is_not_exported(mine, resolved, panel, tmp_path):
    path = mine(
        ("level[:, :, self.seen].unsqueeze(-1)", "level[:, :, self.seen].unsqueeze(-1) + torch.zeros(len(x), 1, 1, 1, 1)")
    )
    candidate = resolved(path)
    forecaster = build(candidate, fit_scaler(panel, candidate.problem, "standard", (0, 300), None))
    with pytest.raises(BundleError, match="cannot be exported to ONNX"):
        export_onnx(forecaster, tmp_path / "mine.onnx")


def test_worker_processes_train_it_by_a_path_relative_to_the_project(mine, make_params, workspace, monkeypatch):
    mine()
    (workspace.root / "params.yaml").write_text("dataset: toy\n")
    monkeypatch.chdir(workspace.root)
    params = make_params(train={"models": ["mine.py"], "max_epochs": 1})
    with Workers(1, 1, ready=False) as workers:
        assert workers.train(params, workspace, "mine.py").title == "Smoothing"


def test_a_search_draws_from_its_space(mine, make_params, workspace, panel):
    params = make_params(train={"models": [mine()], "max_epochs": 1}, search={"trials": 3, "budget_s": 30})
    candidate = resolve(params, panel.schema, mine())
    best, trials = search(params, workspace, candidate, panel, split(params.split, 0, panel.schema.rows))
    assert trials == 3
    assert 1 <= best.options.smoothing <= 12


def test_an_edited_file_is_trained_again_and_does_not_load_what_was_trained_before(mine, make_params, workspace):
    path = mine()
    params = make_params(train={"models": [path], "max_epochs": 1})
    first, name = train(params, workspace, path), run_name(params, "data")
    mine(('title = "Smoothing"', 'title = "Smoother"'))
    assert run_name(params, "data") != name
    with pytest.raises(TrainingError, match=r"has changed since this forecaster was trained.*train it again"):
        Forecaster.load(workspace.candidate(path))
    second = train(params, workspace, path)
    assert (first.title, second.title) == ("Smoothing", "Smoother")
    assert Forecaster.load(workspace.candidate(path)).network.title == "Smoother"


def test_two_files_of_one_name_are_two_candidates(mine, make_params, workspace, tmp_path):
    (tmp_path / "other").mkdir()
    other = shutil.copy(mine(), tmp_path / "other" / "mine.py")
    Path(other).write_text(MODEL.replace('"Smoothing"', '"Other"'))
    params = make_params(train={"models": [mine(), str(other)], "max_epochs": 1})
    titles = [train(params, workspace, key).title for key in params.train.models]
    assert titles == ["Smoothing", "Other"]


def test_quantiles_patches_and_lags_are_probed_as_the_problem_asks(mine, resolved):
    every = mine(('inputs = ("site",)', 'inputs = ("patch", "site", "all")'))
    assert resolved(every, quantiles=(0.1, 0.5, 0.9), lags=(48,)).problem.inputs == "patch"
    assert resolved(every, inputs="all").problem.nodes == 4


CLASS_OPTIONS = "@dataclass(frozen=True)\nclass Options(_contract.Options):"
HEAD = 'self.blocks.add_module("head", Head(problem))'
SHAPED = ".unflatten(1, self.shape)"
OPTION = 'smoothing: int = option(3, "steps of the average", low=1, high=64)'
WRONG_SHAPE = r"forecasts the shape \(2, 2, 1, 1, 1\).*expected \(2, 3, 1, 1, 1\)"
WITHOUT_Y = r"fails on a batch of random windows \(inputs 'site', x \(2, 6, 1, 1\), known \(2, 9, 6\)\): KeyError: 'y'"
BROKEN = {
    "no Network": ([("class Network(", "class Net(")], "no model yet: there is no class Network in it"),
    "no subclass": ([("class Network(_contract.Network)", "class Network(nn.Module)")], "Network is no subclass of models._"),
    "a function": (
        [("class Network(_contract.Network):", "def Network(): ...\nclass N(_contract.Network):")],
        "Network is no sub",
    ),
    "no Options": ([("class Options(", "class Opts(")], "there is no class Options in it"),
    "plain Options": ([(CLASS_OPTIONS, "class Options(_contract.Options):")], "Options is no dataclass: write `@dataclass"),
    "no default": ([(OPTION, 'smoothing: int = field(metadata={"doc": "steps"})')], "smoothing has no default"),
    "no doc": ([(OPTION, "smoothing: int = 3")], "smoothing has no description"),
    "no title": ([('title = "Smoothing"', "")], "Network.title is missing"),
    "no inputs": ([('inputs = ("site",)', "")], "Network.inputs is missing"),
    "odd inputs": ([('inputs = ("site",)', 'inputs = ("cell",)')], r"Network.inputs is \('cell',\)"),
    "no head": ([(HEAD, HEAD.replace('"head"', '"tail"'))], "has the blocks embed, core, tail: head missing"),
    "no blocks": ([("self.blocks", "self.parts")], "sets no self.blocks"),
    "shape": ([(SHAPED, f"{SHAPED}[:, 1:]")], WRONG_SHAPE),
    "not finite": ([(SHAPED, f"{SHAPED} / 0.0 * 0.0")], "no finite numbers"),
    "no y": ([('{"y": ', '{"z": ')], WITHOUT_Y),
    "nothing to train": ([(SHAPED, f"{SHAPED}.detach()")], "has nothing to train"),
    "raises": ([("flat = x.flatten(1)", 'raise RuntimeError("not yet")')], r"\): line \d+: RuntimeError: not yet"),
    "import": (
        [("from typing", "import no_such_module\nfrom typing")],
        r"cannot be imported: line \d+: ModuleNotFoundError.*no_such",
    ),
    "syntax": ([("class Network(", "class Network((")], r"cannot be imported: line \d+: SyntaxError"),
    "exit": ([("from typing", "raise SystemExit(1)\nfrom typing")], r"cannot be imported: line \d+: SystemExit"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_wrong_file_is_told_what_it_lacks(what, mine, resolved):
    replaced, said = BROKEN[what]
    replaced = [*replaced, ("import dataclass\n", "import dataclass, field\n")]
    path = mine(*replaced)
    with pytest.raises(ParamsError, match=said) as told:
        resolved(path)
    assert path in str(told.value)


def test_all_that_is_missing_is_told_at_once(mine, resolved):
    with pytest.raises(ParamsError, match="no class Network in it; there is no class Options in it"):
        resolved(mine(text="x = 1\n"))


def test_a_missing_file_is_told_with_where_it_was_looked_for(workspace, resolved, monkeypatch):
    (workspace.root / "params.yaml").write_text("dataset: toy\n")
    monkeypatch.chdir(workspace.root)
    with pytest.raises(
        ParamsError, match=rf"there is no file {workspace.root}/nets/mine.py; a relative path starts at the folder"
    ):
        resolved("nets/mine.py")


def test_the_line_is_that_of_the_file(mine, resolved):
    text = textwrap.dedent("""
        import math

        def deep():
            return math.sqrt(-1)

        value = deep()
    """)
    with pytest.raises(ParamsError, match="line 5: ValueError"):
        resolved(mine(text=text))


def test_a_file_that_was_interrupted_is_imported_again(mine, resolved, monkeypatch):
    path = mine(("from typing", 'import os\nif os.environ.get("INTERRUPT"):\n    raise KeyboardInterrupt\nfrom typing'))
    monkeypatch.setenv("INTERRUPT", "1")
    with pytest.raises(KeyboardInterrupt):
        resolved(path)
    monkeypatch.delenv("INTERRUPT")
    assert resolved(path).title == "Smoothing"


def test_a_file_has_only_the_future_that_it_asks_for(mine, resolved):
    """Where this program's own `from __future__ import annotations` held, the annotation would be a string."""
    with pytest.raises(ParamsError, match="no class Network"):
        resolved(mine(text="def plain(steps: int): ...\n\nassert plain.__annotations__ == {'steps': int}\n"))


def test_a_probe_leaves_the_random_state_alone(mine, resolved):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    resolved(mine())
    torch.testing.assert_close(torch.rand(3), expected)


def test_models_are_checked_before_there_are_data(mine, make_params):
    check_models(make_params(train={"models": ["gru", mine()]}, problem={"quantiles": (0.1, 0.5), "targets": ("a", "b")}))
    with pytest.raises(UnknownName, match=r"there is no model 'gruu'.*Did you mean 'gru'"):
        check_models(make_params(train={"models": ["gruu"]}))
    with pytest.raises(ParamsError, match="no class Network"):
        check_models(make_params(train={"models": ["gru", mine(("class Network(", "class Net("))]}))


def test_presets_and_options_of_the_zoo_are_checked_before_there_are_data(make_params):
    check_models(make_params(train={"models": ["mlp", "vmrnn:b"], "settings": {"mlp": {"options": {"hidden": 8}}}}))
    with pytest.raises(UnknownName, match=r"no preset of 'vmrnn' 'c'\. There are: .*b"):
        check_models(make_params(train={"models": ["vmrnn:c"]}))
    for options, said in (({"hiden": 8}, "did you mean 'hidden'"), ({"hidden": 0}, "hidden must be at least 1")):
        with pytest.raises(ParamsError, match=said):
            check_models(make_params(train={"models": ["mlp"], "settings": {"mlp": {"options": options}}}))


def test_many_neighbours_are_found_among_the_sites_that_are_made_up(mine, make_params):
    path = mine(('inputs = ("site",)', 'inputs = ("patch", "site")'))
    check_models(make_params(train={"models": [path]}, problem={"neighbours": 12}))


def test_its_options_are_checked_like_any_other(mine, make_params, panel):
    for options, said in (({"smoothin": 2}, "did you mean 'smoothing'"), ({"smoothing": 0}, "must be at least 1")):
        params = make_params(train={"models": [mine()], "settings": {mine(): {"options": options}}})
        with pytest.raises(ParamsError, match=said):
            resolve(params, panel.schema, mine())


def test_params_yaml_may_name_a_path(tmp_path):
    (tmp_path / "params.yaml").write_text("train: {models: [gru, nets/mine.py:small]}\n")
    assert load(tmp_path / "params.yaml").train.models == ("gru", "nets/mine.py:small")


def test_the_form_of_the_flow_takes_a_path_beside_the_names():
    from flows._catalogue import Model, Other

    form = TypeAdapter(list[Model | Other])
    given = ["gru", "vmrnn:b", "nets/mine.py", "nets/mine.py:small", "neuralforecast:NHITS"]
    assert [str(m) for m in form.validate_python(given)] == given
    with pytest.raises(ValidationError):
        form.validate_python(["gruu"])


def test_a_closed_form_of_ones_own_is_probed_by_its_fit(mine, resolved):
    text = (Path(own_model.__file__).parents[2] / "models" / "ridge.py").read_text()
    candidate = resolved(mine(text=text))
    assert candidate.network.closed_form
    assert replace(candidate.problem, inputs="site").inputs == "site"
