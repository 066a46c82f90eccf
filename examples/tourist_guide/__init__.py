"""The story of 3GPP TR 22.874, 6.2: company A's panorama guide in a commercial area and a tourist resort; see ../tourist_guide.py.

places.py     areas, cells, edge zones, the phone, what the network offers
weights.py    models A and B: files with VGG-16's layers     forecaster.py  the operator's own model
servers.py    hub, network and edges, each in a process of its own
cast.py       who takes part, and what was fetched
placing.py    steps 1 and 2     fetching.py  steps 3 to 6     guarding.py  steps 7 to 9
story.py      the steps in order
"""
