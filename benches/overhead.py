#!/usr/bin/env python3
"""What a streamed token costs the server besides the model: `weir serve --device sim` on one core,
`loadtest` on another, over real sockets.

    python3 benches/overhead.py [--streams 64 256] [--step-us 100 20000] [--rounds 3]
    python3 benches/overhead.py --weir OLD_BINARY NEW_BINARY      # interleaved

With steps of 100 us the server is saturated: tokens a second are its limit, and several tokens
travel in one write. With steps of 20 ms it is not: each token is its own write, and the processor
time of the server's process for each token is what it costs. Needs Linux, two cores and `taskset`;
builds both programs unless `--weir` and `--loadtest` name them.
"""

import argparse
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUTPUT_TOKENS = 200
READY_SECONDS = 20


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--step-us", type=int, nargs="+", default=[100, 20_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--weir", nargs="+", help="server binaries, compared round by round")
    parser.add_argument("--loadtest", default=str(ROOT / "target/release/loadtest"))
    return parser.parse_args()


def build():
    for package in ("weir", "loadtest"):
        command = ["cargo", "build", "--release", "-p", package]
        subprocess.run(command, cwd=ROOT, check=True)


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def wait_ready(port, server):
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            sys.exit(f"the server ended with {server.returncode} before it was ready")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1)
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"the server was not ready within {READY_SECONDS} s")


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(weir, loadtest, streams, step_us):
    """Output tokens a second, and the server's processor microseconds for each."""
    port = free_port()
    # Requests enough for about five seconds, at least two for each stream.
    requests = max(2 * streams, 4000 if step_us < 1000 else 0)
    serve = ["taskset", "-c", "0", weir, "serve", "--device", "sim", "--port", str(port)]
    serve += ["--max-num-seqs", "512", "--sim-step-us", str(step_us)]
    for cost in ("prefill-token-us", "sequence-us", "context-token-ns"):
        serve += [f"--sim-{cost}", "0"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(serve, **quiet)
    try:
        wait_ready(port, server)
        with tempfile.TemporaryDirectory() as folder:
            load = ["taskset", "-c", "1", loadtest, "run", "--quiet", "--ignore-eos"]
            load += ["--base-url", f"http://127.0.0.1:{port}", "--max-concurrency", str(streams)]
            load += ["--num-prompts", str(requests), "--random-input-len", "32"]
            load += ["--random-output-len", str(OUTPUT_TOKENS)]
            load += ["--result-dir", folder, "--result-filename", "run"]
            before = cpu_seconds(server.pid)
            # A run whose generator was late (exit 1) still counts tokens right.
            code = subprocess.run(load, **quiet).returncode
            used = cpu_seconds(server.pid) - before
            report = pathlib.Path(folder) / "run.json"
            if code not in (0, 1) or not report.exists():
                sys.exit(f"loadtest ended with {code}: {' '.join(load)}")
            total = json.loads(report.read_text())["loadtest"]["total"]
        return total["output_tokens_per_s"], used * 1e6 / total["output_tokens"]
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def main():
    args = arguments()
    if not args.weir:
        build()
    weirs = args.weir or [str(ROOT / "target/release/weir")]
    print("| server | step us | streams | output tokens/s | server us/token |")
    print("|---|---|---|---|---|")
    for step_us in args.step_us:
        for streams in args.streams:
            found = {weir: [] for weir in weirs}
            for _ in range(args.rounds):
                for weir in weirs:
                    found[weir].append(measure(weir, args.loadtest, streams, step_us))
            for weir, rounds in found.items():
                rates, costs = zip(*rounds)
                name = pathlib.Path(weir).name
                print(
                    f"| {name} | {step_us} | {streams} "
                    f"| {statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f}) "
                    f"| {statistics.median(costs):.2f} ({min(costs):.2f} to {max(costs):.2f}) |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
