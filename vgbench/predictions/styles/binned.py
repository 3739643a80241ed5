"""Families that write location tokens: one word of the vocabulary for each bin of a side."""

from __future__ import annotations

from vgbench.predictions.coordinates import Coordinates
from vgbench.predictions.numbers import PATCH_CELLS
from vgbench.predictions.styles.base import AnswerStyle
from vgbench.predictions.styles.grammar import patches, tokens


class PaliGemma(AnswerStyle):
    """PaliGemma 1 and 2: ``<loc0106><loc0160><loc0746><loc0480> cup``, y first, shares of 1024 of the image.

    Source: https://huggingface.co/blog/paligemma ("detection": y_min, x_min, y_max, x_max, divided by 1024).
    """

    name = "paligemma"
    coordinates = Coordinates(form="yxyx", whole=1024)
    grammar = (tokens(r"<loc(\d{4})>"),)
    shape = "<loc0000><loc0000><loc0000><loc0000>"
    numbers = False


class Florence2(AnswerStyle):
    """Florence-2: ``cup<loc_156><loc_104><loc_469><loc_729>``, centres of 1000 bins of each side of the image.

    Source: ``dequantize`` of
    https://github.com/huggingface/transformers/blob/main/src/transformers/models/florence2/processing_florence2.py
    """

    name = "florence-2"
    coordinates = Coordinates(whole=1000, shift=0.5)
    grammar = (tokens(r"<loc_(\d{1,3})>"),)
    shape = "<loc_0><loc_0><loc_0><loc_0>"
    numbers = False


class Kosmos2(AnswerStyle):
    """Kosmos-2: ``<object><patch_index_0044><patch_index_0863></object>``, cells of a grid of 32 x 32 over the image.

    A box reaches from centre to centre of its two cells, or from edge to edge where they share a row or column. Source:
    ``patch_index_to_coordinate`` of
    https://github.com/huggingface/transformers/blob/main/src/transformers/models/kosmos2/processing_kosmos2.py
    """

    name = "kosmos-2"
    coordinates = Coordinates(whole=PATCH_CELLS)
    grammar = (patches,)
    shape = "<patch_index_0000><patch_index_0000>"
    numbers = False


class MiniGPTv2(AnswerStyle):
    """MiniGPT-v2: ``{<12><34><56><78>}``, shares of 100 of the image.

    Source: section 3 of https://arxiv.org/abs/2310.09478 (integers, normalised to [0, 100]).
    """

    name = "minigpt-v2"
    coordinates = Coordinates(whole=100)
    grammar = (tokens(r"<(\d{1,3})>"),)
    shape = "{<x1><y1><x2><y2>}"
    numbers = False


class OFA(AnswerStyle):
    """OFA: ``<bin_156> <bin_104> <bin_469> <bin_729>``, 1000 bins, the last of which is the far edge of the image.

    Source: ``bin2coord`` in the visual-grounding notebooks of https://github.com/OFA-Sys/OFA (bin / 999 of a side).
    """

    name = "ofa"
    coordinates = Coordinates(whole=999)
    grammar = (tokens(r"<bin_(\d{1,3})>"),)
    shape = "<bin_0> <bin_0> <bin_0> <bin_0>"
    numbers = False


FAMILIES = (PaliGemma, Florence2, Kosmos2, MiniGPTv2, OFA)
