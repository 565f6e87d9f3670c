"""Shared by the unit tests: no windows, repeatable Hypothesis."""

import matplotlib
from hypothesis import settings

matplotlib.use("Agg")  # no window; the notebooks' kernels choose their own
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
