-- Run once, when the volume of PostgreSQL is empty: the call cache beside Prefect's own database.
CREATE DATABASE calls;
