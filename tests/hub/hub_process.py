"""A hub in a process of its own, to be killed: `python hub_process.py <folder> <port file>`."""

import sys
from pathlib import Path

from cellwright.files import write_text
from cellwright.hub.serve import serve
from cellwright.hub.service import open_hub
from cellwright.web.running import Listening

if __name__ == "__main__":
    folder, ready = map(Path, sys.argv[1:])
    with open_hub(folder) as hub:
        serve(hub, Listening(), on_ready=lambda url: write_text(ready, url))
