"""The network's side of Quality-on-Demand, QoS Profiles and Simple Edge Discovery, with state, and a shaper of real TCP traffic.

    options     what the network is: cells, edge zones, devices, profiles, how it decides
    clock       its time, which tests can move
    terrain     where devices, cells and zones are, and what is closest
    sessions    the state of every session; pure: no sockets, no sleeping
    access      tokens
    camara      the standard's operations over HTTP; `bodies` judges what is sent
    control     /simulator/…: what no real network offers (move a device, revoke a session, go forward in time)
    notifier    delivers events to sinks
    shaper      a TCP forwarder whose rates follow the sessions
    network     all of it together

It simulates no radio: a rate is what the sessions and the cell's settings say, not what a channel would give.
"""
