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


include: "workflow/rules/internals.smk"


# Default configuration: that of the working directory, else the project's.
DEFAULT = "config/config.yaml"

if not configured():

    configfile: DEFAULT if os.path.exists(DEFAULT) else f"{ROOT}/{DEFAULT}"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/current.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/paper.smk"


onstart:
    sign_lock()
    look_for_gpu()
    look_for_latex()
    start_servers()
    run_in_threads()
    show_progress()
    lift_job_rate()


onsuccess:
    note_sources()


onerror:
    show_failures()


rule all:
    default_target: True
    input:
        up_to_date,
        f"{RUN}/paper/slay.pdf",
        # As a module, this is part of a workflow that has its own report.
        [f"{RUN}/report.html"] if MAIN else [],
        RECORDS,
    localrule: True


rule paper:
    input:
        up_to_date,
        f"{RUN}/paper/slay.pdf",
        RECORDS,  # named here too, so that deleted records are measured again
    localrule: True


rule paper_only:
    input:
        up_to_date,
        f"{RUN}/draft/paper/slay.pdf",
    localrule: True


rule arxiv:
    input:
        up_to_date,
        f"{RUN}/paper/arxiv.tar.gz",
    localrule: True


rule results:
    input:
        up_to_date,
        RECORDS,
    localrule: True
