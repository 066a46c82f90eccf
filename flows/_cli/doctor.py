"""`doctor`: what is there, what is missing, and what follows."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import sys
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from flows._cli.common import Json, show, workspace

LIBRARIES = (
    "prefect",
    "dvc",
    "mlflow",
    "torch",
    "lightning",
    "optuna",
    "flwr",
    "codecarbon",
    "nvidia-ml-py",
    "great-expectations",
    "onnxruntime",
)


class Finding(NamedTuple):
    """One line of the doctor."""

    topic: str
    name: str
    state: str  # "ok", "missing", "note"
    found: str
    follows: str = ""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(
    params: Annotated[bool, typer.Option("--params", help="Explain every key of params.yaml with its default.")] = False,
    as_json: Json = False,
) -> None:
    """Look at versions, CPU, GPU, energy sources, stores and ports: what is there, what is missing, what follows."""
    if params:
        show(_params_as_json() if as_json else _params_table(), as_json)
        return
    findings = [*_versions(), *_machine(), *_energy(), *_stores(), *_ports()]
    show([f._asdict() for f in findings] if as_json else _table(findings), as_json)


def _versions() -> list[Finding]:
    python = platform.python_version()
    untested = "" if sys.version_info[:2] == (3, 11) else "this project is tested on 3.11 only"
    out = [Finding("versions", "python", "note" if untested else "ok", python, untested)]
    for name in LIBRARIES:
        try:
            out.append(Finding("versions", name, "ok", importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            out.append(Finding("versions", name, "missing", "not installed", "run `make install`"))
    return out


def _machine() -> list[Finding]:
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory_gb = psutil.virtual_memory().total / 1e9
    root = workspace().root
    free_gb = shutil.disk_usage(root).free / 1e9
    return [
        Finding("machine", "CPU", "ok", f"{cores} cores, {platform.machine()}", f"up to {cores} candidates train at once"),
        Finding(
            "machine",
            "memory",
            "ok" if memory_gb >= 4 else "note",
            f"{memory_gb:.0f} GB",
            "" if memory_gb >= 4 else "4 GB are wanted",
        ),
        Finding(
            "machine",
            "disk",
            "ok" if free_gb > 5 else "note",
            f"{free_gb:.0f} GB free",
            "" if free_gb > 5 else "5 GB are wanted; `cellwright gc`",
        ),
        _gpu(),
    ]


def _gpu() -> Finding:
    import pynvml

    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        names = [str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(i))) for i in range(count)]
        pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        return Finding("machine", "GPU", "note", f"none ({error})", "models train on the CPU; device: auto chooses it")
    return Finding("machine", "GPU", "ok", ", ".join(names), "device: auto trains there")


def _energy() -> list[Finding]:
    from cellwright.energy.sources import sources
    from cellwright.params import load

    meters = sources(load(workspace().root / "params.yaml").energy)
    return [
        Finding("energy", f"{m.part} {m.name}", "ok" if m.available else "note", m.source or "not there", m.words) for m in meters
    ]


def _stores() -> list[Finding]:
    ws = workspace()
    return [
        _store("params.yaml", ws.root / "params.yaml"),
        _store("catalogue", ws.catalogue),
        _store("Prefect", ws.state / "prefect" / "prefect.db", "made by the first run"),
        _store("MLflow", ws.state / "mlflow.db", "made by the first run")
        if ws.mlflow_uri.startswith("sqlite:///")
        else Finding("stores", "MLflow", "ok", ws.mlflow_uri),
        _store("DVC cache", ws.root / ".dvc" / "cache", "made by the first run"),
        Finding(
            "stores",
            "writable",
            "ok" if os.access(ws.root, os.W_OK) else "missing",
            str(ws.root),
            "" if os.access(ws.root, os.W_OK) else "runs need to write below it",
        ),
        Finding(
            "stores",
            "mirror",
            "ok" if os.environ.get("CELLWRIGHT_MIRROR") else "note",
            os.environ.get("CELLWRIGHT_MIRROR", "none"),
            "sources are fetched from their addresses" if not os.environ.get("CELLWRIGHT_MIRROR") else "",
        ),
    ]


def _store(name: str, path: Path, follows: str = "this is not a whole checkout") -> Finding:
    return (
        Finding("stores", name, "ok", str(path))
        if path.exists()
        else Finding("stores", name, "note", f"{path} is not there", follows)
    )


def _ports() -> list[Finding]:
    return [_port("Prefect", 4200), _port("MLflow", 5000), _port("edge", 8080)]


def _port(name: str, port: int) -> Finding:
    with socket.socket() as probe:
        taken = probe.connect_ex(("127.0.0.1", port)) == 0
    return Finding(
        "ports",
        name,
        "note" if taken else "ok",
        f"{port} {'in use' if taken else 'free'}",
        "is it ours? else choose another port" if taken else "",
    )


def _table(findings: list[Finding]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("", "", "", "found", "what follows"):
        table.add_column(column, overflow="fold")
    colours = {"ok": "[green]✓[/]", "note": "[yellow]•[/]", "missing": "[red]✗[/]"}
    topic = ""
    for f in findings:
        table.add_row(f.topic if f.topic != topic else "", colours[f.state], f.name, f.found, f.follows)
        topic = f.topic
    return table


def _params_as_json() -> list[dict[str, Any]]:
    from cellwright.params import explain

    return [{"key": k, "type": t, "default": d, "description": text} for k, t, d, text in explain()]


def _params_table() -> Any:
    from rich.table import Table
    from rich.text import Text

    from cellwright.params import explain

    table = Table(box=None, pad_edge=False)
    for column in ("key", "type", "default", "meaning"):
        table.add_column(column, overflow="fold")
    for key, kind, default, text in explain():
        table.add_row(Text(key, style="bold"), Text(kind), Text("" if default is None else str(default)), Text(text))
    return table
