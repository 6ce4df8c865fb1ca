"""What all workers know together: counts, who is in a channel, and answers to queries.

Offers: `worker_counts.WorkerCounts` (this worker's share of counts that expire with it), `presence.Presence`
(which users are in a channel) and `query.WorkerQueries` (asks every worker about its streams). Must not know:
Flask, rights.
"""
