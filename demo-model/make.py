"""Make the demo model: write its world, learn a vocabulary, train, and store the result.

    python make.py                  # everything, about 50 minutes on two cores
    python make.py --minutes 5      # a shorter training, for a try
    python make.py --resume         # go on from the last checkpoint
"""

import argparse
import json
import random
import time
from pathlib import Path

import torch
from transformers import AutoTokenizer

import train
import vocabulary
from corpus.documents import documents
from network import Network, Shape

HERE = Path(__file__).parent
CONTEXT = 2048
LONGEST = 1024
# The share of texts that only teach to copy. A small model learns to look back abruptly, and only
# if it sees much to copy; until then it answers fluently, but about another name or number.
FIRST_COPYING = 0.6
COPYING = 0.06
HELD_OUT_SEED = 1_000_000


def write_world(count, seed, copying, tables=0.1):
    """The rendered documents: [(text, spans)]."""
    rng = random.Random(seed)
    return [vocabulary.render(d, compact=rng.random() < 0.2)
            for d in documents(seed, count, copying, tables)]


def encode(tokenizer, rendered):
    """[(ids, weights)] as compact arrays, cut at LONGEST tokens."""
    docs = []
    for at in range(0, len(rendered), 10000):
        for ids, weights in vocabulary.ids_and_weights(tokenizer, rendered[at:at + 10000]):
            docs.append((torch.tensor(ids[:LONGEST], dtype=torch.int16),
                         torch.tensor(weights[:LONGEST], dtype=torch.uint8)))
    return docs


def check_template(folder):
    """The conversations are trained exactly as the chat template writes them."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for d in documents(0, 1000):
        if "messages" in d:
            said = tokenizer.apply_chat_template(d["messages"], tools=d["tools"], tokenize=False)
            if said != vocabulary.render(d)[0]:
                raise RuntimeError(f"the chat template disagrees with `render`: {said!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=float, default=12e6, help="tokens to train on")
    parser.add_argument("--minutes", type=float, default=45, help="wall time of the training")
    parser.add_argument("--documents", type=int, default=120000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peak", type=float, default=train.PEAK, help="highest learning rate")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    parser.add_argument("--work", type=Path, default=HERE / "work", help="checkpoints")
    parser.add_argument("--out", type=Path, default=HERE / "model")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    args.work.mkdir(exist_ok=True)
    args.out.mkdir(exist_ok=True)

    begin = time.monotonic()
    resumed = args.resume and (args.work / "checkpoint.pt").exists()
    worlds = [write_world(args.documents, args.seed, COPYING)]
    if resumed:
        tokenizer = vocabulary.Tokenizer.from_file(str(args.out / "tokenizer.json"))
    else:
        worlds.insert(0, write_world(args.documents // 5, args.seed + 1, FIRST_COPYING))
        tokenizer = vocabulary.train(text for text, _ in worlds[-1][:20000])
        (args.work / "checkpoint.pt").unlink(missing_ok=True)
    vocabulary.save(tokenizer, args.out, CONTEXT)
    check_template(args.out)
    lessons = [encode(tokenizer, world) for world in worlds]
    held_out = encode(tokenizer, write_world(600, HELD_OUT_SEED, 0, 0))
    for docs in lessons:
        total, learnt = (sum(len(i) for i, _ in docs), sum(int(w.sum()) for _, w in docs))
        print(f"lesson of {len(docs)} documents, {total / 1e6:.2f} M tokens, "
              f"{learnt / 1e6:.2f} M of them learnt", flush=True)
    print(f"{tokenizer.get_vocab_size()} tokens in the vocabulary, written and encoded in "
          f"{time.monotonic() - begin:.0f} s", flush=True)

    network = Network(Shape(vocab_size=tokenizer.get_vocab_size(),
                            max_position_embeddings=CONTEXT))
    parameters = sum(p.numel() for p in network.parameters())
    print(f"{parameters / 1e6:.2f} M parameters", flush=True)
    result = train.train(network, lessons, held_out, args.work / "checkpoint.pt",
                         args.tokens, args.minutes, args.peak, args.seed)
    ids = [tokenizer.token_to_id(t) for t in (vocabulary.IM_END, vocabulary.END_OF_TEXT)]
    network.save(args.out, ids, ids[1])
    result |= {"parameters": parameters, "minutes": round((time.monotonic() - begin) / 60, 1)}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
