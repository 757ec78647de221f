"""How Kafka is reached and read: settings, access, topics, offsets, markers."""
