"""The longest context in a memory budget. A time limit ends the search, so this is a timing job."""


rule run_max_context:
    input:
        out_of_date("max_context"),
        ancient(VERIFIED),
    output:
        f"{RUN}/records/max_context/{{job}}.json",
    log:
        f"{RUN}/logs/max_context/{{job}}.log",
    conda:
        "../../envs/run.yaml"
    threads: ALONE
    resources:
        **ASKS,
        runtime=60,
        gpu=GPU,
        timing=1,
    params:
        code=code("max_context"),
        arguments=arguments("max_context"),
    message:
        "max_context {wildcards.job}"
    shell:
        "slay run {params.arguments} --code {params.code}"
        " --threads {threads} --out {output:q} > {log:q} 2>&1"
