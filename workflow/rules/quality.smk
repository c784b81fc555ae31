"""Error of each mechanism against exact spherical Yat attention."""


rule run_quality:
    input:
        out_of_date("quality"),
        ancient(VERIFIED),
    output:
        f"{RUN}/records/quality/{{job}}.json",
    log:
        f"{RUN}/logs/quality/{{job}}.log",
    conda:
        "../../envs/run.yaml"
    threads: 1
    resources:
        **ASKS,
        runtime=30,
        gpu=GPU,
    params:
        code=code("quality"),
        arguments=arguments("quality"),
    message:
        "quality {wildcards.job}"
    shell:
        "slay run {params.arguments} --code {params.code}"
        " --threads {threads} --out {output:q} > {log:q} 2>&1"
