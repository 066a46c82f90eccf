"""Federated learning under management (ITU-T M.3387): the data stay where they are, the models travel.

contract.py    what travels between the roles, as plain data
owners.py      who owns what: one panel a data owner, cut from a data set
owner.py       the data owner: trains and evaluates on its own panel
coordinator.py the coordinator: rounds, checkpoints, what is done about what goes wrong
aggregation/   one rule a file          privacy/     one mechanism a file       compression/ one codec a file
management/    the FMLMS: requests, nodes, permissions, topology, as functions and as an HTTP API
quality/       how good the model and the service are, what each node contributed, and what is done about it
audit/         signatures, the checks on every message, the log that cannot be altered unseen
alignment/     horizontal, vertical and transfer: which rows and features of the owners belong together
runtimes/      the same apps in this process, or on Flower's SuperLink and SuperNodes; the only place that knows Flower
"""
