"""The zoo: one network a file; the file's name is the configuration key. Torch only."""
