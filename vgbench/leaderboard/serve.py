"""The page of run folders as a local address, made anew when it is asked for, with the trainings that are under way."""

from __future__ import annotations

import csv
import html
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from vgbench.core.errors import UserError
from vgbench.core.pages import with_policy

RELOAD = 30  # seconds
STALE = 900  # seconds without a line, after which a run is called silent


@dataclass(frozen=True)
class Progress:
    """A run without a record, as its log tells it.

    Attributes:
        folder: its run folder.
        step: the last one that was logged; None: none yet.
        values: of that line, by name.
        age: seconds since the log was written.
    """

    folder: Path
    step: int | None
    values: dict[str, float]
    age: float


def running(places: Iterable[Path]) -> list[Progress]:
    """Run folders with a configuration and no record below ``places``, newest first."""
    configs = {file for place in places for file in place.rglob("config.yaml")}
    folders = [file.parent for file in configs if not (file.parent / "record.json").exists()]
    return sorted((_progress(folder) for folder in folders), key=lambda progress: progress.age)


def _progress(folder: Path) -> Progress:
    log = folder / "logs" / "metrics.csv"
    source = log if log.is_file() else folder / "config.yaml"
    age = time.time() - source.lstat().st_mtime  # a link that leads nowhere is no error of this page
    step: int | None = None
    values: dict[str, float] = {}
    if log.is_file():
        with suppress(csv.Error), log.open(encoding="utf-8", errors="replace", newline="") as file:
            for row in csv.DictReader(file):  # a line that is being written lacks its end
                numbers = {key: _number(value) for key, value in row.items() if key and value}
                known = {key: value for key, value in numbers.items() if value is not None}
                if "step" in known:
                    step = int(known.pop("step"))
                    values |= known
    return Progress(folder, step, values, age)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def progress_page(runs: Iterable[Progress]) -> str:
    """The trainings that are under way, as a page that loads itself again."""
    rows = []
    for run in runs:
        loss = next((run.values[name] for name in ("train/total", "loss") if name in run.values), None)
        scores = {name: value for name, value in run.values.items() if name.startswith("val/")}
        best = ", ".join(f"{name[4:]} {value:.2f}" for name, value in list(scores.items())[:3])
        state = "silent" if run.age > STALE else "under way"
        cells = [str(run.folder), state, _text(run.values.get("epoch")), _text(run.step), _text(loss), best]
        cells.append(f"{run.age:.0f} s ago")
        rows.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    heads = "".join(f"<th>{name}</th>" for name in ("run", "state", "epoch", "step", "loss", "validation", "last line"))
    table = f"<table><tr>{heads}</tr>{''.join(rows)}</table>" if rows else "<p>No run is under way.</p>"
    style = (
        "body{font:16px system-ui;margin:2rem}td,th{padding:.3rem .8rem;text-align:left;border-bottom:1px solid #999}"
    )
    return with_policy(
        f'<!doctype html><html lang=en><head><meta charset="utf-8"><!--policy-->'
        f'<meta http-equiv="refresh" content="{RELOAD}"><meta name="color-scheme" content="light dark">'
        f"<title>Runs under way</title><style>{style}</style></head><body><h1>Runs under way</h1>"
        f'{table}<p><a href="leaderboard">Leaderboard of the finished ones</a></p></body></html>'
    )


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def serve(places: list[Path], page: Callable[[], Path | None], port: int) -> None:
    """Answer on 127.0.0.1 until interrupted: ``/`` what is under way, ``/leaderboard`` the page of what is finished.

    Args:
        page: writes the leaderboard and says where; None: nothing is finished yet.

    Raises:
        UserError: if the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.partition("?")[0] == "/":
                self._send(progress_page(running(places)).encode())
            elif self.path.partition("?")[0] == "/leaderboard":
                try:
                    file = page()
                    self._send(file.read_bytes() if file else b"<p>No run is finished yet.</p>")
                except UserError as error:
                    self._send(f"<p>{html.escape(str(error))}</p>".encode(), 500)
            else:
                self._send(b"not here", 404)

        def _send(self, body: bytes, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise UserError(f"--port {port}: {error.strerror}; take another one, or 0 for any that is free") from None
    with server:
        print(f"http://127.0.0.1:{server.server_address[1]}/  (Ctrl-C ends it)", flush=True)
        server.serve_forever()
