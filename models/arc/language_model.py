"""A language model of the Qwen architectures: tiny and new, or loaded from a folder.

This is the only module that imports transformers, and only when a model is needed: everything else
works without the package.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

# Each name means exactly one dtype, so that none silently replaces another.
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
ARCHITECTURES = ("qwen2", "qwen3")


def check_available() -> None:
    """Raise `ValueError` where transformers is not installed."""
    if importlib.util.find_spec("transformers") is None:
        raise ValueError(
            "needs the package transformers: pip install -c constraints.txt -e '.[arc]'; or write "
            "--prompt features, which does without"
        )


def new_model(
    *, architecture: str, vocabulary: int, width: int, layers: int, positions: int
) -> nn.Module:
    """Build a randomly initialised model in float32, with torch's global generator."""
    transformers = _transformers()
    kinds = {
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2Model),
        "qwen3": (transformers.Qwen3Config, transformers.Qwen3Model),
    }
    config_type, model_type = kinds[architecture]
    config = config_type(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=width // 4,
        max_position_embeddings=positions,
        use_cache=False,
    )
    model: nn.Module = model_type(config)
    return model


def check_folder(folder: Path, symbols: Sequence[str]) -> None:
    """Raise `ValueError` for a folder without a model, or with one that lacks some symbols."""
    file = folder / "config.json"
    try:
        config = json.loads(file.read_bytes())
        kind, vocabulary = config.get("model_type"), int(config.get("vocab_size", 0))
    except OSError as error:
        raise ValueError(f"'{file}': {error.strerror}; name a model's folder") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"'{file}' is no configuration of a model ({error})") from error
    if kind not in ARCHITECTURES:
        raise ValueError(
            f"'{folder}' holds a model of the type {kind!r}; use one of {', '.join(ARCHITECTURES)}"
        )
    if not any(any(folder.glob(pattern)) for pattern in ("*.safetensors", "*.bin")):
        raise ValueError(f"'{folder}' holds no weights (*.safetensors)")
    largest = max(symbol_ids(folder, symbols))
    if largest >= vocabulary:
        raise ValueError(
            f"the model in '{folder}' knows {vocabulary} tokens, and {largest + 1} are wanted; "
            "put its tokenizer's files beside it"
        )


def load_model(folder: Path, *, dtype: str) -> nn.Module:
    """Load a model from its folder, in exactly this dtype; nothing is downloaded.

    Raises:
        ValueError: The model cannot be loaded, or the dtype is unknown.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype '{dtype}' is none of {', '.join(DTYPES)}")
    try:
        # The dtype is always given: without it a checkpoint's own dtype counts.
        model: nn.Module = _transformers().AutoModel.from_pretrained(
            str(folder), local_files_only=True, dtype=DTYPES[dtype], use_cache=False
        )
    except Exception as error:
        # The libraries raise many kinds of errors for damaged weights.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the model in '{folder}' cannot be loaded: {reason}") from error
    return model


def symbol_ids(folder: Path | None, symbols: Sequence[str]) -> list[int]:
    """Token of each symbol: from the folder's tokenizer if there is one, else the symbol's index.

    Raises:
        ValueError: A symbol is no single token of the tokenizer, or that is unreadable.
    """
    if folder is None or not any((folder / name).exists() for name in _TOKENIZERS):
        return list(range(len(symbols)))
    try:
        tokenizer = _transformers().AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True
        )
    except Exception as error:
        # The libraries raise many kinds of errors for a damaged file.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the tokenizer in '{folder}' cannot be read: {reason}") from error
    tokens = [tokenizer.encode(symbol, add_special_tokens=False) for symbol in symbols]
    for symbol, ids in zip(symbols, tokens, strict=True):
        if len(ids) != 1:
            raise ValueError(f"'{symbol}' is {len(ids)} tokens of the tokenizer in '{folder}'")
    return [ids[0] for ids in tokens]


_TOKENIZERS = ("tokenizer.json", "vocab.json")


def _transformers() -> Any:
    check_available()
    import transformers

    return transformers
