"""What an operator sees: logs, metrics, health; and the signals that an app can connect to.

Offers: `log`, `reporter` (hands the hub's counters to the log and to Prometheus once a second),
`prometheus`, `health`, `signals`. prometheus-client and python-json-logger are imported on first use.
Must not know: requests and routes.
"""
