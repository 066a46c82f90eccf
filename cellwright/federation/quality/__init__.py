"""How good the model and the service are, what each node contributed, and what is done about it (M.3387 8.4.2, 9.2, 9.3, 9.5)."""
