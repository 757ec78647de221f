"""From an exchange, or a recording, into Kafka.

This package imports neither.
"""
