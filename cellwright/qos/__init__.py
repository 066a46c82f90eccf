"""Quality of service for a transfer, asked of the network: CAMARA Quality-on-Demand, QoS Profiles, Simple Edge Discovery.

forms, profile      what travels, typed
transport           one HTTP client for all three: tokens, correlators, retries with backoff and jitter
client, session     a session that lasts as long as the block does, and is always released
keeper, journal     what keeps it alive; what is known of it after a crash
sink                where the network's notifications arrive (CloudEvents)
choice              the least profile that carries so many bytes by a deadline
discovery           the closest edge
simulator/          the network's side of all that, with state, mobility and a user-space traffic shaper
"""
