"""Writes what the Python packages make of texts, labels and numbers, for the tests of siskin-metrics.

sacrebleu, rouge-score, nltk, scikit-learn, scipy and numpy score systems of WMT17, which sacrebleu's source
distribution has among its tests, and a thousand random pairs. Runs in the set-up of the tests (`cargo xtask oracles`);
nothing of it is committed.

    pip install --requirement tests/oracles/requirements-metrics.txt
    pip download --no-deps --no-binary :all: sacrebleu==2.6.0
    python tests/oracles/metrics.py sacrebleu-2.6.0.tar.gz FOLDER
"""

import bz2
import json
import logging
import pathlib
import pickle
import random
import string
import sys
import tarfile
import unicodedata

import numpy as np
import regex
from nltk.stem.porter import PorterStemmer
from rouge_score import rouge_scorer, scoring
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest, _bootstrap_resample
from scipy.stats import binomtest
from sklearn import metrics as sklearn_metrics

N_PAIRS = 1000
TOKENIZERS = ["13a", "intl", "char", "zh", "none"]
SMOOTHINGS = [("exp", None), ("none", None), ("floor", None), ("floor", 0.01), ("add-k", None), ("add-k", 0.5)]
SYSTEMS = "sacrebleu-2.6.0/test/wmt17_en_de_systems.pkl.bz2"
WORDS = (
    "the of and to in is it that was for on are with they be at one have this from lights kitchen turn off "
    "set timer blinds temperature heating sensors relationally hopefully organization controlling happiness "
    "ponies skies dying agreed apology Straße Über größer naïve façade ΣΊΣΥΦΟΣ ΟΔΟΣ İstanbul Kelvin \u212a fi ﬁne "
    "مرحبا שלום привет Москва हिन्दी ภาษาไทย 中国人民 東京都 北京大学 한국어 𠀋𠂢 🎉 👩‍👩‍👧 don't it's well-known e-mail 3.14 "
    "1,000,000 10-12 5% $7.50 €9,99 №5 2nd A1 x² ½ Ⅷ ١٢٣ 3-D ..."
).split()
MARKS = list(".,;:!?-'\"()[]{}<>/\\@#$%^&*_+=|~`…—–“”‘’«»。、！？・（")
SPECIAL = ["&quot;", "&amp;", "&lt;", "&gt;", "&amp;lt;", "<skipped>", "-\n", "\n", "\t", "\r\n", "\x00", " - ", " ."]
SPECIAL += ["\u00a0", "\u2003", "\u3000", "\u2028", "\x1c", "\x1f", "\x85", "\u200b", "\u0301", "\ufeff"]
SPECIAL += ["1.", ".5", ",a", "a,", "7-"]



class PlainUnpickler(pickle.Unpickler):
    """Lists, tuples and strings only: nothing in the file can run."""

    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a list of texts")


def systems_of_wmt17(archive):
    with tarfile.open(archive) as files:
        *systems, (_, references) = PlainUnpickler(bz2.open(files.extractfile(SYSTEMS))).load()
    return systems, references[0]


class Texts:
    """Random texts, the same in every run."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        known = unicodedata.ucd_3_2_0.category
        self.characters = [chr(c) for c in range(0x110000) if known(chr(c)) not in ("Cn", "Cs", "Co")]

    def piece(self):
        draw = self.random.random()
        if draw < 0.6:
            word = self.random.choice(WORDS)
            return self.random.choice([word, word, word, word.upper(), word.capitalize()])
        if draw < 0.75:
            return self.random.choice(MARKS)
        if draw < 0.82:
            return self.random.choice(SPECIAL)
        if draw < 0.9:
            return "".join(self.random.choices(string.digits + ".,-", k=self.random.randint(1, 6)))
        return "".join(self.random.choices(self.characters, k=self.random.randint(1, 5)))

    def pieces(self):
        n = self.random.choice([0, 1, 2, 3, 5, 8, 12, 20, 30, 50, 80])
        if self.random.random() < 0.01:
            n = 600
        return [self.piece() for _ in range(n)]

    def join(self, pieces):
        return "".join(piece + self.random.choice([" ", " ", " ", " ", "", "  ", "\n"]) for piece in pieces)

    def changed(self, pieces):
        """Another text that has much of this one: pieces dropped, replaced, added and moved."""
        rate = self.random.choice([0.0, 0.05, 0.2, 0.5, 1.0])
        changed = []
        for piece in pieces:
            draw = self.random.random() / rate if rate else 1.0
            if draw < 0.3:
                continue
            changed += [self.piece()] if draw < 0.8 else [piece, self.piece()] if draw < 1.0 else [piece]
        if self.random.random() < 0.2:
            cut = self.random.randint(0, len(changed))
            changed = changed[cut:] + changed[:cut]
        return changed

    def pair(self):
        pieces = self.pieces()
        references = [self.join(pieces)]
        while self.random.random() < 0.25:
            references.append(self.join(self.changed(pieces)))
        return {"hypothesis": self.join(self.changed(pieces)), "references": references}


def bleu_settings():
    for tokenize in TOKENIZERS:
        for smooth_method, smooth_value in SMOOTHINGS:
            for effective_order in (False, True):
                yield dict(
                    tokenize=tokenize, smooth_method=smooth_method, smooth_value=smooth_value, lowercase=False
                ) | dict(effective_order=effective_order, max_ngram_order=4)
        yield dict(tokenize=tokenize, smooth_method="exp", smooth_value=None, lowercase=True) | dict(
            effective_order=True, max_ngram_order=6
        )
    yield dict(
        tokenize="13a",
        smooth_method="add-k",
        smooth_value=None,
        lowercase=True,
        effective_order=False,
        max_ngram_order=1,
    )


def chrf_settings():
    default = dict(char_order=6, word_order=0, beta=2, lowercase=False, whitespace=False, eps_smoothing=False)
    changes = [
        {},
        {"word_order": 2},
        {"beta": 1},
        {"beta": 3, "word_order": 1},
        {"whitespace": True},
        {"lowercase": True},
    ]
    changes += [
        {"eps_smoothing": True},
        {"eps_smoothing": True, "word_order": 2, "whitespace": True},
        {"char_order": 3},
    ]
    changes += [{"char_order": 0, "word_order": 3}, {"char_order": 8, "lowercase": True}]
    return [default | change for change in changes]


def bleu_parts(score):
    return {
        "score": score.score,
        "counts": [float(count) for count in score.counts],
        "totals": [float(total) for total in score.totals],
        "precisions": score.precisions,
        "bp": score.bp,
        "sys_len": score.sys_len,
        "ref_len": score.ref_len,
        "line": str(score),
    }


class Counted:
    """Segment statistics, which take the time, counted once for metrics that differ only in what they make of them."""

    def __init__(self, hypotheses, references):
        self.hypotheses, self.references = hypotheses, references
        self.counted = {}

    def of(self, metric, key):
        if key not in self.counted:
            statistics = metric._extract_corpus_statistics(self.hypotheses, self.references)
            self.counted[key] = statistics, metric.num_refs
        statistics, metric.num_refs = self.counted[key]
        return [list(row) for row in statistics]


def by_reference(pairs):
    """sacrebleu's order: a list for the first references, one for the second, with None where there is none."""
    most = max(len(pair["references"]) for pair in pairs)
    return [[pair["references"][i] if i < len(pair["references"]) else None for pair in pairs] for i in range(most)]


def score_pairs(pairs):
    counted = Counted([pair["hypothesis"] for pair in pairs], by_reference(pairs))
    bleu = []
    for settings in bleu_settings():
        metric = BLEU(**settings)
        statistics = counted.of(
            metric, ("bleu", settings["tokenize"], settings["lowercase"], settings["max_ngram_order"])
        )
        sentences = [metric._aggregate_and_compute([list(row)]).score for row in statistics]
        corpus = bleu_parts(metric._aggregate_and_compute(statistics))
        bleu.append(
            {"settings": settings, "signature": str(metric.get_signature()), "corpus": corpus, "sentences": sentences}
        )
    chrf = []
    for settings in chrf_settings():
        metric = CHRF(**settings)
        statistics = metric._extract_corpus_statistics(counted.hypotheses, counted.references)
        sentences = [metric._aggregate_and_compute([row]).score for row in statistics]
        corpus = metric._aggregate_and_compute(statistics)
        entry = {
            "settings": settings,
            "signature": str(metric.get_signature()),
            "name": corpus.name,
            "sentences": sentences,
        }
        chrf.append(entry | {"corpus": corpus.score})
    return {"pairs": pairs, "bleu": bleu, "chrf": chrf}


def check_public_functions(pairs, scored):
    """The scores above come from sacrebleu's inner functions; its public ones must give the same."""
    for entry in scored["bleu"][::7]:
        for pair, score in list(zip(pairs, entry["sentences"]))[::50]:
            assert BLEU(**entry["settings"]).sentence_score(pair["hypothesis"], pair["references"]).score == score
    for entry in scored["chrf"]:
        for pair, score in list(zip(pairs, entry["sentences"]))[::50]:
            assert CHRF(**entry["settings"]).sentence_score(pair["hypothesis"], pair["references"]).score == score
    entry = scored["bleu"][0]
    hypotheses = [pair["hypothesis"] for pair in pairs]
    assert BLEU(**entry["settings"]).corpus_score(hypotheses, by_reference(pairs)).score == entry["corpus"]["score"]


def score_wmt17(systems, references):
    scores = []
    for tokenize in TOKENIZERS:
        counting = BLEU(tokenize=tokenize, references=[references])
        for name, hypotheses in systems:
            statistics = counting._extract_corpus_statistics(hypotheses, None)
            for smooth_method, smooth_value in SMOOTHINGS:
                settings = dict(
                    tokenize=tokenize, smooth_method=smooth_method, smooth_value=smooth_value, lowercase=False
                )
                settings |= dict(effective_order=False, max_ngram_order=4)
                metric = BLEU(**settings)
                metric.num_refs = counting.num_refs
                corpus = bleu_parts(metric._aggregate_and_compute(statistics))
                scores.append(
                    {"system": name, "settings": settings, "corpus": corpus, "signature": str(metric.get_signature())}
                )
    systems = [{"name": name, "hypotheses": hypotheses} for name, hypotheses in systems]
    return {"references": references, "systems": systems, "scores": scores}


def resampling(systems, references):
    """Intervals and paired tests from sacrebleu's own draws; `exact` is its definition in whole numbers and doubles."""
    n_samples, seed = 200, 12345
    cases = []
    for metric in (BLEU(references=[references]), CHRF(references=[references])):
        baseline = metric._extract_corpus_statistics(systems[0][1], None)
        for name, hypotheses in systems[1:3]:
            statistics = metric._extract_corpus_statistics(hypotheses, None)
            _, shipped = PairedTest([systems[0], (name, hypotheses)], {"metric": metric}, None, "bs", n_samples)()
            result = next(value for key, value in shipped.items() if key != "System")[1]
            idxs = np.random.default_rng(seed).choice(len(statistics), size=(n_samples, len(statistics)), replace=True)
            sample = lambda rows: [
                metric._compute_score_from_stats(np.array(rows)[idx].sum(0).tolist()).score for idx in idxs
            ]
            of_system, of_baseline = np.array(sample(statistics)), np.array(sample(baseline))
            real = [metric._aggregate_and_compute(rows).score for rows in (statistics, baseline)]
            differences = np.abs(of_system - of_baseline)
            ordered = np.sort(of_system)
            exact = {
                "difference": real[0] - real[1],
                "p_value": (int(np.sum(differences - differences.mean() > abs(real[0] - real[1]))) + 1)
                / (n_samples + 1),
                "mean": float(of_system.mean()),
                "half_width": float(0.5 * (ordered[n_samples - n_samples // 40 - 1] - ordered[n_samples // 40])),
            }
            shipped = {"p_value": result.p_value, "mean": float(result.mean), "half_width": float(result.ci)}
            kind = "BLEU" if isinstance(metric, BLEU) else "chrF"
            cases.append({"metric": kind, "system": name, "exact": exact, "shipped": shipped})
    scores = [metric.score for metric in _bootstrap_resample(baseline, metric, 3)[1]]
    assert len(scores) == 3
    return {"n_samples": n_samples, "seed": seed, "baseline": systems[0][0], "cases": cases}


def score_rouge(pairs):
    types = [f"rouge{n}" for n in range(1, 10)] + ["rougeL", "rougeLsum"]
    parts = lambda score: [float(score.precision), float(score.recall), float(score.fmeasure)]
    result = {"types": types, "pairs": pairs}
    for key, use_stemmer in (("plain", False), ("stemmed", True)):
        scorer = rouge_scorer.RougeScorer(types, use_stemmer=use_stemmer)
        single = [scorer.score(pair["references"][0], pair["hypothesis"]) for pair in pairs]
        several = [scorer.score_multi(pair["references"], pair["hypothesis"]) for pair in pairs]
        result[key] = [[parts(score[kind]) for kind in types] for score in single]
        result[f"{key}_multi"] = [[parts(score[kind]) for kind in types] for score in several]
    result["aggregates"] = []
    for seed, confidence, kind in ((1, 0.95, "rouge1"), (2, 0.5, "rougeL"), (3, 1.0, "rougeLsum")):
        generator = np.random.default_rng(seed)
        original, np.random.choice = np.random.choice, generator.choice
        aggregator = scoring.BootstrapAggregator(confidence_interval=confidence, n_samples=200)
        for row in result["plain"]:
            aggregator.add_scores({kind: scoring.Score(*row[types.index(kind)])})
        aggregate = aggregator.aggregate()[kind]
        np.random.choice = original
        ends = [parts(aggregate.low), parts(aggregate.mid), parts(aggregate.high)]
        result["aggregates"].append(
            {"seed": seed, "confidence": confidence, "type": kind, "n_samples": 200, "ends": ends}
        )
    return result


def stems(texts, references):
    """Words of the systems' language, English-looking ones made of suffixes, and runs of letters."""
    draw = texts.random
    parts = (
        "ational tional enci anci izer bli alli entli eli ousli ization ation ator alism iveness fulness "
        "ousness aliti iviti biliti fulli logi icate ative alize iciti ical ful ness al ance ence er ic able "
        "ible ant ement ment ent ion ou ism ate iti ous ive ize s es ies ed ied eed ing y e ll ss tt at bl iz "
        "sky die news inning proceed hop fall file geo yy a o try fl b"
    ).split()
    words = {word for text in references for word in regex.findall("[a-z0-9]+", text.lower())}
    words |= {"".join(draw.choices(parts, k=draw.randint(1, 4))) for _ in range(20000)}
    words |= {"".join(draw.choices("aeiouybcdlrstxwz1", k=draw.randint(1, 9))) for _ in range(20000)}
    words |= {
        "skies",
        "dying",
        "lying",
        "tying",
        "innings",
        "outing",
        "cannings",
        "howe",
        "exceed",
        "succeed",
        "yyyyyy",
    }
    stemmer = PorterStemmer()
    return [[word, stemmer.stem(word)] for word in sorted(words)]


def unicode_classes():
    """For each class that `intl` asks for, the ranges of characters in it."""
    classes = {}
    for name in "NPS":
        pattern = regex.compile(rf"\p{{{name}}}")
        ranges = []
        for c in range(0x110000):
            if not 0xD800 <= c < 0xE000 and pattern.match(chr(c)):
                if ranges and ranges[-1][1] == c - 1:
                    ranges[-1][1] = c
                else:
                    ranges.append([c, c])
        classes[name] = ranges
    spaces = [c for c in range(0x110000) if chr(c).isspace()]
    return {"classes": classes, "spaces": spaces}


def labels():
    draw = np.random.default_rng(5)
    cases = []
    for n, n_classes in ((1, 2), (7, 3), (50, 4), (300, 12), (40, 40)):
        true, predicted = draw.integers(0, n_classes, n), draw.integers(0, n_classes, n)
        predicted = np.where(draw.random(n) < 0.5, true, predicted)
        for classes in (None, [0, 1, n_classes + 3], [n_classes + 3]):
            for zero_division in (0.0, 1.0, np.nan):
                scores = {}
                for average in ("macro", "micro", "weighted", None):
                    numbers = sklearn_metrics.precision_recall_fscore_support(
                        true, predicted, labels=classes, average=average, zero_division=zero_division
                    )[:3]
                    listed = [np.atleast_1d(part).tolist() for part in numbers]
                    scores[average or "classes"] = [[None if np.isnan(x) else x for x in part] for part in listed]
                shown = {"zero_division": {0.0: "zero", 1.0: "one"}.get(zero_division, "nan"), "classes": classes}
                case = {"true": true.tolist(), "predicted": predicted.tolist(), "scores": scores}
                cases.append(case | shown | {"accuracy": float(sklearn_metrics.accuracy_score(true, predicted))})
    return cases


def calibrations():
    draw = np.random.default_rng(6)
    cases = []
    for n, n_bins in ((1, 1), (5, 10), (1000, 10), (1000, 15), (777, 100)):
        confidences = np.where(draw.random(n) < 0.2, np.round(draw.random(n), 1), draw.random(n))
        right = draw.random(n) < confidences
        ends = np.array([(b + 1) / n_bins for b in range(n_bins)])
        places = np.minimum(np.searchsorted(ends, confidences, side="left"), n_bins - 1)
        distances = [abs(confidences[places == b].mean() - right[places == b].mean()) for b in np.unique(places)]
        weights = [(places == b).mean() for b in np.unique(places)]
        case = {"confidences": confidences.tolist(), "right": right.tolist(), "n_bins": n_bins}
        cases.append(case | {"error": float(np.dot(distances, weights)), "max_error": float(np.max(distances))})
    return cases


def numbers():
    draws = []
    for seed in (0, 1, 12345, 2**32 + 7, 2**64 - 1):
        for n in (2, 3, 7, 1000, 3004, 2**31 + 11):
            draws.append({"seed": seed, "n": n, "drawn": np.random.default_rng(seed).integers(0, n, 50).tolist()})
    values = np.random.default_rng(8).normal(size=101)
    percentiles = [[q, float(np.percentile(values, 100 * q))] for q in (0.0, 0.025, 0.31, 0.5, 0.975, 1.0)]
    generator = np.random.default_rng(9)
    means = [float(np.mean(generator.choice(values, size=len(values)))) for _ in range(500)]
    ends = [float(end) for end in np.percentile(means, [2.5, 97.5])]
    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    mcnemar = []
    for only_first, only_second in ((0, 0), (0, 1), (3, 3), (2, 9), (5, 25), (120, 90), (1300, 1500), (0, 1200)):
        n = only_first + only_second
        p_value = float(binomtest(only_first, n, 0.5).pvalue) if n else 1.0
        mcnemar.append({"only_first": only_first, "only_second": only_second, "p_value": p_value})
    mean = {"values": values.tolist(), "percentiles": percentiles, "seed": 9, "n_samples": 500, "ends": ends}
    mean |= {"mean": float(values.mean()), "standard_error": error}
    return {"draws": draws, "mean": mean, "mcnemar": mcnemar, "labels": labels(), "calibrations": calibrations()}


def main(archive, folder):
    logging.getLogger("sacrebleu").setLevel(logging.ERROR)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)

    def write(name, content):
        (folder / name).write_text(json.dumps(content))

    texts = Texts(seed=20)
    pairs = [texts.pair() for _ in range(N_PAIRS)]
    pairs[0] = {"hypothesis": "", "references": [""]}
    pairs[1] = {"hypothesis": "", "references": ["a reference", ""]}
    pairs[2] = {"hypothesis": "a hypothesis", "references": [""]}
    scored = score_pairs(pairs)
    check_public_functions(pairs, scored)
    write("pairs.json", scored)
    write("rouge.json", score_rouge(pairs))
    systems, references = systems_of_wmt17(archive)
    write("wmt17.json", score_wmt17(systems, references))
    write("resampling.json", resampling(systems, references))
    write("stems.json", stems(texts, references))
    write("unicode.json", unicode_classes())
    write("numbers.json", numbers())


if __name__ == "__main__":
    main(*sys.argv[1:])
