"""The same Flower apps in this process, or on Flower's SuperLink and SuperNodes; the only place that knows Flower.

wire.py          a Parcel as a Flower record, and its exact bytes
channel.py       how a coordinator reaches its nodes over any Flower Grid
apps.py          the ClientApp that a node runs and the ServerApp that a coordinator runs
memory.py        where a node keeps its state from one message to the next
jobs.py          a training as files, so that another process can coordinate it
local.py         a Flower Grid in this process: nodes with speeds and links on a virtual clock
flower.py        Flower's own strategies as aggregation rules
deployed.py      SuperLink and SuperNodes over TLS: up, run, join
servers.py       their processes           control.py       what a SuperLink is told from outside
certificates.py  their certificates, keys  settings.py      what a SuperNode knows of itself
door.py          lets SuperNodes of other machines in, and nothing else
programs.py      the apps that they run    program.py       Flower's programs, ending with who started them
"""
