"""Where results go: Kafka in transactions, Delta tables in commits."""
