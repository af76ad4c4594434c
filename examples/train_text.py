"""A small decoder-only transformer, trained on the bytes of a text. Plain PyTorch; what hpcore adds
is marked with (*).

hpcore data build text.hpd my_texts/ --pattern "*.py"
hpcore run --nproc 4 --standbys 1 examples/train_text.py text.hpd
"""

import argparse

import torch
import torch.nn.functional as F
from torch import nn

import hpcore


class Attention(nn.Module):
    """Causal self-attention with several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, width = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(n, t, width))


class Block(nn.Module):
    """One layer: attention, then two linear maps; both added to what came in."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class Transformer(nn.Module):
    """Predicts each next byte from those before it."""

    def __init__(self, width: int, layers: int, context: int, dropout: float) -> None:
        super().__init__()
        self.token = nn.Embedding(256, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.Sequential(
            *(Block(width, width // 32, dropout) for _ in range(layers)), nn.LayerNorm(width)
        )
        self.head = nn.Linear(width, 256, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Mean cross entropy of samples of shape (n, context + 1)."""
        seen, wanted = tokens[:, :-1], tokens[:, 1:]
        x = self.token(seen) + self.position(torch.arange(seen.shape[1]))
        return F.cross_entropy(self.head(self.blocks(x)).flatten(0, 1), wanted.flatten())


def main() -> None:
    """Trains; rank 0 prints a line a step."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", help="a .hpd file: hpcore data build")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--global-batch", type=int, default=64)
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--exact", action="store_true", help="same bits at any number of ranks")
    parser.add_argument("--ledger", action="store_true", help="record every sample used")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    job = hpcore.Job(  # (*)
        args.global_batch, args.micro_batch, args.seed, ledger=args.ledger, exact=args.exact
    )
    model = Transformer(args.width, args.layers, args.context, args.dropout)
    job.replicate(model)  # (*) state that every rank holds alike
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    job.track(model=model, optimizer=optimizer, schedule=schedule)  # (*) what a newcomer receives
    data = hpcore.MappedDataset(args.data, sequence=args.context)

    for step in job.steps(data, total=args.steps):  # (*)
        with step:  # (*) happens exactly once, or not at all
            losses = []
            for batch in step.micro_batches():
                loss = model(batch.data) * step.weight(batch)
                loss.backward()
                losses.append(loss.item())
            sums = step.commit(optimizer, loss=losses)  # (*) sum over ranks, agree, apply
            schedule.step()
        if job.rank == 0 and not (job.rehearsing or step.discarded):
            print(
                f"step {step.index:4}  loss {sums['loss']:.4f}  ranks {job.world_size}", flush=True
            )


if __name__ == "__main__":
    main()
