"""Instructions of kernels that are counted, without a GPU, by running their machine code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("triton", reason="the kernels need Triton")

from slay.kernel_tools.cost import sample
from slay.kernel_tools.sass.code import instructions
from slay.kernel_tools.sass.execution import Programs, Simulation
from slay.kernel_tools.sass.memory import matrix_wavefronts, sectors, wavefronts
from slay.kernel_tools.sass.values import UnknownBranch

pytestmark = pytest.mark.xdist_group("cost")

PRODUCTS, PROGRAMS, SIDE = 3 * 5, 6, 64


@pytest.fixture(scope="module")
def costs():
    """Those of `counted_kernels.py`, in a process that does not interpret."""
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    script = Path(__file__).with_name("counted_kernels.py")
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["two warps", "pipelined"])
def test_products_of_warps_are_counted_exactly(costs, name):
    """A nested loop with a bound of the launch: 16 x 8 x 16 products of a warp."""
    each = (SIDE // 16) * (SIDE // 8) * (SIDE // 16)
    assert costs[name]["products"] == {"HMMA.16816.F32.BF16": PROGRAMS * PRODUCTS * each}


def test_products_of_warp_groups_are_counted_exactly(costs):
    """64 x 64 x 16 products of four warps, each of which issues one."""
    each = 4 * SIDE // 16
    assert costs["four warps"]["products"] == {
        "HGMMA.64x64x16.F32.BF16": PROGRAMS * PRODUCTS * each
    }


def test_what_is_outside_of_loops(costs):
    """An exponential a number, loads of 16 bytes a thread, each piece of memory once."""
    cost = costs["two warps"]
    assert cost["kinds"]["special"] == PROGRAMS * SIDE * SIDE / 32
    loads = PROGRAMS * PRODUCTS * SIDE * SIDE * 2
    assert cost["cache_bytes"] == loads + PROGRAMS * SIDE * SIDE * 4
    assert cost["slots"] == pytest.approx(sum(cost["kinds"].values()))


def test_programs_that_have_nothing_to_do(costs):
    """Half of them: half of all products."""
    whole, half = (costs[name]["kinds"]["matrix"] for name in ("two warps", "even"))
    assert half == whole / 2


def test_loads_that_leave_most_of_what_they_fetch(costs):
    """A number of 2 bytes out of 32, seven times, and a store of whole pieces."""
    assert costs["strided"]["cache_bytes"] == 1000 * 32 * (7 * 32 + 4)


def test_time_grows_with_work(costs):
    short, long = (costs[name]["milliseconds"] for name in ("two warps", "twice as long"))
    assert 1.6 * short < long < 2.2 * short
    assert costs["pipelined"]["milliseconds"] < short


def test_a_loop_that_data_ends_is_not_counted(costs):
    assert "a branch depends on data" in costs["data"]["objection"]
    assert costs["data"]["slots"] is None


def test_banks_of_shared_memory():
    """A word a bank in a cycle; 8 or 16 bytes a thread take as many cycles as words."""
    lanes, all_there = np.arange(32, dtype=np.uint64)[None], np.ones((1, 32), bool)
    for stride, cycles in ((0, 1), (4, 1), (8, 2), (128, 32), (132, 1)):
        assert wavefronts(stride * lanes, all_there, 4) == [cycles], stride
    assert wavefronts(16 * lanes, all_there, 16) == [4]
    assert wavefronts(128 * lanes, all_there, 16) == [32]
    assert matrix_wavefronts(16 * lanes, all_there, 16) == [4]
    assert matrix_wavefronts(128 * lanes, all_there, 16) == [32]
    assert sectors(4 * lanes, all_there, 4) == [4]
    assert sectors(64 * lanes, lanes < 3, 4) == [3]


def test_a_sample_of_programs_is_even():
    assert list(sample((2, 3, 1))) == [(x, y, 0) for y in range(3) for x in range(2)]
    x, y, z = np.array(list(sample((1000, 16, 1)))).T
    assert abs(x.mean() / 1000 - 0.5) < 0.03
    assert len(set(y)) > 12
    assert set(z) == {0}


CODE = """
        /*0000*/                   S2R R0, SR_TID.X ;                   /* 0x0000000000000000 */
                                                                        /* 0x000e620000000000 */
        /*0010*/                   BRX R0 0x20 ;                        /* 0x0000000000000000 */
                                                                        /* 0x000fe20000000000 */
        /*0020*/                   EXIT ;                               /* 0x0000000000000000 */
                                                                        /* 0x000fea0003800000 */
"""


def test_jumps_that_are_not_followed():
    programs = Programs([(0, 0, 0)], 32)
    with pytest.raises(UnknownBranch, match="does not follow: 0x0010 BRX"):
        Simulation(instructions(CODE), {}, programs).run()
