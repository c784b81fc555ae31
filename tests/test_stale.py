"""What an edit makes out of date: of kernels records of GPUs, of groups of tasks some tables."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from slay.errors import SlayError
from slay.pipeline import fingerprint as code
from slay.pipeline import jobs, provenance, stale
from slay.pipeline.config import load
from slay.pipeline.fingerprint import closure, fingerprint
from slay.pipeline.jobs import expand, manifest
from slay.pipeline.params import TaskParams
from slay.pipeline.record import SCHEMA, Provenance, Record, write_record
from slay.registry import ATTENTION, TASKS
from slay.report.aggregate import collect
from slay.report.sources import FIGURES, TABLES, module_of

ROOT = provenance.PACKAGE.parent
KERNELS = sorted(
    file.relative_to(provenance.PACKAGE).as_posix()
    for pattern in ("ops/triton_*.py", "ops/triton/**/*.py")
    for file in provenance.PACKAGE.glob(pattern)
)
RENDERED = {
    **{f"figure {name}": [f"slay.report.figures.{name}"] for name in FIGURES},
    **{f"table {name}": [module_of(name)] for name in TABLES},
    **{name: [f"slay.report.{name}"] for name in ("paper", "page", "aggregate")},
    "facts": ["slay.attention.facts", *map(ATTENTION.path, ATTENTION.names())],
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of this package, of which `edit(file)` makes a statement more of a file count."""
    shutil.copytree(provenance.PACKAGE, tmp_path / "slay", ignore=lambda *_: ["__pycache__"])
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "slay")

    def forget():
        code.forget()
        stale._changed.cache_clear()

    def edit(*files):
        for file in files:
            with (tmp_path / "slay" / file).open("a") as source:
                source.write("\nEDITED = 1\n")
        forget()

    forget()
    yield edit
    forget()


def configured(name, **keys):
    data = yaml.safe_load((ROOT / "config" / name).read_text())
    return load({**data, **keys})


def planned(config):
    """What records must be, by experiment."""
    return {name: manifest(found) for name, found in expand(config).items()}


def rendered():
    """Fingerprints of the code of what is made of records, and of the facts of mechanisms."""
    return {name: fingerprint(modules, kernels=False) for name, modules in RENDERED.items()}


@pytest.mark.parametrize("name", ["config.yaml", "smoke.yaml"])
def test_no_job_on_a_cpu_depends_on_a_kernel(name):
    found = [job for group in expand(configured(name)).values() for job in group]
    assert {device for job in found for device in job.codes} == {"cpu"}
    for modules in {tuple(job.params.modules()) for job in found}:
        assert not [m for m in closure(modules, kernels=False) if "triton" in m]
    for job in found:
        without = fingerprint(job.params.modules(), kernels=False)
        assert job.codes["cpu"] == without, job.path


def test_an_edit_of_kernels_is_of_no_account_on_a_cpu(package):
    before = planned(configured("config.yaml")), rendered()
    package(*KERNELS)
    assert (planned(configured("config.yaml")), rendered()) == before


def test_an_edit_of_kernels_reruns_on_a_gpu_what_may_use_them(package):
    config = configured("gpu.yaml")
    before = [job.codes for job in expand(config)["tasks"]]
    package(*KERNELS)
    for job, codes in zip(expand(config)["tasks"], before, strict=True):
        assert (job.codes != codes) == (job.params.attention != "standard")


def test_a_job_that_asks_for_kernels_depends_on_them_on_a_cpu_too(package):
    asked = TaskParams(attention="yat-quadratic", task="copy", device="cpu")
    insists = asked.model_copy(update={"options": {"backend": "triton"}})
    before = [jobs.code(params, "cpu") for params in (asked, insists)]
    package(*KERNELS)
    assert jobs.code(asked, "cpu") == before[0]
    assert jobs.code(insists, "cpu") != before[1]


def test_an_edit_of_the_groups_of_tasks_is_of_account_where_they_are_shown(package):
    config = configured("config.yaml")
    jobs_before, before = planned(config), rendered()
    package("task_groups.py")
    assert planned(config) == jobs_before
    changed = {name for name, found in rendered().items() if found != before[name]}
    tables = {"table tasks", "table runs", "table claims", "table claims-ours"}
    assert changed == {*tables, "figure training", "paper"}


def test_another_class_in_a_registry_is_another_job(monkeypatch):
    asked = [TaskParams(attention="linear", task=task, device="cpu") for task in ("copy", "sort")]
    before = [jobs.code(params, "cpu") for params in asked]
    monkeypatch.setitem(TASKS._paths, "copy", "slay.tasks.basic:Sort")
    after = [jobs.code(params, "cpu") for params in asked]
    assert after[0] != before[0]
    assert after[1] == before[1]


def record_of(job, device):
    """A record of a job as it is made on a device of that name."""
    facts = dict.fromkeys(("commit", "dirty", "cores", "torch"))
    facts |= dict.fromkeys(("host", "platform", "processor", "python", "started"), "")
    facts |= dict.fromkeys(("threads", "seconds", "peak_memory_bytes"), 1)
    made = Provenance(code=job.codes[stale.kind_of(device)], device=device, **facts)
    asked = job.params.model_dump()
    return Record(
        schema=SCHEMA, experiment="tasks", params=asked, status="oom", metrics={}, provenance=made
    )


def everyone_says(config):
    """Whether the record of a configuration's only job is out of date."""
    ((job,),) = expand(config).values()
    contract = Path("results", config.run, "manifests", "tasks.json")
    contract.parent.mkdir(exist_ok=True)
    contract.write_text(manifest([job]))
    in_draft = bool(collect(contract, draft=True)["stale"].item())
    try:
        collect(contract)
        refused = False
    except SlayError as error:
        refused = "stale record, made with code" in str(error)
    answers = {
        bool(list(stale.due(config))),  # slay stale, slay publish
        bool(stale.check(job, Path(job.path))),  # the workflow
        in_draft,
        refused,
    }
    assert len(answers) == 1
    return answers.pop()


@pytest.mark.parametrize(
    ("device", "name"), [("auto", "cpu"), ("auto", "NVIDIA H100"), ("cuda", "NVIDIA H100")]
)
def test_everyone_who_asks_hears_the_same(package, tmp_path, monkeypatch, device, name):
    """Where a measurement was made, and not where it is planned, says which code counts."""
    monkeypatch.chdir(tmp_path)
    grid = {"attention": "linear", "task": "copy", "seq_len": 8}
    config = configured("smoke.yaml", device=device, experiments={"tasks": [grid]})
    ((job,),) = expand(config).values()
    write_record(Path(job.path), record_of(job, name))
    assert not everyone_says(config)
    package(*KERNELS)
    assert everyone_says(config) == (name != "cpu")
    write_record(Path(job.path), record_of(expand(config)["tasks"][0], name))
    assert not everyone_says(config)
    package("ops/chunked.py")
    assert everyone_says(config)
