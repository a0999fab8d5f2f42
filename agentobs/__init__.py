"""The observability database layer of multi-agent systems."""
