"""From an exchange, or a recording, into Kafka.

Belongs here: everything between a source of prices and the topic `btc-price`, started by `python -m producer`.
Does not belong here: what is computed from the prices (`spark_jobs`), starting and watching processes
(`orchestration`). This package imports neither.
"""
