"""Fitters: what a network that names one is fitted by, where torch alone cannot. Each file has fit(network, batches, *, seed)."""
