#!/usr/bin/env python3
"""How many concurrent streams one core of `loadtest` carries, and what one costs.

Pins the generator to one core and the paced server to another, opens streams at a constant rate
until as many as asked for are open, and prints the generator's send delay, its processor time and
its memory for each stream. Exits with 1 when a goal is missed.

    python3 loadtest/crosscheck/streams.py --streams 5000
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SEND_DELAY_P99_MS_MAX, BYTES_PER_STREAM_MAX = 5.0, 64 << 10


def start_server(args):
    command = ["taskset", "-c", str(args.server_core), ROOT / "target/release/examples/paced",
               "--port", "0", "--ttft-ms", str(args.ttft_ms), "--gap-ms", str(args.gap_ms),
               "--tokens", str(args.tokens)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().split()[-1]


def generate(args, url, rate, requests):
    """One run of the generator: its summary, and the processor seconds that it used."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["taskset", "-c", str(args.client_core),
                   ROOT / "target/release/loadtest", "run",
                   "--base-url", url, "--model", "paced", "--num-prompts", str(requests),
                   "--request-rate", str(rate), "--arrivals", "constant",
                   "--random-input-len", "64", "--random-output-len", str(args.tokens),
                   "--ignore-eos", "--save-result", "--result-dir", folder,
                   "--result-filename", "streams.json"]
        if args.perf:
            command = ["perf", "record", "-g", "-o", args.perf, "--"] + command
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with open(os.path.join(folder, "log"), "w+") as log:
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT)
            log.seek(0)
            if done.returncode != 0:
                sys.stderr.write(f"loadtest ended with {done.returncode}:\n{log.read()[-3000:]}\n")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return json.load(open(os.path.join(folder, "streams.json")))["loadtest"], cpu_s


def percentile(distribution, wanted):
    return dict(map(tuple, distribution["percentiles"]))[wanted]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=5000, help="concurrent, at the least")
    parser.add_argument("--ttft-ms", type=float, default=500)
    parser.add_argument("--gap-ms", type=float, default=200)
    parser.add_argument("--tokens", type=int, default=50)
    parser.add_argument("--hold-s", type=float, default=20, help="time with all streams open")
    parser.add_argument("--client-core", type=int, default=1)
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--perf", help="record a profile of the generator into this file")
    args = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    subprocess.run(["cargo", "build", "--release", "-q", "-p", "loadtest", "--bins", "--examples"],
                   cwd=ROOT, check=True)

    answer_s = (args.ttft_ms + (args.tokens - 1) * args.gap_ms) / 1e3
    rate = round(args.streams * 1.05 / answer_s, 1)
    requests = int(rate * (answer_s + args.hold_s))
    server, url = start_server(args)
    try:
        alone, _ = generate(args, url, 1, 2)
        urllib.request.urlopen(urllib.request.Request(url + "/truth", method="DELETE"))
        summary, cpu_s = generate(args, url, rate, requests)
        truth = json.load(urllib.request.urlopen(url + "/truth/summary"))
        ticks = open(f"/proc/{server.pid}/stat").read().rsplit(") ", 1)[1].split()
        server_cpu_s = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
    finally:
        server.terminate()
    run, total = summary["run"], summary["total"]
    delay_p99_ms = percentile(total["send_delay"], 99.0)
    base = alone["run"]["peak_memory_bytes"]
    whole = run["peak_memory_bytes"] / run["peak_concurrency"]
    more = (run["peak_memory_bytes"] - base) / run["peak_concurrency"]
    rows = [
        ("requests, rate", f"{requests}, {rate}/s"),
        ("completed (server: attempts)", f"{total['outcomes'].get('completed', 0)} "
                                         f"({truth['attempts']})"),
        ("streams at once (server's count)", f"{run['peak_concurrency']} "
                                             f"({truth['running_peak']})"),
        ("chunks/s with all open", f"{run['peak_concurrency'] * 1e3 / args.gap_ms:.0f}"),
        ("send delay p50, p99, max (ms)", f"{percentile(total['send_delay'], 50.0):.2f}, "
                                          f"{delay_p99_ms:.2f}, "
                                          f"{total['send_delay']['max_ms']:.2f}"),
        ("TTFT from sending p50, p99 (ms); truth", ", ".join(
            f"{percentile(total['ttft_from_sent'], p):.1f}" for p in (50.0, 99.0))
            + f"; {truth['ttft_ms']['p50']:.1f}, {truth['ttft_ms']['p99']:.1f}"),
        ("gap p50, p99 (ms); truth", ", ".join(
            f"{percentile(total['itl'], p):.1f}" for p in (50.0, 99.0))
            + f"; {truth['itl_ms']['p50']:.1f}, {truth['itl_ms']['p99']:.1f}"),
        ("generator: processor s of wall s", f"{cpu_s:.1f} of {run['elapsed_s']:.1f}"),
        ("server: processor s", f"{server_cpu_s:.1f}"),
        ("generator: memory at its peak (MiB)", f"{run['peak_memory_bytes'] / 2**20:.1f}; "
                                                f"with one stream {base / 2**20:.1f}"),
        ("bytes for each stream (of all memory)", f"{more:.0f} ({whole:.0f})"),
        ("valid", f"{summary['validity']['valid']} {' '.join(summary['validity']['reasons'])}"),
    ]
    print("| what | figure |\n|---|---|")
    for name, figure in rows:
        print(f"| {name} | {figure} |")
    missed = []
    if truth["running_peak"] < args.streams:
        missed.append(f"fewer than {args.streams} streams at once")
    if delay_p99_ms > SEND_DELAY_P99_MS_MAX:
        missed.append(f"p99 send delay above {SEND_DELAY_P99_MS_MAX} ms")
    if more > BYTES_PER_STREAM_MAX:
        missed.append(f"more than {BYTES_PER_STREAM_MAX} bytes for a stream")
    print("\n" + ("Missed: " + "; ".join(missed) if missed else "All goals met."))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
