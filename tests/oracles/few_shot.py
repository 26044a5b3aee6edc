"""Has transformers answer the prompts of `siskin eval --questions ... -o DIR`, token for token the same, and compares the scores.

    pip install -r tests/oracles/requirements-import.txt
    python tests/oracles/few_shot.py .cache/data/smollm2/smollm2-135m-instruct-q4_1.gguf DIR 24

The GGUF is dequantised to float32; DIR's model is the same one, packed. The last argument is --max-new-tokens. An answer ends at the
model's end token, or before the --stop that is given as a fourth argument. Scores are exact match, which lines of answers.jsonl that were graded by
exact_match have.
"""

import json
import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


@torch.no_grad()
def main(gguf, folder, max_new_tokens, stop=None):
    torch.set_num_threads(2)
    gguf = pathlib.Path(gguf)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).eval()
    lines = [json.loads(line) for line in (pathlib.Path(folder) / "answers.jsonl").read_text().splitlines()]
    ours, theirs, same = 0.0, 0.0, 0
    for line in lines:
        ids = torch.tensor([line["prompt_tokens"]])
        end = tokenizer.eos_token_id
        said = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=int(max_new_tokens), do_sample=False, pad_token_id=end, eos_token_id=end)
        text = tokenizer.decode(said[0, ids.shape[1] :], skip_special_tokens=True)
        text = text.split(stop)[0] if stop else text
        ours += line["score"]
        theirs += text.strip() == line["expected"].strip()
        same += text == line["answered"]
    n = len(lines)
    print(f"{n} questions: siskin {100 * ours / n:.1f}%, transformers {100 * theirs / n:.1f}%, {100 * same / n:.1f}% of the answers the same")
    if abs(ours - theirs) > 0.01 * n:
        raise SystemExit("the scores are more than a point apart")


if __name__ == "__main__":
    main(*sys.argv[1:])
