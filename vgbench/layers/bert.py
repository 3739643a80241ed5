"""BERT text encoder: transformers' layers, its padding mask without a look at the data, all hidden states."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from transformers import BertConfig, BertModel

from vgbench.checkpoints.names import KeyEntry, LoadReport, load_mapped
from vgbench.core.errors import UserError
from vgbench.core.published import PublishedFile

__all__ = ["BERT_FOLDER", "Bert", "bert_weights", "load_bert", "looks_like_bert"]


BERT_FOLDER = PublishedFile(
    "bert-base-uncased",
    "text encoder: config.json, model.safetensors",
    "pretrained",
    "https://huggingface.co/google-bert/bert-base-uncased",
    folder=True,
)


class Bert(nn.Module):
    """Token ids -> the hidden states after every layer. Parameter names are those of transformers' ``BertModel``.

    The defaults are bert-base-uncased. There is no pooler: no grounding method of ours reads it.

    Args:
        vocab_size: word pieces; id 0 is padding and gets no gradient.
        hidden_size: width C.
        layers: Transformer layers, 12 in BERT-base (VG-LAW keeps the first 6).
        heads: attention heads.
        intermediate_size: width of the feed-forward layers.
        max_positions: longest sequence.
        token_types: rows of the token-type table; only row 0 is used.
        dropout: of embeddings, attention and residual branches.

    Raises:
        UserError: for a BERT without layers, heads, words or positions.

    Source: Devlin et al., NAACL 2019.
    """

    def __init__(
        self,
        vocab_size: int = 30522,
        hidden_size: int = 768,
        layers: int = 12,
        heads: int = 12,
        intermediate_size: int = 3072,
        max_positions: int = 512,
        token_types: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        sizes = {"vocab_size": vocab_size, "layers": layers, "heads": heads, "max_positions": max_positions}
        for size, value in sizes.items():
            if value < 1:
                raise UserError(f"a BERT with {size}={value}; give at least 1")
        config = BertConfig(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=intermediate_size,
            max_position_embeddings=max_positions,
            type_vocab_size=token_types,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
        model = BertModel(config, add_pooling_layer=False)
        self.embeddings, self.encoder = model.embeddings, model.encoder
        self.vocab_size, self.hidden_size, self.max_positions = vocab_size, hidden_size, max_positions

    def forward(self, ids: Tensor, pad: Tensor) -> list[Tensor]:
        """Hidden states after layer 1, 2, ..., each [B, L, C].

        Args:
            ids: [B, L] int64.
            pad: [B, L] bool, True = padding; the first token of a row must not be padding.
        """
        # BertModel.forward looks into the mask to see whether it can be dropped, which waits for the device; the
        # layers take a mask [B, 1, 1, L] as it is.
        attend = ~pad[:, None, None, :]
        x = self.embeddings(input_ids=ids)
        states = []
        for layer in self.encoder.layer:
            out = layer(x, attend)
            x = out[0] if isinstance(out, tuple) else out  # transformers 4 returns a tuple
            states.append(x)
        return states


def bert_weights(state: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
    """The part of a BERT checkpoint that :class:`Bert` holds, as our name -> (name in the file, tensor).

    Accepts the files of transformers and of ``pytorch_pretrained_bert``: with or without the prefix ``bert.``, with
    ``LayerNorm.gamma/beta`` (2018 archives) or ``weight/bias``. Pooler, task heads and stored position ids are left
    out, and so are layers beyond those that the caller wants (it takes the names that it has).
    """
    weights = {}
    for name, value in state.items():
        ours = name.removeprefix("bert.")
        if ours.startswith(("embeddings.", "encoder.")) and ours != "embeddings.position_ids":
            ours = ours.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
            weights[ours] = (name, value)
    return weights


def looks_like_bert(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the names of a BERT checkpoint (a model around a BERT may have them too)."""
    return "embeddings.word_embeddings.weight" in bert_weights(state)


def load_bert(bert: nn.Module, state: Mapping[str, Tensor]) -> LoadReport:
    """Embeddings and the first layers of a BERT checkpoint; further layers, pooler and task heads are left out.

    Args:
        bert: module with the parameter names of :class:`Bert`.
        state: see :func:`bert_weights`.

    Raises:
        UserError: if a layer is missing or of another size.
    """
    weights = bert_weights(state)
    names = [name for name, _ in bert.named_parameters()]
    entries = [KeyEntry(name, (weights[name][0] if name in weights else name,)) for name in names]
    return load_mapped(bert, state, entries, "a BERT checkpoint", unused=("*",))
