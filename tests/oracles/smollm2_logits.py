"""Records logits of SmolLM2-135M-Instruct, dequantised to float32 by transformers, as tests/golden/smollm2_logits.json.

    python tests/oracles/smollm2_logits.py .cache/data/smollm2/smollm2-135m-instruct-q4_1.gguf \
        .cache/data/tiny-shakespeare/input.txt tests/golden/smollm2_logits.json

Needs requirements-import.txt and about 3 GB of memory.
"""

import json
import math
import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = [
    "The capital of France is",
    "<|im_start|>user\nWhat is the tallest mountain on Earth?<|im_end|>\n<|im_start|>assistant\n",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "Über den Wolken muß die Freiheit wohl grenzenlos sein. 自由 — 1234567890",
]
N_SAMPLED = 64
N_TOKENS_PERPLEXITY = 1536


def position_record(logits, position):
    row = logits[position]
    top = torch.topk(row, 10)
    stride = row.numel() // N_SAMPLED
    return {
        "position": position,
        "top_ids": top.indices.tolist(),
        "top_logits": [round(value, 5) for value in top.values.tolist()],
        "sampled_stride": stride,
        "sampled_logits": [round(value, 5) for value in row[::stride][:N_SAMPLED].tolist()],
    }


def mean_nats(model, ids):
    logits = model(torch.tensor([ids])).logits[0].double()
    return -logits[:-1].log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None]).mean().item()


@torch.no_grad()
def main(gguf, text, golden):
    torch.set_num_threads(2)
    gguf = pathlib.Path(gguf)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    model.eval()
    text = pathlib.Path(text).read_text()
    # A window deep into the rotary tables, its positions recorded sparsely.
    long_ids = tokenizer(text[200_000:204_000])["input_ids"][:800]
    prompts = []
    for ids, positions in [(tokenizer(prompt)["input_ids"], None) for prompt in PROMPTS] + [(long_ids, [255, 511, 799])]:
        logits = model(torch.tensor([ids])).logits[0]
        positions = positions or sorted({0, len(ids) // 2, len(ids) - 1})
        prompts.append({"ids": ids, "rows": [position_record(logits, position) for position in positions]})
    ids = tokenizer(text)["input_ids"][:N_TOKENS_PERPLEXITY]
    nats = mean_nats(model, ids)
    record = {"prompts": prompts, "perplexity": {"ids": ids, "mean_nats": nats, "perplexity": math.exp(nats)}}
    pathlib.Path(golden).write_text(json.dumps(record, separators=(",", ":")) + "\n")
    print(f"perplexity of the first {len(ids)} tokens: {math.exp(nats):.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
