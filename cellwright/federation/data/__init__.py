"""Data management of a federation (M.3387, clause 10): what is told of the data, in which form they are, and how that is kept.

metadata.py    what an owner tells of its raw data, and what it keeps to itself; book.py: every version of it, kept (10.1)
vault.py       authenticated encryption; sealed.py: a store under it; keyring.py: where its key comes from (10.2)
units.py       every unit of telemetry and its conversion        normalise.py  an owner's telemetry in the unified form (10.3)
Which owners' features belong together is found in alignment/horizontal.py (10.4).
"""
