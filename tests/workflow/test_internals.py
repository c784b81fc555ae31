"""One test per function of workflow/rules/internals.smk, on small workflows."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from clone import ROOT
from conftest import BIN

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("internals")]

INTERNALS = "workflow/rules/internals.smk"
FUNCTIONS = re.findall(r"^def (\w+)\(", (ROOT / INTERNALS).read_text(), flags=re.MULTILINE)

PROBE = """
import json, logging, time

include: "workflow/rules/internals.smk"

TOLD = {"root": ROOT}


def tell(**questions):
    for name, ask in questions.items():
        try:
            TOLD[name] = ask()
        except BaseException as error:
            TOLD[name] = repr(error)
    if is_planning():
        with open("told.json", "w") as file:
            json.dump(TOLD, file, default=str)


class Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.events = []

    def emit(self, record):
        self.events.append(str(getattr(record, "event", None)))

    def line(self, facts):
        return f"LINE {facts['done']} of {facts['total']}"


LINES = Lines()
if config.get("slots"):
    limit("slot", config["slots"])
tell(
    is_main=is_main, configured=configured, config_sources=config_sources, deploys=deploys,
    prefixed=lambda: prefixed("results/x"), is_planning=is_planning, plans_here=plans_here,
    cores=cores, default_resources=default_resources,
)


def ask(wildcards):
    tell(
        executor=executor,
        is_known=lambda: [is_known(prefixed(name)) for name in ("a", "b")],
    )
    if config.get("stop"):
        raise SystemExit(1)
    release_lock()
    sign_with_lock()
    rerun(config.get("again", "").split())
    return []


onstart:
    time.sleep(config.get("late", 0))
    sign_lock()
    if config.get("threads"):
        run_in_threads()
    tell(
        runs_here=runs_here,
        touches=touches,
        due_jobs=lambda: sorted(str(path) for job in due_jobs() for path in job.output),
        planned_files=lambda: sorted(map(str, planned_files())),
    )
    log_to(LINES)
    lift_job_rate()


onsuccess:
    tell(log_to=lambda: LINES.events)


rule all:
    input: ask, "a", "b"


rule one:
    output: "{name}"
    wildcard_constraints: name="[ab]"
    resources: slot=1
    shell: "date +%s.%N > {output}; sleep {config[sleep]}; date +%s.%N >> {output}"


rule many:
    input: expand("many/{i}", i=range(12))


rule each:
    output: "many/{i}"
    shell: "sleep 0.4; touch {output}"


rule child:
    output: "child"
    run:
        with open(output[0], "w") as file:
            print(is_planning(), plans_here(), file=file)
"""

OUTER = """
config.setdefault("sleep", 0)

module probe:
    snakefile: "../project/Snakefile"
    config: config
    prefix: "under"


use rule * from probe as probe_*
"""


class Workflow:
    """A small workflow that writes down what functions return, in a folder of its own."""

    def __init__(self, folder: Path):
        self.folder = folder / "project"
        (self.folder / INTERNALS).parent.mkdir(parents=True)
        shutil.copy(ROOT / INTERNALS, self.folder / INTERNALS)
        (self.folder / "Snakefile").write_text(PROBE)
        (folder / "outer").mkdir()
        (folder / "outer/Snakefile").write_text(OUTER)
        self.output = self.first = ""

    def start(self, *args, cwd=None, config=("sleep=0",)):
        return subprocess.Popen(
            [BIN / "snakemake", "--quiet", "rules", *args, "--config", *config],
            cwd=cwd or self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    def run(self, *args, code=0, cwd=None, **kwargs):
        """Run Snakemake and return what it told."""
        process = self.start(*args, cwd=cwd, **kwargs)
        self.output = process.communicate()[0]
        assert code is None or process.returncode == code, self.output
        return json.loads(((cwd or self.folder) / "told.json").read_text())

    def of(self, name):
        return (self.folder / name).read_text()


@pytest.fixture
def workflow(tmp_path):
    return Workflow(tmp_path)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run of all on this machine, and what it told."""
    workflow = Workflow(tmp_path_factory.mktemp("done"))
    told = workflow.run("--cores", "2")
    workflow.first = workflow.output
    return workflow, told


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """A run of what another one has left, with other settings, and what it told."""
    workflow = Workflow(tmp_path_factory.mktemp("resumed"))
    workflow.run("--cores", "1", "a")
    (workflow.folder / "c.yaml").write_text("run: 007\n")
    before = workflow.of("a")
    told = workflow.run("--cores", "1", "--configfile", "c.yaml", config=("sleep=0", "title=1e3"))
    assert workflow.of("a") == before
    return told


@pytest.fixture(scope="module")
def submitted(tmp_path_factory):
    """What a plan for Slurm told."""
    pytest.importorskip("snakemake_executor_plugin_slurm")
    workflow = Workflow(tmp_path_factory.mktemp("submitted"))
    settings = ("--executor", "slurm", "--jobs", "3", "--default-resources", "mem_mb=100")
    return workflow.run(*settings, code=1, config=("sleep=0", "stop=1"))


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The same workflow as a module of another one."""
    folder = tmp_path_factory.mktemp("imported")
    return folder, Workflow(folder).run("-n", "probe_all", cwd=folder / "outer")


def test_every_function_has_a_test():
    assert set(FUNCTIONS) == {name.removeprefix("test_") for name in globals()} & set(FUNCTIONS)


def test_root(done, imported):
    assert done[1]["root"] == str(done[0].folder)
    assert imported[1]["root"] == str(imported[0] / "project")


def test_is_main(done, imported):
    assert done[1]["is_main"] is True
    assert imported[1]["is_main"] is False


def test_configured(done, resumed):
    assert done[1]["configured"] is False
    assert resumed["configured"] is True


def test_config_sources(resumed):
    files, words = resumed["config_sources"]
    assert [Path(file).name for file in files] == ["c.yaml"]
    assert words == ["sleep=0", "title=1e3"]


def test_prefixed(done, imported):
    assert done[1]["prefixed"] == "results/x"
    assert imported[1]["prefixed"] == "under/results/x"


def test_deploys(done, workflow):
    assert done[1]["deploys"] is False
    assert workflow.run("-n", "--sdm", "conda", code=None)["deploys"] is True


def test_is_planning(done):
    assert done[1]["is_planning"] is True
    done[0].run("--cores", "1", "child")
    assert done[0].of("child").split()[0] == "False"


def test_plans_here(done, submitted):
    assert done[1]["plans_here"] is True
    assert submitted["plans_here"] is False


def test_runs_here(done, submitted, workflow):
    assert done[1]["runs_here"] is True
    for name in ("a", "b"):
        (workflow.folder / name).touch()
    workflow.run("--cores", "1", "--touch", "--forceall", code=None)
    assert json.loads(workflow.of("told.json")).get("runs_here") is not True


def test_touches(done, workflow):
    assert done[1]["touches"] is False
    for name in ("a", "b"):
        (workflow.folder / name).touch()
    assert workflow.run("--cores", "1", "--touch", "--forceall")["touches"] is True


def test_executor(done, submitted):
    assert done[1]["executor"] != "slurm"
    assert submitted["executor"] == "slurm"


def test_cores(done, submitted):
    assert done[1]["cores"] == 2
    assert submitted["cores"] is None


def test_default_resources(done, submitted):
    assert done[1]["default_resources"] is False
    assert submitted["default_resources"] is True


@pytest.mark.parametrize(("more", "together"), [((), False), (("--resources", "slot=2"), True)])
def test_limit(workflow, more, together):
    workflow.run("--cores", "2", *more, config=("sleep=1", "slots=1"))
    (begin, end), (start, stop) = (map(float, workflow.of(name).split()) for name in ("a", "b"))
    assert (begin < stop and start < end) == together


def test_due_jobs(resumed):
    assert resumed["due_jobs"] == ["b"]


def test_planned_files(resumed):
    assert resumed["planned_files"] == ["a", "b"]


def test_is_known(done, resumed):
    assert done[1]["is_known"] == [False, False]
    assert resumed["is_known"] == [True, False]


def test_rerun(done):
    workflow, _ = done
    before = workflow.of("a"), workflow.of("b")
    workflow.run("--cores", "1", config=("sleep=0", "again=b"))
    assert workflow.of("a") == before[0]
    assert workflow.of("b") != before[1]


def test_log_to(done):
    workflow, told = done
    assert "LINE 1 of 3" in workflow.first
    assert "steps (" not in workflow.first
    for name in ("JOB_INFO", "JOB_FINISHED"):
        assert any(name in event.upper() for event in told["log_to"])


def test_lift_job_rate(workflow):
    """Snakemake looks at its queue when jobs end, and not ever more often."""
    workflow.run("--verbose", "--cores", "1", "many")
    assert 12 <= workflow.output.count("Ready jobs: ") <= 2 * 12 + 5


def test_run_in_threads(done):
    """A rule with `run:` is executed by this process, which planned it, not by a new one."""
    again = ("--cores", "1", "child", "--forcerun", "child")
    done[0].run(*again, config=("sleep=0", "threads=1"))
    assert done[0].of("child").split()[0] == "True"


def killed(workflow, *config, begun="[ab]"):
    """Kill a run while it has the lock."""
    process = workflow.start("--cores", "1", config=("sleep=60", *config))
    end = time.monotonic() + 60
    while not list(workflow.folder.glob(begun)):
        assert time.monotonic() < end
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_release_lock(workflow):
    killed(workflow)
    workflow.run("--cores", "1", "--rerun-incomplete")


def test_sign_with_lock(workflow):
    killed(workflow, "late=60", begun=".snakemake/locks/*.lock")
    workflow.run("--cores", "1")


def test_sign_lock(workflow):
    """Of a process on another machine nobody here knows whether it lives."""
    killed(workflow)
    sign = workflow.folder / ".snakemake/slay.pid"
    sign.write_text(f"elsewhere {sign.read_text().split()[1]}")
    workflow.run("--cores", "1", "--rerun-incomplete", code=1)
    assert "Directory cannot be locked" in workflow.output
