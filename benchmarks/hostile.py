"""Run hostile objectives, and compare what became of each with what its file claims.

    python benchmarks/hostile.py --out FOLDER
    python benchmarks/hostile.py --only forks,no_files --out FOLDER
    python benchmarks/hostile.py --folder OTHER --jobs 2 --out FOLDER

Each file of `benchmarks/hostile` is checked (`check`) and then searched with one worker and six
trials, as a study of its own on one server. The table is printed as Markdown; the lines of each
command and worker are kept in FOLDER. Exit code 1 if anything differs from what a file claims.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import optuna
from claims import TRIALS, Claims, Ended, Seen, claims_of, differences
from marked import Place, command, place

OWN = Path(__file__).with_name("hostile")
# Written by somebody who had read the README and the page on own objectives, and kept as it was.
FRESH = OWN / "fresh"
CALM = "calm"
_HEAD = ("objective", "what it does", "right", "check", "exit", "states", "said", "s", "verdict")
_RUN = (
    *("--n_trials", str(TRIALS), "--workers", "1", "--epochs_per_trial", "2"),
    *("--sampler", "random", "--pruner", "none"),
)


def perform(at: Place, path: Path) -> Seen:
    """Check an objective and search with it."""
    name, began = path.stem, time.monotonic()
    check_code, check_lines, left = command(at, name, "check", str(path))
    words = ["--objective", str(path), "--study_name", name, *_RUN]
    if tried := claims_of(path).constants.get("ENQUEUE"):
        configurations = at.folder / f"{name}.json"
        configurations.write_text(json.dumps(tried))
        words += ["--enqueue", str(configurations)]
    code, lines, more = command(at, name, *words)
    return Seen(
        code=code,
        lines=lines,
        trials=trials_of(at, name),
        check_code=check_code,
        check_lines=check_lines,
        left=[*left, *more],
        seconds=time.monotonic() - began,
    )


def trials_of(at: Place, study: str) -> list[Ended] | None:
    """The trials of a study by plain Optuna; None without the study."""
    try:
        trials = optuna.load_study(study_name=study, storage=at.url).trials
    except KeyError:
        return None
    return [
        Ended(
            state=trial.state.name,
            params=trial.params,
            value=trial.values[0] if trial.values else None,
            reason=str(trial.user_attrs.get("prune_reason", "-")),
            detail=str(trial.user_attrs.get("prune_detail", "-")),
        )
        for trial in trials
    ]


def cells(path: Path, claims: Claims, seen: Seen, found: Sequence[str]) -> list[str]:
    """The cells of an objective's line."""
    states: dict[str, int] = {}
    for trial in seen.trials or ():
        word = trial.state.lower() + (f" ({trial.reason})" if trial.reason != "-" else "")
        states[word] = states.get(word, 0) + 1
    return [
        path.stem,
        claims.title,
        claims.right,
        f"{_code(seen.check_code)}{_said(checked(seen.check_lines))}",
        _code(seen.code),
        ", ".join(f"{count} {word}" for word, count in states.items()) or "no study",
        _said(reported(seen)).removeprefix(": "),
        f"{seen.seconds:.0f}",
        "; ".join(found) or "holds",
    ]


def checked(lines: str) -> list[str]:
    """The lines of `check` on faults and warnings."""
    words = ("FAILED", "warning", "hpo:")
    return [" ".join(line.split()) for line in lines.splitlines() if line.startswith(words)]


def reported(seen: Seen) -> list[str]:
    """The details of trials that did not complete, and the reason of a refusal."""
    details = [trial.detail for trial in seen.trials or () if trial.detail != "-"]
    _, is_refused, refusal = f"\n{seen.lines}".partition("\nhpo:")
    ends = [f"hpo: {' '.join(refusal.split())}"] if is_refused else []
    return list(dict.fromkeys([*details, *ends]))


def _code(code: int | None) -> str:
    return "does not end" if code is None else str(code)


def _said(lines: Sequence[str]) -> str:
    """Some lines in one cell."""
    # Folders are those of this host.
    lines = [re.sub(r"/(?:[\w.+-]+/)+", "…/", line) for line in lines]
    text = " / ".join(line if len(line) < 160 else line[:159] + "…" for line in lines[:2])
    more = f" (and {len(lines) - 2} more)" if len(lines) > 2 else ""
    printable = "".join(letter if letter.isprintable() else "�" for letter in text)
    return f": {printable}{more}" if lines else ""


def line(words: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(word.replace("|", "\\|") for word in words) + " |"


def main() -> int:
    """Perform objectives, print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, action="append", help="of files (default: ours)")
    parser.add_argument("--only", help="names of files without '.py', with commas")
    parser.add_argument("--jobs", type=int, default=1, help="files performed at the same time")
    parser.add_argument("--out", type=Path, required=True, help="folder of the commands' lines")
    given = parser.parse_args()
    files = {
        path.stem: path.resolve()
        for folder in given.folder or [OWN, FRESH]
        for path in sorted(folder.glob("*.py"))
    }
    calm = files.pop(CALM, OWN / f"{CALM}.py")
    names = given.only.split(",") if given.only else list(files)
    names = [name for name in names if name != CALM]
    if unknown := [name for name in names if name not in files]:
        parser.error(f"no files {', '.join(unknown)}; there are {', '.join([CALM, *files])}")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    has_differed = False
    with place(given.out) as at, ThreadPoolExecutor(given.jobs) as pool:
        first = perform(at, calm)
        performed = pool.map(lambda name: perform(at, files[name]), names)
        print(line(_HEAD), line(["---"] * len(_HEAD)), sep="\n")
        rows = zip(map(files.__getitem__, names), performed, strict=True)
        for path, seen in chain([(calm, first)], rows):
            claims = claims_of(path)
            found = differences(claims, seen, first.trials or ())
            has_differed |= bool(found)
            print(line(cells(path, claims, seen, found)), flush=True)
    return 1 if has_differed else 0


if __name__ == "__main__":
    sys.exit(main())
