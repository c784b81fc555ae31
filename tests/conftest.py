"""What all tests share: one thread, Hypothesis' settings, an interpreter for kernels, plugins."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")  # before anybody imports Triton

import interpreter  # noqa: F401
import torch
from device import device, gpu  # noqa: F401
from hypothesis import settings

from slay.registry import ATTENTION

torch.set_num_threads(1)
settings.register_profile("slay", deadline=None, derandomize=True, max_examples=25, database=None)
settings.load_profile("slay")


def pytest_addoption(parser):
    parser.addoption(
        "--plugin",
        action="append",
        default=[],
        metavar="NAME=MODULE:CLASS",
        help="test a mechanism from outside this package too, known as NAME",
    )


def pytest_configure(config):
    for text in config.getoption("--plugin"):
        name, _, path = text.partition("=")
        ATTENTION.plug(name, path)


def pytest_collection_modifyitems(items):
    """Tests of the workflow first: they are the longest, and no worker shall end with one."""
    items.sort(key=lambda item: "workflow" not in item.keywords)
