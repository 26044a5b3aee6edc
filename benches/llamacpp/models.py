"""A Llama of any shape with random weights as GGUF, for llama-bench: `models.py OUT TYPE DIM HIDDEN LAYERS HEADS KV_HEADS VOCAB CONTEXT`.

TYPE is Q8_0 or Q4_0. The output matrix is the embedding's, as with tied heads.
"""

import sys

import gguf
import numpy as np

FILE_TYPES = {"Q8_0": 7, "Q4_0": 2}


def main() -> None:
    out, type_name, *numbers = sys.argv[1:]
    dim, hidden, layers, heads, kv_heads, vocab, context = map(int, numbers)
    kind = gguf.GGMLQuantizationType[type_name]
    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(dim)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(dim // heads)
    writer.add_vocab_size(vocab)
    writer.add_file_type(FILE_TYPES[type_name])
    writer.add_quantization_version(2)
    # A vocabulary is wanted, whatever it says: three special pieces, the bytes, then numbered words.
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    kinds = [2, 3, 3] + [6] * 256
    n_words = vocab - len(pieces)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces + [f"word{i}" for i in range(n_words)])
    writer.add_token_scores([-float(i) for i in range(vocab)])
    writer.add_token_types(kinds + [1] * n_words)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)

    def gains(name: str) -> None:
        writer.add_tensor(name, np.ones(dim, np.float32))

    def matrix(name: str, rows: int, columns: int) -> None:
        weights = random.standard_normal((rows, columns), np.float32) * (0.7 / columns**0.5)
        writer.add_tensor(name, gguf.quants.quantize(weights.astype(np.float32), kind), raw_dtype=kind)

    kv_dim = dim // heads * kv_heads
    matrix("token_embd.weight", vocab, dim)
    gains("output_norm.weight")
    for layer in range(layers):
        prefix = f"blk.{layer}."
        for norm in ("attn_norm", "ffn_norm"):
            gains(f"{prefix}{norm}.weight")
        shapes = {
            "attn_q": (dim, dim),
            "attn_k": (kv_dim, dim),
            "attn_v": (kv_dim, dim),
            "attn_output": (dim, dim),
            "ffn_gate": (hidden, dim),
            "ffn_up": (hidden, dim),
            "ffn_down": (dim, hidden),
        }
        for name, shape in shapes.items():
            matrix(f"{prefix}{name}.weight", *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main()
