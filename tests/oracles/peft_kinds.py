"""Saves adapters of every kind by PEFT into tests/golden/adapters/kinds, beside a tiny Llama, and records what PEFT computes with them:
the last logits, and the gradient of a loss by each trained tensor.

    python tests/oracles/peft_kinds.py tests/golden/adapters/kinds

With a second folder, checks instead that PEFT loads the adapters that `ORACLE_FOLDER=… cargo test -p siskin-compiler --test peft golden`
has left there, and that they compute the same.

    python tests/oracles/peft_kinds.py tests/golden/adapters/kinds /tmp/written
"""

import json
import pathlib
import shutil
import sys

import torch
from peft import IA3Config, LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, TaskType, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

N_TOKENS = 20
N_RECORDED = 2
VOCAB = 64
TASK = {"task_type": TaskType.CAUSAL_LM}
EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def lora(**fields):
    return LoraConfig(init_lora_weights=False, **TASK, **fields)


CONFIGS = {
    "lora": lora(r=2, lora_alpha=5, target_modules=["q_proj", "v_proj"]),
    "patterns": lora(
        r=3,
        lora_alpha=4,
        use_rslora=True,
        target_modules=r".*\.(q|o|down)_proj",
        rank_pattern={"down_proj": 2, r"layers\.1\.self_attn\.q_proj": 4},
        alpha_pattern={"o_proj": 7},
    ),
    "dora": lora(r=2, lora_alpha=3, use_dora=True, target_modules=EVERY),
    "table": lora(r=2, lora_alpha=4, target_modules=["embed_tokens", "k_proj"]),
    "ia3": IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"], **TASK),
    "prompt": PromptTuningConfig(num_virtual_tokens=3, **TASK),
    "prefix": PrefixTuningConfig(num_virtual_tokens=3, **TASK),
}


def base_model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def new_base(folder):
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.2 if parameter.dim() == 1 else 0.4
            numbers = torch.randn_like(parameter) * spread + (1 if parameter.dim() == 1 else 0)
            parameter.copy_(numbers.to(torch.bfloat16))
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)


def ids():
    return [(7 * idx * idx + 3 * idx + 1) % VOCAB for idx in range(N_TOKENS)]


def own_logits(model):
    return model(input_ids=torch.tensor([ids()])).logits[0][-N_TOKENS:]


def file_name(name):
    if name == "prompt_encoder.default.embedding.weight":
        return "prompt_embeddings"
    return name.replace("lora_magnitude_vector.default.weight", "lora_magnitude_vector").replace(".default", "")


def short(values):
    return [float(f"{value:.6g}") for value in values]


def record(folder, base):
    model = PeftModel.from_pretrained(base_model(base), folder).float().eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(part in name for part in ("lora_", "ia3_", "prompt_encoder")))
    logits = own_logits(model)
    loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids()[1:]))
    loss.backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return {
        "name": folder.name,
        "logits": [short(row) for row in logits[-N_RECORDED:].tolist()],
        "loss": float(f"{loss.item():.7g}"),
        "gradients": {file_name(name): short(p.grad.flatten().tolist()) for name, p in trained.items()},
    }


def main(golden):
    golden = pathlib.Path(golden)
    shutil.rmtree(golden, ignore_errors=True)
    golden.mkdir(parents=True)
    base = golden / "base"
    new_base(base)
    kinds = []
    for seed, (name, config) in enumerate(CONFIGS.items()):
        torch.manual_seed(seed)
        model = get_peft_model(base_model(base), config)
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    centre = parameter if "magnitude" in parameter_name else 1 if "ia3" in parameter_name else 0
                    numbers = centre + torch.randn_like(parameter) * 0.3
                    parameter.copy_(numbers.to(torch.bfloat16))
        folder = golden / name
        model.save_pretrained(folder)
        (folder / "README.md").unlink()
        (folder / "adapter_model.safetensors").chmod(0o644)
        # Nothing of the machine, and sets in one order.
        fields = json.loads((folder / "adapter_config.json").read_text())
        fields["base_model_name_or_path"] = "base"
        for key in ("target_modules", "feedforward_modules"):
            if isinstance(fields.get(key), list):
                fields[key].sort()
        (folder / "adapter_config.json").write_text(json.dumps(fields, indent=2) + "\n")
        kinds.append(record(folder, base))
        plain = own_logits(base_model(base))[-N_RECORDED:]
        print(name, "changes logits by up to", (torch.tensor(kinds[-1]["logits"]) - plain).abs().max().item())
    text = json.dumps({"ids": ids(), "kinds": kinds}, separators=(",", ":"))
    (golden / "computed.json").write_text(text + "\n")


def check(golden, written):
    golden, written = pathlib.Path(golden), pathlib.Path(written)
    computed = json.loads((golden / "computed.json").read_text())
    assert len(computed["kinds"]) == len(CONFIGS)
    for kind in computed["kinds"]:
        got = record(written / kind["name"], golden / "base")
        off = (torch.tensor(got["logits"]) - torch.tensor(kind["logits"])).abs().max().item()
        print(kind["name"], "written by Siskin, loaded by PEFT: logits off by", off)
        assert off < 1e-5, kind["name"]


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) == 2 else check(*sys.argv[1:])
