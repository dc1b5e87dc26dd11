"""The training loop: length-sorted batches, bf16 arithmetic, fp32 master weights, a time limit."""

import itertools
import math
import random
import time

import torch

PEAK = 3e-3
BATCH_TOKENS = 2048
WARM_UP_STEPS = 50


def batches(docs, rng, tokens=BATCH_TOKENS):
    """Batches of (ids, targets, weights), each [rows, length]; one pass over `docs`, shuffled.

    Documents of like length share a batch and start at position 0, exactly as when served.
    """
    order = list(range(len(docs)))
    rng.shuffle(order)
    for at in range(0, len(order), 3000):
        chunk = sorted(order[at:at + 3000], key=lambda i: len(docs[i][0]))
        groups, group = [], []
        for i in chunk:
            if group and (len(group) + 1) * padded(len(docs[i][0])) > tokens:
                groups.append(group)
                group = []
            group.append(i)
        if group:
            groups.append(group)
        rng.shuffle(groups)
        for group in groups:
            yield collate([docs[i] for i in group])


def padded(length):
    return -(-length // 8) * 8


def collate(rows):
    length = padded(max(len(ids) for ids, _ in rows)) + 1
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    weights = torch.zeros(len(rows), length)
    for r, (row, w) in enumerate(rows):
        ids[r, :len(row)] = torch.as_tensor(row, dtype=torch.long)
        weights[r, :len(row)] = torch.as_tensor(w, dtype=torch.float)
    return ids[:, :-1], ids[:, 1:], weights[:, 1:]


@torch.no_grad()
def evaluate(network, docs):
    """Mean cross entropy, in nats per learnt token, over held-out documents."""
    total = count = 0.0
    for ids, targets, weights in batches(docs, random.Random(0)):
        n = weights.sum().item()
        total += network.loss(network(ids), targets, weights).item() * n
        count += n
    return total / count


class Optimizer:
    """Muon for the matrices of the layers, AdamW for embedding and norms; fp32 master weights."""

    def __init__(self, network):
        self.live = list(network.parameters())
        names = [n for n, _ in network.named_parameters()]
        self.master = [p.detach().float().clone() for p in self.live]
        matrix = [m for n, m in zip(names, self.master) if m.dim() == 2 and "embed" not in n]
        other = [m for n, m in zip(names, self.master) if m.dim() != 2 or "embed" in n]
        self.parts = [
            torch.optim.Muon(matrix, lr=PEAK, weight_decay=0.05, momentum=0.95,
                             adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(other, lr=PEAK, betas=(0.9, 0.98), weight_decay=0.0)]

    def step(self, rate):
        for m, p in zip(self.master, self.live):
            m.grad = p.grad.float()
            p.grad = None
        torch.nn.utils.clip_grad_norm_(self.master, 1.0)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()
        with torch.no_grad():
            for m, p in zip(self.master, self.live):
                p.copy_(m)

    def state(self):
        return {"master": self.master, "parts": [p.state_dict() for p in self.parts]}

    def load(self, state):
        with torch.no_grad():
            for mine, theirs, p in zip(self.master, state["master"], self.live):
                mine.copy_(theirs)
                p.copy_(theirs)
        for part, saved in zip(self.parts, state["parts"]):
            part.load_state_dict(saved)


def train(network, lessons, held_out, checkpoint, target, minutes, peak=PEAK, seed=0):
    """Train on `target` tokens or for `minutes` of wall time, whichever ends first.

    `lessons` are sets of documents: each is read once and in order, the last again and again.

    Goes on from `checkpoint` if it exists, and logs and saves as it goes. The rate warms up, then
    falls linearly to zero at the end.
    """
    network.bfloat16()
    optimizer = Optimizer(network)
    step = tokens = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        optimizer.load(saved["optimizer"])
        step, tokens = saved["step"], saved["tokens"]
        print(f"resumed at step {step}", flush=True)
    rng = random.Random(seed + step)
    begin = last_log = last_save = time.monotonic()
    first, first_tokens, log_tokens, losses = step, tokens, tokens, []
    for lesson in itertools.chain(lessons, itertools.repeat(lessons[-1])):
        for ids, targets, weights in batches(lesson, rng):
            now = time.monotonic()
            progress = max((now - begin) / (60 * minutes), (tokens - first_tokens) / target)
            if progress >= 1:
                return finish(network, optimizer, held_out, checkpoint, step, tokens)
            rate = peak * min(1, (step - first + 1) / WARM_UP_STEPS) * (1 - progress)
            loss = network.loss(network(ids), targets, weights)
            loss.backward()
            optimizer.step(rate)
            losses.append(loss.item())
            step, tokens = step + 1, tokens + ids.numel()
            if math.isnan(losses[-1]):
                raise RuntimeError(f"the loss is not a number at step {step}")
            if now - last_log > 20:
                speed = (tokens - log_tokens) / (now - last_log)
                print(f"{(now - begin) / 60:5.1f} min  step {step:5d}  loss "
                      f"{sum(losses) / len(losses):.4f}  {tokens / 1e6:.2f} M tokens  "
                      f"{speed:.0f} tokens/s", flush=True)
                last_log, log_tokens, losses = now, tokens, []
            if now - last_save > 180:
                save(optimizer, checkpoint, step, tokens)
                last_save = now


def save(optimizer, checkpoint, step, tokens):
    part = checkpoint.with_suffix(".part")
    torch.save({"optimizer": optimizer.state(), "step": step, "tokens": tokens}, part)
    part.replace(checkpoint)


def finish(network, optimizer, held_out, checkpoint, step, tokens):
    save(optimizer, checkpoint, step, tokens)
    loss = evaluate(network, held_out)
    print(f"step {step}, {tokens / 1e6:.2f} M tokens, held-out loss {loss:.4f}", flush=True)
    return {"steps": step, "tokens": tokens, "held_out_loss": round(loss, 4)}
