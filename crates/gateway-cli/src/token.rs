//! Where the token comes from: a file or the environment, never the command line, which every local user can read.

use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use secrecy::SecretString;

/// The variable that OpenClaw itself reads.
const VARIABLE: &str = "OPENCLAW_GATEWAY_TOKEN";

/// A token is a line; a file beyond this size is something else.
const MAX_BYTES: u64 = 4096;

/// No token could be had where one was promised.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("cannot read the token file {}: {source}; check the path given with --token-file and its permissions", .file.display())]
    Unreadable { file: PathBuf, source: io::Error },
    #[error("the token file {} {problem}; it has to hold the token on one line and nothing else", .file.display())]
    NotAToken {
        file: PathBuf,
        problem: &'static str,
    },
    #[error(
        "the environment variable {VARIABLE} is not valid text; set it to the token, or unset it"
    )]
    Variable,
}

/// The token of the file, else of the environment; `None` when nobody named one.
pub(crate) fn find(file: Option<&Path>) -> Result<Option<SecretString>, TokenError> {
    match file {
        Some(file) => read(file).map(Some),
        None => match env::var(VARIABLE) {
            Ok(token) if !token.is_empty() => Ok(Some(token.into())),
            Ok(_) | Err(env::VarError::NotPresent) => Ok(None),
            Err(env::VarError::NotUnicode(_)) => Err(TokenError::Variable),
        },
    }
}

fn read(file: &Path) -> Result<SecretString, TokenError> {
    let mut text = String::new();
    File::open(file)
        .and_then(|open| open.take(MAX_BYTES + 1).read_to_string(&mut text))
        .map_err(|source| TokenError::Unreadable {
            file: file.to_owned(),
            source,
        })?;
    let token = text.trim();
    let problem = if token.is_empty() {
        Some("is empty")
    } else if text.len() as u64 > MAX_BYTES {
        Some("is too long for a token")
    } else if token.contains(char::is_whitespace) {
        Some("holds more than one word")
    } else {
        None
    };
    match problem {
        Some(problem) => Err(TokenError::NotAToken {
            file: file.to_owned(),
            problem,
        }),
        None => Ok(token.to_owned().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    #[test]
    fn files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let long = "x".repeat(MAX_BYTES as usize + 1);
        for (text, expected) in [
            ("abc\n", Ok("abc")),
            ("  abc\r\n", Ok("abc")),
            ("", Err("is empty")),
            ("\n", Err("is empty")),
            ("two words", Err("more than one word")),
            (&long, Err("too long")),
        ] {
            std::fs::write(&file, text).unwrap();
            match (read(&file), expected) {
                (Ok(token), Ok(expected)) => assert_eq!(token.expose_secret(), expected),
                (Err(error), Err(expected)) => {
                    let error = error.to_string();
                    assert!(error.contains(expected), "{error}");
                    assert!(error.contains(&file.display().to_string()), "{error}");
                }
                (found, _) => panic!("{text:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = find(Some(Path::new("/nonexistent/token"))).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/token"), "{error}");
    }
}
