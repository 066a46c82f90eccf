"""Hands a job to a SuperLink of this machine, and watches over its coordinator until it has ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from cellwright import __version__
from cellwright.errors import FederationError
from cellwright.federation.contract import Spec
from cellwright.federation.runtimes.control import Control, write_app
from cellwright.federation.runtimes.pulse import Pulse, held
from cellwright.federation.runtimes.servers import Files
from cellwright.files import write_text

CLIENT, SERVER = "cellwright.federation.runtimes.programs:client", "cellwright.federation.runtimes.programs:server"
RUN = "run.json"
_ENDING_S = 90.0  # a coordinator that nobody answers any more pauses after 60 s
_POLL_S = 0.3


class Submitted(Spec):
    """The run that works on the job in a folder."""

    address: str  # of the SuperLink
    run: int


def run(
    files: Files,
    address: str,
    folder: Path,
    *,
    request: str,
    seconds: float,
    on_look: Callable[[], None] = lambda: None,
) -> None:
    """Run the app on a SuperLink of this machine: its coordinator reads what to do in `folder`, and leaves there what comes of it.

    Args:
        files: of the deployment, for the CA's certificate.
        address: host:port of the SuperLink (`federation.address`).
        folder: of the job.
        request: what the nodes keep their memory under: a run of the same request goes on with it.
        seconds: longest it may take.
        on_look: called every now and then while it runs.

    Raises:
        FederationError: the SuperLink cannot be reached, or the run failed, was stopped, was killed or did not end in time.
    """
    app = write_app(files.app, server=SERVER, client=CLIENT, version=__version__) if not files.app.is_dir() else files.app
    pulse = Pulse(folder)

    def look() -> None:
        pulse.look()
        on_look()

    with Control(address, files.ca) as control:
        number = control.submit(app, {"folder": str(folder.resolve()), "request": request})
        try:
            write_text(folder / RUN, Submitted(address=address, run=number).model_dump_json() + "\n")
            control.wait(number, until=time.monotonic() + seconds, on_look=look)
        except BaseException:  # Ctrl-C included: nothing is left running there
            control.stop(number)
            raise


def end_earlier(files: Files, folder: Path) -> None:
    """End the run that works on the job in a folder, if there is one: whoever submitted it was killed, and nobody would take its model.

    Raises:
        FederationError: its coordinator does not end.
    """
    if not held(folder):
        return
    path = folder / RUN
    try:
        earlier = Submitted.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise FederationError(
            f"a coordinator works on the job in {folder}, and {path} does not say in which run ({error}); wait until it has ended"
        ) from error
    with Control(earlier.address, files.ca) as control:
        control.stop(earlier.run)
    until = time.monotonic() + _ENDING_S
    while held(folder):
        if time.monotonic() > until:
            raise FederationError(
                f"run {earlier.run} of an earlier command still works on the job in {folder}, {_ENDING_S:g} s after it was stopped; "
                "end its process (flwr-serverapp), and run the same command again"
            )
        time.sleep(_POLL_S)
