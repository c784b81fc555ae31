"""Train a small model on a synthetic task with one attention mechanism after another.

    python examples/train_on_a_task.py --task induction --steps 300

`slay tasks` lists the tasks, `slay mechanisms` the mechanisms.
"""

import argparse

import torch

import slay
from slay.models.attention_only import AttentionOnly
from slay.tasks.nulls import null_accuracies
from slay.training.loop import accuracy, train

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--task", default="induction")
parser.add_argument("--seq-len", type=int, default=16)
parser.add_argument("--steps", type=int, default=300)
parser.add_argument(
    "--attention",
    nargs="+",
    default=["uniform", "linear", "yat-performer-anchor", "yat-quadratic", "standard"],
)
args = parser.parse_args()

task = slay.get_task(args.task)
data = torch.Generator().manual_seed(1)
validation = task.sample(data, 512, args.seq_len)  # tokens and answers, (B, L) each
test = task.sample(data, 512, args.seq_len)
null = max(null_accuracies(task, args.seq_len, seed=0).values())
print(f"{args.task} at L = {args.seq_len}; without looking at the context: {null:.2f}")

for name in args.attention:
    torch.manual_seed(0)
    model = AttentionOnly(task.vocab_size(args.seq_len), args.seq_len, attention=name)
    stream = torch.Generator().manual_seed(2)  # the same training data for each
    outcome = train(
        model,
        lambda stream=stream: task.sample(stream, 64, args.seq_len),
        validation,
        steps=args.steps,
        lr=3e-3,
        warmup=50,
    )
    print(f"{name:22} accuracy {accuracy(model, *test):.2f} after {outcome.steps} steps")
