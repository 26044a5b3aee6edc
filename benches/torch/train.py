"""PyTorch's side of `cargo xtask bench train`: the same Llama, its loss, its gradients and fused AdamW, in float32.

    python train.py llama DIM HIDDEN LAYERS HEADS KV_HEADS VOCAB BATCH CONTEXT eager|compile fused|plain

then the protocol of benches/README.md; RAYON_NUM_THREADS says how many threads. Attention is torch's own
(scaled_dot_product_attention), or plain: products and a softmax, which the compiler fuses with what is around them.
"""

import os
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

WARM_UP = 2
DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCAB, BATCH, CONTEXT = map(int, sys.argv[2:10])
MODE, ATTENTION = sys.argv[10:12]
HEAD_DIM = DIM // HEADS


def rotate(x, cos, sin):
    """Turns the pairs of neighbours of each head, (batch, context, heads, head_dim)."""
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        linear = lambda inputs, outputs: nn.Linear(inputs, outputs, bias=False)
        self.attention_norm, self.feed_forward_norm = nn.RMSNorm(DIM, 1e-5), nn.RMSNorm(DIM, 1e-5)
        self.query, self.output = linear(DIM, DIM), linear(DIM, DIM)
        self.key, self.value = linear(DIM, KV_HEADS * HEAD_DIM), linear(DIM, KV_HEADS * HEAD_DIM)
        self.gate, self.up, self.down = linear(DIM, HIDDEN), linear(DIM, HIDDEN), linear(HIDDEN, DIM)

    def forward(self, stream, cos, sin, mask):
        x = self.attention_norm(stream)
        heads = lambda linear: linear(x).unflatten(-1, (-1, HEAD_DIM))
        query, key, value = rotate(heads(self.query), cos, sin), rotate(heads(self.key), cos, sin), heads(self.value)
        if KV_HEADS != HEADS:
            key, value = (each.repeat_interleave(HEADS // KV_HEADS, 2) for each in (key, value))
        query, key, value = (each.transpose(1, 2) for each in (query, key, value))
        if ATTENTION == "fused":
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            scores = query @ key.transpose(2, 3) * HEAD_DIM**-0.5 + mask
            mixed = torch.softmax(scores, -1) @ value
        stream = stream + self.output(mixed.transpose(1, 2).flatten(2))
        x = self.feed_forward_norm(stream)
        return stream + self.down(F.silu(self.gate(x)) * self.up(x))


class Llama(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, DIM)
        nn.init.normal_(self.embedding.weight, 0, 0.02)
        self.layers, self.norm = nn.ModuleList(Layer() for _ in range(LAYERS)), nn.RMSNorm(DIM, 1e-5)
        frequencies = 10_000.0 ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        angles = torch.outer(torch.arange(CONTEXT), frequencies)[None, :, None, :]
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        self.register_buffer("mask", torch.full((CONTEXT, CONTEXT), float("-inf")).triu(1))

    def forward(self, inputs, targets):
        stream = self.embedding(inputs)
        for layer in self.layers:
            stream = layer(stream, self.cos, self.sin, self.mask)
        logits = F.linear(self.norm(stream), self.embedding.weight)
        return F.cross_entropy(logits.view(-1, VOCAB), targets.view(-1))


def main():
    torch.set_num_threads(int(os.environ["RAYON_NUM_THREADS"]))
    torch.manual_seed(1)
    model = Llama()
    loss_of = torch.compile(model) if MODE == "compile" else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    tokens = torch.randint(0, VOCAB, (BATCH, CONTEXT + 1))
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def step():
        loss = loss_of(inputs, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(WARM_UP):
        step()
    print("ready", sum(parameter.numel() for parameter in model.parameters()), flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            loss = step()
            seconds.append(time.perf_counter() - start)
        print(loss.item(), *seconds, flush=True)


if __name__ == "__main__":
    main()
