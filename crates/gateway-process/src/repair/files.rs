//! The configuration as it is on disk: the file and what it includes, read once.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::document::Document;

/// A configuration is a few KiB. What is larger than this is not copied, and so not repaired.
pub(super) const MAX_CONFIG_BYTES: u64 = 16 * 1024 * 1024;

/// The key by which a configuration includes others (2026.3 to 2026.9): one path or a list of them, relative to the including file.
const INCLUDE: &str = "$include";

/// OpenClaw follows includes ten deep.
const MAX_INCLUDE_DEPTH: usize = 10;

/// More files than this are not followed, and includes are not resolved more often: two lines that include each other twice would
/// otherwise make a tree of any size.
const MAX_INCLUDES: usize = 64;

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Missing,
    Bytes(Vec<u8>),
    /// There is something, and it cannot be read; with the reason.
    Unreadable(String),
}

impl Content {
    /// # Errors
    /// What the operating system says, or that it is no file or too large to be a configuration.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let facts = match fs::metadata(path) {
            Ok(facts) => facts,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Missing),
            Err(error) => return Err(error),
        };
        // Opening a pipe would wait for whoever writes into it.
        if !facts.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut content = Vec::new();
        fs::File::open(path)?
            .take(MAX_CONFIG_BYTES + 1)
            .read_to_end(&mut content)?;
        if content.len() as u64 > MAX_CONFIG_BYTES {
            let message = format!("it is larger than {MAX_CONFIG_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        Ok(Self::Bytes(content))
    }

    /// As [`read`](Self::read), for a file of which anything may have become.
    pub(super) fn now(path: &Path) -> Self {
        Self::read(path).unwrap_or_else(|error| Self::Unreadable(error.to_string()))
    }

    pub(super) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Missing | Self::Unreadable(_) => None,
        }
    }

    fn document(&self) -> Document {
        match self {
            Self::Bytes(bytes) => Document::read(bytes),
            Self::Missing => Document::Damaged {
                found: Value::Object(Map::new()),
                problem: "it is missing".to_owned(),
            },
            Self::Unreadable(problem) => Document::Damaged {
                found: Value::Object(Map::new()),
                problem: problem.clone(),
            },
        }
    }
}

/// One file of a configuration.
#[derive(Clone, Debug)]
pub(super) struct ConfigFile {
    pub(super) path: PathBuf,
    pub(super) content: Content,
    pub(super) document: Document,
    pub(super) access: Access,
}

/// How the file is reached, to be put back as well.
#[derive(Clone, Debug, Default)]
pub(super) struct Access {
    /// Where the path leads when it is a symbolic link: as the link says it, and resolved.
    pub(super) link: Option<(PathBuf, PathBuf)>,
    pub(super) permissions: Option<fs::Permissions>,
}

impl Access {
    fn of(path: &Path) -> Self {
        let link = fs::read_link(path).ok();
        Self {
            link: link.and_then(|link| Some((link, fs::canonicalize(path).ok()?))),
            permissions: fs::metadata(path).ok().map(|facts| facts.permissions()),
        }
    }
}

impl ConfigFile {
    fn new(path: PathBuf, content: Content) -> Self {
        Self {
            document: content.document(),
            access: Access::of(&path),
            path,
            content,
        }
    }
}

/// A configuration: the file itself, and the ones it includes as far as they are there.
#[derive(Clone, Debug)]
pub(super) struct Configuration {
    pub(super) main: ConfigFile,
    pub(super) included: BTreeMap<PathBuf, ConfigFile>,
}

impl Configuration {
    /// Reads the file and everything that it includes.
    ///
    /// # Errors
    /// The path that cannot be read, with the reason. Missing files are no error.
    pub(super) fn read(path: &Path) -> Result<Self, (PathBuf, io::Error)> {
        Self::read_by(path, |path| {
            Content::read(path).map_err(|error| (path.to_owned(), error))
        })
    }

    /// Reads what has become of this configuration: its files, whatever they are now, and what is included now. What cannot be read counts
    /// as damaged.
    pub(super) fn again(&self) -> Self {
        let read = |path: &Path| Ok::<_, std::convert::Infallible>(Content::now(path));
        let Ok(mut now) = Self::read_by(&self.main.path, read);
        for path in self.included.keys() {
            let reread = || ConfigFile::new(path.clone(), Content::now(path));
            now.included.entry(path.clone()).or_insert_with(reread);
        }
        now
    }

    fn read_by<E>(path: &Path, read: impl Fn(&Path) -> Result<Content, E>) -> Result<Self, E> {
        let main = ConfigFile::new(path.to_owned(), read(path)?);
        let mut included = BTreeMap::new();
        let mut waiting: VecDeque<PathBuf> = includes(&main).into();
        while let Some(path) = waiting.pop_front() {
            if path == main.path || included.contains_key(&path) || included.len() == MAX_INCLUDES {
                continue;
            }
            let content = read(&path)?;
            if content == Content::Missing {
                continue;
            }
            let file = ConfigFile::new(path.clone(), content);
            waiting.extend(includes(&file));
            included.insert(path, file);
        }
        Ok(Self { main, included })
    }

    /// A configuration of these contents, whatever is there now. `None` without the file itself.
    pub(super) fn of_contents(
        main: &Path,
        contents: impl IntoIterator<Item = (PathBuf, Vec<u8>)>,
    ) -> Option<Self> {
        let file = |(path, bytes): (PathBuf, _)| {
            (path.clone(), ConfigFile::new(path, Content::Bytes(bytes)))
        };
        let mut included: BTreeMap<PathBuf, ConfigFile> = contents.into_iter().map(file).collect();
        let main = included.remove(main)?;
        Some(Self { main, included })
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &ConfigFile> {
        std::iter::once(&self.main).chain(self.included.values())
    }

    /// The file of this path now, if it belongs to the configuration.
    pub(super) fn file(&self, path: &Path) -> Option<&ConfigFile> {
        self.files().find(|file| file.path == path)
    }

    /// Whether every value in it is known for certain.
    pub(super) fn is_whole(&self) -> bool {
        self.files().all(|file| file.document.problem().is_none())
    }

    /// The name of this content: another byte in any of its files makes another one.
    pub(super) fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        for file in self.files() {
            let name = file.path.as_os_str().as_encoded_bytes();
            let content = file.content.bytes().unwrap_or_default();
            for part in [name, content] {
                hasher.update((part.len() as u64).to_be_bytes());
                hasher.update(part);
            }
        }
        hex(&hasher.finalize())
    }

    /// The values as the gateway sees them, with what is included in its place.
    pub(super) fn tree(&self) -> Value {
        let mut budget = MAX_INCLUDES;
        let folder = folder_of(&self.main.path);
        self.resolved(
            self.main.document.value(),
            folder,
            MAX_INCLUDE_DEPTH,
            &mut budget,
        )
    }

    fn resolved(&self, value: &Value, folder: &Path, depth: usize, budget: &mut usize) -> Value {
        match value {
            Value::Array(values) => Value::Array(
                values
                    .iter()
                    .map(|value| self.resolved(value, folder, depth, budget))
                    .collect(),
            ),
            Value::Object(map) => {
                let mut own: Map<String, Value> = Map::new();
                for (key, value) in map.iter().filter(|(key, _)| *key != INCLUDE) {
                    own.insert(key.clone(), self.resolved(value, folder, depth, budget));
                }
                let Some(include) = map.get(INCLUDE) else {
                    return Value::Object(own);
                };
                let mut merged = Value::Object(Map::new());
                for path in paths(include, folder) {
                    match self.included.get(&path) {
                        Some(file) if depth > 0 && *budget > 0 => {
                            *budget -= 1;
                            let below = self.resolved(
                                file.document.value(),
                                folder_of(&path),
                                depth - 1,
                                budget,
                            );
                            overlay(&mut merged, below);
                        }
                        // What is not there stays visible as what it is.
                        _ => overlay(
                            &mut merged,
                            Value::Object(Map::from_iter([(INCLUDE.to_owned(), include.clone())])),
                        ),
                    }
                }
                overlay(&mut merged, Value::Object(own));
                merged
            }
            scalar => scalar.clone(),
        }
    }
}

/// Later values win; objects are merged.
fn overlay(onto: &mut Value, value: Value) {
    match (onto, value) {
        (Value::Object(known), Value::Object(new)) => {
            for (key, value) in new {
                match known.get_mut(&key) {
                    Some(below) => overlay(below, value),
                    None => {
                        known.insert(key, value);
                    }
                }
            }
        }
        // Nothing beside an included list is no reason to lose the list.
        (_, Value::Object(new)) if new.is_empty() => {}
        (onto, value) => *onto = value,
    }
}

fn includes(file: &ConfigFile) -> Vec<PathBuf> {
    fn search(value: &Value, folder: &Path, found: &mut Vec<PathBuf>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    if key == INCLUDE {
                        found.extend(paths(value, folder));
                    } else {
                        search(value, folder, found);
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| search(value, folder, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    search(file.document.value(), folder_of(&file.path), &mut found);
    found
}

fn paths(include: &Value, folder: &Path) -> Vec<PathBuf> {
    let one = |value: &Value| value.as_str().map(|path| folder.join(path));
    match include {
        Value::Array(values) => values.iter().filter_map(one).collect(),
        value => one(value).into_iter().collect(),
    }
}

/// The folder that a file is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// The hash of a content, whose beginning names its copies.
pub(super) fn hash_of(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::create_dir_all(folder_of(&folder.path().join(name))).unwrap();
            fs::write(folder.path().join(name), text).unwrap();
        }
        let main = folder.path().join("main.json");
        (folder, main)
    }

    #[test]
    fn includes_stand_in_their_place() {
        let (_folder, main) = written(&[
            (
                "main.json",
                "{gateway: {$include: 'parts/gateway.json5', port: 2}, list: {$include: ['a.json', 'b.json', 'none.json']}}",
            ),
            (
                "parts/gateway.json5",
                "{mode: 'local', port: 1, auth: {$include: './auth.json'}}",
            ),
            ("parts/auth.json", "{\"token\": \"t\"}"),
            ("a.json", "{x: {one: 1}}"),
            ("b.json", "{x: {two: 2}}"),
        ]);
        let configuration = Configuration::read(&main).unwrap();
        assert_eq!(configuration.files().count(), 5);
        assert_eq!(
            configuration.tree(),
            json!({
                "gateway": {"mode": "local", "port": 2, "auth": {"token": "t"}},
                "list": {"x": {"one": 1, "two": 2}, "$include": ["a.json", "b.json", "none.json"]},
            })
        );
        let before = configuration.hash();
        assert_eq!(Configuration::read(&main).unwrap().hash(), before);
        fs::write(main.with_file_name("a.json"), "{x: {one: 1} }").unwrap();
        assert_ne!(
            configuration.again().hash(),
            before,
            "an included file is part of it"
        );
    }

    /// The file includes itself, twice: neither reading nor resolving it goes on for ever.
    #[test]
    fn circles_end() {
        let twice = "{a: {$include: 'main.json'}, b: {$include: 'other.json'}}";
        let (_folder, main) = written(&[
            ("main.json", twice),
            (
                "other.json",
                "{a: {$include: 'other.json'}, b: {$include: 'other.json'}}",
            ),
        ]);
        let configuration = Configuration::read(&main).unwrap();
        assert_eq!(configuration.files().count(), 2);
        assert!(configuration.tree().to_string().len() < 100_000);
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (path, error) = Configuration::read(folder.path()).unwrap_err();
        assert_eq!(
            (path.as_path(), error.to_string().as_str()),
            (folder.path(), "it is not a regular file")
        );
        assert!(matches!(
            Content::now(folder.path()),
            Content::Unreadable(_)
        ));
        let huge = folder.path().join("huge");
        fs::File::create(&huge)
            .unwrap()
            .set_len(MAX_CONFIG_BYTES + 1)
            .unwrap();
        assert_eq!(
            Content::read(&huge).unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
        assert_eq!(Content::now(&folder.path().join("none")), Content::Missing);
    }
}
