"""Everything that a hostile caller may send to a port: `python -m fuzz`."""
