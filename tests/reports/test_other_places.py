"""The workflow from other folders, and where programs or places that it wants are missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from slay.cli import main
from slay.pipeline.config import load
from slay.pipeline.jobs import expand
from slay.pipeline.stale import due

ROOT = Path(__file__).parents[2]
SNAKEMAKE = Path(sys.executable).parent / "snakemake"
SMOKE = ["--configfile", str(ROOT / "config/smoke.yaml")]


def snakemake(folder, *words, **environment):
    """A dry run, or one that stops, of this checkout's workflow in another folder."""
    done = subprocess.run(
        [SNAKEMAKE, "--snakefile", ROOT / "Snakefile", *words], cwd=folder, text=True, timeout=300,
        env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert "Traceback" not in done.stdout, done.stdout
    return done


@pytest.fixture
def tools(tmp_path):
    """A PATH without Slurm and LaTeX."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for place in map(Path, os.environ["PATH"].split(os.pathsep)):
        for tool in place.glob("*") if place.is_dir() else []:
            if tool.name not in ("sbatch", "latexmk") and not os.path.lexists(folder / tool.name):
                (folder / tool.name).symlink_to(tool)
    return str(folder)


@pytest.mark.workflow
def test_the_workflow_from_another_folder(tmp_path):
    """`snakemake -s ../clone/Snakefile` says "configfile not present", or needs a home folder."""
    words = ["-n", "results", "--config", "run=2026_01", "only={experiment: quality, seed: 0}"]
    done = snakemake(tmp_path, *words, HOME="/proc/nowhere", XDG_CACHE_HOME="/proc/nowhere")
    assert done.returncode == 0, done.stdout
    assert "run_quality" in done.stdout
    assert "results/2026_01/records/quality/" in done.stdout


@pytest.mark.workflow
def test_a_cluster_that_is_not_there_is_one_line_at_once(tmp_path, tools):
    """`snakemake --profile slurm` hangs for ever where there is no sbatch."""
    profile = ["--profile", str(ROOT / "slurm")]
    done = snakemake(tmp_path, *profile, "results", *SMOKE, PATH=tools)
    assert done.returncode != 0
    assert done.stdout.splitlines()[-1].startswith("--profile slurm: there is no sbatch")
    assert not list(tmp_path.glob("results/smoke/records"))


@pytest.mark.workflow
def test_no_latex_is_one_line_before_anything_is_measured(tmp_path, tools):
    """All is measured for hours, then the paper fails, because there is no LaTeX."""
    done = snakemake(tmp_path, "--cores", "1", "paper", *SMOKE, PATH=tools)
    assert done.returncode != 0
    assert done.stdout.splitlines()[-1].startswith("LaTeX is not installed")
    assert not list(tmp_path.glob("results/smoke/records/**/*.json"))


def test_stale_says_where_it_looked(tmp_path, monkeypatch):
    """`slay stale` in another folder says that all is to be measured, and not where it looked."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["stale"])
    assert done.exit_code == 0, done.output
    last = done.output.splitlines()[-1]
    assert last.endswith(f"in {tmp_path}/results/laptop, which is not there")
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text((ROOT / "config/smoke.yaml").read_text())
    (tmp_path / "results/smoke").mkdir(parents=True)
    done = CliRunner().invoke(main, ["stale"])
    assert done.output.splitlines()[-1].endswith(
        f"24 measurements would be made in {tmp_path}/results/smoke"
    )


def test_records_are_looked_for_in_the_folder_of_the_run(tmp_path):
    """`slay publish ../clone/results/run` misses every record."""
    config = load(yaml.safe_load((ROOT / "config/smoke.yaml").read_text()))
    job = expand(config)["quality"][0]
    path = tmp_path / job.path.split("/", 2)[2]
    path.parent.mkdir(parents=True)
    path.write_text("cut sho")
    reasons = {item.job.path: item.reason for item in due(config, tmp_path)}
    assert "cut short" in reasons.pop(job.path)
    assert set(reasons.values()) == {"no record"}
