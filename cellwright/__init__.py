"""What Cellwright computes. Nothing here knows Prefect; see docs/guide.md for the rooms."""

import os

__version__ = "0.1.0"

# No library phones home. Set before any of them is imported, and inherited by every child process; a value that the user has
# set already is kept. The tools started by hand read the same from prefect.toml and .dvc/config.
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "GX_ANALYTICS_ENABLED": "false",
    "CODECARBON_LOG_LEVEL": "error",
    "GIT_PYTHON_REFRESH": "quiet",
}
for _name, _value in QUIET.items():
    os.environ.setdefault(_name, _value)
