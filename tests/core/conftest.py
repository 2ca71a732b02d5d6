"""Settings of the engine's tests."""

from hypothesis import settings

# The first example of a property may compile a kernel, and the machine may be busy: time decides nothing here.
settings.register_profile("rs4d", deadline=None)
settings.load_profile("rs4d")
