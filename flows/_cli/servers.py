"""`up` and `deploy`: the servers of an embedded installation, and the deployments that they schedule."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from cellwright.errors import CellwrightError, WorkspaceError
from flows._cli.common import workspace

if TYPE_CHECKING:
    from cellwright.workspace import Workspace

POOL = "cellwright"
_START_S = 120.0


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("up")(up)
    app.command("deploy")(deploy)


def up(
    prefect_port: Annotated[int, typer.Option(help="Port of the Prefect server and UI.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow UI.")] = 5000,
    deployments: Annotated[
        bool, typer.Option("--deploy/--no-deploy", help="Create the deployments of prefect.yaml first.")
    ] = True,
) -> None:
    """Start the Prefect server, a worker and MLflow together on this machine; Ctrl-C stops them all."""
    ws = workspace()
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell that starts us in the background ignores Ctrl-C
        signal.signal(number, _interrupted)
    for what, port in (("Prefect", prefect_port), ("MLflow", mlflow_port)):
        _free(what, port)
    url = f"http://127.0.0.1:{prefect_port}/api"
    environment = _environment(ws, url)
    logs = ws.state / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    started: list[tuple[str, subprocess.Popen[bytes]]] = []
    try:
        started.append(
            (
                "Prefect server",
                _start(_prefect("server", "start", "--port", str(prefect_port)), logs / "prefect.log", environment),
            )
        )
        started.append(("MLflow", _start(_mlflow(ws, mlflow_port), logs / "mlflow.log", environment)))
        _wait(f"http://127.0.0.1:{prefect_port}/api/health", started, logs)
        (ws.state / "prefect-api-url").write_text(url)
        if deployments:
            _deploy(ws, environment, webhook=None)
        started.append(
            ("worker", _start(_prefect("worker", "start", "--pool", POOL, "--type", "process"), logs / "worker.log", environment))
        )
        _wait(f"http://127.0.0.1:{mlflow_port}/health", started, logs)
        typer.echo(f"Prefect UI  http://127.0.0.1:{prefect_port}")
        typer.echo(f"MLflow UI   http://127.0.0.1:{mlflow_port}")
        typer.echo(f"logs        {logs}\nCtrl-C stops them.")
        _watch(started, logs)
    finally:
        (ws.state / "prefect-api-url").unlink(missing_ok=True)
        _stop(started)


def _interrupted(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def deploy(
    url: Annotated[str | None, typer.Option(help="API of the Prefect server; else that of `cellwright up`.")] = None,
    webhook: Annotated[str | None, typer.Option(help="Address that is told of failed, refused and drifted runs.")] = None,
) -> None:
    """Create the work pool and the deployments of prefect.yaml: a weekly benchmark, monitoring, retraining on drift."""
    ws = workspace()
    api = url or os.environ.get("PREFECT_API_URL") or running_server(ws)
    if api is None:
        raise CellwrightError("no Prefect server to deploy to; start one with `cellwright up`, or name one with --url")
    _deploy(ws, _environment(ws, api), webhook)


def running_server(ws: Workspace) -> str | None:
    """The API address of the server that `cellwright up` runs for this project, if it answers."""
    note = ws.state / "prefect-api-url"
    if not note.is_file():
        return None
    url = note.read_text().strip()
    return url if _answers(url.removesuffix("/api") + "/api/health") else None


def _deploy(ws: Workspace, environment: dict[str, str], webhook: str | None) -> None:
    _call(_prefect("work-pool", "create", POOL, "--type", "process", "--overwrite"), ws, environment)
    _call(_prefect("--no-prompt", "deploy", "--all", "--prefect-file", str(ws.root / "prefect.yaml")), ws, environment)
    typer.echo("deployed   benchmark/weekly, monitor/hourly, retrain/on-drift")
    if webhook:
        _call([sys.executable, "-m", "flows._cli.alerts", webhook], ws, environment)
        typer.echo(
            f"alerts     failed, refused and drifted runs are told to {urlsplit(webhook).hostname}"
        )  # the path may be a secret


def _environment(ws: Workspace, url: str) -> dict[str, str]:
    here = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": f"{here}{os.pathsep}{os.environ.get('PATH', '')}",
        "PREFECT_API_URL": url,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its job queue is for evaluations that are not used here
        "PREFECT_HOME": os.environ.get("PREFECT_HOME", str(ws.state / "prefect")),
        "CELLWRIGHT_ROOT": str(ws.root),
    }


def _prefect(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "prefect", *arguments]


def _mlflow(ws: Workspace, port: int) -> list[str]:
    program = shutil.which("mlflow", path=str(Path(sys.executable).parent)) or "mlflow"
    artifacts = ws.mlflow_artifacts.as_uri()
    return [
        program, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", ws.mlflow_uri, "--default-artifact-root", artifacts,
    ]  # fmt: skip


def _start(command: list[str], log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment, start_new_session=True)


def _call(command: list[str], ws: Workspace, environment: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=ws.root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        raise CellwrightError(f"`{' '.join(command[2:])}` failed with exit code {done.returncode}:\n{tail}")


def _free(what: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            option = f"--{what.lower()}-port"
            raise WorkspaceError(
                f"port {port} for {what} is taken ({error.strerror}); stop what uses it, or choose another with {option}"
            ) from None


def _answers(url: str) -> bool:
    import httpx

    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _wait(url: str, started: list[tuple[str, subprocess.Popen[bytes]]], logs: Path) -> None:
    deadline = time.monotonic() + _START_S
    while not _answers(url):
        _check(started, logs)
        if time.monotonic() > deadline:
            raise CellwrightError(f"{url} does not answer after {_START_S:.0f} s; see {logs}")
        time.sleep(0.3)


def _watch(started: list[tuple[str, subprocess.Popen[bytes]]], logs: Path) -> None:
    while True:
        _check(started, logs)
        time.sleep(1)


def _check(started: list[tuple[str, subprocess.Popen[bytes]]], logs: Path) -> None:
    for name, process in started:
        if process.poll() is not None:
            raise CellwrightError(f"{name} ended with exit code {process.returncode}; see {logs}")


def _stop(started: list[tuple[str, subprocess.Popen[bytes]]]) -> None:
    """The worker first, so that it can tell the server of what it cancels."""
    for _name, process in reversed(started):
        _signal(process, signal.SIGINT)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    if process.poll() is None:
        os.killpg(process.pid, number)
