"""Every benchmark, one after another, and one table of what came out: how many times faster we are than a peer.

    python benchmarks [NAME ...]

Each one's JSON is written under build/benchmarks, and the table of all that are there, those of earlier runs included.
Takes about half an hour, on a machine that has nothing else to do.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "build" / "benchmarks"


def main() -> int:
    scripts = {path.stem: path for path in sorted(HERE.glob("[a-z]*.py"))}
    parser = argparse.ArgumentParser(
        prog="benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    told = f"any of: {' '.join(scripts)}; default: all but finetuning, which takes hours"
    parser.add_argument("names", nargs="*", metavar="NAME", help=told)
    names = parser.parse_args().names or [name for name in scripts if name != "finetuning"]
    if unknown := [name for name in names if name not in scripts]:
        parser.error(f"there is no {unknown[0]!r}; choose from {' '.join(scripts)}")
    failed = []
    for name in names:
        print(f"\n{name}", flush=True)
        if subprocess.run([sys.executable, scripts[name], "--out", OUT / f"{name}.json"]).returncode:
            failed.append(name)
    lines = ["| what | beside | times faster |", "|---|---|---|"]
    for path in (OUT / f"{name}.json" for name in scripts if name not in failed):
        if path.exists():
            table = json.loads(path.read_text(encoding="utf-8"))["table"]
            lines += [f"| {what} | {peer} | {times:.2f} |" for what, peer, times in table]
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n" + "\n".join(lines) + f"\n\nwritten to {OUT / 'table.md'}")
    if failed:
        print(f"did not run to their end: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
