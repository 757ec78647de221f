"""What producer, stream jobs and orchestration share: it knows no Spark, no Dagster and no process."""
