"""Every benchmark, one after another, and one table of what came out: how many times faster we are than a peer.

    python benchmarks [NAME ...]

The table and each one's JSON are written under build/benchmarks. Takes about half an hour, on a machine that has
nothing else to do.
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
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {' '.join(scripts)}; default: all")
    names = parser.parse_args().names or [name for name in scripts if name != "finetuning"]  # hours: by name only
    if unknown := [name for name in names if name not in scripts]:
        parser.error(f"there is no {unknown[0]!r}; choose from {' '.join(scripts)}")
    lines, failed = ["| what | beside | times faster |", "|---|---|---|"], []
    for name in names:
        print(f"\n{name}", flush=True)
        out = OUT / f"{name}.json"
        if subprocess.run([sys.executable, scripts[name], "--out", out]).returncode:
            failed.append(name)
            continue
        table = json.loads(out.read_text(encoding="utf-8"))["table"]
        lines += [f"| {what} | {peer} | {times:.2f} |" for what, peer, times in table]
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n" + "\n".join(lines) + f"\n\nwritten to {OUT / 'table.md'}")
    if failed:
        print(f"did not run to their end: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
