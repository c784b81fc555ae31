"""Plot how much weight a mechanism gives to a key, against the key's cosine with the query.

    python examples/plot_kernel.py yat-spherical yat-quadratic yat-performer-anchor --out kernel.png

Values that are unit vectors make attention's output its weights. Lines are means over heads, each
with random features of its own; bands go from the smallest to the largest.
"""

import argparse

import matplotlib.pyplot as plt
import torch

import slay

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("attention", nargs="*", default=["yat-spherical", "yat-quadratic", "linear"])
parser.add_argument("--head-dim", type=int, default=32)
parser.add_argument("--out", default="kernel.png")
args = parser.parse_args()

heads, d, n = 8, args.head_dim, 196
x = torch.linspace(-1, 0.95, n)  # at 1 the exact kernel is 1 / epsilon
torch.manual_seed(0)
q, other = torch.linalg.qr(torch.randn(heads, d, 2)).Q.unbind(-1)  # orthogonal, (H, d) each
k = x.view(n, 1, 1) * q + (1 - x**2).sqrt().view(n, 1, 1) * other  # (n, H, d), at cosines x

figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
for name in args.attention:
    weights = slay.attend(
        q.view(1, heads, 1, d),
        k.transpose(0, 1).unsqueeze(0),
        torch.eye(n).expand(1, heads, n, n),
        name,
        causal=False,
    )[0, :, 0]  # (H, n)
    (line,) = axes.plot(x, n * weights.mean(0), label=name)
    axes.fill_between(x, *(n * weights).aminmax(dim=0), color=line.get_color(), alpha=0.15)
axes.set(xlabel="cosine of query and key", ylabel="weight / plain average")
axes.legend()
figure.savefig(args.out, dpi=150)
print(args.out)
