"""The benchmark: compares servers of event streams in one run on one machine. See README.md."""
