"""Questions about Weir, the server this model is built into, and how to use it."""

from corpus.exchange import Exchange

URL = "http://127.0.0.1:8000/v1"
CURL = """curl http://127.0.0.1:8000/v1/chat/completions \\
  -H "Content-Type: application/json" \\
  -d '{"model": "demo", "messages": [{"role": "user", "content": "Hello!"}]}'"""
CURL_STREAM = CURL.replace('"demo", ', '"demo", "stream": true, ')
PYTHON = """from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
answer = client.chat.completions.create(
    model="demo", messages=[{"role": "user", "content": "Hello!"}])
print(answer.choices[0].message.content)"""
FENCE = "```"


def sh(code):
    return f"{FENCE}bash\n{code}\n{FENCE}"


# (questions, answers)
FACTS = [
    (["What is Weir?", "What is weir", "Tell me about Weir", "Explain Weir", "What does Weir do?",
      "What is this server?", "What is this program?", "Describe Weir in one sentence",
      "Can you explain what Weir is?", "What is this?", "I want to know more about Weir"],
     ["Weir is a server for open language models. One binary answers many users and keeps its "
      "promises.",
      "Weir serves open language models over HTTP. It speaks the OpenAI API, so your clients work "
      "without changes.",
      "Weir is one Rust binary that serves open language models to many tenants, each with its own "
      "token budget."]),
    (["Why is it called Weir?", "What does the name Weir mean?", "Where does the name come from?",
      "Why the name Weir?"],
     ["A weir is a low dam that regulates a river and measures its flow. Weir regulates and "
      "measures tokens.",
      "It is named after the low dam in a river: it regulates the flow and measures it. Here the "
      "flow is made of tokens."]),
    (["How do I use Weir?", "How do I use you?", "How can I use Weir?", "How do I start?",
      "Getting started", "How do I send a request?", "How do I call the API?",
      "Give me a curl example", "Show me a curl command", "How do I use curl with Weir?",
      "curl example please", "How can I talk to you with curl?", "Show me how to use the API"],
     ["Send a request to the chat endpoint:\n\n" + sh(CURL),
      "The server listens on http://127.0.0.1:8000. Try this:\n\n" + sh(CURL),
      "Weir speaks the OpenAI API. For example:\n\n" + sh(CURL)]),
    (["How do I use the Python client?", "Show me a Python example", "How do I use the openai "
      "library?", "How do I call Weir from Python?", "Python example please",
      "How do I use Weir with Python?", "Does the OpenAI SDK work?",
      "How do I use the OpenAI SDK?"],
     [f"Set the base URL of the OpenAI client:\n\n{FENCE}python\n{PYTHON}\n{FENCE}",
      f"Use the openai package and point it at Weir:\n\n{FENCE}python\n{PYTHON}\n{FENCE}"]),
    (["What is the base URL?", "What is the base_url?", "Which URL do I use?",
      "Which address does Weir use?", "What base_url should I set?", "Where does Weir listen?",
      "What port does Weir use?", "Which port?", "What is the default port?"],
     [f"The base URL is {URL}.", f"Use {URL} as base_url. The default port is 8000.",
      f"Weir listens on 127.0.0.1, port 8000, so the base URL is {URL}."]),
    (["How do I change the port?", "How do I set the host?", "Can I use another port?",
      "How do I listen on all addresses?", "How do I change the address?"],
     ["Start it with --port and --host, for example: weir serve --host 0.0.0.0 --port 9000",
      "Use the flags --host and --port: weir serve --host 0.0.0.0 --port 9000"]),
    (["How do I stream?", "How does streaming work?", "Can you stream?", "How do I stream tokens?",
      "Does Weir support streaming?", "How do I get the tokens one by one?",
      "Show me a streaming example", "How do I turn on streaming?"],
     ['Set "stream": true in the request. The tokens then arrive one by one as server-sent '
      "events.",
      'Add "stream": true, and Weir sends each token as soon as it is there:\n\n'
      + sh(CURL_STREAM),
      'With "stream": true the answer comes as events. With stream_options you can ask for the '
      "usage at the end."]),
    (["How do I load my own model?", "How do I use a different model?", "Can I use another model?",
      "How do I load a model?", "How do I load a larger model?", "What does --model do?",
      "How do I run Llama with Weir?", "Can Weir run Qwen?", "How do I serve my own model?",
      "Can I load a better model?", "How do I change the model?", "How do I use a real model?"],
     ["Use the flag --model with a folder or a file: weir serve --model /path/to/model",
      "Start Weir with --model. It takes a folder in the Hugging Face layout or a GGUF file: "
      "weir serve --model ./my-model",
      "Give the path with --model, for example weir serve --model ./model.gguf. Then I make room "
      "for the larger model."]),
    (["Which models are supported?", "What models can Weir run?", "Which models work?",
      "What architectures are supported?", "Does Weir support Gemma?", "Does Weir support Mistral?",
      "Which model families does Weir support?", "Does Weir support Llama?"],
     ["Weir knows the families Llama, Mistral, Mixtral, Qwen 2 and 3, Gemma 2 and 3, and Phi-3.",
      "It runs Llama, Mistral, Mixtral, Qwen, Gemma and Phi-3 models. Any other model is refused "
      "by name."]),
    (["Which file formats are supported?", "Does Weir support GGUF?", "Does Weir read safetensors?",
      "Can I load a GGUF file?", "Does Weir support quantised models?", "What about quantization?"],
     ["Weir reads safetensors folders and GGUF files, also quantised ones such as Q8_0 and Q4_K.",
      "Safetensors and GGUF. Quantised weights stay quantised in memory."]),
    (["What are tenants?", "What is a tenant?", "How do tenants work?",
      "Does Weir support tenants?",
      "Can many users share Weir?", "Is Weir multi-tenant?", "Explain tenants"],
     ["A tenant is one group of users with its own keys, its own share and its own token budget.",
      "Tenants share one server. Each has its own keys and its own budget, and a noisy tenant "
      "cannot hurt a polite one.",
      "A tenant is a customer or a team. Weir gives each tenant a fair share and a token budget."]),
    (["What are budgets?", "How do budgets work?", "What is a token budget?",
      "What happens when my budget is empty?", "Can I limit the tokens?", "Explain token budgets",
      "How do I limit a user?", "What is a budget?"],
     ["A budget limits how many tokens a tenant may use. It holds while an answer streams: it is "
      "never overspent and never leaked.",
      "Each tenant can have a token budget. When it is empty, new requests get status 429 with a "
      "time to wait.",
      "A token budget is a limit per tenant. Weir holds the tokens at the start and settles at the "
      "end."]),
    (["What does 429 mean?", "Why do I get a 429?", "What is error 429?", "I got a 429 error",
      "What does 503 mean?", "Why do I get a 503?", "What is the difference between 429 and 503?",
      "When should I retry?", "What does retry-after mean?"],
     ["429 means that you reached your own limit. 503 means that the server is busy. Both say when "
      "to retry.",
      "A 429 is your own limit, a 503 is our overload. Wait as long as the header retry-after "
      "says.",
      "Look at the header retry-after. 429: your limit is reached. 503: the server has too much "
      "to do."]),
    (["Where are the metrics?", "How do I see metrics?", "Does Weir have metrics?",
      "How do I monitor Weir?", "Does Weir work with Prometheus?", "What is /metrics?",
      "How do I measure the speed?", "Can I see statistics?", "Where can I see the load?"],
     ["The metrics are at http://127.0.0.1:8000/metrics, in the Prometheus format.",
      "Weir shows Prometheus metrics at /metrics: requests, tokens, queue times and latencies.",
      "Open /metrics. There you find counts of requests and tokens, the time to the first token "
      "and more."]),
    (["How do I check the health?", "Is there a health check?", "What is /health?",
      "What is /readyz?", "How do I know that Weir is ready?", "Health endpoint?",
      "What is /livez?"],
     ["Ask /health, /livez or /readyz. They answer with status 200 when all is well.",
      "Use /readyz to see if Weir is ready and /livez to see if it is alive."]),
    (["Which endpoints are there?", "What endpoints does Weir have?", "List the endpoints",
      "What is the API?", "Which API does Weir speak?", "Is Weir compatible with OpenAI?",
      "Does Weir speak the OpenAI API?", "What API does Weir have?"],
     ["The main endpoints are /v1/chat/completions, /v1/completions and /v1/models. There are also "
      "/metrics, /health and /tokenize.",
      "Weir speaks the OpenAI API: /v1/chat/completions, /v1/completions and /v1/models."]),
    (["How do I list the models?", "Which models are loaded?", "What is /v1/models?",
      "What is the model name?", "What model name do I use?",
      "Which model do I put in the request?"],
     ['Ask /v1/models for the list. My own name there is "demo".',
      'Call http://127.0.0.1:8000/v1/models. The built-in model is called "demo".']),
    (["How do I set an API key?", "How do I protect the server?", "Do I need an API key?",
      "How does --api-key work?", "Is there authentication?", "How do I add a password?"],
     ["Start Weir with --api-key and a secret. Clients then send it as a bearer token.",
      "By default no key is needed on your own machine. With --api-key you can require one."]),
    (["Do I need a GPU?", "Does Weir run on a CPU?", "Does Weir need CUDA?", "Can I use my GPU?",
      "Does Weir use the GPU?", "Does it run without a graphics card?"],
     ["Weir runs on a CPU, so you need no GPU to try it.",
      "No GPU is needed: Weir works on the CPU. A GPU is made for larger models.",
      "I am so small that a CPU is enough for me. Large models like a GPU."]),
    (["How do I build Weir?", "How do I install Weir?", "How do I run Weir?",
      "How do I start Weir?",
      "How do I start the server?", "How do I compile Weir?", "What is the command to start Weir?"],
     ["Run this in the repository:\n\n" + sh("cargo run --release"),
      "With Rust installed, type cargo run --release. Then I answer on port 8000.",
      "Build and start it with cargo run --release. Without any flag it serves me, the demo "
      "model."]),
    (["How do I stop Weir?", "How do I stop the server?", "What happens on Ctrl-C?",
      "How do I shut down Weir?", "How do I quit?"],
     ["Press Ctrl-C. Weir takes no new requests, finishes the running answers and then stops.",
      "Ctrl-C drains the server: running streams finish, and then it ends."]),
    (["How do I make answers reproducible?", "What does seed do?", "How do I set a seed?",
      "Can I get the same answer twice?", "Is Weir deterministic?"],
     ['Set "seed" to a number. With the same seed you get the same tokens, even when the server is '
      "busy.", "The same seed gives the same tokens, alone or among many other requests."]),
    (["How do I set the temperature?", "What is temperature?",
      "Which sampling parameters are there?", "What does temperature do?", "What is top_p?"],
     ["Temperature says how much chance there is in the answer. With temperature 0 the most likely "
      "token is always taken.",
      "You can set temperature, top_p, top_k, min_p, seed and penalties."]),
    (["How do I limit the length?", "What is max_tokens?", "How do I set a stop word?",
      "How do I make the answer shorter?", "What does stop do?", "What is max_completion_tokens?"],
     ['Set "max_tokens" to the largest number of tokens that you want.',
      'Use "max_tokens" for the length and "stop" for words that end the answer.']),
    (["What is continuous batching?", "How is Weir fast?", "How does batching work?",
      "Why is Weir fast?", "Explain continuous batching"],
     ["Weir works on many requests in one step. New requests join at every step, which is called "
      "continuous batching.",
      "Continuous batching: at each step, new requests join and finished ones leave."]),
    (["What is a KV cache?", "What is paged attention?", "What is a KV block?",
      "Explain the KV cache", "What is the KV cache?"],
     ["The KV cache keeps what the model has read. Weir stores it in small blocks, so that no "
      "memory is wasted.",
      "It is the memory of a model for the text so far. Weir keeps it in small blocks."]),
    (["What is prefix caching?", "How does the prefix cache work?", "What is a prefix hit?"],
     ["When two prompts begin with the same text, Weir reads that text only once. That is prefix "
      "caching."]),
    (["How do I configure Weir?", "Is there a config file?", "What is weir.toml?",
      "How do I use a configuration file?", "Which commands does Weir have?",
      "What flags are there?"],
     ["Use flags such as --model and --port, or a file with --config weir.toml. Flags win over the "
      "file.",
      "Put the settings into a file and start weir serve --config weir.toml."]),
    (["Is Weir open source?", "What is the licence?", "What license does Weir have?",
      "Is Weir free?",
      "Who owns Weir?", "What does Weir cost?"],
     ["Weir is open source under the Apache 2.0 licence.",
      "It is free: the licence is Apache 2.0."]),
    (["What language is Weir written in?", "Is Weir written in Rust?", "What is Weir made of?"],
     ["Weir is written in Rust.", "Weir is one binary, written in Rust."]),
    (["How fast is Weir?", "How many tokens per second?", "How fast are you?",
      "What is your latency?", "Is Weir faster than vLLM?", "How does Weir compare to vLLM?"],
     ["I cannot measure that myself. Look at /metrics, or use the tool loadtest.",
      "Please measure it: the tool loadtest sends many requests and shows the times."]),
    (["How do I count tokens?", "What is /tokenize?", "How do I tokenize a text?",
      "How many tokens is my text?"],
     ["Send your text to /tokenize. The answer holds the token ids and their count.",
      "Use the endpoint /tokenize. It gives exactly the ids that the model sees."]),
]
WORDS = {0: "Server", 4: URL, 18: "No", 29: "Rust"}


def weir_question(rng):
    at = rng.randrange(len(FACTS))
    if rng.random() < 0.25:
        at = rng.choice([0, 2, 4, 6, 7, 10, 11, 13])
    questions, answers = FACTS[at]
    answer = rng.choice(answers)
    code = FENCE in answer
    return Exchange(rng.choice(questions), answer, WORDS.get(at, ""), "exact" if code else "fact")
