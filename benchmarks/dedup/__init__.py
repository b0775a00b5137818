"""Near-duplicates: speed, recall and precision beside other libraries, and a million hashes."""
