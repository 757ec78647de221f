"""The Delta tables: reading, querying and maintaining them, and the logs of gaps and backfills."""
