"""Checks for programs that a run needs besides Python, before anything is measured."""

import shutil


def look_for_slurm():
    """Fail early if jobs are to be submitted and sbatch is missing."""
    executor = workflow.executor_plugin
    if executor is None or not hasattr(executor, "name"):
        return
    if executor.name == "slurm" and shutil.which("sbatch") is None:
        sys.exit(
            "--profile slurm: there is no sbatch on this machine; type it where Slurm is, "
            "or leave the profile out to measure here: snakemake --cores all"
        )


def look_for_latex():
    """Fail early, not after hours, if the paper is requested and LaTeX is missing."""
    if workflow.deployment_settings.deployment_method or shutil.which("latexmk"):
        return
    if any(
        job.rule.name.endswith("build_paper") for job in workflow.dag.needrun_jobs()
    ):
        from slay.report.paper import TEX

        sys.exit(TEX)
