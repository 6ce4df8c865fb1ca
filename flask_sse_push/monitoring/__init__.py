"""What an operator sees: log lines, metrics and health. Also the signals that an app can connect to.

Offers `log`, `reporter` (passes the hub's counters to the log and to Prometheus once a second), `prometheus`,
`health` and `signals`. The packages prometheus-client and python-json-logger are imported on first use. Must
not know requests or routes.
"""
