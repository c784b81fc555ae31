"""Training of language models, with DeepSpeed or in one plain process.

    deepspeed --module slay.training.language --attention yat-performer-anchor --context-len 2048
    slay train --attention linear --run-name tiny

`settings` says what can be asked for, `train` is the loop, `engine` what computes (plain or
DeepSpeed), `tokens`, `corpus` and `stream` where text comes from, `checkpoint` what survives.
"""
