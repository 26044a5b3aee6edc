"""Writes tests/golden/beams.json: what Hugging Face transformers' beam search finds with tiny models.

    pip install transformers==4.57.3 torch==2.9.1
    python tests/oracles/beams.py

A T5 and a Llama of random weights. Their logits are stretched, moved towards the end token, and rounded to 1/1024, so that the golden file
holds them as integers: for each text that any search looked at, what the model says of the next token. None is there twice, since torch.topk
orders equals as it likes. A search with the same logits must find the same text.
"""

import itertools
import json
import pathlib

import torch
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

VOCAB_SIZE, END, UNIT = 24, 1, 1024
# How far logits are stretched, and what is added to that of the end token.
SIZES = dict(t5=(3.0, 3.0), llama=(5.0, 1.5))


def build(name):
    torch.manual_seed(20261126)
    sizes = dict(vocab_size=VOCAB_SIZE, eos_token_id=END, pad_token_id=0)
    if name == "t5":
        config = T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0, **sizes)
        return T5ForConditionalGeneration(config).eval()
    config = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, **sizes)
    return LlamaForCausalLM(config).eval()


def distinct(row):
    """The same numbers, but that one which an earlier token has is one higher, or as much as it takes."""
    kept = []
    for number in row:
        while number in kept:
            number += 1
        kept.append(number)
    return kept


def record(model, name, n_prompt, predictions):
    """Replaces the model's logits by those that are kept, and keeps them by the text that they follow."""
    plain = model.forward
    stretch, towards_end = SIZES[name]

    def forward(*args, **kwargs):
        out = plain(*args, **kwargs)
        texts = kwargs["decoder_input_ids" if name == "t5" else "input_ids"][:, n_prompt:].tolist()
        last = out.logits[:, -1] - out.logits[:, -1].mean(dim=-1, keepdim=True)
        last = last / last.std(dim=-1, keepdim=True) * stretch / 6
        last[:, END] += towards_end
        units = torch.round(last * UNIT)
        for text, row in zip(texts, units.to(torch.int32).tolist()):
            # Rows of a batch differ in their last bits: the first that was seen counts for all.
            predictions.setdefault(tuple(text), distinct(row))
        kept = torch.tensor([predictions[tuple(text)] for text in texts], dtype=torch.float32) / UNIT
        out.logits = torch.cat([out.logits[:, :-1], kept[:, None]], dim=1)
        return out

    model.forward = forward


def searches(model, inputs):
    penalties, stops = (-1.0, 0.0, 0.6, 1.0, 2.0), (False, True, "never")
    for n_beams, penalty, stop in itertools.product((1, 2, 3, 5), penalties, stops):
        if n_beams == 1 and (penalty, stop) != (1.0, False):
            continue  # plain greedy search, which knows neither
        for max_new_tokens in (5, 9):
            ranking = dict(length_penalty=penalty, early_stopping=stop) if n_beams > 1 else {}
            found = model.generate(
                inputs, num_beams=n_beams, do_sample=False, max_new_tokens=max_new_tokens, use_cache=False,
                return_dict_in_generate=True, output_scores=True, **ranking,
            )
            n_prompt = 1 if model.config.is_encoder_decoder else inputs.shape[1]
            tokens = found.sequences[0, n_prompt:].tolist()
            yield {
                "n_beams": n_beams,
                "length_penalty": penalty,
                "early_stopping": {False: "likely", True: "full", "never": "never"}[stop],
                "max_new_tokens": max_new_tokens,
                "tokens": tokens,
                "score": None if n_beams == 1 else float(f"{found.sequences_scores[0].item():.9g}"),
            }


def main():
    models = []
    for name in SIZES:
        model, predictions = build(name), {}
        inputs = torch.tensor([[5, 9, 2, 17, 3]])
        record(model, name, 1 if name == "t5" else inputs.shape[1], predictions)
        with torch.no_grad():
            found = list(searches(model, inputs))
        lengths = {len(search["tokens"]) for search in found}
        print(name, len(predictions), "texts,", len({tuple(s["tokens"]) for s in found}), "found, lengths", lengths)
        lines = [json.dumps({"after": text, "logits": row}, separators=(",", ":")) for text, row in predictions.items()]
        models.append((name, lines, [json.dumps(search, separators=(",", ":")) for search in found]))
    blocks = [
        '{"name":"%s","end":%d,"unit":%d,"predictions":[\n%s\n],"searches":[\n%s\n]}'
        % (name, END, UNIT, ",\n".join(predictions), ",\n".join(found))
        for name, predictions, found in models
    ]
    path = pathlib.Path(__file__).parent.parent / "golden" / "beams.json"
    path.write_text("[\n" + ",\n".join(blocks) + "\n]\n")
    print(path.stat().st_size, "bytes in", path)


if __name__ == "__main__":
    main()
