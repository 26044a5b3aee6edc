"""Records hidden states of all-MiniLM-L6-v2 in transformers as tests/golden/minilm.json.

    python tests/oracles/minilm.py .cache/data/minilm tests/golden/minilm.json

Needs requirements-import.txt. The tokens are those of the model's own tokenizer.
"""

import json
import sys

import torch
from tokenizers import Tokenizer
from transformers import BertModel

TEXTS = [
    "The siskin is a small finch of the forest.",
    "x",
    "Ein Zeisig fliegt über den Wald; 3.14159 & 2.71828!",
    "Language models on microcontrollers must fit in the memory that there is, and not in the one they wish for. " * 11,
]


@torch.no_grad()
def main(folder, golden):
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    model = BertModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    record = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        states = model(torch.tensor([ids])).last_hidden_state[0]
        positions = sorted({0, len(ids) // 2, len(ids) - 1})
        rows = [{"position": at, "state": [float(f"{x:.6g}") for x in states[at].tolist()]} for at in positions]
        record.append({"ids": ids, "rows": rows})
        print(len(ids), states.abs().max().item())
    with open(golden, "w") as file:
        json.dump(record, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
