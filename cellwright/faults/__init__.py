"""Faults, injected as declared: what a deployment must withstand, made to happen on purpose and the same way every time.

updates.py   a data owner that poisons its updates (M.3387 9.4: the auditor detects whether a node is reliable)
"""
