"""What is on disk and whether it is done: digests, records, zarr stores. Knows nothing of Prefect or Dask."""
