"""Plain functions: a folder a stage, and what the stages share. No Prefect, no DVC."""
