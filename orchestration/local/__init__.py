"""The embedded default: Java, JARs, a Kafka broker and a mongod on this machine, and the checks before they start.

Nothing here knows Dagster, the producer or the stream jobs.
"""
