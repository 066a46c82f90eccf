"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from cellwright.families import members
from cellwright.params import Params, explain, load
from cellwright.sections import Section

REPOSITORY = Path(__file__).parent.parent
FAMILIES = [
    "models",
    "cellwright.kpis",
    "cellwright.data.readers",
    "cellwright.delta.formats",
    "cellwright.delta.modes",
    "cellwright.federation.aggregation",
    "cellwright.federation.compression",
    "cellwright.federation.privacy",
    "cellwright.lifecycle.drift",
    "cellwright.lifecycle.policies",
]
# Split up, so that this file does not hold what it looks for.
ELSEWHERE = {
    "a folder of one machine": r"(?<![\w.$}])/(?:wo{1}rk|tm{1}p|ho{1}me|ro{1}ot|Use{1}rs|op{1}t)/\w",
    "the host of a package registry": r"py{1}pi\.org|python{1}hosted\.org|test\.py{1}pi|artifact{1}ory|nex{1}us\.|jf{1}rog",
    "a talk that the reader has not heard": r"(?i)\bthis (?:work{1}place|sess{1}ion|tas{1}k brief)\b|\bAI ag{1}ent|\bthe pro{1}mpt\b",
}
OBVIOUS = {"seed", "device", "max_epochs", "currency", "learning_rate", "weight_decay", "loss", "gradient_clip", "kind"}


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True).stdout.decode()
    return [REPOSITORY / name for name in listed.split("\0") if name and (REPOSITORY / name).is_file()]


def texts() -> list[tuple[str, str]]:
    found = []
    for path in tracked():
        content = path.read_bytes()
        if b"\0" not in content:
            found.append((path.relative_to(REPOSITORY).as_posix(), content.decode()))
    return found


@pytest.mark.parametrize("what", ELSEWHERE)
def test_no_file_speaks_of_what_is_not_in_it(what):
    hits = [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(ELSEWHERE[what], line)
    ]
    assert hits == [], what


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("a folder of one machine", "see /" + "tmp/x"),
        ("a folder of one machine", '"/' + 'home/me"'),
        ("the host of a package registry", "https://py" + "pi.org/simple"),
        ("a talk that the reader has not heard", "as the pro" + "mpt asks"),
    ],
)
def test_the_rules_can_be_broken(what, line):
    assert re.search(ELSEWHERE[what], line)


def docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""


@pytest.mark.parametrize("family", FAMILIES)
def test_every_member_of_a_family_says_what_it_is(family):
    folder = REPOSITORY / family.replace(".", "/")
    assert members(family)
    assert [name for name in members(family) if len(docstring(folder / f"{name}.py")) < 20] == []


def test_every_module_says_what_it_is():
    rooms = ("cellwright/", "flows/", "tasks/", "models/", "benchmarks/", "tests/")
    silent = [
        path.relative_to(REPOSITORY).as_posix()
        for path in tracked()
        if path.suffix == ".py" and path.relative_to(REPOSITORY).as_posix().startswith(rooms)
        if path.read_text().strip() and not docstring(path)
    ]
    assert silent == []


def test_params_yaml_loads_for_every_data_set_it_names():
    plain = load(REPOSITORY / "params.yaml")
    for name in plain.for_dataset:
        assert load(REPOSITORY / "params.yaml", [f"dataset={name}"]).dataset == name


def test_every_parameter_is_described_or_says_all_by_its_name():
    bare = {key for key, _type, _default, description in explain() if not description}
    unclear = {key for key in bare if key.rpartition(".")[2] not in OBVIOUS and key.partition(".")[0] not in ("split", "prices")}
    assert unclear == set()


def test_every_section_says_which_step_it_is_for():
    sections = [type(field.default) for field in Params.model_fields.values() if isinstance(field.default, Section)]
    assert len(sections) > 10
    assert [s.__name__ for s in sections if not s.__doc__] == []
