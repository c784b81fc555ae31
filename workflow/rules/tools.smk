"""Programs that a run needs beside Python: looked for before anything is measured."""

import shutil


def look_for_slurm():
    """Stop at once where jobs are to be submitted and there is nothing to submit them with."""
    executor = workflow.executor_plugin
    if executor is None or not hasattr(executor, "name"):
        return
    if executor.name == "slurm" and shutil.which("sbatch") is None:
        sys.exit(
            "--profile slurm: there is no sbatch on this machine; type it where Slurm is, "
            "or leave the profile out to measure here: snakemake --cores all"
        )


def look_for_latex():
    """Stop at once, not after hours, where the paper is asked for and cannot be typeset."""
    if workflow.deployment_settings.deployment_method or shutil.which("latexmk"):
        return
    if any(
        job.rule.name.endswith("build_paper") for job in workflow.dag.needrun_jobs()
    ):
        from slay.report.paper import TEX

        sys.exit(TEX)
