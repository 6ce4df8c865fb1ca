"""Data about all workers together: shared counts, the users in a channel, and the open streams.

Offers `worker_counts.WorkerCounts` (this worker's part of the shared counts, which expires if the worker is
killed), `presence.Presence` (which users are in a channel) and `query.WorkerQueries` (asks every worker about
its streams). This package must not know Flask, and does not decide who may listen.
"""
