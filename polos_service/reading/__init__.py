"""Reading the logs of runs: as a stream, and for what they say of a run's outcome."""
