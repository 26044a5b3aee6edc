"""Seconds that the Python packages take for the pairs of a file, beside ours: `cargo xtask bench metrics`.

    python score.py PAIRS.jsonl

A line of the file is ["hypothesis", "reference"]. Each package is used as its documentation shows. The answer is one JSON object by
name of the measurement: seconds of the clock, seconds of the processor, and the score.
"""

import json
import logging
import sys
import time

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF


def main(path):
    logging.getLogger("sacrebleu").setLevel(logging.ERROR)
    with open(path) as lines:
        pairs = [json.loads(line) for line in lines]
    hypotheses = [hypothesis for hypothesis, _ in pairs]
    references = [[reference for _, reference in pairs]]
    answer = {}

    def measure(name, score):
        started, cpu_started = time.perf_counter(), time.process_time()
        value = score()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
        answer[name] = {"seconds": seconds, "cpu_seconds": cpu_seconds, "score": value}

    def sentences():
        bleu = BLEU(effective_order=True)
        return sum(bleu.sentence_score(hypothesis, [reference]).score for hypothesis, reference in pairs) / len(pairs)

    def rouge(use_stemmer):
        scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=use_stemmer)
        scores = (scorer.score(reference, hypothesis) for hypothesis, reference in pairs)
        return sum(sum(score.fmeasure for score in of_pair.values()) for of_pair in scores) / len(pairs)

    measure("BLEU, corpus", lambda: BLEU().corpus_score(hypotheses, references).score)
    measure("BLEU, sentences", sentences)
    measure("chrF, corpus", lambda: CHRF().corpus_score(hypotheses, references).score)
    measure("chrF++, corpus", lambda: CHRF(word_order=2).corpus_score(hypotheses, references).score)
    measure("ROUGE-1, 2, L, Lsum", lambda: rouge(False))
    measure("ROUGE-1, 2, L, Lsum, stemmed", lambda: rouge(True))
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
