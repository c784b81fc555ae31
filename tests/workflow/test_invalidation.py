"""Change one thing, and exactly the jobs whose result could change run again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
from conftest import BIN, SMOKE, Checkout, measuring

from slay.pipeline.jobs import code
from slay.pipeline.params import QualityParams

pytestmark = [pytest.mark.workflow, pytest.mark.tex]


def test_deleted_record(checkout):
    record = checkout.path / "results/smoke/records/quality/linear/isotropic-d16-L128/seed0.json"
    record.unlink()
    assert checkout.planned() == {
        "quality linear/isotropic-d16-L128/seed0",
        "quality: collect the records",
        "table quality",
        "table denominators",
        "table claims",
        "table claims-ours",
        "table runs",
        "figure quality",
        "figure normalisers",
        "the paper",
    }


def test_truncated_records(checkout):
    records = checkout.path / "results/smoke/records/quality"
    cut = {f"linear/isotropic-d16-L128/seed{seed}": kept for seed, kept in enumerate((0, 200))}
    for job, kept in cut.items():
        record = records / f"{job}.json"
        record.write_bytes(record.read_bytes()[:kept])
    assert checkout.measured() == {f"quality {job}" for job in cut}


def edit_kernels(checkout):
    """Add a statement to every file of the kernels."""
    for pattern in ("triton_*.py", "triton/**/*.py"):
        for path in (checkout.path / "slay/ops").glob(pattern):
            path.write_text(f"{path.read_text()}\nEDITED = 1\n")


def test_nothing_of_a_cpu_runs_again(checkout):
    """For other comments, docstrings, kernels and times of files."""
    for path in (checkout.path / "slay").rglob("*.py"):
        said = path.read_text().replace('"""', '"""Newly said: ', 1)
        path.write_text(f"{said}\n# a remark\n")
    edit_kernels(checkout)
    for path in checkout.path.rglob("*"):
        if path.is_file() and "results" not in path.parts and ".snakemake" not in path.parts:
            os.utime(path)
    assert checkout.planned() == set()


def test_one_mechanism(checkout):
    checkout.edit("slay/features/elu.py", "return Dense(", "return Dense(1.0 * ")
    jobs = checkout.planned()
    assert measuring(jobs) == {
        f"{kind} linear/{rest}"
        for kind, rest in [
            ("quality", "isotropic-d16-L128/seed0"),
            ("quality", "isotropic-d16-L128/seed1"),
            ("scaling", "forward-float32/L64"),
            ("scaling", "forward-float32/L128"),
            ("max_context", "forward-float32/64MiB"),
            ("language", "stdlib-L32/seed0"),
            ("language", "stdlib-L32-conv4/seed0"),
            ("tasks", "copy-L8/seed0"),
            ("tasks", "copy-L8/seed1"),
            ("tasks", "majority-L8/seed0"),
            ("tasks", "majority-L8/seed1"),
        ]
    }
    assert {"table quality", "figure tasks", "the paper"} <= jobs


def test_shared_op_reruns_no_exact_mechanism(checkout):
    checkout.edit("slay/ops/chunked.py", "BLOCK = 4", "BLOCK = 8")
    measured = checkout.measured()
    assert any(" linear/" in job for job in measured)
    assert not any("tasks standard/" in job for job in measured)


def test_kernels_rerun_what_ran_on_a_gpu(checkout):
    """With `device: auto` records say where they were made; one here says on a GPU."""
    auto = ("--config", "device=auto")
    here = "results/smoke/records/quality/linear/isotropic-d16-L128/seed0.json"
    on_gpu = QualityParams(attention="linear", head_dim=16, seq_len=128)
    for path in checkout.records():
        record = json.loads(path.read_text())
        record["params"]["device"] = "auto"
        if path == checkout.path / here:
            record["provenance"] |= {"device": "NVIDIA H100", "code": code(on_gpu, "cuda")}
        path.write_text(json.dumps(record))
    assert checkout.measured(*auto) == set()
    edit_kernels(checkout)
    assert checkout.measured(*auto) == {"quality linear/isotropic-d16-L128/seed0"}
    done = checkout.run("-n", here, "--configfile", SMOKE, *auto)  # asked for by its path
    assert "quality linear/isotropic-d16-L128/seed0" in done.stdout


def test_groups_of_tasks_rerun_what_shows_them(checkout):
    checkout.edit("slay/task_groups.py", '"induction"]', '"induction", "stack"]')
    shown = {"table tasks", "table runs", "table claims", "table claims-ours", "figure training"}
    assert checkout.planned() == {*shown, "the paper"}


def test_table_template_and_figure_code(checkout):
    checkout.edit("paper/tables/tasks.tex.j2", "mechanism", "attention")
    checkout.edit("slay/report/figures/scaling.py", "figsize=(PAGE, 2.2)", "figsize=(PAGE, 2.1)")
    assert checkout.planned() == {"table tasks", "figure scaling", "the paper"}


def test_prose(checkout):
    checkout.edit("paper/sections/conclusion.tex.j2", ".", ". ")
    assert checkout.planned() == {"the paper"}


def test_added_and_changed_settings(checkout):
    """A seed, a length, a mechanism, another learning rate."""
    for old, new in (
        ("seed: [0, 1]", "seed: [0, 1, 2]"),
        ("seq_len: [64, 128]", "seq_len: [64, 128, 32]"),
        ("[uniform, linear, yat-q", "[uniform, linear, rff, yat-q"),
        ("attention: [standard,", "attention: [rff, standard,"),
        ("steps: 20", "steps: 20\n      lr: 1.0e-3"),
    ):
        checkout.edit(SMOKE, old, new)
    seeds = [
        ("rff", 0),
        ("rff", 1),
        *((n, 2) for n in ("uniform", "linear", "rff", "yat-quadratic")),
    ]
    tasks = [
        (n, t, s) for n in ("standard", "linear") for t in ("copy", "majority") for s in (0, 1)
    ]
    assert checkout.measured() == {
        *(f"quality {name}/isotropic-d16-L128/seed{seed}" for name, seed in seeds),
        *(f"scaling {name}/forward-float32/L32" for name in ("standard", "linear")),
        *(f"tasks {name}/{task}-L8/seed{seed}" for name, task, seed in tasks),
    }


def test_edit_that_keeps_its_time(checkout):
    path = checkout.path / "slay/tasks/pattern.py"
    before = path.stat()
    checkout.edit("slay/tasks/pattern.py", "CLASSES = 8", "CLASSES = 7")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    measured = checkout.measured()
    assert measured
    assert all(job.startswith("tasks ") and "/majority-" in job for job in measured)


def test_stale_says_what_snakemake_would_do_and_why(checkout):
    def said(*more):
        command = [BIN / "slay", "stale", "--configfile", SMOKE, *more]
        env = {**os.environ, "PYTHONPATH": str(checkout.path)}
        done = subprocess.run(command, cwd=checkout.path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert said()[-1].startswith("0 of")
    gone = next(path for path in checkout.records() if "quality/yat-quadratic" in str(path))
    gone.unlink()
    checkout.edit("config/smoke.yaml", "steps: 20", "steps: 21")
    checkout.edit("slay/features/elu.py", "return Dense(", "return Dense(1.0 * ")
    lines = said("--jobs")
    planned = [job for job in checkout.planned() if "/" in job]
    assert len(lines) - 1 == len(planned)
    assert any("no record" in line for line in lines)
    assert any("steps was 20, is 21" in line for line in lines)
    assert any("the code changed" in line for line in lines)


@pytest.mark.parametrize("how", ["-a", "-r"])
def test_results_copied_into_a_fresh_clone(checkout, tmp_path, how):
    fresh = Checkout(tmp_path / "fresh")
    git = ["git", "-C", checkout.path, "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], check=True)
    subprocess.run(["git", "clone", "-q", checkout.path, fresh.path], check=True)
    copy = ["cp", how, checkout.path / "results/smoke", fresh.path / "results"]
    subprocess.run(copy, check=True)
    if how == "-a":
        assert fresh.planned() == set()
    else:  # times that say nothing: what takes seconds may be made again
        assert fresh.measured() == set()


def test_deleted_memory_and_edits(checkout):
    shutil.rmtree(checkout.path / ".snakemake")
    assert checkout.planned() == set()
    checkout.edit("slay/tasks/pattern.py", "CLASSES = 8", "CLASSES = 7")
    changed = checkout.planned()
    jobs = {
        f"tasks {name}/majority-L8/seed{seed}" for name in ("standard", "linear") for seed in (0, 1)
    }
    assert {job for job in changed if job.startswith("tasks ")} == jobs
    assert {"tasks: list the records that there must be", "table tasks", "the paper"} <= changed
    draft = checkout.run("-n", "paper_only", "--configfile", SMOKE)
    assert "majority-L8" not in draft.stdout
    checkout.edit("config/smoke.yaml", "steps: 20", "steps: 21")
    assert len(checkout.measured()) == 8


def test_deleted_memory_and_edits_of_what_is_rendered(checkout):
    shutil.rmtree(checkout.path / ".snakemake")
    checkout.edit("paper/tables/tasks.tex.j2", "mechanism", "attention")
    assert checkout.planned() == {"table tasks", "the paper"}
    checkout.edit("slay/report/figures/scaling.py", "figsize=(PAGE, 2.2)", "figsize=(PAGE, 2.1)")
    assert checkout.planned() == {"table tasks", "figure scaling", "the paper"}
    done = checkout.run("--cores", "2", "paper", "--configfile", SMOKE)
    assert done.returncode == 0, done.stdout
    shutil.rmtree(checkout.path / ".snakemake")
    assert checkout.planned() == set()


def test_record_of_an_older_schema(checkout):
    record = checkout.path / "results/smoke/records/quality/linear/isotropic-d16-L128/seed0.json"
    record.write_text(record.read_text().replace('"schema": 1', '"schema": 0'))
    shutil.rmtree(checkout.path / ".snakemake")
    assert checkout.measured() == {"quality linear/isotropic-d16-L128/seed0"}


PLUGIN = """
from slay.attention.linear import LinearAttention
from slay.features.feature_map import FeatureMap
from slay.features.forms import Dense


class SoftMap(FeatureMap):
    def forward(self, u, position):
        return Dense(u.softmax(-1))


class Soft(LinearAttention):
    kernel, nonnegative, paper = "", True, ""

    def features(self):
        return SoftMap()
"""


def test_mechanism_from_outside(checkout):
    (checkout.path / "mine.py").write_text(PLUGIN)
    checkout.edit("config/smoke.yaml", "linear, yat-q", "linear, soft, yat-q")
    checkout.edit(
        "config/smoke.yaml", "attention: [", "plugins: {soft: mine:Soft}\nattention: [soft, "
    )
    jobs = {f"quality soft/isotropic-d16-L128/seed{seed}" for seed in (0, 1)}
    assert checkout.measured() == jobs
    done = checkout.run("--cores", "2", "results", "--configfile", SMOKE)
    assert done.returncode == 0, done.stdout
    assert checkout.measured() == set()
    checkout.edit("mine.py", "softmax(-1)", "softmax(-1) * 2.0")
    assert checkout.measured() == jobs
