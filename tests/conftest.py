"""One thread and one set of Hypothesis settings for all tests."""

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("slay", deadline=None, derandomize=True, max_examples=25, database=None)
settings.load_profile("slay")
