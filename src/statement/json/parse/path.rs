//! Where the parser is, for errors: told from what it holds anyway, so that reading pays nothing for it.

use super::{Kind, Parser};
use crate::statement::json::error::Path;
use crate::statement::json::tape::Tag;

impl Parser<'_> {
    /// The value that is being read, or what it is in.
    pub(super) fn path(&self, without_last: bool) -> String {
        let mut path = Path::root();
        for (depth, open) in self.open.iter().enumerate() {
            let inner = self.open.get(depth + 1);
            if inner.is_none() && without_last {
                break;
            }
            let around = inner.map_or(self.around, |inner| inner.around);
            if around.kind == Kind::Array {
                path.index(self.elements(open.index, inner.map(|inner| inner.index)));
                continue;
            }
            let beyond = self.open.get(depth + 2).map_or(self.around.keys, |beyond| beyond.around.keys);
            let end = if inner.is_some() { beyond as usize } else { self.keys.len() };
            if let Some(key) = self.keys[around.keys as usize..end].last() {
                path.key(&String::from_utf8_lossy(key.text(self.input, &self.unescaped)));
            }
        }
        path.finish()
    }

    /// How many elements of an open array come before the word at `until`.
    fn elements(&self, array: u32, until: Option<u32>) -> usize {
        let words = &self.tape.words;
        let until = until.map_or(words.len(), |until| until as usize);
        let mut next = array as usize + 2;
        let mut count = 0;
        while next < until {
            let skip = matches!(words[next].tag(), tag if tag >= Tag::Array);
            next = if skip { words[next + 1].wide() as usize } else { next + 1 };
            count += 1;
        }
        count
    }
}
