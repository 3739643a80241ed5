"""Tiny vision-language models with random weights, in transformers' own folders.

    python -m tests.methods.vlm.models qwen2.5-vl FOLDER

writes one (a megabyte or less), for ``vgbench eval method=vlm method.model=FOLDER dataset=refshapes``. What it answers
is noise: the numbers of such a row say that the way works, and nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
}
CHAT = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def tokenizer(special: Sequence[str], **named: str) -> Any:
    """Every byte is a token, and the special ones are; ``named``: further special tokens by attribute."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    signs = ["<unk>", "<s>", "</s>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE({sign: number for number, sign in enumerate(signs)}, [], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=named,
    )
    old = transformers.__version__.startswith("4.")
    replaces = "replace_additional_special_tokens" if old else "replace_extra_special_tokens"
    made.add_special_tokens({"additional_special_tokens": list(special)}, **{replaces: False})
    return made


def needs_any_tokenizer() -> None:
    """Skip the test where a processor takes its family's own tokenizer only, which has no tiny vocabulary."""
    import pytest
    import transformers

    if transformers.__version__.startswith("4."):
        pytest.skip("this processor takes any tokenizer since transformers 5")


def save(model: Any, processor: Any, folder: Path) -> None:
    """Both into a folder; generation ends at the end sign only."""
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def qwen25_vl(folder: Path) -> None:
    """Qwen2.5-VL: pictures in patches of 14, resized to multiples of 28 within limits."""
    needs_any_tokenizer()
    import transformers as hf

    marks = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    words = tokenizer(marks)
    ids = dict(zip(("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id"),
                   words.convert_tokens_to_ids(list(marks)), strict=True))  # fmt: skip
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32,
              "fullatt_block_indexes": [0], "window_size": 56}  # fmt: skip
    text = TEXT | {
        "vocab_size": len(words),
        "rope_parameters": {"type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4},
    }
    torch.manual_seed(0)
    model = hf.Qwen2_5_VLForConditionalGeneration(hf.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids))
    images = hf.Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=28 * 28 * 64)
    template = CHAT.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    save(model, hf.Qwen2_5_VLProcessor(images, words, hf.Qwen2VLVideoProcessor(), chat_template=template), folder)


def internvl(folder: Path) -> None:
    """InternVL: pictures cut into tiles."""
    import transformers as hf

    words = tokenizer(
        (), start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": [28, 28], "patch_size": [14, 14]}  # fmt: skip
    text = TEXT | {"model_type": "qwen2", "vocab_size": len(words)}
    torch.manual_seed(0)
    model = hf.InternVLForConditionalGeneration(
        hf.InternVLConfig(vision_config=vision, text_config=text, image_token_id=words.context_image_token_id)
    )
    images = hf.GotOcr2ImageProcessor(size={"height": 28, "width": 28}, crop_to_patches=True, max_patches=2)
    processor = hf.InternVLProcessor(
        images, words, hf.InternVLVideoProcessor(size={"height": 28, "width": 28}), image_seq_length=1,
        chat_template=CHAT.replace("IMAGE", "<IMG_CONTEXT>\n"),
    )  # fmt: skip
    save(model, processor, folder)


def paligemma(folder: Path) -> None:
    """PaliGemma 2: pictures stretched to a square, location tokens."""
    needs_any_tokenizer()
    import transformers as hf

    words = tokenizer(())
    images = hf.SiglipImageProcessor(size={"height": 28, "width": 28})
    images.image_seq_length = 4
    processor = hf.PaliGemmaProcessor(images, words)
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 28, "patch_size": 14, "vision_use_head": False}  # fmt: skip
    text = TEXT | {"model_type": "gemma2", "vocab_size": len(words)}
    torch.manual_seed(0)
    config = hf.PaliGemmaConfig(
        vision_config={"model_type": "siglip_vision_model", **vision}, text_config=text, projection_dim=32,
        image_token_index=processor.image_token_id,
    )  # fmt: skip
    save(hf.PaliGemmaForConditionalGeneration(config), processor, folder)


def idefics3(folder: Path) -> None:
    """Idefics 3 (SmolVLM's elder sister): pictures cut into tiles, a family without documented grounding."""
    import transformers as hf

    marks = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>",
             *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)))  # fmt: skip
    words = tokenizer(marks)
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 28, "patch_size": 14}  # fmt: skip
    text = TEXT | {"model_type": "llama", "vocab_size": len(words)}
    torch.manual_seed(0)
    image = words.convert_tokens_to_ids("<image>")
    model = hf.Idefics3ForConditionalGeneration(
        hf.Idefics3Config(vision_config=vision, text_config=text, scale_factor=2, image_token_id=image)
    )
    images = hf.Idefics3ImageProcessor(size={"longest_edge": 56}, max_image_size={"longest_edge": 28})
    template = CHAT.replace("IMAGE", "<image>")
    save(model, hf.Idefics3Processor(images, words, image_seq_len=1, chat_template=template), folder)


def llava(folder: Path) -> None:
    """LLaVA-1.5: pictures padded to a square."""
    import transformers as hf

    words = tokenizer((), image_token="<image>")
    vision = {"model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
              "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "projection_dim": 16}  # fmt: skip
    text = TEXT | {"model_type": "llama", "vocab_size": len(words)}
    torch.manual_seed(0)
    model = hf.LlavaForConditionalGeneration(
        hf.LlavaConfig(
            vision_config=vision, text_config=text, image_token_index=words.image_token_id, vision_feature_layer=-1
        )
    )
    images = hf.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = hf.LlavaProcessor(
        images, words, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=CHAT.replace("IMAGE", "<image>\n"),
    )  # fmt: skip
    save(model, processor, folder)


def kosmos2(folder: Path) -> None:
    """Kosmos-2: pictures stretched to a square, cells of a grid as tokens."""
    import transformers as hf

    words = tokenizer(())
    images = hf.CLIPImageProcessor(size={"height": 28, "width": 28}, do_center_crop=False)
    processor = hf.Kosmos2Processor(images, words)
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 28, "patch_size": 14}  # fmt: skip
    text = {"vocab_size": len(words), "max_position_embeddings": 512, "embed_dim": 32, "layers": 1, "ffn_dim": 32,
            "attention_heads": 2, "pad_token_id": words.pad_token_id, "bos_token_id": words.bos_token_id}  # fmt: skip
    torch.manual_seed(0)
    model = hf.Kosmos2ForConditionalGeneration(
        hf.Kosmos2Config(text_config=text, vision_config=vision, latent_query_num=64)
    )
    save(model, processor, folder)


def sam(folder: Path) -> None:
    """SAM, a promptable segmenter."""
    import transformers as hf

    vision = {"hidden_size": 16, "output_channels": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 64, "patch_size": 16, "window_size": 2, "global_attn_indexes": [0], "mlp_dim": 16,
              "num_pos_feats": 8}  # fmt: skip
    prompt = {"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4}
    decoder = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "mlp_dim": 16,
        "iou_head_hidden_dim": 16,
    }
    torch.manual_seed(0)
    config = hf.SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    hf.SamModel(config).save_pretrained(folder)
    images = hf.SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    hf.SamProcessor(images).save_pretrained(folder)


MODELS: dict[str, Callable[[Path], None]] = {
    "qwen2.5-vl": qwen25_vl,
    "internvl": internvl,
    "paligemma": paligemma,
    "idefics3": idefics3,
    "llava": llava,
    "kosmos-2": kosmos2,
    "sam": sam,
}


if __name__ == "__main__":
    MODELS[sys.argv[1]](Path(sys.argv[2]))
