#!/usr/bin/env python3
"""Overload over real sockets: `weir serve --device sim` with latency objectives and, after it, the
same server without any (first come, first served), under the same open-loop load at once and twice
the rate given, whose clients retry as the SDKs do, and at 0.8 of it right after the overload.

    python3 loadtest/overload.py --rate 30 --scale 2 --seconds 20

`--scale` slows the simulated device and widens the objectives alike, so that a small machine can
carry the load. Times are from the sending of the last attempt. A good request met both objectives.
Two limits: answers that come after a load's end count for the load, and the clock of the run at 0.8
starts only when its own first requests were answered, so it does not measure recovery.
Builds both programs unless `--weir` and `--loadtest` name them.
"""

import argparse
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TTFT_MS, TTFT_MS_PER_1K_TOKENS, TPOT_MS = 1000, 24, 50
SIM_COSTS = {"step-us": 5000, "prefill-token-us": 16, "sequence-us": 3, "context-token-ns": 33}
LONG_TOKENS, SHORT_TOKENS = 1800, 500
RECOVERY_S, READY_S = 5, 20
PROFILE = """name = "overload-at-{rate}"
[load]
request_rate = {rate}
duration_s = {seconds}
[prompt]
tokens = {{ log_normal = {{ median = 500.0, sigma = 1.0, min = 16, max = 6000 }} }}
[output]
tokens = {{ log_normal = {{ median = 48.0, sigma = 0.5, min = 8, max = 160 }} }}
ignore_eos = true
[[behaviours]]
fraction = 1.0
retries = 2
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=30.0, help="requests a second at load 1")
    parser.add_argument("--overloads", type=float, nargs="+", default=[2.0])
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    parser.add_argument("--tenants", type=int, default=20)
    parser.add_argument("--weir", help="server binary")
    parser.add_argument("--loadtest", help="generator binary")
    return parser.parse_args()


class Server:
    """One server on the simulated device, its tenants, and a key for each."""

    def __init__(self, args, folder, objectives):
        self.args, self.folder = args, folder
        scale, settings = args.scale, f'state-dir = "{folder}/state"\n[tenant-defaults]\n'
        if objectives:
            settings += f"ttft-objective-ms = {TTFT_MS * scale}\n"
            settings += f"ttft-objective-ms-per-1k-tokens = {TTFT_MS_PER_1K_TOKENS * scale}\n"
            settings += f"tpot-objective-ms = {TPOT_MS * scale}\n"
        names = [f"t{i:02}" for i in range(args.tenants)]
        for i, name in enumerate(names):
            settings += f"[tenants.{name}]\nweight = {1 + i % 4}\n"
        self.config = folder / "weir.toml"
        self.config.write_text(settings)
        tenants = "".join(
            f'[[tenants]]\nname = "{n}"\nkey = "{self.key(n)}"\nshare = {1 + i % 4}\n'
            for i, n in enumerate(names)
        )
        self.tenants = folder / "tenants.toml"
        self.tenants.write_text(tenants)
        self.metrics_key = self.key(names[0], "--scope", "metrics:read")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        command = [args.weir, "serve", "--config", self.config, "--device", "sim"]
        command += ["--port", str(self.port), "--max-model-len", "8192", "--max-num-seqs", "512"]
        command += ["--max-num-batched-tokens", "1536", "--sim-blocks", "25000"]
        for cost, value in SIM_COSTS.items():
            command += [f"--sim-{cost}", str(value * scale)]
        self.log = open(folder / "server.log", "w")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)
        self.wait_ready()

    def key(self, tenant, *flags):
        command = [self.args.weir, "keys", "create", "--config", self.config]
        command += ["--tenant", tenant, "--name", "load", *flags]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def wait_ready(self):
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=1)
            except OSError:
                time.sleep(0.05)
        sys.exit("the server was not ready:\n" + (self.folder / "server.log").read_text()[-2000:])

    def codes(self):
        """Requests by their code, as the server counts them."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/metrics")
        request.add_header("authorization", f"Bearer {self.metrics_key}")
        found = {}
        for line in urllib.request.urlopen(request, timeout=10).read().decode().splitlines():
            if line.startswith("weir_requests_total{") and "completions" in line:
                code = re.search(r'code="([^"]*)"', line).group(1)
                found[code] = found.get(code, 0) + int(float(line.rsplit(" ", 1)[1]))
        return found

    def load(self, name, rate, seed):
        profile = self.folder / f"{name}.toml"
        profile.write_text(PROFILE.format(rate=rate, seconds=self.args.seconds))
        command = [self.args.loadtest, "run", "--quiet", "--profile", profile]
        command += ["--base-url", f"http://127.0.0.1:{self.port}", "--tenants", self.tenants]
        command += ["--seed", str(seed), "--drain", "8"]
        command += ["--result-dir", self.folder, "--result-filename", name]
        log = open(self.folder / f"{name}.log", "w")
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        self.log.close()


def judge(args, record):
    """Adds `ttft_ms`, `in_time` and `good` to a record."""
    chunks, tokens = record.get("chunks_ns") or [], record.get("output_tokens") or 0
    record["ttft_ms"] = (chunks[0] - record["last_sent_ns"]) / 1e6 if chunks else None
    prompt = record.get("prompt_tokens") or record["prompt_tokens_wanted"]
    objective = args.scale * (TTFT_MS + TTFT_MS_PER_1K_TOKENS * prompt / 1000)
    record["late_by"] = record["ttft_ms"] / objective if chunks else None
    tpot = (chunks[-1] - chunks[0]) / 1e6 / max(tokens - 1, 1) if chunks else 0
    record["in_time"] = record["outcome"] == "completed" and bool(chunks) and (
        record["late_by"] <= 1)
    record["good"] = record["in_time"] and tpot <= TPOT_MS * args.scale
    return record


def success(records):
    return sum(r["good"] for r in records) / len(records) if records else float("nan")


def row(args, server, name, load, codes):
    path = server.folder / f"{name}.jsonl"
    if not path.exists():
        sys.exit((server.folder / f"{name}.log").read_text()[-3000:])
    records = [judge(args, json.loads(line)) for line in path.read_text().splitlines()[1:]]
    summary = json.loads((server.folder / f"{name}.json").read_text())["loadtest"]
    served = sorted(r["late_by"] for r in records if r["late_by"] is not None)
    good = [r for r in records if r["good"]]
    tokens = sum(r["prompt_tokens"] + r["output_tokens"] for r in good) / args.seconds
    wanted = lambda r: r["prompt_tokens_wanted"]
    long = success([r for r in records if wanted(r) > LONG_TOKENS])
    short = success([r for r in records if wanted(r) < SHORT_TOKENS])
    after = [r for r in records if r["scheduled_ns"] >= RECOVERY_S * 1e9]
    # Requests that did not fail have no code.
    admitted = codes.get("", 0) + codes.get("late", 0)
    return {
        "load": load, "requests": len(records), "good": len(good), "tokens": tokens,
        "attempts": sum(r["attempts"] for r in records),
        "p99": served[min(len(served) - 1, int(len(served) * 0.99))] if served else float("nan"),
        "late": sum(x > 1 for x in served) / max(len(served), 1),
        "late_codes": f"{codes.get('late', 0)} of {admitted}",
        "ratio": long / short if short else float("nan"),
        "after": sum(r["in_time"] for r in after) / max(len(after), 1),
        "valid": summary["validity"]["valid"], "codes": codes,
    }


def measure(args, objectives):
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        server = Server(args, pathlib.Path(folder), objectives)
        try:
            server.load("load1", args.rate, 1).wait()
            before = server.codes()
            rows.append(row(args, server, "load1", "1", before))
            for number, times in enumerate(args.overloads):
                first = server.load(f"over{times}", args.rate * times, 10 + number)
                # The load falls at its end, while its last requests and retries are under way.
                time.sleep(args.seconds)
                second = server.load(f"after{times}", args.rate * 0.8, 20 + number)
                first.wait()
                second.wait()
                now = server.codes()
                codes = {c: n - before.get(c, 0) for c, n in now.items()}
                before = now
                rows.append(row(args, server, f"over{times}", f"{times:g}", codes))
                rows.append(row(args, server, f"after{times}", f"0.8 after {times:g}", codes))
        finally:
            server.stop()
    return rows


def main():
    args = arguments()
    if not (args.weir and args.loadtest):
        build = ["cargo", "build", "--release", "-p", "weir", "-p", "loadtest"]
        subprocess.run(build, cwd=ROOT, check=True)
    args.weir = args.weir or ROOT / "target/release/weir"
    args.loadtest = args.loadtest or ROOT / "target/release/loadtest"
    print("| server | load | requests (attempts) | good | good tokens/s | of peak | p99 TTFT / "
          "objective | late of served | long/short | in time from 5 s on | generator valid |")
    print("|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
    peak, notes = None, []
    for name, objectives in (("objectives", True), ("FIFO", False)):
        rows = measure(args, objectives)
        peak = peak or max(r["tokens"] for r in rows)
        for r in rows:
            print(f"| {name} | {r['load']} | {r['requests']} ({r['attempts']}) | {r['good']} "
                  f"| {r['tokens']:.0f} | {r['tokens'] / peak:.1%} | {r['p99']:.3f} "
                  f"| {r['late']:.1%} | {r['ratio']:.2f} | {r['after']:.1%} | {r['valid']} |",
                  flush=True)
            notes.append(f"{name}, {r['load']}: late {r['late_codes']}; {r['codes']}")
    print("\nThe server's counts (an overload and the load after it are counted together):\n")
    print("\n".join(f"- {note}" for note in notes))


if __name__ == "__main__":
    main()
