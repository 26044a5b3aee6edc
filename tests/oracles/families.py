"""Records logits and ten AdamW losses of small models of every family, as tests/golden/families.json.

    ORACLE_FOLDER=/tmp/folders cargo test -p siskin-compiler --test families -- --ignored
    python tests/oracles/families.py /tmp/folders tests/golden/families.json

Needs requirements-import.txt. Recurrent models, which transformers has no class for, are built of torch.nn.GRU.
"""

import hashlib
import json
import pathlib
import sys

import torch
import transformers
from safetensors.torch import load_file
from torch import nn


class Recurrent(nn.Module):
    def __init__(self, folder, config):
        super().__init__()
        a = config["architecture"]
        self.embedding = nn.Embedding(a["vocab_size"], a["embedding_dim"])
        stack = lambda n: nn.GRU(a["embedding_dim"], a["dim"], n, batch_first=True) if n else None
        self.encoder, self.decoder = stack(a["n_encoder_layers"]), stack(a["n_decoder_layers"])
        self.head = nn.Linear(a["dim"], a["vocab_size"], bias=False)
        weights = load_file(folder / "model.safetensors")
        if a["tied_head"]:
            self.head.weight = self.embedding.weight
            weights["head.weight"] = weights["embedding.weight"]
        self.load_state_dict(weights)

    def forward(self, inputs, decoder_inputs):
        if self.encoder is None:
            return self.head(self.decoder(self.embedding(inputs))[0])
        _, states = self.encoder(self.embedding(inputs))
        return self.head(self.decoder(self.embedding(decoder_inputs), states)[0])


def load(folder):
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] == "siskin-gru":
        return Recurrent(folder, config)
    cls = getattr(transformers, config["architectures"][0])
    model, info = cls.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values()), info
    for embedding in (m for m in model.modules() if isinstance(m, nn.Embedding)):
        embedding.padding_idx = None  # the examples use every token as text
    return model


def logits(model, example):
    inputs = torch.tensor([example["inputs"]])
    if isinstance(model, Recurrent):
        return model(inputs, torch.tensor([example["decoder_inputs"]], dtype=torch.long))[0]
    if example["decoder_inputs"]:
        return model(input_ids=inputs, decoder_input_ids=torch.tensor([example["decoder_inputs"]])).logits[0]
    return model(input_ids=inputs).logits[0]


def loss(model, examples):
    total, n_targets = 0, 0
    for example in examples:
        targets = torch.tensor(example["targets"])
        found = logits(model, example).reshape(len(targets), -1)
        total = total + nn.functional.cross_entropy(found, targets, ignore_index=-100, reduction="sum")
        n_targets += int((targets != -100).sum())
    return total / n_targets


def main(folders, golden):
    record = []
    for name in json.loads((pathlib.Path(folders) / "names.json").read_text()):
        folder = pathlib.Path(folders) / name
        examples = json.loads((folder / "examples.json").read_text())
        model = load(folder).train()
        content = (folder / "config.json").read_bytes() + (folder / "model.safetensors").read_bytes()
        with torch.no_grad():
            last = logits(model, examples[-1]).reshape(len(examples[-1]["targets"]), -1)
        trained = [p for p in model.parameters() if p.requires_grad]
        groups = [{"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.1},
                  {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.99), eps=1e-8)
        losses = []
        for _ in range(10):
            optimizer.zero_grad()
            step = loss(model, examples)
            step.backward()
            optimizer.step()
            losses.append(step.item())
        record.append({
            "name": name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "logits": [[float(f"{x:.7g}") for x in row] for row in last.tolist()],
            "losses": losses,
        })
        print(name, losses[0], losses[-1])
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in record)
    pathlib.Path(golden).write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
