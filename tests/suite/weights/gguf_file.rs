//! A writer of GGUF files for tests, able to lie about anything.

/// A file under construction: raw metadata entries and tensor descriptions.
#[derive(Clone)]
pub struct GgufFile {
    pub version: u32,
    pub keys: Vec<Vec<u8>>,
    pub tensors: Vec<Vec<u8>>,
    pub key_count: Option<u64>,
    pub tensor_count: Option<u64>,
    pub alignment: usize,
    pub data: Vec<u8>,
}

/// A metadata value with its type number.
pub enum Value<'a> {
    U32(u32),
    F32(f32),
    Bool(u8),
    Str(&'a str),
    Strs(&'a [&'a str]),
    F32s(&'a [f32]),
    I32s(&'a [i32]),
    Bools(&'a [u8]),
    Raw(u32, Vec<u8>),
}

impl GgufFile {
    pub fn new() -> Self {
        Self {
            version: 3,
            keys: Vec::new(),
            tensors: Vec::new(),
            key_count: None,
            tensor_count: None,
            alignment: 32,
            data: Vec::new(),
        }
    }

    /// Adds a key.
    pub fn key(mut self, key: &str, value: Value<'_>) -> Self {
        let mut bytes = string(key.as_bytes());
        bytes.extend(value.bytes());
        self.keys.push(bytes);
        self
    }

    /// Adds an F32 tensor of these dimensions (contiguous one first), filled with its index.
    pub fn tensor(self, name: &str, ne: &[u64]) -> Self {
        let bytes = 4 * ne.iter().product::<u64>() as usize;
        let fill = self.tensors.len() as u8;
        self.typed_tensor(name, ne, 0, &vec![fill; bytes])
    }

    /// Adds a tensor of this type number and these bytes.
    pub fn typed_tensor(mut self, name: &str, ne: &[u64], kind: u32, bytes: &[u8]) -> Self {
        let offset = self.data.len() as u64;
        self.data.extend_from_slice(bytes);
        self.data.resize(self.data.len().next_multiple_of(self.alignment), 0);
        self.raw_tensor(name, ne, kind, offset)
    }

    /// Describes a tensor without adding its bytes.
    pub fn raw_tensor(mut self, name: &str, ne: &[u64], kind: u32, offset: u64) -> Self {
        let mut bytes = string(name.as_bytes());
        bytes.extend((ne.len() as u32).to_le_bytes());
        bytes.extend(ne.iter().flat_map(|size| size.to_le_bytes()));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        self.tensors.push(bytes);
        self
    }

    /// The header up to the data.
    pub fn header(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        let tensors = self.tensor_count.unwrap_or(self.tensors.len() as u64);
        file.extend(tensors.to_le_bytes());
        file.extend(self.key_count.unwrap_or(self.keys.len() as u64).to_le_bytes());
        file.extend(self.keys.iter().flatten());
        file.extend(self.tensors.iter().flatten());
        file
    }

    /// The whole file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut file = self.header();
        if !self.data.is_empty() {
            file.resize(file.len().next_multiple_of(self.alignment), 0);
        }
        file.extend(&self.data);
        file
    }
}

impl Value<'_> {
    fn bytes(self) -> Vec<u8> {
        let (number, value) = match self {
            Self::U32(value) => (4, value.to_le_bytes().to_vec()),
            Self::F32(value) => (6, value.to_le_bytes().to_vec()),
            Self::Bool(value) => (7, vec![value]),
            Self::Str(value) => (8, string(value.as_bytes())),
            Self::Strs(values) => {
                list(8, values.len(), values.iter().flat_map(|text| string(text.as_bytes())))
            }
            Self::F32s(values) => {
                list(6, values.len(), values.iter().flat_map(|value| value.to_le_bytes()))
            }
            Self::I32s(values) => {
                list(5, values.len(), values.iter().flat_map(|value| value.to_le_bytes()))
            }
            Self::Bools(values) => list(7, values.len(), values.iter().copied()),
            Self::Raw(number, bytes) => (number, bytes),
        };
        [&number.to_le_bytes()[..], &value].concat()
    }
}

/// A list's type number and bytes.
pub fn list(kind: u32, count: usize, values: impl Iterator<Item = u8>) -> (u32, Vec<u8>) {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend((count as u64).to_le_bytes());
    bytes.extend(values);
    (9, bytes)
}

/// A length-prefixed string.
pub fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes()[..], bytes].concat()
}

/// A complete one-layer Llama with a small vocabulary, in F32.
pub fn small_llama() -> GgufFile {
    small_model("llama")
}

/// The same under another architecture's name.
pub fn small_model(arch: &str) -> GgufFile {
    let key = |name: &str| format!("{arch}.{name}");
    let mut file = GgufFile::new()
        .key("general.architecture", Value::Str(arch))
        .key("general.name", Value::Str("small"))
        .key(&key("block_count"), Value::U32(1))
        .key(&key("embedding_length"), Value::U32(8))
        .key(&key("feed_forward_length"), Value::U32(12))
        .key(&key("attention.head_count"), Value::U32(2))
        .key(&key("attention.head_count_kv"), Value::U32(1))
        .key(&key("context_length"), Value::U32(64))
        .key(&key("attention.layer_norm_rms_epsilon"), Value::F32(1e-5))
        .key(&key("rope.freq_base"), Value::F32(10_000.0))
        .key("tokenizer.ggml.model", Value::Str("gpt2"))
        .key("tokenizer.ggml.pre", Value::Str("llama-bpe"))
        .key("tokenizer.ggml.tokens", Value::Strs(&["a", "b", "ab", "<s>", "</s>", "<|eot_id|>"]))
        .key("tokenizer.ggml.token_type", Value::I32s(&[1, 1, 1, 3, 3, 3]))
        .key("tokenizer.ggml.scores", Value::F32s(&[0.0, -1.0, -2.0, 0.0, 0.0, 0.0]))
        .key("tokenizer.ggml.merges", Value::Strs(&["a b"]))
        .key("tokenizer.ggml.bos_token_id", Value::U32(3))
        .key("tokenizer.ggml.eos_token_id", Value::U32(4))
        .key("tokenizer.ggml.add_bos_token", Value::Bool(1))
        .key("tokenizer.chat_template", Value::Str("{{ messages }}"))
        .tensor("token_embd.weight", &[8, 6])
        .tensor("output_norm.weight", &[8])
        .tensor("output.weight", &[8, 6]);
    for (name, ne) in [
        ("attn_norm", &[8][..]),
        ("attn_q", &[8, 8]),
        ("attn_k", &[8, 4]),
        ("attn_v", &[8, 4]),
        ("attn_output", &[8, 8]),
        ("ffn_norm", &[8]),
        ("ffn_gate", &[8, 12]),
        ("ffn_up", &[8, 12]),
        ("ffn_down", &[12, 8]),
    ] {
        file = file.tensor(&format!("blk.0.{name}.weight"), ne);
    }
    file
}
