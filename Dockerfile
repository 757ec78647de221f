# The one image of our own: producer, stream jobs, Dagster and, because executors run our Python, Spark's master and
# workers. PySpark is Spark's own distribution, so driver and executors have one Spark, one Python and one code.
FROM python:3.11.11-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends openjdk-17-jre-headless procps tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --shell /usr/sbin/nologin tickhouse \
    # An empty volume takes over the owner of the folder that it is mounted on.
    && install --directory --owner tickhouse --group tickhouse /var/lib/tickhouse /var/lib/dagster

ENV JAVA_HOME=/usr/lib/jvm/default-java \
    PYTHONUNBUFFERED=1 \
    PYTHONPATH=/opt/tickhouse \
    PYSPARK_PYTHON=/usr/local/bin/python \
    DAGSTER_HOME=/var/lib/dagster \
    TICKHOUSE_HOME=/var/lib/tickhouse \
    TICKHOUSE_TOOLS=/opt/tools

WORKDIR /opt/tickhouse
# Debian names the folder of its Java after the architecture.
RUN ln -s "$(dirname "$(dirname "$(readlink -f "$(command -v java)")")")" /usr/lib/jvm/default-java

COPY requirements.txt ./
RUN pip install --no-cache-dir --require-hashes --requirement requirements.txt

COPY orchestration orchestration
COPY producer producer
COPY spark_jobs spark_jobs
# Kafka and MongoDB have images of their own: of the tools only Spark's JARs are needed.
RUN python -m orchestration.local spark-jars

COPY pyproject.toml README.md ./
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable .

USER tickhouse
ENTRYPOINT ["tini", "--"]
CMD ["tickhouse", "--help"]
