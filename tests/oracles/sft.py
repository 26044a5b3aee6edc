"""What transformers makes of prompts, completions and conversations: tokens, and which of them are trained.

    python tests/oracles/sft.py tests/golden/sft.json    # requirements-sft.txt

The tokenizer is trained here on a few sentences. Conversations are tokenised by `apply_chat_template`, whose masks of the assistant's
tokens come from `{% generation %}` blocks. Prompts and completions are tokenised as TRL's SFTTrainer does: together, with the end of text,
and the first tokens not trained, as many as the prompt has alone.
"""

import json
import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIALS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
TEXTS = [
    "turn on the light in the kitchen and switch the lamp off, please",
    '{"intent": "light", "room": "kitchen", "state": "on"}',
    "What is seven plus twelve? It is nineteen.\nuser\nassistant\nsystem\n",
] * 4

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}"
    "{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TRIMMED = """{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- generation -%}
        {{ message.content.strip() + eos_token }}
        {%- endgeneration %}
    {%- elif message.role == 'user' %}
        {{- 'user: ' + message.content | trim + '\n' }}
        {{- 'bot:' }}
    {%- else %}
        {{- raise_exception('no role ' + message.role) }}
    {%- endif %}
{%- endfor %}
"""
CONVERSATIONS = [
    [("user", "turn the lamp off"), ("assistant", '{"intent": "light", "state": "off"}')],
    [("user", "What is 7 plus 12?"), ("assistant", "19"), ("user", " And\nnow? "), ("assistant", "It is nineteen. ")],
    [("user", "é漢🙂"), ("assistant", "  caf\u00e9 🙂")],
]
PAIRS = [
    ("turn on the light ->", ' {"intent": "light"}'),
    ("What is seven plus twelve?\n", "nineteen"),
    ("the kit", "chen light"),
    ("the light: ", " on"),
    ("the lamp ", "on please"),
    ("é漢", "🙂 lamp"),
    ("<|im_start|>user\nlamp<|im_end|>", "on<|im_end|></s>"),
]


def tokenizer():
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


def conversation(tok, template, turns):
    messages = [{"role": role, "content": content} for role, content in turns]
    out = tok.apply_chat_template(
        messages, chat_template=template, return_dict=True, return_assistant_tokens_mask=True, tokenize=True
    )
    return {"messages": messages, "ids": out["input_ids"], "mask": out["assistant_masks"]}


def pair(tok, prompt, completion):
    text = prompt + completion
    text += "" if text.endswith(tok.eos_token) else tok.eos_token
    prompt_ids, ids = tok(prompt)["input_ids"], tok(text)["input_ids"]
    mask = [0] * len(prompt_ids) + [1] * (len(ids) - len(prompt_ids))
    is_clean = ids[: len(prompt_ids)] == prompt_ids
    return {"prompt": prompt, "completion": completion, "ids": ids, "mask": mask, "is_clean": is_clean}


def main(path):
    tok = tokenizer()
    templates = {"chatml": CHATML, "trimmed": TRIMMED}
    chats = [
        {"name": name, "template": template, "cases": [conversation(tok, template, turns) for turns in CONVERSATIONS]}
        for name, template in templates.items()
    ]
    golden = {
        "tokenizer": json.loads(tok.backend_tokenizer.to_str()),
        "chats": chats,
        "pairs": [pair(tok, *texts) for texts in PAIRS],
    }
    with open(path, "w", encoding="utf-8") as file:
        json.dump(golden, file, ensure_ascii=False, indent=1)
        file.write("\n")


main(*sys.argv[1:])
