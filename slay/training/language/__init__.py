"""Training of language models, with DeepSpeed or in a single process.

    deepspeed --module slay.training.language --attention yat-performer-anchor --context-len 2048
    slay train --attention linear --run-name tiny

`config` defines the options, `train` the loop, `engine` the backends (single process or
DeepSpeed), `tokens`, `corpus` and `stream` the sources of text, `checkpoint` the saved state.
"""
