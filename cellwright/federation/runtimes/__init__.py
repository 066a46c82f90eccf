"""The same Flower apps in this process, or on Flower's SuperLink and SuperNodes; the only place that knows Flower.

wire.py          a Parcel as a Flower record, and its exact bytes
channel.py       how a coordinator reaches its nodes over any Flower Grid
apps.py          the ClientApp that a node runs and the ServerApp that a coordinator runs
local.py         a Flower Grid in this process: nodes with speeds and links on a virtual clock
flower.py        Flower's own strategies as aggregation rules
deployed.py      SuperLink and SuperNodes as processes, over TLS
certificates.py  the certificates and keys these need on loopback
"""
