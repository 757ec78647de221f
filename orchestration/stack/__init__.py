"""The whole local stack: its services, their start, supervision and end."""
