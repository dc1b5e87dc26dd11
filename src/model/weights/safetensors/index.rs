//! `model.safetensors.index.json`: which shard holds which tensor.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::model::ModelError;
use crate::model::weights::mapping::map_file;

/// The index's file name.
pub(super) const INDEX_FILE: &str = "model.safetensors.index.json";

/// Longest index; the largest published ones have 9 MB.
const INDEX_BYTES_MAX: usize = 32 << 20;
/// Most tensors of a model; the largest published ones have about 100,000.
const TENSORS_MAX: usize = 1 << 19;
/// Most shards of a model; the largest published ones have a few hundred.
const SHARDS_MAX: usize = 1 << 12;

/// The index, its shard names checked to be plain file names.
#[derive(Debug)]
pub(super) struct ShardIndex {
    shards: Vec<String>,
    tensors: BTreeMap<String, usize>,
}

#[derive(Debug, Deserialize)]
struct IndexFile {
    weight_map: WeightMap,
}

#[derive(Debug)]
struct WeightMap(ShardIndex);

impl ShardIndex {
    /// Reads and checks an index.
    ///
    /// # Errors
    /// [`ModelError::File`] saying what is wrong with which entry.
    pub(super) fn read(path: &Path) -> Result<Self, ModelError> {
        let json = map_file(path)?;
        if json.len() > INDEX_BYTES_MAX {
            let reason =
                format!("has {} bytes; an index of at most {INDEX_BYTES_MAX} is read", json.len());
            return Err(ModelError::file(path, reason));
        }
        let file: IndexFile = serde_json::from_slice(&json)
            .map_err(|error| ModelError::file(path, format!("is not a shard index: {error}")))?;
        Ok(file.weight_map.0)
    }

    /// The shards' file names in the order in which they are first mentioned.
    pub(super) fn shards(&self) -> &[String] {
        &self.shards
    }

    /// Each tensor's name and the position of its shard in [`Self::shards`].
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, usize)> {
        self.tensors.iter().map(|(name, &shard)| (name.as_str(), shard))
    }
}

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WeightMapVisitor)
    }
}

struct WeightMapVisitor;

impl<'de> Visitor<'de> for WeightMapVisitor {
    type Value = WeightMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensor names and shard file names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
        let mut index = ShardIndex { shards: Vec::new(), tensors: BTreeMap::new() };
        let mut known: HashMap<String, usize> = HashMap::new();
        while let Some((tensor, shard)) = map.next_entry::<String, String>()? {
            let position = match known.get(&shard) {
                Some(&position) => position,
                None => {
                    plain_name(&shard).map_err(A::Error::custom)?;
                    if index.shards.len() == SHARDS_MAX {
                        let reason = format!("more than {SHARDS_MAX} shards");
                        return Err(A::Error::custom(reason));
                    }
                    index.shards.push(shard.clone());
                    known.insert(shard, index.shards.len() - 1);
                    index.shards.len() - 1
                }
            };
            if index.tensors.len() == TENSORS_MAX {
                return Err(A::Error::custom(format!("more than {TENSORS_MAX} tensors")));
            }
            if index.tensors.insert(tensor.clone(), position).is_some() {
                return Err(A::Error::custom(format!("tensor {tensor} is listed twice")));
            }
        }
        Ok(WeightMap(index))
    }
}

/// A shard lies in the model's own folder: its name must not lead anywhere else.
fn plain_name(shard: &str) -> Result<(), String> {
    let plain = shard.ends_with(".safetensors")
        && !shard.starts_with('.')
        && shard.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if plain {
        return Ok(());
    }
    Err(format!("shard name {shard:?} is not a plain file name ending in .safetensors"))
}
