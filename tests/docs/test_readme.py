"""README.md and docs/guide.md say what is there: each command, option, parameter, file and example is held against the code."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import click
import pytest
import typer
import yaml
from typer.testing import CliRunner

from cellwright.bundle import media
from cellwright.bundle.problem import ServedProblem
from cellwright.catalogue import load_catalogue
from cellwright.data.readers import long, wide
from cellwright.edge.request import calendar, parse
from cellwright.families import members
from cellwright.panel import Feature, Flag, Panel, PanelSchema, Segment
from cellwright.params import check, explain, load
from cellwright.workspace import Workspace
from flows.cli import app

REPOSITORY = Path(__file__).parents[2]
NAMES = ("README.md", "docs/guide.md", "docs/models.md", "docs/federation.md", "docs/hub.md")
PAGES = {name: (REPOSITORY / name).read_text() for name in NAMES}
BOTH = "\n".join(PAGES.values())
PROGRAMS = {"source", "export", "curl", "cellwright", "make", "dvc", "prefect", "scripts/install"}


class Block(NamedTuple):
    """A fenced block: its info string ("sh", "yaml params") and its text."""

    info: str
    text: str


def blocks(info: str) -> list[Block]:
    found = [Block(*m) for page in PAGES.values() for m in re.findall(r"^```([\w ]+)\n(.*?)^```$", page, re.M | re.S)]
    return [b for b in found if b.info == info]


def commands() -> Iterator[list[str]]:
    """Every command line of the shell blocks, without comments and assignments before it."""
    for block in blocks("sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def of(program: str) -> list[list[str]]:
    return [words[1:] for words in commands() if words[0] == program]


@cache
def program() -> click.Command:
    """All of `cellwright`."""
    return typer.main.get_command(app)


@cache
def data_sets() -> tuple[str, ...]:
    return load_catalogue(REPOSITORY / "data" / "catalogue.yaml").names


def parsed(command: click.Command, words: list[str], parent: click.Context | None = None) -> click.Context:
    """What click makes of a command line, down to the last sub command; nothing is run."""
    context = command.make_context(command.name or "cellwright", list(words), parent=parent)
    rest = [*context._protected_args, *context.args] if isinstance(command, click.Group) else []
    if not isinstance(command, click.Group) or (command.invoke_without_command and not rest):
        return context
    _name, sub, rest = command.resolve_command(context, rest)
    assert sub is not None
    return parsed(sub, rest, context)


def test_both_pages_have_commands_of_programs_that_are_known():
    assert {words[0] for words in commands()} <= PROGRAMS
    assert len(of("cellwright")) > 30


@pytest.mark.parametrize("words", of("cellwright"), ids=" ".join)
def test_each_cellwright_command_is_understood(words):
    if words == ["--help"]:
        return
    context = parsed(program(), words)
    asked = context.params
    given = {"my-cells", *data_sets()}
    name = asked.get("dataset") or (asked.get("name") if "data" in context.command_path.split() else None)
    assert name is None or name in given
    load(REPOSITORY / "params.yaml", asked.get("overrides") or ())


def test_a_command_that_is_not_there_would_be_noticed():
    with pytest.raises(click.UsageError):
        parsed(program(), ["run", "--data-set", "city"])
    with pytest.raises(click.UsageError):
        parsed(program(), ["champion", "crown", "x"])


def test_make_targets_and_variables_are_those_of_the_makefile():
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    said = [words.split() for words in re.findall(r"`make ([^`]+)`", BOTH)]
    for words in [*of("make"), *said]:
        assert words[0] in targets
        assert all(f"$({w.partition('=')[0]})" in makefile for w in words[1:]), words


def test_dvc_commands_are_understood():
    from dvc.cli.parser import get_main_parser

    said = [shlex.split(words) for words in re.findall(r"`dvc ([^`]+)`", BOTH)]
    for words in [*of("dvc"), *said]:
        assert get_main_parser().parse_args(words).func


def test_deployments_and_their_parameters_exist():
    present = {d["entrypoint"]: d for d in yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]}
    names = {f"{entry.rpartition(':')[2]}/{d['name']}": entry for entry, d in present.items()}
    assert set(re.findall(r"`((?:benchmark|federate|follow|monitor|publish|retrain|transfer|vertical)/[\w-]+)`", BOTH)) == set(
        names
    )
    for words in [w for w in of("prefect") if w[:2] == ["deployment", "run"]]:
        path, _, function = names[words[2]].partition(":")
        tree = ast.parse((REPOSITORY / path).read_text())
        flow = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function)
        given = [w.partition("=")[0] for w in words[3:] if w != "--param"]
        assert given
        assert set(given) <= {a.arg for a in flow.args.args}


def test_prefect_commands_have_the_options_that_are_used():
    for words in {tuple(w[:2]): w for w in of("prefect")}.values():
        help_ = subprocess.run(
            [sys.executable, "-m", "prefect", *words[:2], "--help"], capture_output=True, text=True, check=True, timeout=60
        )
        assert all(w in help_.stdout for w in words if w.startswith("--")), help_.stdout


def test_extras_that_are_installed_exist():
    known = re.findall(r"^(\w+) = \[", (REPOSITORY / "pyproject.toml").read_text().partition("optional-dependencies]")[2], re.M)
    assert all(set(words) <= set(known) for words in of("scripts/install"))


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_lead_somewhere(page):
    folder = (REPOSITORY / page).parent
    headings = {re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", PAGES[page], re.M)}
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if target.startswith("#"):
            assert target[1:] in headings
        elif not target.startswith("https://"):
            assert (folder / target).is_file(), target


def test_the_picture_is_a_small_png():
    picture = (REPOSITORY / "docs/images/report.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 300_000


def test_files_in_code_style_exist():
    named = set(re.findall(r"`((?:cellwright|models|flows|tasks|data|docs|tests|benchmarks)/[\w./-]+)`", BOTH))
    assert len(named) > 2
    assert not [n for n in named if not (REPOSITORY / n).exists() and not n.startswith("data/validation")]


def test_the_house_is_the_house():
    house = next(b.text for b in blocks("text") if b.text.startswith("flows/"))
    at = REPOSITORY
    for line in house.splitlines():
        name = line.split()[0]
        base = at if line.startswith("  ") else REPOSITORY
        assert (base / name.rstrip("/")).exists(), line
        at = base if line.startswith("  ") else REPOSITORY / name.rstrip("/")
    rooms = {p.parent.name for p in (REPOSITORY / "cellwright").glob("*/__init__.py")}
    assert not [room for room in rooms if f"  {room}/" not in house]
    top = ("flows", "tasks", "cellwright", "models", "data", "tests", "benchmarks", "docs")
    assert all(re.search(rf"^{name}/", house, re.M) for name in top)


def test_parameters_named_in_the_text_exist():
    known = {key for key, *_ in explain()}
    sections = {key.partition(".")[0] for key in known}
    named = {
        n
        for n in re.findall(r"`([a-z]+\.[a-z_]+)`", BOTH)
        if n.partition(".")[0] in sections and not n.endswith((".json", ".py"))
    }
    assert len(named) > 15
    assert named <= known
    monitor = PAGES["docs/guide.md"].partition("| `batch_h` |")[2].partition("\n\n")[0]
    assert {f"monitor.{k}" for k in re.findall(r"`(\w+_h|min_sites)`", monitor)} <= known


def catalogue_of(entry: str, folder: Path) -> Workspace:
    (folder / "data").mkdir()
    indented = "".join(f"  {line}\n" for line in entry.splitlines())
    (folder / "data" / "catalogue.yaml").write_text(f"datasets:\n{indented}")
    (folder / "params.yaml").write_text((REPOSITORY / "params.yaml").read_text())
    return Workspace(folder)


def test_your_own_data_in_ten_lines_are_read(tmp_path):
    (own,) = blocks("yaml")
    assert len(own.text.splitlines()) <= 10
    ws = catalogue_of(own.text, tmp_path)
    (tmp_path / "exports").mkdir()
    rows = [f"01.02.2026 {i // 4:02}:{15 * (i % 4):02},{c},{10 + i},{i}" for i in range(8) for c in ("A17", "A18")]
    (tmp_path / "exports" / "one.csv").write_text("timestamp,cell,dl_mbps,users\n" + "\n".join(rows) + "\n")
    from cellwright.steps.ingest import ingest
    from cellwright.steps.normalise import normalise

    params = load(tmp_path / "params.yaml", ["dataset=my-cells"])
    ingest(params, ws)
    normalise(params, ws)
    panel = Panel.open(ws.panel("my-cells"))
    assert panel.schema.sites == ("A17", "A18")
    assert panel.values("dl_mbps")[:, 1].tolist() == [10, 11, 12, 13, 14, 15, 16, 17]
    assert panel.schema.start_ms == 1_769_900_400_000  # 2026-02-01 00:00 in Berlin, an hour before UTC


def test_the_guides_data_set_is_one(tmp_path):
    (block,) = blocks("yaml catalogue")
    entry = load_catalogue(catalogue_of(block.text, tmp_path).catalogue).entry("my-grid")
    assert (entry.reader, entry.targets) == ("wide", ("volume_gb",))


def test_the_guides_parameters_are_accepted_down_to_the_models_options(tmp_path):
    from cellwright.training.candidates import resolve

    block, seen = blocks("yaml params")
    raw = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    raw["for_dataset"] |= yaml.safe_load(block.text)["for_dataset"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    params = load(tmp_path / "params.yaml", ["dataset=my-cells"])
    candidate = resolve(params, my_cells(), "gru")
    assert (candidate.problem.history, candidate.problem.lags) == (8, (96,))
    assert (candidate.settings.scaler, candidate.settings.budget_s) == ("log", 120)
    assert candidate.options.hidden == 128  # type: ignore[attr-defined]
    check(yaml.safe_load(seen.text), "docs/models.md")


def my_cells() -> PanelSchema:
    return PanelSchema(
        dataset="my-cells", sites=("A17", "A18"), features=(Feature(name="dl_mbps", unit="Mbit/s"),), targets=("dl_mbps",),
        cadence_s=900, clock="utc", start_ms=0, rows=2000, segments=(Segment(name="all", start=0, stop=2000),),
        licence="internal", attribution="",
    )  # fmt: skip


def test_the_guides_forecast_request_is_answered():
    (block,) = blocks("json request")
    request = json.loads(block.text)
    problem = ServedProblem(
        dataset="my-cells", history=6, horizon=3, cadence_s=900, inputs="site", features=("dl_mbps",), targets=("dl_mbps",),
        known=("hour_sin",), lags=(), quantiles=(), units={"dl_mbps": "Mbit/s"}, sites=("A17", "A18"), neighbours=None,
        clock="utc", timezone="Europe/Berlin", scaler={},
    )  # fmt: skip
    asked = parse(request, problem, {"A17": 0, "A18": 1}, calendar(problem))
    assert asked.sites == ("A17",)
    assert asked.history.shape == (1, 6, 1, 1)
    assert asked.first_ms == 1_770_015_600_000
    assert f'"{request["bundle"]}"' in PAGES["docs/guide.md"]


def test_media_types_layers_and_routes_are_those_of_the_code():
    guide = PAGES["docs/guide.md"]
    types = {v for v in vars(media).values() if isinstance(v, str)}
    assert set(re.findall(r"`(application/[\w.+-]+)`", guide)) <= types
    assert all(f"`{name}`" in guide for name in media.LAYERS)
    server = (REPOSITORY / "cellwright/edge/server.py").read_text()  # its first lines list every route
    for route in re.findall(r"`(?:GET|POST) (/[^`]+)`", guide):
        assert re.search(rf"(?:GET|POST) +[^\n]*{re.escape(route)}(?:[\s,]|$)", server, re.M) or f'"{route}"' in server, route


def test_flags_readers_detectors_and_names_are_complete():
    guide = PAGES["docs/guide.md"]
    for flag in (Flag.MISSING, Flag.FILLED, Flag.OUTAGE, Flag.OUTLIER):
        assert f"| {flag.name.lower()} | {int(flag)} |" in guide
    assert all(f"`{name}`" in guide for name in members("cellwright.lifecycle.drift"))
    for kind, reader in (("long", long), ("wide", wide)):
        row = next(line for line in guide.splitlines() if line.startswith(f"| `{kind}` |"))
        assert set(re.findall(r"`(\w+)`", row)) - {kind} == set(reader.Options.model_fields)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data", "list"], "milan-5x5"),
        (["data", "describe", "milan-5x5"], "Telecom Italia"),
        (["doctor", "--params"], "normalise.max_gap"),
        (["doctor", "--params", "--json"], '"key": "train.budget_s"'),
        (["--help"], "champion"),
    ],
)
def test_commands_that_need_no_server_run(words, said, monkeypatch):
    monkeypatch.setenv("CELLWRIGHT_ROOT", str(REPOSITORY))
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert said in done.output
