"""Attacks on a federation, as functions that measure what leaks: run against a mechanism, they show what it is worth.

gradient_inversion.py    from an owner's update back to the telemetry it was trained on
membership_inference.py  from a model to whether a window was among those it was trained on
"""
