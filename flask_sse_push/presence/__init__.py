"""What all workers know together: shared counts, the users in a channel, and the open streams of all workers.

Offers `worker_counts.WorkerCounts` (this worker's part of the shared counts, which expires if the worker is
killed), `presence.Presence` (which users are in a channel) and `query.WorkerQueries` (asks every worker about
its streams). Must not know Flask, or who may listen.
"""
