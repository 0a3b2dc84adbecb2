"""Metrics and logs of requests, and the monitoring of the event loop of this process."""
