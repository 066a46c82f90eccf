"""Privacy mechanisms (M.3387 10.5), one a file."""
