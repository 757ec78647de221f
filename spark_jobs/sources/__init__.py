"""What computing queries read: topics as a source of Spark, packed by symbol."""
