"""What the streams compute: pure numpy, no Spark."""
