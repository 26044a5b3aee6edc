"""Trains nothing: saves random adapters by PEFT into tests/golden/adapters, and records the logits that PEFT computes with them.

    ORACLE_FOLDER=/tmp/base cargo test -p siskin-compiler --test adapters peft   # fails where the hash is new
    python tests/oracles/peft_adapters.py /tmp/base tests/golden/adapters
"""

import hashlib
import json
import pathlib
import shutil
import sys

import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, TaskType, get_peft_model
from transformers import AutoModelForCausalLM

N_TOKENS = 40
N_RECORDED = 3
EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def lora(**fields):
    return LoraConfig(task_type=TaskType.CAUSAL_LM, init_lora_weights=False, **fields)


CONFIGS = {
    "poet": lora(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]),
    "legal": lora(r=6, lora_alpha=12, use_rslora=True, rank_pattern={"down_proj": 3}, target_modules=EVERY),
    "soft": PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=6),
}


def base_model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def main(base, golden):
    golden = pathlib.Path(golden)
    ids = [(7 * idx * idx + 3 * idx + 1) % 512 for idx in range(N_TOKENS)]
    content = (pathlib.Path(base) / "config.json").read_bytes() + (pathlib.Path(base) / "model.safetensors").read_bytes()
    record = {"sha256": hashlib.sha256(content).hexdigest(), "ids": ids, "adapters": []}
    for seed, (name, config) in enumerate(CONFIGS.items()):
        torch.manual_seed(seed)
        model = get_peft_model(base_model(base), config)
        for parameter_name, parameter in model.named_parameters():
            if parameter.requires_grad:
                spread = 0.5 if name == "soft" else 0.06 if "lora_B" in parameter_name else 0.2
                parameter.copy_(torch.randn_like(parameter) * spread)
                parameter.data = parameter.data.to(torch.bfloat16)
        folder = golden / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        (folder / "README.md").unlink()
        (folder / "adapter_model.safetensors").chmod(0o644)
        # Nothing of the machine, and sets in one order.
        fields = json.loads((folder / "adapter_config.json").read_text())
        fields["base_model_name_or_path"] = "base"
        if "target_modules" in fields:
            fields["target_modules"].sort()
        (folder / "adapter_config.json").write_text(json.dumps(fields, indent=2) + "\n")
        loaded = PeftModel.from_pretrained(base_model(base), folder).float().eval()
        logits = loaded(input_ids=torch.tensor([ids])).logits[0]
        plain = base_model(base)(torch.tensor([ids])).logits[0]
        print(name, "changes logits by up to", (logits[-N_TOKENS:] - plain).abs().max().item())
        rows = [[round(value, 6) for value in row] for row in logits[-N_RECORDED:].tolist()]
        record["adapters"].append({"name": name, "logits": rows})
    (golden / "logits.json").write_text(json.dumps(record, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
