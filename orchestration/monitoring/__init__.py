"""How the pipeline is doing: status, checks, alerts and charts, without Dagster."""
