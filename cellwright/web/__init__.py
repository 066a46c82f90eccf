"""What the HTTP services share: errors as problem details, bounded bodies, and how they are run."""
