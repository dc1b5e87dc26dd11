//! Live things by a small index that stays the same while they live, and is then used again.

/// A table with holes.
#[derive(Debug)]
pub(super) struct Slab<T> {
    entries: Vec<Option<T>>,
    holes: Vec<u32>,
}

impl<T> Slab<T> {
    /// An empty table.
    pub fn new() -> Self {
        Self { entries: Vec::new(), holes: Vec::new() }
    }

    /// Things in it.
    pub fn len(&self) -> usize {
        self.entries.len() - self.holes.len()
    }

    /// Puts a thing into a hole or at the end; its index.
    pub fn insert(&mut self, value: T) -> u32 {
        match self.holes.pop() {
            Some(index) => {
                self.entries[index as usize] = Some(value);
                index
            }
            None => {
                self.entries.push(Some(value));
                self.entries.len() as u32 - 1
            }
        }
    }

    /// Takes a thing out.
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let value = self.entries.get_mut(index as usize)?.take();
        if value.is_some() {
            self.holes.push(index);
        }
        value
    }

    /// The thing at `index`.
    pub fn get(&self, index: u32) -> Option<&T> {
        self.entries.get(index as usize)?.as_ref()
    }

    /// The thing at `index`.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.entries.get_mut(index as usize)?.as_mut()
    }

    /// All things in order of index.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let numbered = self.entries.iter().enumerate();
        numbered.filter_map(|(index, entry)| Some((index as u32, entry.as_ref()?)))
    }
}

impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        self.get(index).expect("an index that its owner keeps is alive")
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        self.get_mut(index).expect("an index that its owner keeps is alive")
    }
}
