"""The experiments, one file each: `run(params, progress) -> Result`."""
