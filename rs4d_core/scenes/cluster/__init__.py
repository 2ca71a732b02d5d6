"""The same windows, predicted by the workers of a Dask cluster."""
