"""One version of the database a file."""
