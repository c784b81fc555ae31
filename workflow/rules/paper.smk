"""From data to the paper: tables, figures, text, PDF, report."""


rule render_table:
    input:
        lambda wildcards: data(TABLES[wildcards.table], wildcards.draft),
        FACTS,
    output:
        f"{RUN}/{{draft}}tables/{{table}}.tex",
    log:
        f"{RUN}/{{draft}}logs/tables/{{table}}.log",
    localrule: True
    conda:
        "../../envs/slay.yaml"
    params:
        sources=lambda wildcards: SOURCES[f"tables/{wildcards.table}.tex"],
        draft=draft_flag,
        run=lambda wildcards: HERE,
    message:
        "table {wildcards.table}"
    shell:
        "slay table {wildcards.table} --run {params.run:q} --out {output:q} {params.draft}"
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
            caption="../report/figure.rst",
            labels={"figure": "{figure}"},
        ),
    log:
        f"{RUN}/{{draft}}logs/figures/{{figure}}.log",
    localrule: True
    conda:
        "../../envs/slay.yaml"
    params:
        sources=lambda wildcards: SOURCES[f"figures/{wildcards.figure}.pdf"],
        draft=draft_flag,
        run=lambda wildcards: HERE,
    message:
        "figure {wildcards.figure}"
    shell:
        "slay figure {wildcards.figure} --run {params.run:q} --out {output.pdf:q} {params.draft}"
        " 2> >(tee {log:q} >&2)"


rule build_paper:
    input:
        data(JOBS),
        FACTS,
        [f"{RUN}/{{draft}}tables/{table}.tex" for table in TABLES],
        [f"{RUN}/{{draft}}figures/{figure}.pdf" for figure in FIGURES],
    output:
        tex=f"{RUN}/{{draft}}paper/main.tex",
        pdf=report(
            f"{RUN}/{{draft}}paper/slay.pdf",
            category="Paper",
            caption="../report/paper.rst",
            labels={"document": "paper"},
        ),
    log:
        f"{RUN}/{{draft}}logs/paper.log",
    localrule: True
    conda:
        "../../envs/slay.yaml"
    params:
        sources=SOURCES["paper/slay.pdf"],
        draft=draft_flag,
        run=lambda wildcards: HERE,
    message:
        "the paper"
    shell:
        "slay paper --run {params.run:q} {params.draft} 2> >(tee {log:q} >&2)"


rule write_page:
    input:
        lambda wildcards: data(
            JOBS if wildcards.page == "configuration" else [wildcards.page], draft=""
        ),
        FACTS,
    output:
        report(
            f"{RUN}/pages/{{page}}.html",
            category=lambda wildcards: (
                "Configuration" if wildcards.page == "configuration" else "Numbers"
            ),
            caption="../report/page.rst",
            labels=lambda wildcards: {"page": wildcards.page},
        ),
    log:
        f"{RUN}/logs/pages/{{page}}.log",
    localrule: True
    conda:
        "../../envs/slay.yaml"
    params:
        sources=lambda wildcards: SOURCES[f"pages/{wildcards.page}.html"],
        run=lambda wildcards: HERE,
    message:
        "page {wildcards.page}"
    shell:
        "slay page {wildcards.page} --run {params.run:q} --out {output:q} 2> >(tee {log:q} >&2)"


rule pack_paper:
    input:
        f"{RUN}/paper/slay.pdf",
    output:
        f"{RUN}/paper/arxiv.tar.gz",
    log:
        f"{RUN}/logs/arxiv.log",
    localrule: True
    conda:
        "../../envs/slay.yaml"
    params:
        sources=SOURCES["paper/arxiv.tar.gz"],
        run=lambda wildcards: HERE,
    message:
        "the archive of the paper's source"
    shell:
        "slay arxiv --run {params.run:q} --out {output:q} 2> >(tee {log:q} >&2)"


rule build_report:
    input:
        pdf=f"{RUN}/paper/slay.pdf",
        figures=[f"{RUN}/figures/{figure}.png" for figure in FIGURES],
        pages=[f"{RUN}/pages/{page}.html" for page in PAGES],
        config=f"{RUN}/config.json",
    output:
        f"{RUN}/report.html",
    log:
        f"{RUN}/logs/report.log",
    localrule: True
    conda:
        "../../envs/slay.yaml"
    params:
        snakefile=f"{ROOT}/Snakefile",
    message:
        "the report"
    shell:
        "snakemake --snakefile {params.snakefile:q} --cores 1 --nolock"
        " --configfile {input.config:q} --report {output:q}"
        " {input.pdf:q} {input.pages:q} > {log:q} 2>&1"
