"""What runs, and in which order: the DAG, its Prefect flows, the command line."""
