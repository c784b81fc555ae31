"""From a configuration to the paper: one record per measurement, then tables, figures, PDF.

    snakemake --cores all paper                                   the default run
    snakemake --cores all paper --configfile config/full.yaml     the GPU run
    snakemake --cores all paper_only                              the PDF from the records there are
    snakemake --cores all arxiv                                   the paper's source as an archive

The configuration says what is measured (config/README.md). A job depends on a fingerprint of the
code that it can import: editing one mechanism reruns only that mechanism.
"""

from snakemake.utils import min_version

min_version("9.0")

# Default configuration: that of the working directory, else the project's.
here = "config/config.yaml"
there = f"{workflow.current_basedir.get_path_or_uri(secret_free=True)}/{here}"

if not workflow.config_settings.configfiles:

    configfile: here if os.path.exists(here) else there


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/sources.smk"
include: "workflow/rules/tools.smk"
include: "workflow/rules/gpus.smk"
include: "workflow/rules/kernels.smk"
include: "workflow/rules/resume.smk"
include: "workflow/rules/warm.smk"
include: "workflow/rules/progress.smk"
include: "workflow/rules/quality.smk"
include: "workflow/rules/scaling.smk"
include: "workflow/rules/ablation.smk"
include: "workflow/rules/max_context.smk"
include: "workflow/rules/tasks.smk"
include: "workflow/rules/analysis.smk"
include: "workflow/rules/language.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/paper.smk"


onstart:
    sign()
    look_for_gpu()
    look_for_latex()
    keep_warm()
    plan_in_threads()
    show_progress()
    look_less_often()


onsuccess:
    note_sources()


onerror:
    tell_failures()


rule all:
    default_target: True
    input:
        f"{RUN}/paper/slay.pdf",
        # As a module, this is part of a workflow that has its own report.
        [f"{RUN}/report.html"] if MAIN else [],
        renewed(RECORDS),
    localrule: True


rule paper:
    input:
        f"{RUN}/paper/slay.pdf",
        renewed(RECORDS),  # named here too, so that deleted records are measured again
    localrule: True


rule paper_only:
    input:
        renewed(f"{RUN}/draft/paper/slay.pdf"),
    localrule: True


rule arxiv:
    input:
        renewed(f"{RUN}/paper/arxiv.tar.gz"),
    localrule: True


rule results:
    input:
        renewed(RECORDS),
    localrule: True
