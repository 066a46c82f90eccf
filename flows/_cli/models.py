"""`models`: the networks of the zoo, and what each can use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from flows._cli.common import Json, show

if TYPE_CHECKING:
    from models._contract import Network

_USES = ("calendar", "lags", "features")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="The models of the zoo.", no_args_is_help=True)
    group.command("list")(list_)
    app.add_typer(group, name="models")


def list_(as_json: Json = False) -> None:
    """Every model: what it takes as inputs, and whether calendar, lags and further features reach its forecast.

    Holidays come with the calendar; neighbours, series joined by time and further telemetry are features.
    """
    from cellwright import families

    found = [_row(name, families.member("models", name, what="model").Network) for name in families.members("models")]
    show(found if as_json else _table(found), as_json)


def _row(name: str, network: type[Network]) -> dict[str, Any]:
    return {
        "name": name,
        "title": network.title,
        "inputs": list(network.inputs),
        "calendar": network.uses_known,
        "lags": network.uses_lags,
        "features": network.uses_features,
        "presets": [f"{name}:{preset}" for preset in network.presets],
        "paper": network.paper,
    }


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("model", "title", "inputs", *_USES, "presets"):
        table.add_column(name, no_wrap=True)
    table.add_column("paper", style="dim")
    for row in rows:
        uses = ("yes" if row[what] else "no" for what in _USES)
        table.add_row(row["name"], row["title"], ", ".join(row["inputs"]), *uses, _short(row["presets"]), row["paper"])
    return table


def _short(presets: list[str]) -> str:
    """Presets without the model's name, which stands at the line's head."""
    return ", ".join(preset.partition(":")[2] for preset in presets)
