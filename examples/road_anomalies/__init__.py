"""The story of ITU-T M.3387, Appendix I: vehicles learn to foresee road anomalies together; see ../road_anomalies.py.

world.py       roads, vehicles and what they record: generated, seeded
interfaces.py  the FMLMS behind its HTTP API: what vehicles, roadside units and the client send and get
deciding.py    steps 1 and 2     preparing.py  steps 3 and 4
training.py    step 5: the nodes of the training: vehicles, roadside units as regional coordinators, the cloud
ending.py      step 6: rewards, delivery, logs
story.py       the six steps in order, and what must hold in each
"""
