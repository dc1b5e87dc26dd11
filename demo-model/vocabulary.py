"""The tokenizer: byte-level BPE, single digits, the ChatML markers, and the chat template."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TOOL_CALL, TOOL_CALL_END = "<tool_call>", "</tool_call>"
SIZE = 3072
TEMPLATE = Path(__file__).with_name("chat_template.jinja")
CALL_HINT = ('To call one, write <tool_call>{"name": ..., "arguments": {...}}</tool_call>')


def train(texts):
    """A tokenizer whose ids 0 to 4 are the markers, in the order of the constants above."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=SIZE, min_frequency=2, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[END_OF_TEXT, IM_START, IM_END, TOOL_CALL, TOOL_CALL_END]))
    # The tool markers are ordinary text for whoever decodes: only the first three are special.
    spec = json.loads(tokenizer.to_str())
    for token in spec["added_tokens"]:
        token["special"] = token["content"] not in (TOOL_CALL, TOOL_CALL_END)
    return Tokenizer.from_str(json.dumps(spec))


def save(tokenizer, folder, context):
    """tokenizer.json and tokenizer_config.json, as `AutoTokenizer` reads them."""
    tokenizer.save(str(folder / "tokenizer.json"))
    added = {str(tokenizer.token_to_id(t)): {
        "content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
        "special": special} for t, special in (
        (END_OF_TEXT, True), (IM_START, True), (IM_END, True), (TOOL_CALL, False),
        (TOOL_CALL_END, False))}
    config = {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added,
        "additional_special_tokens": [IM_START, IM_END], "bos_token": END_OF_TEXT,
        "chat_template": TEMPLATE.read_text().rstrip("\n"), "clean_up_tokenization_spaces": False,
        "eos_token": IM_END, "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": context, "pad_token": END_OF_TEXT,
        "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def render(document, compact=False):
    """(text, spans): the document as the chat template writes it, and what the model is to learn.

    Spans are (start, end) character ranges. A plain text is learnt whole, unless it names
    "spans" itself; of a conversation, only what the assistant says. `compact` writes tool
    definitions without spaces, as some servers do.
    """
    if "text" in document:
        text = document["text"] + END_OF_TEXT
        return text, document.get("spans") or [(0, len(text))]
    parts, spans, at = [], [], 0

    def put(text, learn=False):
        nonlocal at
        if learn:
            spans.append((at, at + len(text)))
        parts.append(text)
        at += len(text)

    messages, tools = document["messages"], document["tools"]
    if tools:
        put(f"{IM_START}system\n")
        if messages[0]["role"] == "system":
            put(messages[0]["content"] + "\n\n")
            messages = messages[1:]
        put("You can call these functions:\n")
        for tool in tools:
            put(json.dumps(tool, sort_keys=compact, ensure_ascii=False,
                           separators=(",", ":") if compact else None) + "\n")
        put(f"{CALL_HINT}{IM_END}\n")
    for m in messages:
        put(f"{IM_START}{m['role']}\n")
        text = m["content"] or ""
        for call in m.get("tool_calls") or []:
            f = call["function"]
            text += f'{TOOL_CALL}{{"name": "{f["name"]}", "arguments": {f["arguments"]}}}'
            text += TOOL_CALL_END
        put(text + IM_END, learn=m["role"] == "assistant")
        put("\n")
    return "".join(parts), spans


def ids_and_weights(tokenizer, rendered):
    """Token ids and, for each, whether it is to be learnt (1) or only read (0)."""
    for encoding, (_, spans) in zip(
            tokenizer.encode_batch([text for text, _ in rendered]), rendered):
        weights, at = [], 0
        for start, end in encoding.offsets:
            while at < len(spans) and start >= spans[at][1]:
                at += 1
            weights.append(int(at < len(spans) and start >= spans[at][0]))
        yield encoding.ids, weights
