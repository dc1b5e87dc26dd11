#!/usr/bin/env python3
"""Measures one paced server with three load generators and compares what they say.

Each tool puts the same load on a fresh server that records when it really wrote each chunk
(`/truth/summary`). A figure fails when two tools differ by more than the tolerance in it, or a tool
from the truth of its own run. Writes a Markdown table; exits with 1 when anything failed.

    python3 loadtest/crosscheck/run.py --out loadtest/crosscheck/results/DATE.md
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TOKENIZER = ROOT / "demo-model" / "model"
TTFT_MS, GAP_MS, TOKENS, PROMPT_TOKENS = 400, 40, 32, 64

# name -> (heading, whether tools are comparable with each other in it)
FIGURES = {
    "ttft_mean_ms": "TTFT from sending, mean (ms)",
    "ttft_p50_ms": "TTFT from sending, median (ms)",
    "tpot_mean_ms": "(last - first chunk) / (tokens - 1), mean (ms)",
    "gap_p50_ms": "gaps between chunks, pooled, median (ms)",
    "requests_per_s": "requests/s",
    "output_tokens_per_s": "output tokens/s",
}
RATES = ("requests_per_s", "output_tokens_per_s")


class Load:
    """One way to release the same requests."""

    def __init__(self, name, text, requests, rate=None, poisson=False, concurrency=None):
        self.name, self.text, self.requests = name, text, requests
        self.rate, self.poisson, self.concurrency = rate, poisson, concurrency

    def same_length(self):
        """Whether all tools need the same time for it: Poisson draws end at different times."""
        return not self.poisson


class Server:
    """A paced server of its own for each run."""

    def __init__(self):
        command = [
            ROOT / "target/release/examples/paced", "--port", "0", "--ttft-ms", str(TTFT_MS),
            "--gap-ms", str(GAP_MS), "--tokens", str(TOKENS),
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().split()[-1]

    def truth(self):
        with urllib.request.urlopen(self.url + "/truth/summary") as answer:
            truth = json.load(answer)
        return {
            "ttft_mean_ms": truth["ttft_ms"]["mean"],
            "ttft_p50_ms": truth["ttft_ms"]["p50"],
            "tpot_mean_ms": truth["tpot_ms"]["mean"],
            "gap_p50_ms": truth["itl_ms"]["p50"],
            "requests_per_s": truth["completed"] / truth["span_s"],
            "output_tokens_per_s": truth["output_tokens"] / truth["span_s"],
            "completed": truth["completed"],
            "attempts": truth["attempts"],
        }

    def stop(self):
        self.process.terminate()
        self.process.wait()


def run_loadtest(server, load, folder, seed):
    command = [
        ROOT / "target/release/loadtest", "run", "--base-url", server.url, "--model", "paced",
        "--num-prompts", load.requests, "--random-input-len", PROMPT_TOKENS,
        "--random-output-len", TOKENS, "--ignore-eos", "--no-preflight", "--seed", seed,
        "--result-dir", folder, "--result-filename", "loadtest.json", "--save-result",
    ]
    if load.concurrency:
        command += ["--max-concurrency", load.concurrency]
    else:
        command += ["--request-rate", load.rate]
        command += ["--arrivals", "poisson" if load.poisson else "constant"]
    call(command, folder / "loadtest.log")
    total = json.loads((folder / "loadtest.json").read_text())["loadtest"]["total"]
    p50 = lambda name: dict(map(tuple, total[name]["percentiles"]))[50.0]
    return {
        "ttft_mean_ms": total["ttft_from_sent"]["mean_ms"],
        "ttft_p50_ms": p50("ttft_from_sent"),
        "tpot_mean_ms": total["tpot"]["mean_ms"],
        "gap_p50_ms": p50("itl"),
        "requests_per_s": total["requests_per_s"],
        "output_tokens_per_s": total["output_tokens_per_s"],
        "completed": total["outcomes"].get("completed", 0),
    }


def run_aiperf(server, load, folder, seed, venvs):
    command = [
        venvs / "aiperf/bin/aiperf", "profile", "-m", "paced", "-u", server.url,
        "--endpoint-type", "chat", "--streaming", "--tokenizer", TOKENIZER,
        "--request-count", load.requests, "--random-seed", seed, "--isl", PROMPT_TOKENS,
        "--isl-stddev", 0, "--osl", TOKENS, "--osl-stddev", 0, "--use-server-token-count",
        "--extra-inputs", "ignore_eos:true", "--output-artifact-dir", folder / "aiperf",
    ]
    if load.concurrency:
        command += ["--concurrency", load.concurrency]
    else:
        pattern = "poisson" if load.poisson else "constant"
        command += ["--request-rate", load.rate, "--arrival-pattern", pattern]
    call(command, folder / "aiperf.log")
    found = json.loads((folder / "aiperf/profile_export_aiperf.json").read_text())
    return {
        "ttft_mean_ms": found["time_to_first_token"]["avg"],
        "ttft_p50_ms": found["time_to_first_token"]["p50"],
        "tpot_mean_ms": found["inter_token_latency"]["avg"],
        "gap_p50_ms": found["inter_chunk_latency"]["p50"],
        "requests_per_s": found["request_throughput"]["avg"],
        "output_tokens_per_s": found["output_token_throughput"]["avg"],
        "completed": found["request_count"]["avg"],
    }


def run_vllm(server, load, folder, seed, venvs):
    command = [
        venvs / "vllm/bin/vllm", "bench", "serve", "--backend", "openai-chat", "--base-url",
        server.url, "--endpoint", "/v1/chat/completions", "--model", "paced", "--tokenizer",
        TOKENIZER, "--dataset-name", "random", "--random-input-len", PROMPT_TOKENS,
        "--random-output-len", TOKENS, "--num-prompts", load.requests, "--seed", seed,
        "--ignore-eos", "--save-result", "--result-dir", folder, "--result-filename", "vllm.json",
        "--disable-tqdm",
    ]
    if load.concurrency:
        command += ["--max-concurrency", load.concurrency]
    else:
        # Its arrivals are gamma draws; of this shape they are constant to a thousandth.
        command += ["--request-rate", load.rate, "--burstiness", 1 if load.poisson else 1_000_000]
    call(command, folder / "vllm.log")
    found = json.loads((folder / "vllm.json").read_text())
    return {
        "ttft_mean_ms": found["mean_ttft_ms"],
        "ttft_p50_ms": found["median_ttft_ms"],
        "tpot_mean_ms": found["mean_tpot_ms"],
        # Its mean_itl_ms counts the gap of nothing before the chunk with finish_reason as well.
        "gap_p50_ms": found["median_itl_ms"],
        "requests_per_s": found["request_throughput"],
        "output_tokens_per_s": found["output_throughput"],
        "completed": found["completed"],
    }


def call(command, log):
    # aiperf fails to read a local tokenizer when this is set.
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    with open(log, "w") as out:
        done = subprocess.run(
            [str(part) for part in command], stdout=out, stderr=subprocess.STDOUT, env=environment)
    if done.returncode != 0:
        said = pathlib.Path(log).read_text()[-3000:]
        sys.exit(f"{command[0]} ended with {done.returncode}:\n{said}")


def install(venvs):
    """Makes the two environments with pinned versions, each once."""
    for name, more in (("aiperf", []), ("vllm", ["--override", HERE / "overrides-vllm.txt"])):
        if (venvs / name / "installed").exists():
            continue
        subprocess.run([sys.executable, "-m", "venv", venvs / name], check=True)
        pip = [venvs / name / "bin/python", "-m", "pip", "install", "-q"]
        subprocess.run([*pip, "uv"], check=True)
        python = venvs / name / "bin/python"
        uv = [venvs / name / "bin/uv", "pip", "install", "-q", "--python", python, *more]
        subprocess.run([*uv, "-r", HERE / f"requirements-{name}.txt"], check=True)
        (venvs / name / "installed").touch()


def version(name):
    return (HERE / f"requirements-{name}.txt").read_text().strip().replace("==", " ")


def percent(value, base):
    return 100.0 * (value - base) / base


def table(load, results, tolerance):
    """The load's lines of Markdown, and what failed in it."""
    tools = list(results)
    failures = []
    lines = [f"## {load.text}", ""]
    lines.append("| figure | " + " | ".join(
        f"{tool} | of truth" for tool in tools) + " | widest pair |")
    lines.append("|---|" + "---:|" * (2 * len(tools) + 1))
    for figure, heading in FIGURES.items():
        cells = []
        for tool in tools:
            measured, truth = results[tool]
            off = percent(measured[figure], truth[figure])
            cells += [f"{measured[figure]:.2f}", f"{off:+.2f} %"]
            if abs(off) > tolerance:
                failures.append(f"{load.name}: {tool} is {off:+.2f} % off the truth in {heading}")
        values = [results[tool][0][figure] for tool in tools]
        widest = percent(max(values), min(values))
        if figure in RATES and not load.same_length():
            cells.append("-")
        else:
            cells.append(f"{widest:.2f} %")
            if widest > tolerance:
                failures.append(f"{load.name}: tools differ by {widest:.2f} % in {heading}")
        lines.append(f"| {heading} | " + " | ".join(cells) + " |")
    for tool in tools:
        measured, truth = results[tool]
        if not measured["completed"] == truth["completed"] == truth["attempts"] == load.requests:
            failures.append(
                f"{load.name}: {tool} completed {measured['completed']} of {load.requests}, the "
                f"server {truth['completed']} of {truth['attempts']} attempts")
    return lines + [""], failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venvs", type=pathlib.Path, default=HERE / ".venv")
    parser.add_argument("--requests", type=int, default=1200)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--tolerance", type=float, default=3.0, help="percent")
    parser.add_argument("--loads", default="constant,poisson,closed")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()

    install(args.venvs)
    subprocess.run(
        ["cargo", "build", "--release", "-q", "-p", "loadtest", "--bins", "--examples"],
        cwd=ROOT, check=True)
    tools = {
        "loadtest": run_loadtest,
        "aiperf": lambda *a: run_aiperf(*a, args.venvs),
        "vllm bench": lambda *a: run_vllm(*a, args.venvs),
    }
    rate = f"{args.rate:g} requests/s"
    loads = [
        Load("constant", f"Open loop, {rate} at constant intervals", args.requests, args.rate),
        Load("poisson", f"Open loop, {rate}, Poisson", args.requests, args.rate, poisson=True),
        Load("closed", f"Closed loop, {args.concurrency} at a time", args.requests // 3,
             concurrency=args.concurrency),
    ]
    body, failures = [], []
    for load in (load for load in loads if load.name in args.loads.split(",")):
        results = {}
        for tool, run in tools.items():
            print(f"{load.name}: {tool}", file=sys.stderr, flush=True)
            server = Server()
            try:
                with tempfile.TemporaryDirectory() as folder:
                    measured = run(server, load, pathlib.Path(folder), args.seed)
                results[tool] = (measured, server.truth())
            finally:
                server.stop()
        lines, failed = table(load, results, args.tolerance)
        body += lines
        failures += failed
    text = "\n".join(heading(args) + body + verdict(failures, args.tolerance)) + "\n"
    print(text)
    if args.out:
        args.out.write_text(text)
    sys.exit(1 if failures else 0)


def heading(args):
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    settings = ("requests", "rate", "concurrency", "seed", "tolerance")
    command = "loadtest/crosscheck/run.py " + " ".join(
        f"--{name} {getattr(args, name):g}" for name in settings)
    return [
        f"# {datetime.date.today()}: three load generators against one paced server", "",
        f"loadtest {commit.stdout.strip()}, {version('aiperf')}, {version('vllm')}; "
        f"Python {platform.python_version()}, {os.cpu_count()} cores, shared.", "",
        f"`{command}`", "",
        f"Paced server: the first of {TOKENS} tokens {TTFT_MS} ms after arrival, then one each "
        f"{GAP_MS} ms; prompts of about {PROMPT_TOKENS} tokens; {args.requests} requests a run, "
        f"{args.requests // 3} in the closed loop.", "",
        "\"of truth\" is the difference from what the server wrote down in that tool's own run, "
        "\"widest pair\" that between the tools.", "",
    ]


def verdict(failures, tolerance):
    if not failures:
        return [f"All within {tolerance:g} %."]
    return [f"More than {tolerance:g} % apart:", ""] + [f"- {failure}" for failure in failures]


if __name__ == "__main__":
    main()
