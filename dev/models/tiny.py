"""Makes the tiny models and the toy data.

Qwen2 models of two layers with seeded random weights, so that every machine gets the same ones, and a byte-level
BPE tokenizer with a ChatML template, trained on the judge's own words: a guided choice of `\\boxed{True}` must take a
few steps, not twelve. A model like this says nothing sensible; it makes every file, route and shape real.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, Qwen2ForSequenceClassification

from dev.models.layout import Layout

PROMPTS = 16
_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_CORPUS = (
    "You check solutions. Below are a problem and one proposed solution to it.",
    "Go through the solution step by step and look for mistakes. Judge whether its final answer is correct.",
    "Finish with \\boxed{True} if it is correct and with \\boxed{False} if it is not; write nothing after the box.",
    "What is 17 plus 25? The answer is 42. user assistant system",
)


def write(root: Path) -> Layout:
    """Fill the empty folder `root`."""
    layout = Layout(root)
    tokenizer = _tokenizer()
    _model(Qwen2ForCausalLM, tokenizer, seed=0, dtype=torch.float32, path=layout.policy)
    _model(Qwen2ForCausalLM, tokenizer, seed=1, dtype=torch.bfloat16, path=layout.judge)
    _model(Qwen2ForSequenceClassification, tokenizer, seed=2, dtype=torch.bfloat16, path=layout.classifier)
    _prompts(layout.prompts)
    return layout


def _tokenizer() -> Any:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(_CORPUS * 10, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=_CHATML
    )


def _model(kind: Any, tokenizer: Any, seed: int, dtype: Any, path: Path) -> None:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        num_labels=1,  # of a classifier; a causal model does not look at it
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    kind(config).to(dtype).save_pretrained(path)
    tokenizer.save_pretrained(path)
    for file in path.iterdir():
        file.chmod(0o644)  # safetensors writes for the owner alone, and engines run as nobody


def _prompts(path: Path) -> None:
    rows = [
        {
            "data_source": "toy",
            "prompt": [{"role": "user", "content": f"What is {17 + i} plus {25 - i}?"}],
            "ability": "arithmetic",
            "reward_model": {"style": "rule", "ground_truth": "42"},
            "extra_info": {"index": i},
        }
        for i in range(PROMPTS)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
