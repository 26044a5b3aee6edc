"""Records ids of Hugging Face's WordPiece tokenizers as tests/golden/word_piece.json.

    python tests/oracles/word_piece.py tests/golden/word_piece.json

Needs requirements-import.txt. The vocabulary is made of the texts themselves, so that it spells words of many scripts in pieces;
then the same texts, and what is made of them, are encoded with each setting of the normaliser.
"""

import json
import random
import sys

from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

TEXTS = [
    "The siskin is a small finch of the forest; siskins sing, sang, and have sung.",
    "HTTPServer snake_case don't we'VE 3.14159 1,000 #tags @you e-mail a/b (c) [d] {e}",
    "Ein Zeisig fliegt über den Wald. Größe, Straße, STRASSE, ẞ.",
    "Le serin cini chante à l'aube; naïve façade, garçon, œuvre, ÉCOLE.",
    "Žluťoučký kůň úpěl ďábelské ódy. Příliš ŽLUŤOUČKÝ.",
    "Tiếng Việt có nhiều dấu: ắ ằ ẳ ẵ ặ ề ể ễ.",
    "İstanbul'da ılık bir IŞIK; İ i I ı.",
    "Быстрая лиса и ЁЖ; ёжик, йод.",
    "Ο ΣΊΣΥΦΟΣ ανεβαίνει· ἄνθρωπος; ΐ ΰ.",
    "שָׁלוֹם עֲלֵיכֶם, مَرْحَبًا بِالْعَالَمِ؟",
    "नमस्ते दुनिया। कि की क़ ড় สวัสดีชาวโลก",
    "你好，世界。東京タワー 𠀀𠮷 豈更 ㄱ 〇々",
    "マヒワが歌う。ガギグ ｶﾞ ぱぴぷ",
    "안녕하세요 세계. 각 힣 ㅎ",
    "e\u0301 a\u0328\u0301 o\u0301\u0328 \u1e9b\u0323 \u212b\u2126\u212a \u0344 \ufb01 \u2460\u00bd\u00b2",
    "a\u00adb a\u200bb a\u200db a\ufeffb a\u0000b a\ufffdb a\u007fb a\u0085b a\u00a0b a\u2003b a\u3000b a\u2028b\tc\r\nd",
    "\u00a1hola! \u00bfqu\u00e9? \u00ab\u00bb \u2018\u2019\u201c\u201d \u2026 \u2014 \u00a7 \u20ac $ + < = > ^ ` | ~ \u00b4 \u00a8 \u1fef \u037e",
    "\U0001f426\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001d400\U0001d54f \ue000 \U000e0041 \U0010fffd \U00050000 \u0378",
    "x" * 99 + " " + "y" * 100 + " " + "z" * 101 + " a",
    "",
    " ",
    "[CLS] a [MASK] b [SEP] [mask] [PAD] [UNK] x[MASK]y [CLS",
]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SETTINGS = [
    {"lowercase": True},
    {"lowercase": False},
    {"lowercase": True, "strip_accents": False},
    {"lowercase": False, "strip_accents": True, "handle_chinese_chars": False},
    {"lowercase": True, "clean_text": False},
]


def made_of(texts):
    """The texts, and others made of pieces of them."""
    draw = random.Random(7)
    pieces = [text[at : at + draw.randint(1, 9)] for text in texts for at in range(0, len(text), 7)]
    return texts + ["".join(draw.choices(pieces, k=draw.randint(2, 12))) for _ in range(120)]


def vocabulary(normalizer, cut):
    """Characters, beginnings and ends of words; a few are left out, so that some words are unknown."""
    pieces = set()
    for text in TEXTS[:-1]:
        for word, _ in cut.pre_tokenize_str(normalizer.normalize_str(text)):
            pieces.update([word[0], word[:2], word[:4], *("##" + c for c in word[1:]), "##" + word[-3:], "##" + word[1:3]])
    pieces = sorted(piece for piece in pieces if len(piece.removeprefix("##")) > 0)
    return {piece: idx for idx, piece in enumerate(SPECIALS + [p for idx, p in enumerate(pieces) if idx % 13 != 5])}


def tokenizer_of(setting):
    normalizer, cut = normalizers.BertNormalizer(**setting), pre_tokenizers.BertPreTokenizer()
    tokenizer = Tokenizer(WordPiece(vocabulary(normalizer, cut), unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, cut
    tokenizer.add_special_tokens(SPECIALS)
    frame = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", frame)
    return tokenizer


def main(golden):
    texts, record = made_of(TEXTS), []
    for setting in SETTINGS:
        tokenizer = tokenizer_of(setting)
        ids = [tokenizer.encode(text).ids for text in texts]
        unknown = sum(row.count(1) for row in ids)
        print(setting, tokenizer.get_vocab_size(), sum(map(len, ids)), unknown)
        record.append({"tokenizer": json.loads(tokenizer.to_str()), "ids": ids})
    with open(golden, "w") as file:
        json.dump({"texts": texts, "tokenizers": record}, file, separators=(",", ":"), ensure_ascii=True)
        file.write("\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
