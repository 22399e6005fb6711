//! Packs recorded conversations for the tests: one gzip file for a folder of JSON-lines files.
//!
//! `cargo run -p gateway-protocol --example pack_transcripts -- FOLDER OUTPUT.jsonl.gz`
//!
//! Every file of the folder becomes one line, `{"case":<file name>,"lines":[..]}`, with the recorded lines word for
//! word. Cases are sorted by name and the gzip header holds neither time nor name, so that the same folder always
//! gives the same bytes.

use std::{
    env,
    error::Error,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use flate2::{Compression, GzBuilder};

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [folder, output] = arguments.as_slice() else {
        eprintln!("usage: pack_transcripts FOLDER OUTPUT.jsonl.gz");
        return ExitCode::FAILURE;
    };
    match pack(folder, output) {
        Ok(cases) => {
            println!("{}: {cases} cases", output.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

fn pack(folder: &Path, output: &Path) -> Result<usize, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "jsonl")
        {
            files.push(path);
        }
    }
    files.sort();
    let mut packed = GzBuilder::new()
        .mtime(0)
        .write(fs::File::create(output)?, Compression::best());
    for path in &files {
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .ok_or("a file name is not UTF-8")?;
        let text = fs::read_to_string(path)?;
        let mut lines = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            lines.push(serde_json::from_str::<&serde_json::value::RawValue>(line)?);
        }
        let case = serde_json::to_string(name)?;
        let lines = serde_json::to_string(&lines)?;
        writeln!(packed, "{{\"case\":{case},\"lines\":{lines}}}")?;
    }
    packed.finish()?.sync_all()?;
    Ok(files.len())
}
