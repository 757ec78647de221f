"""From an exchange, or a recording, into Kafka."""
