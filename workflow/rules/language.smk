"""Language models. An interrupted job resumes from its checkpoint in .slay/."""


rule run_language:
    input:
        out_of_date("language"),
        ancient(VERIFIED),
    output:
        f"{RUN}/records/language/{{job}}.json",
    log:
        f"{RUN}/logs/language/{{job}}.log",
    retries: 2
    conda:
        "../../envs/slay.yaml"
    threads: lambda wildcards: processes(wildcards)
    resources:
        **ASKS,
        runtime=lambda wildcards: 60 if processes(wildcards) == 1 else 60 * 24,
        gpu=lambda wildcards: GPU * processes(wildcards),
    params:
        code=code("language"),
        arguments=arguments("language"),
    message:
        "language {wildcards.job}"
    shell:
        "slay run {params.arguments} --code {params.code}"
        " --threads 1 --out {output:q} > {log:q} 2>&1"
