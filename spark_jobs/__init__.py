"""Spark Structured Streaming jobs: Kafka in, Kafka and Delta out. Knows neither Dagster nor the producer."""
