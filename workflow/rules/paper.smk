"""From data to the paper: tables, figures, text, PDF, report."""

from pathlib import Path

from slay.report.sources import FIGURES, TABLES

FACTS = [f"{RUN}/mechanisms.json", f"{RUN}/config.json"]
# Text that a table reads beside its own template.
ALSO_READS = {"quality": ["config/published.yaml"], "claims": ["paper/claims.yaml"]}


def data(experiments, draft="{draft}"):
    """What some experiments gave, those that this run has."""
    return [f"{RUN}/{draft}data/{name}.summary.csv" for name in experiments if JOBS.get(name)]


def text(*patterns):
    """Digest of the text files that match: an edit reruns, a touch does not."""
    paths = sorted(path for pattern in patterns for path in Path(ROOT).glob(pattern))
    return digest(" ".join(file_digest(path) for path in paths))


def draft_flag(wildcards):
    return "--draft" if wildcards.draft else ""


rule render_table:
    input:
        lambda wildcards: data(TABLES[wildcards.table], wildcards.draft),
        FACTS,
    output:
        f"{RUN}/{{draft}}tables/{{table}}.tex",
    log:
        f"{RUN}/{{draft}}logs/tables/{{table}}.log",
    params:
        code=fingerprint(["slay.report.tables"]),
        text=lambda wildcards: text(
            f"paper/tables/{wildcards.table}.tex.j2", *ALSO_READS.get(wildcards.table, [])
        ),
        draft=draft_flag,
    localrule: True
    message:
        "table {wildcards.table}"
    shell:
        "slay table {wildcards.table} --run {RUN} --out {output:q} {params.draft}"
        " 2> >(tee {log:q} >&2)"


rule draw_figure:
    input:
        lambda wildcards: data(FIGURES[wildcards.figure], wildcards.draft),
        FACTS,
    output:
        pdf=f"{RUN}/{{draft}}figures/{{figure}}.pdf",
        png=report(
            f"{RUN}/{{draft}}figures/{{figure}}.png",
            category="Figures",
            caption="../report/{figure}.rst",
            labels={"figure": "{figure}"},
        ),
    log:
        f"{RUN}/{{draft}}logs/figures/{{figure}}.log",
    params:
        code=fingerprint(["slay.report.figures"]),
        draft=draft_flag,
    localrule: True
    message:
        "figure {wildcards.figure}"
    shell:
        "slay figure {wildcards.figure} --run {RUN} --out {output.pdf:q} {params.draft}"
        " 2> >(tee {log:q} >&2)"


rule build_paper:
    input:
        data(JOBS),
        FACTS,
        [f"{RUN}/{{draft}}tables/{table}.tex" for table in TABLES],
        [f"{RUN}/{{draft}}figures/{figure}.pdf" for figure in FIGURES],
    output:
        tex=f"{RUN}/{{draft}}paper/main.tex",
        pdf=report(f"{RUN}/{{draft}}paper/slay.pdf", category="Paper", caption="../report/paper.rst"),
    log:
        f"{RUN}/{{draft}}logs/paper.log",
    params:
        code=fingerprint(["slay.report.paper"]),
        text=text("paper/main.tex.j2", "paper/sections/*", "paper/references.bib", "paper/claims.yaml"),
        draft=draft_flag,
    localrule: True
    message:
        "the paper"
    shell:
        "slay paper --run {RUN} {params.draft} 2> >(tee {log:q} >&2)"


rule build_report:
    input:
        pdf=f"{RUN}/paper/slay.pdf",
        figures=[f"{RUN}/figures/{figure}.png" for figure in FIGURES],
        config=f"{RUN}/config.json",
    output:
        f"{RUN}/report.html",
    log:
        f"{RUN}/logs/report.log",
    localrule: True
    message:
        "the report"
    shell:
        "snakemake --nolock --configfile {input.config:q} --report {output:q}"
        " {input.pdf:q} > {log:q} 2>&1"
