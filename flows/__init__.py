"""Prefect flows, a file a stage, and the command line."""

import os

# Prefect reads its settings when it is imported, so they are set before anything here imports it.
# A stage's error is raised through Prefect, and the command line tells it once: no second time as a log.
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_LOGGING_TO_API_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# On a busy machine its server takes longer to start than the 20 seconds that it is given.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
os.environ.setdefault("DO_NOT_TRACK", "1")
