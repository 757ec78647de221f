"""The process that Spark forks its Python workers from, started by Spark as `python -m spark_jobs.python_daemon`.

Before each task a worker calls `importlib.invalidate_caches`, for which every zip archive on the path reads its
directory anew. The only archive on the path is Spark's own, which never changes: that is skipped, while folders are
still looked at, so that files added at run time are found. What every task needs is imported once, before the fork. And
after each task a worker collects garbage among all that was ever imported: what is there before the fork is left out.
"""

from __future__ import annotations

import zipimport

import confluent_kafka
import numpy
import pandas
import pyspark.worker
from pyspark.daemon import manager

import spark_jobs.jobs.prices
import spark_jobs.jobs.symbol_processor
import spark_jobs.sinks.kafka
from spark_jobs.sources.gc_tuning import tune_gc

_IMPORTED_BEFORE_THE_FORK = (
    confluent_kafka,
    numpy,
    pandas,
    pyspark.worker,
    spark_jobs.jobs.symbol_processor,
    spark_jobs.jobs.prices,
    spark_jobs.sinks.kafka,
)


def _keep(importer: zipimport.zipimporter) -> None:
    """Leave an archive's directory as it was read."""


if __name__ == "__main__":
    zipimport.zipimporter.invalidate_caches = _keep  # type: ignore
    tune_gc()
    manager()
