//! Where results go: standard output, or a file that is either complete or not there at all.

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Exit status of a program that is told twice to end, as shells have it for SIGINT.
pub const INTERRUPTED: i32 = 130;

/// True for `-`, which stands for standard input or output.
pub fn is_pipe(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Prints text and a line break. A reader that has gone away is an error, not a panic.
pub fn print(text: impl AsRef<str>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_ref().as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

/// Prints a JSON value, indented.
pub fn print_json(value: &serde_json::Value) -> Result<()> {
    print(serde_json::to_string_pretty(value)?)
}

/// Prints one line of commentary, kept apart from the results: on standard error.
pub fn note(text: impl AsRef<str>) {
    // Commentary that nobody reads is no reason to stop.
    let _ = writeln!(std::io::stderr().lock(), "{}", text.as_ref());
}

/// Writes a whole file, or standard output for `-`. The bytes go to a temporary file beside the target
/// and take its name when they are complete, so an error leaves what was there before.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if is_pipe(path) {
        let mut out = std::io::stdout().lock();
        if out.is_terminal() {
            bail!("standard output is a terminal: redirect it, or name a file with -o");
        }
        out.write_all(bytes)?;
        out.flush()?;
        return Ok(());
    }
    let failed = || format!("cannot write {}", path.display());
    if fs::metadata(path).is_ok_and(|target| !target.is_file()) {
        // A device or a pipe can not be replaced by a file of its name.
        return fs::write(path, bytes).with_context(failed);
    }
    let mut file = builder().tempfile_in(folder_of(path)).map_err(unnamed).with_context(failed)?;
    file.write_all(bytes).map_err(unnamed).with_context(failed)?;
    file.persist(path).map_err(|error| error.error).with_context(failed)?;
    Ok(())
}

/// Checks that [`write`] can write this file, before the work whose result it takes.
pub fn check(path: &Path) -> Result<()> {
    if is_pipe(path) {
        return Ok(());
    }
    let failed = || format!("cannot write {}", path.display());
    if path.is_dir() {
        bail!("{}: it is a folder", failed());
    }
    if path.exists() && !path.is_file() {
        return Ok(());
    }
    let folder = folder_of(path);
    if !folder.is_dir() {
        bail!("{}: there is no folder {}", failed(), folder.display());
    }
    try_in(folder).with_context(failed)
}

/// Checks that an output is none of the files that are read, which it would replace.
pub fn check_apart<'a>(output: &Path, inputs: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    // What is not there yet is nobody's input.
    let Ok(own) = fs::canonicalize(output) else { return Ok(()) };
    let is_own =
        |input: &&Path| !is_pipe(input) && fs::canonicalize(input).is_ok_and(|input| input == own && own.is_file());
    match inputs.into_iter().find(is_own) {
        Some(input) => bail!("{} is an input and would be replaced: name another file for the output", input.display()),
        None => Ok(()),
    }
}

/// Checks that files can be written in this folder, which may have to be made, before the work whose results they take.
pub fn check_folder(path: &Path) -> Result<()> {
    let failed = || format!("cannot write in the folder {}", path.display());
    // What is there already decides: the rest is made in it.
    let there = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    if !there.is_dir() {
        bail!("{}: {} is a file", failed(), there.display());
    }
    try_in(there).with_context(failed)
}

/// Makes a folder for results, if it is not there.
pub fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make the folder {}", path.display()))
}

/// Makes a file without a name, of which nothing is left.
fn try_in(folder: &Path) -> Result<()> {
    tempfile::tempfile_in(folder).map(drop).map_err(unnamed)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// An error without the name of the temporary file, which says nothing to who reads it.
fn unnamed(error: std::io::Error) -> anyhow::Error {
    std::io::Error::from(error.kind()).into()
}

/// Temporary files get the rights of ordinary new files, since they become ones.
fn builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".narrows-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder
}

/// 1234567 as `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1x80x14x14`.
pub fn shape_text(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        let texts = [0, 7, 999, 1000, 1234567].map(thousands);
        assert_eq!(texts, ["0", "7", "999", "1,000", "1,234,567"]);
    }
}
