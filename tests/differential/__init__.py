"""Random valid graphs, the target cpu against the target numpy; what differs is shrunk to a small graph."""
