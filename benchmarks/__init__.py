"""The benchmark: servers of event streams side by side, in one run on one machine. See README.md."""
