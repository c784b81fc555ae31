"""From records to tidy data: one row per record, then one row per setting and metric."""


rule write_manifest:
    input:
        up_to_date,
    output:
        f"{RUN}/manifests/{{experiment}}.json",
    log:
        f"{RUN}/logs/manifests/{{experiment}}.log",
    localrule: True
    message:
        "{wildcards.experiment}: list the records that there must be"
    run:
        write_plan(output[0], log[0])


rule write_config:
    input:
        up_to_date,
    output:
        f"{RUN}/config.json",
    log:
        f"{RUN}/logs/config.log",
    localrule: True
    message:
        "write down the configuration"
    run:
        write_plan(output[0], log[0])


rule collect_records:
    input:
        manifest=f"{RUN}/manifests/{{experiment}}.json",
        records=lambda wildcards: (
            [] if wildcards.draft else [job.path for job in JOBS[wildcards.experiment]]
        ),
    output:
        table=f"{RUN}/{{draft}}data/{{experiment}}.csv",
        summary=f"{RUN}/{{draft}}data/{{experiment}}.summary.csv",
        curves=f"{RUN}/{{draft}}data/{{experiment}}.curves.csv",
    log:
        f"{RUN}/{{draft}}logs/collect/{{experiment}}.log",
    localrule: True
    conda:
        "../../envs/slay.yaml"
    params:
        sources=lambda wildcards: SOURCES[f"data/{wildcards.experiment}.csv"],
        draft=draft_flag,
        present=lambda wildcards: (
            records_there_are(wildcards) if wildcards.draft else ""
        ),
    message:
        "{wildcards.experiment}: collect the records"
    shell:
        "slay collect {input.manifest:q} --table {output.table:q}"
        " --summary {output.summary:q} --curves {output.curves:q} {params.draft} 2> >(tee {log:q} >&2)"


rule describe_mechanisms:
    output:
        f"{RUN}/mechanisms.json",
    log:
        f"{RUN}/logs/mechanisms.log",
    localrule: True
    conda:
        "../../envs/slay.yaml"
    params:
        sources=SOURCES["mechanisms.json"],
        names=shlex.join([*plugins.words(CONFIG.attention), *CONFIG.attention]),
    message:
        "describe the mechanisms"
    shell:
        "slay mechanisms --json {params.names} > {output:q} 2> {log:q}"
