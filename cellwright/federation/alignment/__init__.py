"""Which rows and features of the owners belong together: horizontal, vertical and transfer (M.3387 10.3 and 10.4).

horizontal same features, different rows         horizontal.py units, names and cadence, from metadata
vertical   same rows, different features          psi.py        private set intersection: the common rows, and no others, become known
                                                  rows.py       windows as rows: ids, order, spans
                                                  party.py      a party: its half of the network, and what it answers; party_checks.py
                                                  halves.py     bottom and top in torch          keeping.py  what a party keeps
                                                  session.py    the coordinator's side of a run  progress.py how far a run is
                                                  vertical.py   `vertical_train`: align, train, measure
                                                  audited.py    a Channel that signs and checks; audit_summary.py what came of it
                                                  parting.py    a data set as several parties would hold it
                                                  vertical_run.py  all of it as params.yaml asks for it
transfer   neither rows nor features in common    transfer.py   `transfer`: a body from elsewhere, a new head
                                                  inputs.py     which column of a network reads which channel
                                                  transfer_run.py  all of it as params.yaml asks for it
"""
