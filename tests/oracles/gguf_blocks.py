"""Records how the gguf package dequantises random blocks of every readable type, as tests/golden/gguf_blocks.json.

    python tests/oracles/gguf_blocks.py tests/golden/gguf_blocks.json
"""

import json
import pathlib
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

# Bytes at which a block's half-precision scales and minima stand.
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}


def random_blocks(rng, kind, n_blocks):
    _, n_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    if kind == "F32":
        return rng.standard_normal(n_blocks).astype(np.float32).view(np.uint8)
    if kind == "F16":
        return rng.standard_normal(n_blocks).astype(np.float16).view(np.uint8)
    if kind == "BF16":
        return (rng.standard_normal(n_blocks).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    blocks = rng.integers(0, 256, (n_blocks, n_bytes), dtype=np.uint8)
    for start in HALVES[kind]:
        scales = (rng.standard_normal(n_blocks) * 0.05).astype(np.float16)
        blocks[:, start : start + 2] = scales.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(-1)


def main(golden):
    rng = np.random.default_rng(20261122)
    record = []
    for kind, n_blocks in [("F32", 8), ("F16", 8), ("BF16", 8), *((kind, 3) for kind in list(HALVES)[:5]),
                           *((kind, 1) for kind in list(HALVES)[5:])]:
        blocks = random_blocks(rng, kind, n_blocks)
        floats = dequantize(blocks, GGMLQuantizationType[kind]).reshape(-1).astype("<f4")
        type_id = int(GGMLQuantizationType[kind])
        record.append({"name": kind, "type_id": type_id, "bytes": blocks.tobytes().hex(), "floats": floats.tobytes().hex()})
    lines = ",\n".join(json.dumps(entry) for entry in record)
    pathlib.Path(golden).write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
