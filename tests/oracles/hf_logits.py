"""Records the logits that transformers computes from folders of ours, as tests/golden/hf_logits.json.

    ORACLE_FOLDER=/tmp/folders cargo test -p siskin-compiler --test hf_oracle -- --ignored
    python tests/oracles/hf_logits.py /tmp/folders tests/golden/hf_logits.json
"""

import hashlib
import json
import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM

NAMES = ["grouped-untied-llama3", "tied-plain", "one-key-head-linear"]
# Beyond the original context of the scaled models, so that the scaling shows.
N_TOKENS = 40
N_RECORDED = 12


@torch.no_grad()
def main(folders, golden):
    record = []
    for name in NAMES:
        folder = pathlib.Path(folders) / name
        model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
        assert not any(info.values()), info
        ids = [(7 * idx * idx + 3 * idx + 1) % 48 for idx in range(N_TOKENS)]
        logits = model.eval()(torch.tensor([ids])).logits[0]
        content = (folder / "config.json").read_bytes() + (folder / "model.safetensors").read_bytes()
        record.append({
            "name": name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "ids": ids,
            "first_position": N_TOKENS - N_RECORDED,
            "logits": [[round(value, 6) for value in row] for row in logits[-N_RECORDED:].tolist()],
        })
    pathlib.Path(golden).write_text(json.dumps(record, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
