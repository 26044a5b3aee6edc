"""Writes tests/golden/sampler.json: token probabilities by Hugging Face transformers' logits processors.

Our steps in our order (biases and bans, penalties, top-k, locally typical, top-p, min-p, temperature), each done by their code but
the frequency and presence penalties, which transformers has not: those are OpenAI's definition, written out. transformers itself
puts the temperature first; one step at a time there is no difference, and the golden file has such cases too. A bias of null is a ban.

    pip install transformers==4.57.3 torch==2.9.1
    python tests/oracles/sampler.py
"""

import json
import pathlib

import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

VOCAB_SIZE = 48
NEUTRAL = dict(temperature=1.0, top_k=0, typical_p=1.0, top_p=1.0, min_p=0.0, repetition_penalty=1.0)
NEUTRAL |= dict(frequency_penalty=0.0, presence_penalty=0.0, biases=[])
SETTINGS = [
    {},
    {"temperature": 0.3},
    {"temperature": 2.5},
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": 100},
    {"top_p": 0.05},
    {"top_p": 0.5},
    {"top_p": 0.95},
    {"min_p": 0.02},
    {"min_p": 0.3},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7},
    {"temperature": 0.7, "top_k": 20, "top_p": 0.9},
    {"temperature": 1.4, "top_k": 30, "top_p": 0.8, "min_p": 0.05, "repetition_penalty": 1.2},
    {"temperature": 0.6, "min_p": 0.1, "repetition_penalty": 1.1},
    {"typical_p": 0.1},
    {"typical_p": 0.5},
    {"typical_p": 0.95},
    {"typical_p": 0.6, "temperature": 0.5, "top_p": 0.9},
    {"typical_p": 0.8, "top_k": 30, "min_p": 0.1, "temperature": 1.7},
    {"frequency_penalty": 0.7},
    {"presence_penalty": 1.1},
    {"frequency_penalty": -0.4, "presence_penalty": 0.3, "repetition_penalty": 1.2, "temperature": 0.9},
    {"biases": [[3, None], [40, 2.5], [7, -1.25], [0, None]]},
    {"biases": [[5, None], [1, 4.0]], "typical_p": 0.7, "frequency_penalty": 0.5, "top_k": 25},
]


class FrequencyAndPresence:
    """OpenAI's penalties: a token that occurred n times loses n * frequency + presence."""

    def __init__(self, frequency, presence):
        self.frequency, self.presence = frequency, presence

    def __call__(self, ids, scores):
        counts = torch.bincount(ids[0], minlength=scores.shape[-1]).to(scores.dtype)
        return scores - counts * self.frequency - (counts > 0) * self.presence


def probabilities(logits, recent, s):
    processors = []
    banned = [token for token, bias in s["biases"] if bias is None]
    biases = {(token,): bias for token, bias in s["biases"] if bias is not None}
    if banned:
        processors.append(SuppressTokensLogitsProcessor(banned))
    if biases:
        processors.append(SequenceBiasLogitsProcessor(biases))
    if s["repetition_penalty"] != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(s["repetition_penalty"]))
    if s["frequency_penalty"] or s["presence_penalty"]:
        processors.append(FrequencyAndPresence(s["frequency_penalty"], s["presence_penalty"]))
    if s["top_k"]:
        processors.append(TopKLogitsWarper(s["top_k"]))
    if s["typical_p"] < 1.0:
        processors.append(TypicalLogitsWarper(s["typical_p"]))
    if s["top_p"] < 1.0:
        processors.append(TopPLogitsWarper(s["top_p"]))
    if s["min_p"] > 0.0:
        processors.append(MinPLogitsWarper(s["min_p"]))
    processors.append(TemperatureLogitsWarper(s["temperature"]))
    scores, ids = logits[None].clone(), torch.tensor([recent])
    for processor in processors:
        scores = processor(ids, scores)
    return torch.softmax(scores[0].double(), dim=-1)


def main():
    generator = torch.Generator().manual_seed(20261122)
    cases = []
    for settings in SETTINGS:
        for scale in (0.8, 3.0):
            logits = torch.randn(VOCAB_SIZE, generator=generator) * scale
            recent = torch.randint(VOCAB_SIZE, (12,), generator=generator).tolist()
            case = NEUTRAL | settings
            case["recent"] = recent
            case["logits"] = [float(f"{x:.9g}") for x in logits.tolist()]
            case["probabilities"] = [float(f"{p:.8g}") for p in probabilities(logits, recent, NEUTRAL | settings).tolist()]
            cases.append(case)
    path = pathlib.Path(__file__).parent.parent / "golden" / "sampler.json"
    lines = ",\n".join(json.dumps(case) for case in cases)
    path.write_text(f"[\n{lines}\n]\n")
    print(f"{len(cases)} cases in {path}")


if __name__ == "__main__":
    main()
