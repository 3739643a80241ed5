"""Tables as LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vgbench.leaderboard.markdown import AFTER, PAIR_HEADER, STYLES, cell_texts, legend, pair_lines, run_notes
from vgbench.leaderboard.published import Pair
from vgbench.leaderboard.tables import Table


def latex(made: Sequence[Table], pairs: Sequence[Pair]) -> str:
    style = STYLES["latex"]
    parts = ["% needs \\usepackage{booktabs}"]
    for table in made:
        header = [
            ("", "Method"),
            *(table.heading(column) for column in table.columns),
            *(("", name) for name in AFTER),
        ]
        lines = cell_texts(table, style)
        keep = [place for place in range(len(header)) if any(line[place] for line in lines)]
        header, lines = [header[place] for place in keep], [[line[place] for place in keep] for line in lines]
        groups: list[list[Any]] = []
        for upper, _ in header:
            if groups and groups[-1][0] == upper:
                groups[-1][1] += 1
            else:
                groups.append([upper, 1])
        top = " & ".join(
            rf"\multicolumn{{{count}}}{{c}}{{{style.text(upper)}}}" if upper else " & ".join([""] * count)
            for upper, count in groups
        )
        parts.append(
            "\n".join(
                [
                    f"% {table.title}",
                    rf"\begin{{tabular}}{{l{'r' * (len(header) - 2)}l}}",
                    r"\toprule",
                    rf"{top} \\",
                    " & ".join(style.text(lower) for _, lower in header) + r" \\",
                    r"\midrule",
                    *(" & ".join(line) + r" \\" for line in lines),
                    r"\bottomrule",
                    r"\end{tabular}",
                    *(f"% {note}" for note in (*legend(table), *table.notes, *run_notes(table))),
                ]
            )
        )
    if pairs:
        lines, notes = pair_lines(pairs, style)
        parts.append(
            "\n".join(
                [
                    "% Published and measured",
                    r"\begin{tabular}{llrrlrl}",
                    r"\toprule",
                    " & ".join(PAIR_HEADER) + r" \\",
                    r"\midrule",
                    *(" & ".join(line) + r" \\" for line in lines),
                    r"\bottomrule",
                    r"\end{tabular}",
                    *(rf"\par\noindent {{\footnotesize {mark} {style.text(note)}}}" for note, mark in notes.items()),
                ]
            )
        )
    return "\n\n".join(parts) + "\n"
