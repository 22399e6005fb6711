//! The variable `NODE_OPTIONS`: options for Node that are no arguments, put together so that Node reads back what was meant.
//!
//! Node has a small language of its own for this variable (`ParseNodeOptionsEnvVar` in its `src/node_options.cc`): blanks separate, double
//! quotes hold together, and a backslash escapes the next character inside quotes and nowhere else. A path with a blank or a quote in
//! it that is simply appended becomes two options or none, and Node refuses to start.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::env::Environment;

const VARIABLE: &str = "NODE_OPTIONS";

/// Options for Node, in the order in which it gets them.
///
/// `Display` is the value of the variable. Not every option of Node is allowed there (`node --help` says which); with one that is not,
/// Node ends with code 9 before it does anything.
///
/// ```
/// use gateway_process::node_options::NodeOptions;
/// let mut options = NodeOptions::parse("--max-old-space-size=512")?;
/// options.require_file("/opt/My App/preload.cjs")?;
/// # if cfg!(unix) {
/// assert_eq!(options.to_string(), r#"--max-old-space-size=512 "--require=/opt/My App/preload.cjs""#);
/// # }
/// # Ok::<(), gateway_process::node_options::NodeOptionsError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeOptions {
    arguments: Vec<String>,
}

/// Options that cannot be given to Node in this way.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeOptionsError {
    /// A text that Node would refuse to start with.
    #[error(
        "NODE_OPTIONS ends inside a quoted part ({text:?}); close the quote, and write a backslash inside quotes as two"
    )]
    Unterminated {
        /// The text.
        text: String,
    },
    /// The value is no text.
    #[error("NODE_OPTIONS is not valid Unicode; set it anew")]
    NotUnicode,
    /// An option that the variable cannot hold: Node drops empty ones, and the operating system cuts a value at a zero byte.
    #[error("the Node option {argument:?} is empty or holds a zero byte; leave it out")]
    NotExpressible {
        /// The option.
        argument: String,
    },
    /// Node knows its options as Unicode text only.
    #[error("the path {} is not valid Unicode, and Node cannot be told to load it; choose another place", .path.display())]
    PathNotUnicode {
        /// The path.
        path: PathBuf,
    },
}

impl NodeOptions {
    /// No options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The options in a text, as Node would read it.
    ///
    /// # Errors
    /// [`NodeOptionsError::Unterminated`] for a text that Node would refuse to start with.
    pub fn parse(text: &str) -> Result<Self, NodeOptionsError> {
        let unterminated = || NodeOptionsError::Unterminated {
            text: text.to_owned(),
        };
        let mut arguments: Vec<String> = Vec::new();
        let mut current: Option<String> = None;
        let mut quoted = false;
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            let taken = match character {
                '\\' if quoted => characters.next().ok_or_else(unterminated)?,
                '"' => {
                    quoted = !quoted;
                    continue;
                }
                ' ' if !quoted => {
                    arguments.extend(current.take());
                    continue;
                }
                other => other,
            };
            current.get_or_insert_default().push(taken);
        }
        if quoted {
            return Err(unterminated());
        }
        arguments.extend(current);
        Ok(Self { arguments })
    }

    /// The options that an environment holds; none when the variable is missing.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and [`NodeOptionsError::NotUnicode`].
    pub fn of(environment: &Environment) -> Result<Self, NodeOptionsError> {
        Self::of_value(environment.expose(VARIABLE))
    }

    /// The options with which this process was started, which no child inherits by itself. For hosts whose users may tune Node for the
    /// gateway.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn of_parent() -> Result<Self, NodeOptionsError> {
        Self::of_value(std::env::var_os(VARIABLE).as_deref())
    }

    fn of_value(value: Option<&OsStr>) -> Result<Self, NodeOptionsError> {
        match value.map(|value| value.to_str().ok_or(NodeOptionsError::NotUnicode)) {
            Some(text) => Self::parse(text?),
            None => Ok(Self::new()),
        }
    }

    /// Adds one option. One with a value is best written with `=`, so that it stays one.
    ///
    /// # Errors
    /// [`NodeOptionsError::NotExpressible`] when it is empty or holds a zero byte.
    pub fn push(&mut self, argument: impl Into<String>) -> Result<&mut Self, NodeOptionsError> {
        let argument = argument.into();
        if argument.is_empty() || argument.contains('\0') {
            return Err(NodeOptionsError::NotExpressible { argument });
        }
        self.arguments.push(argument);
        Ok(self)
    }

    /// Adds all options of another list after those of this one.
    pub fn append(&mut self, others: Self) -> &mut Self {
        self.arguments.extend(others.arguments);
        self
    }

    /// Loads a CommonJS script before the program. The path is made absolute: the gateway runs in a directory of its own, and a name
    /// without a directory would mean a package.
    ///
    /// # Errors
    /// [`NodeOptionsError`] when the path is empty, no Unicode, or holds a zero byte.
    pub fn require_file(&mut self, path: impl AsRef<Path>) -> Result<&mut Self, NodeOptionsError> {
        let path = path.as_ref();
        let full = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let Some(text) = full.to_str() else {
            return Err(NodeOptionsError::PathNotUnicode { path: full });
        };
        if text.is_empty() {
            return Err(NodeOptionsError::NotExpressible {
                argument: String::new(),
            });
        }
        self.push(format!("--require={text}"))
    }

    /// Loads an ECMAScript module before the program: the name of a package, or an address with `file:`. From Node 18.18 on.
    ///
    /// # Errors
    /// [`NodeOptionsError::NotExpressible`] when it is empty or holds a zero byte.
    pub fn import(&mut self, specifier: &str) -> Result<&mut Self, NodeOptionsError> {
        if specifier.is_empty() {
            return self.push("");
        }
        self.push(format!("--import={specifier}"))
    }

    /// The options.
    #[must_use]
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// Puts the variable into an environment in place of the one there, or takes it out when there are no options.
    pub fn apply(&self, environment: &mut Environment) {
        if self.arguments.is_empty() {
            environment.remove(VARIABLE);
        } else {
            environment.set(VARIABLE, self.to_string());
        }
    }
}

impl fmt::Display for NodeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, argument) in self.arguments.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            // A backslash means itself outside of quotes.
            if !argument.contains([' ', '"']) {
                f.write_str(argument)?;
                continue;
            }
            f.write_str("\"")?;
            for character in argument.chars() {
                if matches!(character, '"' | '\\') {
                    f.write_str("\\")?;
                }
                write!(f, "{character}")?;
            }
            f.write_str("\"")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Node's own reading, byte by byte and with its own two flags; `None` where Node refuses to start.
    fn as_node_reads(text: &str) -> Option<Vec<String>> {
        let bytes = text.as_bytes();
        let mut arguments: Vec<Vec<u8>> = Vec::new();
        let (mut is_in_string, mut will_start_new_argument) = (false, true);
        let mut index = 0;
        while index < bytes.len() {
            let mut byte = bytes[index];
            if byte == b'\\' && is_in_string {
                index += 1;
                byte = *bytes.get(index)?;
            } else if byte == b' ' && !is_in_string {
                will_start_new_argument = true;
                index += 1;
                continue;
            } else if byte == b'"' {
                is_in_string = !is_in_string;
                index += 1;
                continue;
            }
            if will_start_new_argument {
                arguments.push(vec![byte]);
                will_start_new_argument = false;
            } else {
                arguments.last_mut().unwrap().push(byte);
            }
            index += 1;
        }
        let texts = arguments.into_iter().map(String::from_utf8);
        (!is_in_string).then(|| texts.map(Result::unwrap).collect())
    }

    #[test]
    fn texts_that_node_reads() {
        let table: [(&str, Option<&[&str]>); 12] = [
            ("", Some(&[])),
            ("  ", Some(&[])),
            ("--a --b", Some(&["--a", "--b"])),
            (r#"--require "a b.js""#, Some(&["--require", "a b.js"])),
            (r#"--im"port" x"#, Some(&["--import", "x"])),
            (r#""a\"b\\c\d""#, Some(&[r#"a"b\cd"#])),
            (r"C:\dir\x", Some(&[r"C:\dir\x"])),
            ("'a b'", Some(&["'a", "b'"])),
            ("a\tb\nc", Some(&["a\tb\nc"])),
            (r#"a "" b"#, Some(&["a", "b"])),
            (r#"a "b"#, None),
            (r#""a\"#, None),
        ];
        for (text, expected) in table {
            let expected = expected.map(|list| list.iter().map(|s| (*s).to_owned()).collect());
            assert_eq!(as_node_reads(text), expected, "{text}");
            let parsed = NodeOptions::parse(text);
            assert_eq!(parsed.ok().map(|options| options.arguments), expected);
        }
        let error = NodeOptions::parse(r#""a"#).unwrap_err();
        assert!(error.to_string().contains("close the quote"), "{error}");
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        let mut options = NodeOptions::new();
        for refused in [
            options.clone().push("").err(),
            options.clone().push("a\0b").err(),
            options.clone().import("").err(),
            options.clone().require_file("").err(),
        ] {
            assert!(
                matches!(refused, Some(NodeOptionsError::NotExpressible { .. })),
                "{refused:?}"
            );
        }
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStrExt;
            let path = Path::new(OsStr::from_bytes(b"/caf\xe9.cjs"));
            let error = options.require_file(path).unwrap_err();
            assert!(matches!(error, NodeOptionsError::PathNotUnicode { .. }));
            let environment = Environment::from_vars([("A", "b")]);
            assert_eq!(NodeOptions::of(&environment), Ok(NodeOptions::new()));
            let mut environment = environment;
            environment.set(VARIABLE, OsStr::from_bytes(b"\xe9"));
            assert_eq!(
                NodeOptions::of(&environment),
                Err(NodeOptionsError::NotUnicode)
            );
        }
        options.require_file("relative.cjs").unwrap();
        let path = options.arguments()[0].strip_prefix("--require=").unwrap();
        assert!(Path::new(path).is_absolute(), "{path}");
    }

    #[test]
    fn existing_options_are_kept_and_an_empty_list_takes_the_variable_out() {
        let mut environment = Environment::empty();
        environment.set(VARIABLE, r#"--no-warnings --require "/a b.cjs""#);
        let mut options = NodeOptions::of(&environment).unwrap();
        options.import("file:///c%20d.mjs").unwrap();
        options.append(NodeOptions::parse("--x").unwrap());
        options.apply(&mut environment);
        assert_eq!(
            environment.get(VARIABLE).and_then(OsStr::to_str),
            Some(r#"--no-warnings --require "/a b.cjs" --import=file:///c%20d.mjs --x"#)
        );
        NodeOptions::new().apply(&mut environment);
        assert_eq!(environment.get(VARIABLE), None);
    }

    /// Texts in which what matters is frequent.
    fn odd_text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just(" ".to_owned()),
            Just("\"".to_owned()),
            Just("\\".to_owned()),
            Just("'".to_owned()),
            Just("\t".to_owned()),
            "[a-zé漢🦞=-]",
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn node_reads_back_what_was_meant(arguments in proptest::collection::vec(odd_text(), 0..6)) {
            let mut options = NodeOptions::new();
            let mut meant = Vec::new();
            for argument in arguments {
                if options.push(argument.clone()).is_ok() {
                    meant.push(argument);
                }
            }
            prop_assert_eq!(as_node_reads(&options.to_string()), Some(meant));
        }

        #[test]
        fn any_text_is_read_as_node_reads_it(text in odd_text()) {
            let read = NodeOptions::parse(&text).ok().map(|options| options.arguments);
            prop_assert_eq!(read, as_node_reads(&text));
        }
    }
}
