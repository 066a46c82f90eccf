"""`cellwright models list`: what the zoo holds, and what each model can use."""

import json

from typer.testing import CliRunner

from cellwright import families
from flows.cli import app


def test_models_list_tells_what_each_can_use():
    rows = {row["name"]: row for row in json.loads(CliRunner().invoke(app, ["models", "list", "--json"]).stdout)}
    assert tuple(rows) == families.members("models")
    assert rows["trees"]["inputs"] == ["patch", "site"]
    assert (rows["trees"]["calendar"], rows["trees"]["lags"], rows["trees"]["features"]) == (True, True, True)
    assert (rows["persistence"]["calendar"], rows["persistence"]["lags"], rows["persistence"]["features"]) == (
        False,
        False,
        False,
    )
    assert rows["patchtst"]["presets"] == ["patchtst:paper"]


def test_models_list_is_a_table_for_people():
    shown = CliRunner().invoke(app, ["models", "list"]).stdout
    line = next(line for line in shown.splitlines() if line.startswith("ridge"))
    assert line.split()[:7] == ["ridge", "Ridge", "all,", "patch,", "site", "yes", "yes"]
