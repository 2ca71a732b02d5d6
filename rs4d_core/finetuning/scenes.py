"""Generated scenes as samples."""

from rs4d_core.datasets.sample import Sample


def synthetic_sample(seed: int, size: int, resolution_m: float, classes: tuple[str, ...]) -> Sample:
    raise NotImplementedError
